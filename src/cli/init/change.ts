/**
 * Running init again: offers to change the configuration that is there.
 *
 * Invariant: shows what will be written before it writes, checks it first, keeps the old text; what was not asked for
 * stays byte for byte. When something goes wrong everything is as it was before.
 */
import { existsSync } from "node:fs";
import { dirname, join } from "node:path";
import { EXIT, type ExitCode, errorMessage, OperatorError } from "../../errors.ts";
import { holders } from "../../store/sole-use.ts";
import type { CliContext } from "../context.ts";
import type { Finding } from "../doctor/finding.ts";
import { layoutFor, renderFindings } from "../doctor/report.ts";
import { type AddedToken, addToken } from "./change-token.ts";
import { checkChanged, diffOf, writeBack, writeChanged } from "./edit.ts";
import { type Existing, readExisting } from "./existing.ts";
import { missingDirectories } from "./files.ts";
import { Journal } from "./journal.ts";
import { writeSecrets } from "./make.ts";
import { TOKEN_VARIABLE } from "./paste.ts";
import { type PlannedChange, plannedChange } from "./planned-change.ts";
import { proveChange } from "./prove-change.ts";
import { startCommand } from "./report.ts";
import { orTakeBack, progress, type Run } from "./run.ts";
import { installService, restartService, serviceFor, takeAwayTools } from "./service.ts";
import { scopeOf } from "./set-up.ts";
import { undo } from "./undo.ts";
import { filled } from "./words.ts";

type Service = ReturnType<typeof serviceFor>;

/** What came of it. */
interface Changed {
  readonly diff: readonly string[];
  readonly backup: string | null;
  readonly token: AddedToken | null;
  readonly service: Service;
  readonly checks: readonly Finding[];
}

/** Changes what the operator chooses, or what the flags ask for and is not so yet. */
export async function change(run: Run, named: string): Promise<ExitCode> {
  const { context, options } = run;
  const existing = await readExisting(context, named);
  const planned = await plannedChange(run, existing);
  if (planned.what === "undo") return undo(context, { ...options, config: existing.file });
  const service = serviceOf(run, existing);
  if (planned.what === "nothing") {
    report(run, existing, { diff: [], backup: null, token: null, service, checks: [] });
    return EXIT.ok;
  }
  await agree(run, existing, planned);
  const journal = Journal.open(dirname(existing.file), existing.file);
  const running = { isRestarted: false };
  const taking = {
    journal,
    tools: takeAwayTools(context, {
      configFile: existing.file,
      secretsDir: secretsDir(existing, service),
    }),
    before: () => writeBack(existing, planned.text, journal),
    // One that was not stopped is left alone.
    after: async () =>
      service !== null && running.isRestarted ? runAgain(context, service) : null,
  };
  const changed = await orTakeBack(taking, async () => {
    const all = await carryOut(run, existing, { planned, journal, service, running });
    journal.finish();
    report(run, existing, all);
    return all;
  });
  return changed.checks.some(({ severity }) => severity === "error") ? EXIT.negative : EXIT.ok;
}

/** With the configuration from before. */
async function runAgain(
  context: CliContext,
  service: NonNullable<Service>,
): Promise<string | null> {
  try {
    await restartService(context, service);
    return null;
  } catch (error) {
    return `but ${service.name}.service does not run: ${errorMessage(error)}`;
  }
}

function serviceOf({ context, answers }: Run, { file }: Existing): Service {
  const { service_name: name } = answers;
  return serviceFor(context, file, name === undefined ? [] : [name]);
}

function secretsDir({ file }: Existing, service: Service): string {
  return join(dirname(file), service?.scope === "system" ? "credentials" : "secrets");
}

async function agree(run: Run, existing: Existing, planned: PlannedChange): Promise<void> {
  const { prompter, context, options } = run;
  const diff = diffOf(existing, planned.text);
  if (diff.length === 0) return;
  const shown = [`${existing.file} changes like this:`, ...diff].join("\n");
  if (prompter === null) {
    if (options.json !== true) context.err(`${shown}\n`);
    return;
  }
  prompter.say(shown);
  if (await prompter.confirm("Write it?", true)) return;
  throw new OperatorError(EXIT.failure, "nothing was changed");
}

interface Carrying {
  readonly planned: PlannedChange;
  readonly journal: Journal;
  readonly service: Service;
  readonly running: { isRestarted: boolean };
}

async function carryOut(run: Run, existing: Existing, carrying: Carrying): Promise<Changed> {
  const { interruption } = run;
  const { planned, journal, service } = carrying;
  const diff = diffOf(existing, planned.text);
  const backup = diff.length === 0 ? null : await writeText(run, existing, carrying);
  if (planned.token !== null || planned.upstreams.length > 0) noteState(existing, journal);
  const token =
    planned.token === null
      ? null
      : await addToken(run, existing, { ...planned.token, journal, service });
  interruption.check();
  const serving = await bringUp(run, existing, { ...carrying, isEdited: diff.length > 0 });
  const { upstreams } = planned;
  const checks = await proveChange(run, existing, { upstreams, token, service: serving });
  interruption.check();
  return { diff, backup, token, service: serving, checks };
}

/** A token, or the proof, makes it where nothing was served yet. */
function noteState({ config: { stateDir } }: Existing, journal: Journal): void {
  const missing = missingDirectories(stateDir);
  if (missing.length === 0) return;
  const around = missing.slice(0, -1).map((path) => ({ kind: "directory" as const, path }));
  journal.note(...around, { kind: "state", path: stateDir });
}

/** Returns where the old text is kept. */
async function writeText(
  run: Run,
  existing: Existing,
  { planned, journal, service }: Carrying,
): Promise<string> {
  const { context, interruption } = run;
  const dir = secretsDir(existing, service);
  writeSecrets({ journal, interruption }, dir, planned.secrets);
  const isSystem = service?.scope === "system";
  await checkChanged(context, existing, {
    changed: planned.text,
    env: isSystem ? { CREDENTIALS_DIRECTORY: dir } : context.env,
    depth: isSystem ? "shape" : "full",
  });
  interruption.check();
  const backup = writeChanged(existing, planned.text, journal);
  progress(run)(`Wrote ${existing.file}\nAs it was before: ${backup}`);
  return backup;
}

/** A service runs the changed configuration, or there is a new one. */
async function bringUp(
  run: Run,
  existing: Existing,
  { planned, journal, service, running, isEdited }: Carrying & { readonly isEdited: boolean },
): Promise<Service> {
  const { context, answers, interruption } = run;
  const done = progress(run);
  if (planned.service !== null && service === null) {
    const scope = scopeOf(run, { ...answers, service: planned.service });
    if (scope === null) return null;
    const { service_name: name = "gatehouse", service_account: account = null } = answers;
    const making = { context, configFile: existing.file, journal, interruption, done };
    await installService(making, { scope, name, account });
    return { scope, name };
  }
  if (service !== null && isEdited) {
    running.isRestarted = true;
    await restartService(context, service);
    done(`Restarted ${service.name}.service`);
  }
  return service;
}

function report(run: Run, existing: Existing, changed: Changed): void {
  const { context, options } = run;
  const { diff, backup, token, service, checks } = changed;
  const start = startCommand(
    existing.file,
    service === null ? null : { ...service, account: null },
  );
  if (options.json === true) {
    const facts = {
      config: existing.file,
      changed: diff.length > 0 || token !== null,
      token: token?.token ?? null,
      id: token?.id ?? null,
      start,
      diff,
      backup,
      service,
      checks,
    };
    context.out(`${JSON.stringify(facts, null, 2)}\n`);
    return;
  }
  const layout = layoutFor(context, options.color);
  const isNothing = diff.length === 0 && token === null;
  const said = [
    isNothing ? `Nothing was changed in ${existing.file}.\n` : "",
    token === null
      ? ""
      : `${filled("A new token; it is shown this once:", layout.width)}\n\nexport ${TOKEN_VARIABLE}=${token.token}\n`,
    renderFindings(
      checks.map((one) => ({ ...one, group: "Checks" })),
      layout,
    ),
    `${filled(runningText(existing, { isEdited: diff.length > 0, service }), layout.width)}\n`,
    service === null ? `${start}\n` : "",
  ];
  context.out(said.filter((part) => part !== "").join("\n"));
}

function runningText(
  { config }: Existing,
  { isEdited, service }: { readonly isEdited: boolean; readonly service: Service },
): string {
  if (service !== null) return `It runs as ${service.name}.service.`;
  const database = join(config.stateDir, "gatehouse.db");
  const pids = existsSync(database) ? holders(database) : [];
  if (pids.length === 0) return "Nothing runs on it yet. Start it with:";
  const who = `A gateway runs on it (process ${pids.join(", ")})`;
  return isEdited ? `${who}: start it anew, so that the change holds.` : `${who}.`;
}
