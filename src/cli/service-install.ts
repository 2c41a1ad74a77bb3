/**
 * `gatehouse service install`: writes the unit, starts it, waits until it answers, and says what was done.
 *
 * Invariant: when the service does not come up, the machine is as it was before; the same input a second time
 * changes nothing; a unit that somebody else wrote is never touched.
 */
import { existsSync } from "node:fs";
import { userInfo } from "node:os";
import { systemClock } from "../clock.ts";
import { EXIT, type ExitCode, OperatorError } from "../errors.ts";
import type { CliContext } from "./context.ts";
import { type ServiceOptions, whichService } from "./service/input.ts";
import type { Problem } from "./service/places.ts";
import { commandPrefix, planService, type ServicePlan } from "./service/plan.ts";
import { preflight } from "./service/preflight.ts";
import { Systemd, type UnitState } from "./service/systemd.ts";
import {
  type FoundUnit,
  findUnit,
  keepAside,
  removeUnit,
  unitDifference,
  writeUnit,
} from "./service/unit-file.ts";

/** What is there is nothing, or ours. */
type OwnUnit = Exclude<FoundUnit, { kind: "foreign" }>;

interface Before {
  readonly found: OwnUnit;
  /** What systemd said about it. */
  readonly before: UnitState;
}

/** What was done, in the order it was done. */
interface Done {
  readonly change: "created" | "updated" | "unchanged";
  /** Lines of the unit that went and came. */
  readonly diff: readonly string[];
  /** Where a version that somebody had changed is kept. */
  readonly kept: string | null;
  readonly steps: readonly string[];
  readonly state: UnitState;
}

/** Exit code 0 when the service runs; throws OperatorError otherwise, and then nothing has changed. */
export async function serviceInstall(
  context: CliContext,
  options: ServiceOptions,
): Promise<ExitCode> {
  const which = whichService(context, options);
  const systemd = new Systemd(context, which);
  const version = await systemd.version();
  requireRights(systemd);
  const plan = await planService(context, options);
  const found = ownUnit(systemd);
  const before = await systemd.state();
  const machine = { version, isActive: before.active === "active" };
  const problems =
    which.root === null ? await preflight(context, plan, machine) : [...plan.problems];
  if (problems.length > 0) throw refusal(problems);
  const done = await install(systemd, plan, { found, before });
  report(context, options, { systemd, plan, done });
  return EXIT.ok;
}

function requireRights({ which: { scope, root } }: Systemd): void {
  if (scope === "user" || root !== null || process.geteuid?.() === 0) return;
  throw new OperatorError(
    EXIT.permission,
    "a system service is installed by root",
    "Run: sudo gatehouse service install …; or install it for yourself alone with --user.",
  );
}

function refusal(problems: readonly Problem[]): OperatorError {
  const lines = problems.map(({ message, hint }) => `${message}\n    ${hint}`);
  return new OperatorError(
    EXIT.config,
    `the service cannot be installed like this; nothing was changed\n  ${lines.join("\n  ")}`,
  );
}

/** What is there, once it is known to be ours or nothing. */
function ownUnit(systemd: Systemd): OwnUnit {
  const found = findUnit(systemd.unitPath);
  const others = systemd.otherPaths().map((path) => [path, findUnit(path)] as const);
  const foreign = [[systemd.unitPath, found] as const, ...others].find(
    ([, unit]) => unit.kind === "foreign",
  );
  if (foreign === undefined && found.kind !== "foreign") return found;
  const [path, unit] = foreign ?? [systemd.unitPath, found];
  throw new OperatorError(
    EXIT.cannotCreate,
    `there is a unit of this name that Gatehouse did not write: ${unit.kind === "foreign" ? unit.what : path}`,
    `Look at it: systemctl cat ${systemd.which.name}. Remove it if you do not need it, or choose another --name.`,
  );
}

async function install(
  systemd: Systemd,
  plan: ServicePlan,
  { found, before }: Before,
): Promise<Done> {
  const old = found.kind === "ours" ? found.text : null;
  const isChanged = old !== plan.text;
  const hadState = existsSync(plan.needs.stateDir);
  const steps: string[] = [];
  const sinceMs = systemClock.nowMs();
  const kept = isChanged ? replaceUnit(systemd.unitPath, plan.text, found, steps) : null;
  try {
    await bringUp(systemd, before, isChanged, steps);
    const state = await systemd.state();
    if (systemd.which.root === null && state.active !== "active") throw new NotUp(state);
    const diff = old === null ? [] : unitDifference(old, plan.text);
    const change = old === null ? "created" : isChanged ? "updated" : "unchanged";
    return { change, diff, kept, steps, state };
  } catch (error) {
    const isBack = !isChanged || (await restore(systemd, before, { old, hadState }));
    throw error instanceof NotUp ? await notUp(systemd, error.state, { sinceMs, isBack }) : error;
  }
}

/** Returns where a version that was changed by hand is kept, or null. */
function replaceUnit(path: string, text: string, found: OwnUnit, steps: string[]): string | null {
  const kept = found.kind === "ours" && found.isEdited ? keepAside(path) : null;
  if (kept !== null) steps.push(`kept the version that was changed by hand as ${kept}`);
  writeUnit(path, text);
  steps.push(`wrote ${path}`);
  return kept;
}

/** The service did not come up; why is in its journal. */
class NotUp extends Error {
  readonly state: UnitState;
  constructor(state: UnitState) {
    super("not up");
    this.state = state;
  }
}

/** Orders what is not so yet. `start` returns when the service has said that it is ready, or has failed. */
async function bringUp(
  systemd: Systemd,
  before: UnitState,
  isChanged: boolean,
  steps: string[],
): Promise<void> {
  const unit = `${systemd.which.name}.service`;
  const isRunning = systemd.which.root === null;
  if (isRunning && (isChanged || before.needsReload)) await systemd.order("daemon-reload");
  if (before.enabled !== "enabled") {
    await systemd.order("--quiet", "enable", unit);
    steps.push(`enabled ${unit}`);
  }
  if (!isRunning) return;
  const isActive = before.active === "active";
  if (isActive && !isChanged) return;
  // A unit that failed too often before would not be started at all.
  await systemd.ask("reset-failed", unit);
  const started = await systemd.ask(isActive ? "restart" : "start", unit);
  if (started?.code !== 0) throw new NotUp(await systemd.state());
  steps.push(`${isActive ? "restarted" : "started"} ${unit}`);
}

/** What the service said before it gave up is the answer. */
async function notUp(
  systemd: Systemd,
  state: UnitState,
  { sinceMs, isBack }: { readonly sinceMs: number; readonly isBack: boolean },
): Promise<OperatorError> {
  const said = (await systemd.journal(12, sinceMs)).replaceAll("\n", "\n  ");
  const after = isBack
    ? "everything is as it was before"
    : "the unit is as it was before, but with this configuration it does not start either";
  return new OperatorError(
    state.exitStatus === EXIT.config ? EXIT.config : EXIT.failure,
    `the service did not start (${state.result || state.active}); ${after}${said === "" ? "" : `\n  ${said}`}`,
    "Once the cause is mended, install again.",
  );
}

/**
 * The unit as it was before; what fails on the way is less important than why it is undone.
 * @returns whether the service is as it was before, too: its configuration may have changed meanwhile
 */
async function restore(
  systemd: Systemd,
  before: UnitState,
  { old, hadState }: { readonly old: string | null; readonly hadState: boolean },
): Promise<boolean> {
  const unit = `${systemd.which.name}.service`;
  const isRunning = systemd.which.root === null;
  const wasActive = before.active === "active";
  if (isRunning && !wasActive) await systemd.ask("stop", unit);
  if (before.enabled !== "enabled") await systemd.ask("--quiet", "disable", unit);
  // Made by systemd for this start; nobody has put anything into it.
  if (isRunning && old === null && !hadState) await systemd.ask("clean", "--what=state", unit);
  if (old === null) removeUnit(systemd.unitPath);
  else writeUnit(systemd.unitPath, old);
  if (!isRunning) return true;
  await systemd.ask("daemon-reload");
  await systemd.ask("reset-failed", unit);
  return !wasActive || (await systemd.ask("restart", unit))?.code === 0;
}

function report(
  context: CliContext,
  options: ServiceOptions,
  { systemd, plan, done }: { systemd: Systemd; plan: ServicePlan; done: Done },
): void {
  const { change, diff, kept, steps, state } = done;
  const { unitPath: path, which } = systemd;
  const { name, scope } = which;
  const prefix = commandPrefix(context, plan);
  const notes = [...plan.notes, ...lingerNotes(systemd)];
  if (options.json === true) {
    const { enabled, active, pid, text } = state;
    const service = { name, scope, unit: path, change, diff, kept, steps };
    context.out(
      `${JSON.stringify({ ...service, enabled, active, pid, status: text, command: prefix, notes }, null, 2)}\n`,
    );
    return;
  }
  const says = state.text === "" ? "" : `: ${state.text}`;
  for (const line of diff) context.out(`${line}\n`);
  for (const step of steps) context.out(`${step}\n`);
  if (steps.length === 0) context.out(`${path} is up to date\n`);
  if (which.root === null) context.out(`${name} is ${state.active}${says}\n`);
  for (const note of notes) context.out(`note: ${note}\n`);
  context.out(
    `\nCommands on its state run as its account:\n  ${prefix.join(" ")} token list -c ${plan.input.config}\n`,
  );
}

/** Without it a user's services end with the last session. */
function lingerNotes({ which }: Systemd): string[] {
  if (which.scope === "system") return [];
  const { username } = userInfo();
  if (existsSync(`/var/lib/systemd/linger/${username}`)) return [];
  return [
    `it stops when you log out, and starts when you log in; to let it run always: loginctl enable-linger ${username}`,
  ];
}
