/**
 * `service install|uninstall|status|print`: their options and help.
 *
 * Invariant: nothing is imported before it is known which verb is meant.
 */
import type { Command } from "commander";
import type { Action } from "./context.ts";
import type { ServiceOptions, WhichOptions } from "./service/input.ts";
import type { ServicePrintOptions } from "./service-print.ts";

/** What program.ts lends. */
interface VerbTools {
  run(action: Action): Promise<void>;
  verb(parent: Command, usage: string, description: string, example: string): Command;
}

/** Adds the verbs about the service that runs a gateway. */
export function addService(program: Command, { run, verb }: VerbTools): void {
  const service = program
    .command("service")
    .description("run the gateway as a service that starts with the machine");
  const which = (usage: string, description: string, example: string): Command =>
    verb(service, usage, description, `gatehouse service ${example}`)
      .option("--system", "a service of the machine (default)")
      .option("--user", "a service of your own, without root")
      .option("--name <name>", "name of the service (default gatehouse)")
      .option("--root <dir>", "prepare a system that is not running, for instance an image");
  made(
    which(
      "install",
      "install the systemd unit, start it and wait until it is ready",
      "install -c /etc/gatehouse/config.yaml",
    ),
  ).action((options: ServiceOptions) =>
    run(async (context) => (await import("./service-install.ts")).serviceInstall(context, options)),
  );
  which(
    "uninstall",
    "stop the service and remove its unit; state and config stay",
    "uninstall",
  ).action((options: WhichOptions) =>
    run(async (context) =>
      (await import("./service-uninstall.ts")).serviceUninstall(context, options),
    ),
  );
  made(
    which("status", "say whether it is installed, running and up to date (exit 0 or 3)", "status"),
  ).action((options: ServiceOptions) =>
    run(async (context) => (await import("./service-status.ts")).serviceStatus(context, options)),
  );
  made(
    which(
      "print",
      "print what install would write, and write nothing",
      "print -c /etc/gatehouse/config.yaml",
    ),
  )
    .option("--openrc", "a script for OpenRC instead")
    .option("--launchd", "a property list for launchd instead")
    .action((options: ServicePrintOptions) =>
      run(async (context) => (await import("./service-print.ts")).servicePrint(context, options)),
    );
}

/** The options that decide what is in the unit. */
function made(command: Command): Command {
  return command
    .option("--user-account <name>", "run as this account instead of one that systemd makes")
    .option("--environment-file <file>", "variables for the configuration, NAME=value, mode 600")
    .option("--low-ports", "allow ports below 1024 even if the configuration names none")
    .option("--read-write <dir>", "let it write there, too; repeat for several", collect)
    .option("--exec <file>", "the executable (default: this one)");
}

function collect(value: string, earlier: readonly string[] = []): readonly string[] {
  return [...earlier, value];
}
