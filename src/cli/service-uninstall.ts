/**
 * `gatehouse service uninstall`: takes away what `install` made.
 *
 * Invariant: only a unit that we wrote is removed; state, configuration, credentials and accounts stay.
 */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { EXIT, type ExitCode, OperatorError } from "../errors.ts";
import type { CliContext } from "./context.ts";
import { type WhichOptions, whichService } from "./service/input.ts";
import { Systemd } from "./service/systemd.ts";
import { type FoundUnit, findUnit, keepAside, removeUnit } from "./service/unit-file.ts";

/** Exit code 0 when there is no such service (any more). */
export async function serviceUninstall(
  context: CliContext,
  options: WhichOptions,
): Promise<ExitCode> {
  const which = whichService(context, options);
  const systemd = new Systemd(context, which);
  await systemd.version();
  const { unitPath: path } = systemd;
  const found = findUnit(path);
  if (found.kind === "foreign") throw notOurs(systemd, found.what);
  if (found.kind === "none") {
    const [other] = systemd.otherPaths();
    if (other !== undefined) throw notOurs(systemd, other);
    report(context, options, { path, steps: [], stays: [] });
    return EXIT.ok;
  }
  if (which.scope === "system" && which.root === null && process.geteuid?.() !== 0) {
    throw new OperatorError(
      EXIT.permission,
      "a system service is removed by root",
      "Run: sudo gatehouse service uninstall …",
    );
  }
  const steps = await takeAway(systemd, found.isEdited);
  report(context, options, { path, steps, stays: whatStays(found, which.root) });
  return EXIT.ok;
}

async function takeAway(systemd: Systemd, isEdited: boolean): Promise<string[]> {
  const { which, unitPath: path } = systemd;
  const unit = `${which.name}.service`;
  const steps: string[] = [];
  const now = which.root === null ? ["--now"] : [];
  await systemd.order("--quiet", "disable", ...now, unit);
  steps.push(`${which.root === null ? "stopped and disabled" : "disabled"} ${unit}`);
  if (isEdited) steps.push(`kept the version that was changed by hand as ${keepAside(path)}`);
  removeUnit(path);
  steps.push(`removed ${path}`);
  if (which.root !== null) return steps;
  await systemd.order("daemon-reload");
  // Only when it had failed; otherwise there is nothing to forget.
  await systemd.ask("reset-failed", unit);
  return steps;
}

function notOurs({ which }: Systemd, what: string): OperatorError {
  return new OperatorError(
    EXIT.failure,
    `Gatehouse did not install this unit: ${what}`,
    `If a package brought it, remove the package; to stop it: systemctl disable --now ${which.name}`,
  );
}

/** What the operator may want to remove by hand. */
function whatStays(
  { text, input }: Extract<FoundUnit, { kind: "ours" }>,
  root: string | null,
): string[] {
  const value = (key: string): string | undefined =>
    new RegExp(`^${key}=(.+)$`, "m").exec(text)?.[1];
  const state = value("StateDirectory");
  const account = value("DynamicUser") === undefined ? value("User") : undefined;
  return [
    input.config,
    ...(state === undefined ? [] : [`/var/lib/${state}`]),
    ...(account === undefined ? [] : [`account ${account}`]),
  ].filter((one) => !one.startsWith("/") || existsSync(join(root ?? "/", one)));
}

function report(
  context: CliContext,
  options: WhichOptions,
  done: { path: string; steps: readonly string[]; stays: readonly string[] },
): void {
  const { path, steps, stays } = done;
  if (options.json === true) {
    const removed = steps.length > 0;
    context.out(`${JSON.stringify({ unit: path, removed, steps, stays }, null, 2)}\n`);
    return;
  }
  if (steps.length === 0) context.out(`${path} is not there; nothing to do\n`);
  for (const step of steps) context.out(`${step}\n`);
  if (stays.length > 0) context.out(`these stay: ${stays.join(", ")}\n`);
}
