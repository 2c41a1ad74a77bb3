/**
 * Another token for a configuration that is there.
 *
 * Invariant: as with `token create`: the token leaves once, and is in no argument. One for a service is made under the
 * service's own account, to which its state belongs.
 */
import { EXIT, OperatorError } from "../../errors.ts";
import { openStrategy } from "../../open-keeper.ts";
import { commandPrefix, planFor } from "../service/plan.ts";
import { programError, run as runProgram } from "../service/programs.ts";
import { Systemd } from "../service/systemd.ts";
import { findUnit } from "../service/unit-file.ts";
import { explained } from "../token-input.ts";
import { draftFor } from "./decision.ts";
import type { Existing } from "./existing.ts";
import type { Journal } from "./journal.ts";
import type { Run } from "./run.ts";
import type { serviceFor } from "./service.ts";

/** A token that was made. */
export interface AddedToken {
  readonly strategy: string;
  readonly id: string;
  readonly token: string;
}

/** Makes it. @throws OperatorError */
export async function addToken(
  run: Run,
  existing: Existing,
  {
    name,
    strategy,
    journal,
    service,
  }: {
    readonly name: string;
    readonly strategy: string;
    readonly journal: Journal;
    readonly service: ReturnType<typeof serviceFor>;
  },
): Promise<AddedToken> {
  const made =
    service?.scope === "system"
      ? await underItsAccount(run, existing, { name, strategy, serviceName: service.name })
      : await here(run, existing, { name, strategy });
  // A state directory of ours goes as a whole.
  const isOurs = journal.made.some(
    (one) => one.kind === "state" && one.path === existing.config.stateDir,
  );
  if (!isOurs) journal.note({ kind: "token", strategy, id: made.id });
  return { strategy, ...made };
}

type Wanted = { readonly name: string; readonly strategy: string };

async function here(
  { context, answers }: Run,
  { file, config }: Existing,
  { name, strategy }: Wanted,
): Promise<{ readonly id: string; readonly token: string }> {
  const draft = draftFor(context, answers, name);
  const opened = await openStrategy({ context, config: file, strategy });
  try {
    const issued = await explained(() => opened.tokens.create(draft), {
      stateDir: config.stateDir,
    });
    return { id: issued.record.id, token: issued.token };
  } finally {
    await opened.close();
  }
}

async function underItsAccount(
  { context, answers }: Run,
  { file }: Existing,
  { name, strategy, serviceName }: Wanted & { readonly serviceName: string },
): Promise<{ readonly id: string; readonly token: string }> {
  const systemd = new Systemd(context, { scope: "system", name: serviceName, root: null });
  const unit = findUnit(systemd.unitPath);
  if (unit.kind !== "ours") throw new TypeError("the unit is gone");
  const { role, expires } = answers.token ?? {};
  const [program = "", ...prefix] = commandPrefix(context, await planFor(context, unit.input));
  const argv = [
    program,
    ...prefix,
    ...["token", "create", "-c", file, "--name", name, "--strategy", strategy, "--json"],
    ...(role === undefined ? [] : ["--role", role]),
    ...(expires === undefined ? [] : ["--expires", expires]),
  ] as const;
  const ran = await runProgram(context, [program, ...argv.slice(1)]);
  if (ran === null || ran.code !== 0) throw programError(argv, ran);
  const { id, token } = JSON.parse(ran.stdout) as { id?: unknown; token?: unknown };
  if (typeof id === "string" && typeof token === "string") return { id, token };
  throw new OperatorError(
    EXIT.failure,
    "the token was made, but what was said about it is unreadable",
  );
}
