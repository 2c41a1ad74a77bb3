/**
 * Where commands get a secret Nostr key from: a file, the environment, or a question on the terminal.
 *
 * Invariant: a key is never an argument, never printed and never part of a message; a file that others can read is
 * refused, not warned about.
 */
import {
  closeSync,
  constants,
  fchmodSync,
  fstatSync,
  openSync,
  readFileSync,
  writeSync,
} from "node:fs";
import { resolve } from "node:path";
import { decode, npubEncode, nsecEncode } from "nostr-tools/nip19";
import { generateSecretKey, getPublicKey } from "nostr-tools/pure";
import { EXIT, errorCode, OperatorError } from "../errors.ts";
import { type AskHidden, askHidden } from "./ask-hidden.ts";
import type { CliContext } from "./context.ts";

export type { AskHidden };

/** Options of every command that signs. */
export interface KeyOptions {
  /** `--key-file FILE`. */
  readonly keyFile?: string;
}

const VARIABLES = ["NOSTR_NSEC", "NOSTR_SECRET_KEY"] as const;
const MAX_FILE_BYTES = 4096;

/**
 * The key in `--key-file`, else in NOSTR_NSEC or NOSTR_SECRET_KEY, else what is typed on a terminal: nsec1… or 64 hex
 * digits.
 * @throws OperatorError when there is none, or what is there is no key
 */
export async function secretKey(
  context: CliContext,
  options: KeyOptions,
  ask: AskHidden = askHidden("secret key"),
): Promise<Uint8Array> {
  if (options.keyFile !== undefined) {
    const path = resolve(context.cwd, options.keyFile);
    return parseKey(readKeyFile(path), path);
  }
  for (const name of VARIABLES) {
    const value = context.env[name];
    if (value !== undefined && value.trim() !== "") return parseKey(value, `the variable ${name}`);
  }
  if (context.stdinIsTerminal)
    return parseKey(await ask("Secret key (nsec1…): "), "what was typed");
  throw new OperatorError(
    EXIT.usage,
    "no secret key: use --key-file FILE or set NOSTR_NSEC",
    "Make one with: gatehouse npub new --key-file FILE",
  );
}

/** Makes a key and writes it to `path`, mode 0600, which must not be there. Returns its npub. @throws OperatorError */
export function newKeyFile(path: string): string {
  const secret = generateSecretKey();
  const flags = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL;
  let file: number;
  try {
    file = openSync(path, flags, 0o600);
  } catch (error) {
    const code = errorCode(error);
    const isThere = code === "EEXIST";
    throw new OperatorError(
      isThere ? EXIT.usage : EXIT.cannotCreate,
      isThere
        ? `${path} is there already; it is not written over`
        : `cannot create ${path}: ${code}`,
    );
  }
  try {
    // Whatever the umask says.
    fchmodSync(file, 0o600);
    writeSync(file, `${nsecEncode(secret)}\n`);
  } finally {
    closeSync(file);
  }
  return npubEncode(getPublicKey(secret));
}

/** Checked and read through one descriptor, so that what was checked is what is read. */
function readKeyFile(path: string): string {
  let file: number;
  try {
    file = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  } catch (error) {
    throw new OperatorError(EXIT.usage, `key file ${path} cannot be read (${errorCode(error)})`);
  }
  try {
    const stats = fstatSync(file);
    if (!stats.isFile()) throw new OperatorError(EXIT.usage, `key file ${path} is no regular file`);
    if (process.platform !== "win32" && (stats.mode & 0o077) !== 0) {
      throw new OperatorError(
        EXIT.permission,
        `key file ${path} can be read by others`,
        `Run: chmod 600 ${path}`,
      );
    }
    if (stats.size > MAX_FILE_BYTES) {
      throw new OperatorError(EXIT.usage, `key file ${path} is too long to be a key`);
    }
    return readFileSync(file, "utf8");
  } finally {
    closeSync(file);
  }
}

function parseKey(text: string, place: string): Uint8Array {
  const key = text.trim();
  const secret = /^[0-9a-f]{64}$/i.test(key) ? Buffer.from(key, "hex") : decoded(key);
  try {
    if (secret !== null && getPublicKey(secret) !== "") return secret;
  } catch {
    // Zero, or not below the order of the curve.
  }
  throw new OperatorError(
    EXIT.usage,
    `${place} holds no secret key: expected nsec1… or 64 hex digits`,
  );
}

function decoded(nsec: string): Uint8Array | null {
  try {
    const { type, data } = decode(nsec.toLowerCase());
    return type === "nsec" ? data : null;
  } catch {
    return null;
  }
}
