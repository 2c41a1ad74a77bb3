/**
 * `gatehouse service print`: what `install` would write, and nothing is written.
 *
 * Invariant: standard output is the file alone, so that it can be redirected; remarks go to standard error.
 */
import { EXIT, type ExitCode, OperatorError } from "../errors.ts";
import type { CliContext } from "./context.ts";
import type { ServiceOptions } from "./service/input.ts";
import { launchdPlist } from "./service/launchd.ts";
import { openrcScript } from "./service/openrc.ts";
import { planService, type ServicePlan } from "./service/plan.ts";
import { Systemd } from "./service/systemd.ts";

/** Options of `service print`. */
export interface ServicePrintOptions extends ServiceOptions {
  readonly openrc?: boolean;
  readonly launchd?: boolean;
}

/** The text on standard output; with `--json` an object with `path`, `text`, `notes` and `problems`. */
export async function servicePrint(
  context: CliContext,
  options: ServicePrintOptions,
): Promise<ExitCode> {
  if (options.openrc === true && options.launchd === true) {
    throw new OperatorError(EXIT.usage, "--openrc and --launchd exclude each other");
  }
  const plan = await planService(context, options);
  const { path, text } = printed(context, options, plan);
  const { notes, problems } = plan;
  if (options.json === true) {
    context.out(`${JSON.stringify({ path, text, notes, problems }, null, 2)}\n`);
    return EXIT.ok;
  }
  context.out(text);
  context.err(`This goes to ${path}. Nothing was written.\n`);
  for (const note of notes) context.err(`note: ${note}\n`);
  if (options.openrc === true || options.launchd === true) return EXIT.ok;
  for (const { message, hint } of problems) {
    context.err(`problem: ${message}\nhint: ${hint}\n`);
  }
  return EXIT.ok;
}

function printed(
  context: CliContext,
  options: ServicePrintOptions,
  plan: ServicePlan,
): { readonly path: string; readonly text: string } {
  const { name, scope } = plan.input;
  if (options.openrc === true) return { path: `/etc/init.d/${name}`, text: openrcScript(plan) };
  if (options.launchd === true) {
    const dir = scope === "system" ? "/Library/LaunchDaemons" : "~/Library/LaunchAgents";
    return { path: `${dir}/local.${name}.plist`, text: launchdPlist(plan) };
  }
  const root = options.root ?? null;
  return { path: new Systemd(context, { scope, name, root }).unitPath, text: plan.text };
}
