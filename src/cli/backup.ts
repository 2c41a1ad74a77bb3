/**
 * `backup`: state, keys and configuration in one encrypted file, while the gateway runs.
 *
 * Invariant: nothing of it is on any disk unencrypted, and a file that has the name of a backup is a complete one.
 */
import { chmodSync, writeFileSync } from "node:fs";
import { hostname } from "node:os";
import { join, resolve } from "node:path";
import { systemClock } from "../clock.ts";
import { renderIssues } from "../config/explain.ts";
import type { LoadedConfig } from "../config/load.ts";
import { EXIT, type ExitCode, errorCode, OperatorError } from "../errors.ts";
import type { Steps } from "../store/snapshot.ts";
import type { AskHidden } from "./ask-hidden.ts";
import { asOwnerOf } from "./backup/as-owner.ts";
import { collectConfig } from "./backup/config-files.ts";
import { checkRecipient, type Lock, newIdentity } from "./backup/encryption.ts";
import type { Entry } from "./backup/entry.ts";
import { readConfig } from "./backup/loading.ts";
import { type Manifest, manifestOf, sum } from "./backup/manifest.ts";
import { fileOutput, isDirectory, type Output, standardOutput } from "./backup/out-file.ts";
import { pack } from "./backup/pack.ts";
import { hasPassphrase, newPassphrase, type PassphraseOptions } from "./backup/secrets.ts";
import { collectState } from "./backup/state-files.ts";
import { sizeText } from "./backup/words.ts";
import type { CliContext, CommonOptions } from "./context.ts";
import { COMMIT } from "./version.ts";

/** Options of `backup`. */
export interface BackupOptions extends CommonOptions, PassphraseOptions {
  /** `--out FILE`, `-` for standard output. */
  readonly out?: string;
  /** `--recipient age1…`, once for each. */
  readonly recipient?: readonly string[];
  /** `--force`: a file of that name is replaced. */
  readonly force?: boolean;
  /** `--new-identity FILE` instead of a backup. */
  readonly newIdentity?: string;
}

interface Gathered {
  readonly manifest: Manifest;
  readonly entries: readonly Entry[];
}

/** Prints the name of the file alone, or with `--json` an object; everything else goes to standard error. */
export async function backup(
  context: CliContext,
  options: BackupOptions,
  ask?: AskHidden,
): Promise<ExitCode> {
  if (options.newIdentity !== undefined) return makeIdentity(context, options.newIdentity);
  const loaded = await checkedConfig(context, options);
  const target = targetOf(context, options);
  const lock = await lockOf(context, options, ask);
  // From here on a signal takes back what was begun instead of ending the process.
  const { stop } = context;
  const output: Output =
    target === "-" ? standardOutput() : fileOutput(target, options.force === true);
  let bytes = 0;
  let gathered: Gathered | null = null;
  try {
    gathered = gather(context, loaded);
    const { manifest, entries } = gathered;
    const write = (chunk: Uint8Array): void => {
      bytes += chunk.length;
      output.write(chunk);
    };
    await pack({ manifest, entries, lock, stop, write });
    output.commit();
    report(context, options, { manifest, target, bytes });
    return EXIT.ok;
  } catch (error) {
    throw stop.aborted
      ? new OperatorError(EXIT.failure, "interrupted; nothing was written")
      : error;
  } finally {
    output.dispose();
    for (const entry of gathered?.entries ?? []) entry.close();
  }
}

/** Where and what, checked before a passphrase is asked for. */
function targetOf(context: CliContext, { out }: BackupOptions): string {
  if (out !== "-") {
    const time = new Date(systemClock.nowMs()).toISOString().replaceAll(/[-:]|\.\d+/g, "");
    const path = resolve(context.cwd, out ?? ".");
    return isDirectory(path) ? join(path, `gatehouse-${time}.backup.age`) : path;
  }
  if (!context.stdoutIsTerminal) return out;
  throw new OperatorError(
    EXIT.usage,
    "standard output is a terminal, and a backup is no text",
    "Send it somewhere: gatehouse backup --out - | ssh …, or name a file.",
  );
}

async function checkedConfig(
  context: CliContext,
  { config, preset }: BackupOptions,
): Promise<LoadedConfig> {
  const loaded = await readConfig(context, {
    file: config ?? null,
    depth: "shape",
    ...(preset === undefined ? {} : { preset: { name: preset, flags: {} } }),
  });
  if (loaded.config !== null) return loaded;
  const shown = preset ?? config ?? loaded.file;
  throw new OperatorError(EXIT.config, renderIssues(loaded.issues, shown).trimEnd());
}

async function lockOf(
  context: CliContext,
  options: BackupOptions,
  ask: AskHidden | undefined,
): Promise<Lock> {
  const recipients = options.recipient ?? [];
  if (recipients.length === 0) return { passphrase: await newPassphrase(context, options, ask) };
  if (hasPassphrase(options)) {
    throw new OperatorError(
      EXIT.usage,
      "--recipient and a passphrase exclude each other",
      "A file of age has either one passphrase or public keys.",
    );
  }
  for (const recipient of recipients) await checkRecipient(recipient);
  return { recipients };
}

function gather(context: CliContext, loaded: LoadedConfig): Gathered {
  const stateDir = loaded.config?.stateDir ?? "";
  // Before anything is read: what was acknowledged until then is in it.
  const createdAt = new Date(systemClock.nowMs()).toISOString();
  const state = asOwnerOf(stateDir, () => collectState(stateDir));
  const config = collectConfig(loaded, stateDir);
  const entries = [...config.entries, ...state.entries];
  const steps: Record<string, Steps> = {};
  for (const { file, steps: own } of entries) if (file.isDatabase) steps[file.name] = own;
  const manifest = manifestOf({
    madeBy: { version: context.version, commit: COMMIT },
    createdAt,
    host: hostname(),
    configFile: loaded.file,
    stateDir,
    configEntry: config.configEntry,
    steps,
    files: entries.map(({ file }) => file),
    leftOut: [...config.leftOut, ...state.leftOut],
  });
  return { manifest, entries };
}

function report(
  context: CliContext,
  { json }: BackupOptions,
  done: { readonly manifest: Manifest; readonly target: string; readonly bytes: number },
): void {
  const { manifest, target, bytes } = done;
  const { files, leftOut } = manifest;
  const isFile = target !== "-";
  if (json === true) {
    const facts = {
      file: isFile ? target : null,
      bytes,
      created_at: manifest.createdAt,
      files: files.map(({ name }) => name),
      not_included: leftOut,
    };
    // Standard output is the backup itself when it goes there.
    (isFile ? context.out : context.err)(`${JSON.stringify(facts, null, 2)}\n`);
    return;
  }
  if (isFile) context.out(`${target}\n`);
  const count = files.length === 1 ? "1 file" : `${files.length} files`;
  context.err(`Backup of ${count} (${sizeText(sum(files))}), encrypted ${sizeText(bytes)}.\n`);
  if (!files.some(({ name }) => name.startsWith("state/"))) {
    context.err(`There is no state in ${manifest.stateDir} yet.\n`);
  }
  if (leftOut.length === 0) return;
  context.err("Not in it, and needed where it is restored:\n");
  for (const line of leftOut) context.err(`  ${line}\n`);
}

/** `backup --new-identity FILE`: the file has the secret key; its public key is printed, alone. */
async function makeIdentity(context: CliContext, file: string): Promise<ExitCode> {
  const path = resolve(context.cwd, file);
  const { identity, recipient } = await newIdentity();
  const created = new Date(systemClock.nowMs()).toISOString();
  const text = `# created: ${created}\n# public key: ${recipient}\n${identity}\n`;
  try {
    writeFileSync(path, text, { flag: "wx", mode: 0o600, flush: true });
    // Whatever the umask says.
    chmodSync(path, 0o600);
  } catch (error) {
    const code = errorCode(error);
    throw new OperatorError(
      EXIT.cannotCreate,
      code === "EEXIST"
        ? `${path} is there already; it is not written over`
        : `cannot create ${path}: ${code}`,
    );
  }
  context.out(`${recipient}\n`);
  context.err(
    `The secret key is in ${path}. Keep it away from this machine: without it nobody reads the backups.\n` +
      `Now: gatehouse backup --recipient ${recipient}\n`,
  );
  return EXIT.ok;
}
