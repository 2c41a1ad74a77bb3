/**
 * `init --undo` and `uninstall`: takes away what init made, and the same for a run that was cut short.
 *
 * Invariant: what the journal does not name stays. State with tokens goes only after a yes, and never under a gateway
 * that runs on it.
 */
import { existsSync, lstatSync, readdirSync } from "node:fs";
import { dirname, join } from "node:path";
import { EXIT, type ExitCode, OperatorError } from "../../errors.ts";
import { holders } from "../../store/sole-use.ts";
import type { CliContext } from "../context.ts";
import type { InitOptions } from "./answers.ts";
import { listenForInterruption } from "./interruption.ts";
import { Journal, type JournalRecord, journalPath, type Made, readJournal } from "./journal.ts";
import { configFileFor, existingConfig, leftover } from "./places.ts";
import { isInteractive, openPrompter } from "./prompts.ts";
import { takeAwayTools } from "./service.ts";
import { type Kept, type TakeAwayTools, type TakenAway, takeAway } from "./take-away.ts";

/** `init --undo`. Exit code 0 also when something that was changed since is kept. */
export async function undo(context: CliContext, options: InitOptions): Promise<ExitCode> {
  const configDir = dirWithJournal(context, options);
  leftover(configDir);
  const record = readJournal(configDir);
  if (record === null)
    throw new OperatorError(EXIT.failure, `there is no ${journalPath(configDir)}`);
  refuseRunning(record);
  await agree(context, options, record);
  const journal = Journal.open(configDir, record.config);
  const taken = await takeBack(journal, 0, takeAwayTools(context, placesOf(record)));
  report(context, options, taken);
  return taken.kept.some(({ made }) => made !== null) ? EXIT.failure : EXIT.ok;
}

/**
 * Takes away everything in the journal after the first `from` things, and shortens the journal accordingly. Never
 * rejects.
 */
export async function takeBack(
  journal: Journal,
  from: number,
  tools: TakeAwayTools,
): Promise<TakenAway> {
  const before = journal.made.slice(0, from);
  const made = journal.made.slice(from);
  // The journal lies in it, so it goes after the journal.
  const isAround = (one: Made): boolean =>
    one.kind === "directory" && `${journal.path}/`.startsWith(`${one.path}/`);
  const first = await takeAway(
    made.filter((one) => !isAround(one)),
    tools,
  );
  const again = first.kept.flatMap((kept) => kept.made ?? []);
  const around = made.filter(isAround);
  try {
    journal.leave(again.length === 0 ? before : [...before, ...around, ...again.toReversed()]);
  } catch {
    // A full disk: the journal names things that are gone, which is no harm.
    return first;
  }
  if (again.length > 0 || before.length > 0) return first;
  const second = await takeAway(around, tools);
  return { removed: [...first.removed, ...second.removed], kept: [...first.kept, ...second.kept] };
}

/** Takes away what a run left that was killed. */
export async function takeLeftover(context: CliContext, record: JournalRecord): Promise<TakenAway> {
  const journal = Journal.open(dirname(record.config), record.config);
  return takeBack(journal, 0, takeAwayTools(context, placesOf(record)));
}

function placesOf({ config }: JournalRecord): { configFile: string; secretsDir: string } {
  return { configFile: config, secretsDir: join(dirname(config), "credentials") };
}

/** @throws OperatorError when init made nothing there */
function dirWithJournal(context: CliContext, options: InitOptions): string {
  const answers = options.dir === undefined ? {} : { dir: options.dir };
  const own = dirname(configFileFor(context, options, answers));
  if (existsSync(journalPath(own))) return own;
  const { file } = existingConfig(context, options, answers);
  const other = file === null ? null : dirname(file);
  if (other !== null && existsSync(journalPath(other))) return other;
  throw new OperatorError(
    EXIT.failure,
    `there is nothing to undo: no ${journalPath(own)}`,
    "Name the place with -c FILE or --dir DIR. What init did not make, it does not take away.",
  );
}

/** A service is stopped on the way; a gateway that somebody started by hand is not. */
function refuseRunning({ made }: JournalRecord): void {
  if (made.some(({ kind }) => kind === "service")) return;
  for (const state of made.filter(({ kind }) => kind === "state")) {
    const path = "path" in state ? join(state.path, "gatehouse.db") : "";
    const pids = existsSync(path) ? holders(path) : [];
    if (pids.length === 0) continue;
    throw new OperatorError(
      EXIT.unavailable,
      `${path} is in use by process ${pids.join(", ")}: a gateway is running on this state`,
      "Stop it first.",
    );
  }
}

/** @throws OperatorError without a yes */
async function agree(
  context: CliContext,
  options: InitOptions,
  { made }: JournalRecord,
): Promise<void> {
  if (options.yes === true) return;
  const states = made.flatMap((one) =>
    one.kind === "state" && hasContent(one.path) ? [one.path] : [],
  );
  if (states.length === 0) return;
  const what = `${states.join(", ")} holds the tokens that were made; they stop working for good`;
  if (!isInteractive(context)) {
    throw new OperatorError(
      EXIT.usage,
      what,
      "Say so with --yes. `gatehouse backup` saves them first.",
    );
  }
  const interruption = listenForInterruption(context);
  try {
    const prompter = await openPrompter(context, interruption);
    if (await prompter.confirm(`${what}. Remove them?`, false)) return;
    throw new OperatorError(EXIT.failure, "nothing was taken away");
  } finally {
    interruption.close();
  }
}

function hasContent(path: string): boolean {
  if (lstatSync(path, { throwIfNoEntry: false }) === undefined) return false;
  try {
    return readdirSync(path).length > 0;
  } catch {
    // Of another account; there will be something in it.
    return true;
  }
}

function report(context: CliContext, { json }: InitOptions, { removed, kept }: TakenAway): void {
  if (json === true) {
    const stays = kept.map(({ path, why }) => ({ path, why }));
    context.out(`${JSON.stringify({ removed, kept: stays }, null, 2)}\n`);
    return;
  }
  for (const path of removed) context.out(`removed ${path}\n`);
  for (const one of kept) context.out(`${keptText(one)}\n`);
  if (removed.length === 0 && kept.length === 0) context.out("nothing of it was there any more\n");
}

/** `kept /etc/gatehouse/config.yaml: it was changed since`. */
export function keptText({ path, why }: Kept): string {
  return `kept ${path}: ${why}`;
}
