/**
 * Where `backup` and `restore` get the passphrase or the secret key from.
 *
 * Invariant: a secret is never an argument and never part of a message; a file that others can read is refused.
 */
import { closeSync, fstatSync, openSync, readSync } from "node:fs";
import { resolve } from "node:path";
import { isSingleReference, resolveReferences } from "../../config/references.ts";
import { EXIT, errorCode, OperatorError } from "../../errors.ts";
import { type AskHidden, askHidden } from "../ask-hidden.ts";
import type { CliContext } from "../context.ts";

/** Options that say where a passphrase is. */
export interface PassphraseOptions {
  /** `--passphrase REFERENCE`: `${env:NAME}`, `${file:/path}` or `${cred:name}`. */
  readonly passphrase?: string;
  /** `--passphrase-file FILE`, `-` for standard input. */
  readonly passphraseFile?: string;
}

/** Who has the file can try passphrases at leisure. */
const MIN_PASSPHRASE_CHARACTERS = 12;
const MAX_FILE_BYTES = 64 * 1024;

/** Whether the options name a passphrase. */
export function hasPassphrase(options: PassphraseOptions): boolean {
  return options.passphrase !== undefined || options.passphraseFile !== undefined;
}

/**
 * The passphrase for a new backup, asked for twice on a terminal.
 * @throws OperatorError when there is none, or it is short enough to be guessed
 */
export async function newPassphrase(
  context: CliContext,
  options: PassphraseOptions,
  ask: AskHidden = askHidden("passphrase"),
): Promise<string> {
  const given = await givenPassphrase(context, options);
  const passphrase = given ?? (await asked(context, ask, "Passphrase of the backup: "));
  if (passphrase.length < MIN_PASSPHRASE_CHARACTERS) {
    throw new OperatorError(
      EXIT.usage,
      `the passphrase has fewer than ${MIN_PASSPHRASE_CHARACTERS} characters`,
      "Whoever has the file can try as many as they like. Take five random words, or --recipient.",
    );
  }
  if (given === null && (await ask("The same again: ")) !== passphrase) {
    throw new OperatorError(EXIT.usage, "the two passphrases differ; nothing was written");
  }
  return passphrase;
}

/** The passphrase of a backup that there is. @throws OperatorError when there is none */
export async function existingPassphrase(
  context: CliContext,
  options: PassphraseOptions,
  ask: AskHidden = askHidden("passphrase"),
): Promise<string> {
  return (await givenPassphrase(context, options)) ?? asked(context, ask, "Passphrase: ");
}

async function asked(context: CliContext, ask: AskHidden, question: string): Promise<string> {
  if (context.stdinIsTerminal) return ask(question);
  throw new OperatorError(
    EXIT.usage,
    "no passphrase: there is no terminal to ask on",
    "Use --passphrase-file FILE, or --passphrase '${env:NAME}'; for a timer --recipient age1… is better: the machine then holds no secret.",
  );
}

async function givenPassphrase(
  context: CliContext,
  { passphrase, passphraseFile }: PassphraseOptions,
): Promise<string | null> {
  if (passphrase !== undefined && passphraseFile !== undefined) {
    throw new OperatorError(EXIT.usage, "--passphrase and --passphrase-file are both given");
  }
  if (passphrase !== undefined) return referenced(context, passphrase);
  if (passphraseFile === undefined) return null;
  const text =
    passphraseFile === "-" ? await context.readStdin() : readSecretFile(context, passphraseFile);
  const line = text.replace(/\r?\n$/, "");
  if (line.trim() !== "" && !/[\r\n\0]/.test(line)) return line;
  throw new OperatorError(EXIT.usage, "--passphrase-file: expected one line that is not blank");
}

function referenced({ env, cwd }: CliContext, text: string): string {
  if (!isSingleReference(text)) {
    throw new OperatorError(
      EXIT.usage,
      "--passphrase takes a reference: the shell's history and the process list keep a passphrase that is an argument",
      "Write '${env:NAME}', '${file:/path}' or '${cred:name}'. If that was a real one, take it for known to others.",
    );
  }
  const resolved = resolveReferences(text, { env, configDir: cwd });
  if ("value" in resolved) return resolved.value;
  throw new OperatorError(EXIT.usage, `--passphrase: ${resolved.problem}`);
}

/** The secret keys in a file as `age-keygen` writes it. @throws OperatorError when there is none */
export function readIdentities(context: CliContext, file: string): readonly string[] {
  const text = readSecretFile(context, file);
  const lines = text.split(/\r?\n/).map((line) => line.trim());
  const identities = lines.filter((line) => line !== "" && !line.startsWith("#"));
  const isKnown = (line: string): boolean => /^AGE-SECRET-KEY-(?:PQ-)?1[0-9A-Z]+$/.test(line);
  if (identities.length > 0 && identities.every(isKnown)) return identities;
  const isEncrypted = /^age-encryption\.org|^-----BEGIN AGE/.test(text);
  throw new OperatorError(
    EXIT.usage,
    isEncrypted
      ? `${file} is itself encrypted`
      : `${file} holds no secret key of age (AGE-SECRET-KEY-1…)`,
    isEncrypted ? `Decrypt it first: age -d ${file}` : undefined,
  );
}

/** A pipe is read as well: `--identity <(pass show backup)`. */
function readSecretFile(context: CliContext, file: string): string {
  let descriptor: number;
  try {
    descriptor = openSync(resolve(context.cwd, file), "r");
  } catch (error) {
    throw new OperatorError(EXIT.usage, `${file} cannot be read (${errorCode(error)})`);
  }
  try {
    const stats = fstatSync(descriptor);
    if (stats.isDirectory()) throw new OperatorError(EXIT.usage, `${file} is a directory`);
    if (process.platform !== "win32" && stats.isFile() && (stats.mode & 0o077) !== 0) {
      throw new OperatorError(
        EXIT.permission,
        `${file} can be read by others`,
        `Run: chmod 600 ${file}`,
      );
    }
    return readAll(descriptor, file);
  } finally {
    closeSync(descriptor);
  }
}

function readAll(descriptor: number, file: string): string {
  const buffer = Buffer.alloc(MAX_FILE_BYTES + 1);
  let length = 0;
  while (length < buffer.length) {
    const count = readSync(descriptor, buffer, length, buffer.length - length, null);
    if (count === 0) return buffer.toString("utf8", 0, length);
    length += count;
  }
  throw new OperatorError(EXIT.usage, `${file} is too long to be a secret`);
}
