/**
 * `restore --undo`: after a restore that was cut off in the middle of its last step, by a power failure for instance.
 *
 * Invariant: it brings back what was there before, and does nothing when no restore was interrupted.
 */
import { dirname, resolve } from "node:path";
import { findConfigFile } from "../../config/find.ts";
import { EXIT, type ExitCode, OperatorError } from "../../errors.ts";
import { readConfig } from "../backup/loading.ts";
import type { CliContext } from "../context.ts";
import { undoConfig } from "./config-place.ts";
import type { DestinationOptions } from "./destination.ts";
import { undoUnfinished } from "./stage.ts";

/** Works on `--state-dir`, else on the state directory of the configuration. */
export async function undo(context: CliContext, options: DestinationOptions): Promise<ExitCode> {
  const { cwd } = context;
  const file =
    options.config === undefined ? findConfigFile(context).file : resolve(cwd, options.config);
  const stateDir =
    options.stateDir === undefined
      ? await configuredStateDir(context, file)
      : resolve(cwd, options.stateDir);
  const aside = undoUnfinished(stateDir);
  if (aside !== null && file !== null) undoConfig(dirname(file), aside);
  if (options.json === true) {
    context.out(`${JSON.stringify({ state_dir: stateDir, undone: aside !== null }, null, 2)}\n`);
  } else {
    context.err(
      aside === null
        ? `No restore of ${stateDir} was interrupted; nothing to do.\n`
        : `${stateDir} is as it was before the restore that was interrupted.\n`,
    );
  }
  return EXIT.ok;
}

async function configuredStateDir(context: CliContext, file: string | null): Promise<string> {
  const loaded = file === null ? null : await readConfig(context, { file, depth: "shape" });
  const stateDir = loaded?.config?.stateDir;
  if (stateDir !== undefined) return stateDir;
  throw new OperatorError(
    EXIT.usage,
    "it is not clear which state is meant: there is no configuration here, or not a right one",
    "Say it with --state-dir DIR.",
  );
}
