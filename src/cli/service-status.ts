/**
 * `gatehouse service status`: is it installed, enabled, running, and still what this version and configuration make.
 *
 * Invariant: looks, never changes; each thing that is wrong comes with the command that mends it.
 */
import { existsSync, readlinkSync } from "node:fs";
import { EXIT, type ExitCode, errorMessage } from "../errors.ts";
import type { CliContext } from "./context.ts";
import { type ServiceInput, type ServiceOptions, whichService } from "./service/input.ts";
import type { Problem } from "./service/places.ts";
import { commandPrefix, planFor, planService, type ServicePlan } from "./service/plan.ts";
import { Systemd, type UnitState } from "./service/systemd.ts";
import { type FoundUnit, findUnit, unitDifference } from "./service/unit-file.ts";

/** Exit code 0 when all is well, 3 when something is wrong. */
export async function serviceStatus(
  context: CliContext,
  options: ServiceOptions,
): Promise<ExitCode> {
  const systemd = new Systemd(context, whichService(context, options));
  await systemd.version();
  const state = await systemd.state();
  const found = findUnit(systemd.unitPath);
  const drift = found.kind === "ours" ? await driftOf(context, options, found) : NO_DRIFT;
  const problems = [
    ...unitProblems(systemd, found),
    ...drift.problems,
    ...(found.kind === "ours" ? executableProblems(systemd, found.input, state) : []),
    ...(isInstalled(systemd, found) ? stateProblems(systemd, state) : []),
  ];
  report(context, options, { systemd, state, found, drift, problems });
  return problems.length === 0 ? EXIT.ok : EXIT.negative;
}

/** By us, or by a package that brought our unit. */
function isInstalled(systemd: Systemd, found: FoundUnit): boolean {
  return found.kind === "ours" || (found.kind === "none" && systemd.otherPaths().length > 0);
}

interface Drift {
  readonly lines: readonly string[];
  readonly plan: ServicePlan | null;
  readonly problems: readonly Problem[];
}

const NO_DRIFT: Drift = { lines: [], plan: null, problems: [] };

/** Against what the unit was made from; with `-c` or other options against those. */
async function driftOf(
  context: CliContext,
  options: ServiceOptions,
  found: Extract<FoundUnit, { kind: "ours" }>,
): Promise<Drift> {
  try {
    const plan = isAsked(options)
      ? await planService(context, { exec: found.input.exec, ...options })
      : await planFor(context, found.input, whichService(context, options).root);
    if (found.text === plan.text) return { ...NO_DRIFT, plan };
    const lines = unitDifference(found.text, plan.text);
    // That it was changed by hand is said already.
    if (found.isEdited) return { lines, plan, problems: [] };
    const message = "the unit differs from what this version would write for this configuration";
    return {
      lines,
      plan,
      problems: [{ message, hint: `gatehouse ${again(plan.input).join(" ")}` }],
    };
  } catch (error) {
    const message = `the unit cannot be compared: ${errorMessage(error)}`;
    const hint = `gatehouse config validate -c ${found.input.config}`;
    return { lines: [], plan: null, problems: [{ message, hint }] };
  }
}

function isAsked(options: ServiceOptions): boolean {
  const { config, userAccount, environmentFile, lowPorts, readWrite, exec } = options;
  return [config, userAccount, environmentFile, lowPorts, readWrite, exec].some(
    (value) => value !== undefined,
  );
}

/** The arguments that make this unit again. */
function again(input: ServiceInput): string[] {
  return [
    ...["service", "install", "-c", input.config],
    ...(input.scope === "user" ? ["--user"] : []),
    ...(input.name === "gatehouse" ? [] : ["--name", input.name]),
    ...(input.account === null ? [] : ["--user-account", input.account]),
    ...(input.environmentFile === null ? [] : ["--environment-file", input.environmentFile]),
    ...(input.lowPorts ? ["--low-ports"] : []),
    ...input.readWrite.flatMap((path) => ["--read-write", path]),
  ];
}

function unitProblems(systemd: Systemd, found: FoundUnit): Problem[] {
  const [other] = systemd.otherPaths();
  if (found.kind === "none") {
    if (other !== undefined) return [];
    const scope = systemd.which.scope === "user" ? " --user" : "";
    const hint = `gatehouse service install${scope} -c FILE`;
    return [{ message: `${systemd.unitPath} is not there`, hint }];
  }
  if (found.kind === "foreign") {
    const hint = `systemctl cat ${systemd.which.name}`;
    return [{ message: `Gatehouse did not write ${found.what}`, hint }];
  }
  if (!found.isEdited) return [];
  const hint = `move the changes to a drop-in (systemctl edit ${systemd.which.name}), then install again`;
  return [{ message: `${systemd.unitPath} was changed by hand`, hint }];
}

/** Gone, or replaced since the service was started. */
function executableProblems(
  { which }: Systemd,
  { exec }: ServiceInput,
  state: UnitState,
): Problem[] {
  if (which.root !== null) return [];
  if (!existsSync(exec)) {
    return [{ message: `its executable ${exec} is gone`, hint: `put it back, or install again` }];
  }
  if (!isReplaced(state.pid)) return [];
  const control = which.scope === "user" ? "systemctl --user" : "sudo systemctl";
  const message = "it still runs the executable that was there when it started";
  return [{ message, hint: `${control} restart ${which.name}` }];
}

/** Linux marks the file of a process that was replaced; whom it does not show it to cannot know. */
function isReplaced(pid: number | null): boolean {
  try {
    return pid !== null && readlinkSync(`/proc/${pid}/exe`).endsWith(" (deleted)");
  } catch {
    return false;
  }
}

function stateProblems({ which }: Systemd, state: UnitState): Problem[] {
  const control = which.scope === "user" ? "systemctl --user" : "sudo systemctl";
  const problems: Problem[] = [];
  if (state.enabled !== "enabled") {
    const message = `it is ${state.enabled}, so it does not start with the machine`;
    problems.push({ message, hint: `${control} enable ${which.name}` });
  }
  if (which.root !== null) return problems;
  if (state.active !== "active") {
    const why = state.result === "" || state.result === "success" ? "" : ` (${state.result})`;
    const hint = `journalctl --unit ${which.name} --lines 20, then ${control} start ${which.name}`;
    problems.push({ message: `it is ${state.active}${why}`, hint });
  }
  if (state.needsReload) {
    const hint = `${control} daemon-reload`;
    problems.push({ message: "systemd has not read the unit since it was changed", hint });
  }
  return problems;
}

interface Findings {
  readonly systemd: Systemd;
  readonly state: UnitState;
  readonly found: FoundUnit;
  readonly drift: Drift;
  readonly problems: readonly Problem[];
}

function report(context: CliContext, options: ServiceOptions, findings: Findings): void {
  if (options.json !== true) {
    describe(context, findings);
    return;
  }
  const { systemd, state, found, drift, problems } = findings;
  const { name, scope } = systemd.which;
  const { enabled, active, sub, pid, text, dropIns } = state;
  const facts = {
    ...{ name, scope, unit: systemd.unitPath, ok: problems.length === 0 },
    ...{ installed: isInstalled(systemd, found), ours: found.kind === "ours" },
    ...{ edited: found.kind === "ours" && found.isEdited },
    ...{ enabled, active, sub, pid, status: text, drop_ins: dropIns },
    ...{ drift: drift.lines, command: commandOf(context, drift), problems },
  };
  context.out(`${JSON.stringify(facts, null, 2)}\n`);
}

/** For people. */
function describe(context: CliContext, findings: Findings): void {
  const { systemd, state, found, drift, problems } = findings;
  const { name, root } = systemd.which;
  const { enabled, active, pid, text, dropIns } = state;
  if (isInstalled(systemd, found)) {
    const running = root === null ? ` and ${active}${pid === null ? "" : `, process ${pid}`}` : "";
    context.out(`${name} is ${enabled}${running}${text === "" ? "" : `: ${text}`}\n`);
    for (const path of dropIns) context.out(`changed by ${path}\n`);
    const command = commandOf(context, drift);
    if (command !== null) {
      const example = `${command.join(" ")} token list -c ${drift.plan?.input.config}`;
      context.out(`commands on its state: ${example}\n`);
    }
  }
  for (const { message, hint } of problems) context.out(`wrong: ${message}\n  mend: ${hint}\n`);
  for (const line of drift.lines) context.out(`  ${line}\n`);
}

function commandOf(context: CliContext, { plan }: Drift): string[] | null {
  return plan === null ? null : commandPrefix(context, plan);
}
