/**
 * `restore FILE`: what `backup` made, put back where it belongs.
 *
 * Invariant: everything is verified before anything is touched; what is replaced is kept, under a name that is said;
 * and what does not end well leaves the machine as it was.
 */
import { closeSync, constants, fstatSync, openSync } from "node:fs";
import { resolve } from "node:path";
import { renderIssues } from "../config/explain.ts";
import { parseSize } from "../contract/quantity.ts";
import { EXIT, type ExitCode, errorCode, OperatorError } from "../errors.ts";
import type { Steps } from "../store/snapshot.ts";
import type { AskHidden } from "./ask-hidden.ts";
import { type BackupFile, envelopeKind, fileKey, type Keys } from "./backup/encryption.ts";
import { readConfig } from "./backup/loading.ts";
import type { Manifest, ManifestFile } from "./backup/manifest.ts";
import { existingPassphrase, type PassphraseOptions, readIdentities } from "./backup/secrets.ts";
import { type FileSink, type Unpacking, unpack } from "./backup/unpack.ts";
import type { CliContext } from "./context.ts";
import { knownSteps, refuseNewer } from "./restore/compatible.ts";
import type { WantedFile } from "./restore/config-place.ts";
import { type DestinationOptions, destinationOf } from "./restore/destination.ts";
import { putInPlace } from "./restore/place.ts";
import { checkPlan, type Plan, planOf } from "./restore/plan.ts";
import { reportDone, reportPlan } from "./restore/report.ts";
import { undo } from "./restore/undo.ts";

/** Options of `restore`. */
export interface RestoreOptions extends DestinationOptions, PassphraseOptions {
  /** The positional argument. */
  readonly file?: string;
  /** `--identity FILE`, once for each. */
  readonly identity?: readonly string[];
  /** `--replace`: state and configuration that are there are moved aside. */
  readonly replace?: boolean;
  readonly dryRun?: boolean;
  /** `--max-size 10GiB`. */
  readonly maxSize?: string;
  /** `--undo` instead of a file. */
  readonly undo?: boolean;
}

const DEFAULT_MAX_SIZE = "4GiB";

/** Exit code 0 also for `--dry-run` when the restore would go through. */
export async function restore(
  context: CliContext,
  options: RestoreOptions,
  ask?: AskHidden,
): Promise<ExitCode> {
  if (options.undo === true && options.file === undefined) return undo(context, options);
  if (options.undo === true) {
    throw new OperatorError(EXIT.usage, "--undo takes no file: what it brings back is still there");
  }
  if (options.file === undefined) {
    throw new OperatorError(EXIT.usage, "which backup? See 'gatehouse help restore'");
  }
  const file = openBackup(context, options.file);
  try {
    const key = await fileKey(file, await keysFor(context, options, file, ask));
    // From here on a signal takes back what was begun instead of ending the process.
    const { stop } = context;
    return await interruptible(stop, () => restoreFrom(context, options, { file, key, stop }));
  } finally {
    closeSync(file.descriptor);
  }
}

type Source = Pick<Unpacking, "file" | "key" | "stop">;

async function restoreFrom(
  context: CliContext,
  options: RestoreOptions,
  source: Source,
): Promise<ExitCode> {
  const bounds = { maxBytes: maxBytesOf(options) };
  const mustBeKnown = knownChecker(context);
  const texts: WantedFile[] = [];
  const manifest = await unpack({
    ...source,
    bounds,
    agree(said) {
      for (const steps of Object.values(said.steps)) mustBeKnown(said, steps);
    },
    sink: (file) => (file.name.startsWith("config/") ? keepIn(texts, file) : null),
  });
  const destination = await destinationOf(context, options, { manifest, texts });
  const plan = planOf({ manifest, texts, destination });
  reportPlan(context, options, plan);
  checkPlan(plan, options.replace === true);
  if (options.dryRun === true) return EXIT.ok;
  const done = await putInPlace(plan, {
    fill: async (sink) => {
      const again = await unpack({ ...source, bounds, agree() {}, sink });
      mustBeSame(manifest, again);
    },
    mustBeKnown: (steps) => mustBeKnown(manifest, steps),
  });
  reportDone(context, options, { plan, done, problems: await problemsOf(context, plan) });
  return EXIT.ok;
}

async function interruptible(stop: AbortSignal, work: () => Promise<ExitCode>): Promise<ExitCode> {
  try {
    return await work();
  } catch (error) {
    if (!stop.aborted) throw error;
    throw new OperatorError(EXIT.failure, "interrupted; nothing was changed");
  }
}

function openBackup(context: CliContext, shown: string): BackupFile {
  let descriptor: number;
  try {
    // NONBLOCK: a pipe must not hold us up. It is read twice, so it has to be a file.
    descriptor = openSync(resolve(context.cwd, shown), constants.O_RDONLY | constants.O_NONBLOCK);
  } catch (error) {
    const code = errorCode(error);
    const why = code === "ENOENT" ? "is not there" : `cannot be read (${code})`;
    throw new OperatorError(code === "EACCES" ? EXIT.permission : EXIT.usage, `${shown} ${why}`);
  }
  const stats = fstatSync(descriptor);
  if (stats.isFile()) return { shown, descriptor, bytes: stats.size };
  closeSync(descriptor);
  throw new OperatorError(
    EXIT.usage,
    `${shown} is no regular file`,
    "A backup is read twice: save it first.",
  );
}

async function keysFor(
  context: CliContext,
  options: RestoreOptions,
  file: BackupFile,
  ask: AskHidden | undefined,
): Promise<Keys> {
  const { identity = [] } = options;
  if (envelopeKind(file) === "passphrase") {
    if (identity.length === 0)
      return { passphrase: await existingPassphrase(context, options, ask) };
    throw new OperatorError(EXIT.usage, `${file.shown} is encrypted with a passphrase`);
  }
  if (identity.length > 0) {
    return { identities: identity.flatMap((path) => readIdentities(context, path)) };
  }
  throw new OperatorError(
    EXIT.usage,
    `${file.shown} is encrypted for a public key`,
    "Name the file with the secret key: --identity FILE",
  );
}

function maxBytesOf({ maxSize }: RestoreOptions): number {
  const bytes = parseSize(maxSize ?? DEFAULT_MAX_SIZE);
  if (bytes !== null) return bytes;
  throw new OperatorError(EXIT.usage, "--max-size: expected a size such as 10GiB");
}

function knownChecker({ plugins, version }: CliContext): (made: Manifest, steps: Steps) => void {
  const known = knownSteps(plugins);
  return ({ madeBy }, steps) => refuseNewer(steps, known, { madeBy: madeBy.version, version });
}

function keepIn(texts: WantedFile[], file: ManifestFile): FileSink {
  const chunks: Uint8Array[] = [];
  return {
    write: (chunk) => void chunks.push(chunk.slice()),
    end() {
      const name = file.name.slice("config/".length);
      texts.push({ name, bytes: Buffer.concat(chunks), mode: file.mode });
    },
  };
}

/** The file is read twice, and somebody may have put another one in its place. */
function mustBeSame(before: Manifest, after: Manifest): void {
  if (JSON.stringify(before) === JSON.stringify(after)) return;
  throw new OperatorError(EXIT.failure, "the backup was changed while it was read");
}

/** What `config validate` says about the result, for this user in this shell. */
async function problemsOf(context: CliContext, { configFile }: Plan): Promise<string> {
  if (configFile === null) return "";
  const { issues } = await readConfig(context, { file: configFile });
  return renderIssues(issues, configFile);
}
