/**
 * Keys of this gateway: 32 random bytes in a file of their own, outside the database, so that a copy of the
 * database alone is worth nothing.
 *
 * Invariant: a key file appears complete or not at all, and the first one made wins: processes that race for the
 * same name end with the same key. A key is never replaced.
 */
import { randomBytes } from "node:crypto";
import {
  closeSync,
  constants,
  fchmodSync,
  fstatSync,
  fsyncSync,
  linkSync,
  openSync,
  readSync,
  unlinkSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";
import { EXIT, errorCode, errorMessage, OperatorError } from "../errors.ts";
import { prepareStateDir, refuseOpenFile } from "./state-dir.ts";

const KEY_BYTES = 32;

/**
 * The key `<stateDir>/<name>.key`, made on first use. The same name always yields the same bytes.
 * @throws OperatorError when the file is open to others, not ours or not 32 bytes long
 * @throws TypeError when `name` is not a lower-case slug
 */
export function stateKey(stateDir: string, name: string): Uint8Array;
/** The same; with `isMade: false` a key that is not there is `null` and none is made. */
export function stateKey(
  stateDir: string,
  name: string,
  options: { readonly isMade: boolean },
): Uint8Array | null;
export function stateKey(
  stateDir: string,
  name: string,
  options: { readonly isMade: boolean } = { isMade: true },
): Uint8Array | null {
  if (!/^[a-z][a-z0-9_-]{0,62}$/.test(name))
    throw new TypeError("a key's name is a lower-case slug");
  prepareStateDir(stateDir);
  const path = join(stateDir, `${name}.key`);
  const existing = readKey(path);
  if (existing !== null || !options.isMade) return existing;
  makeKey(stateDir, path);
  const made = readKey(path);
  if (made === null)
    throw new OperatorError(EXIT.cannotCreate, `${path} vanished after it was made`);
  return made;
}

function readKey(path: string): Uint8Array | null {
  const file = openExisting(path);
  if (file === null) return null;
  try {
    const stats = fstatSync(file);
    refuseOpenFile(path, stats);
    const key = new Uint8Array(KEY_BYTES);
    if (stats.size !== KEY_BYTES || readSync(file, key, 0, KEY_BYTES, 0) !== KEY_BYTES) {
      throw new OperatorError(
        EXIT.failure,
        `${path} is damaged: ${stats.size} bytes, expected ${KEY_BYTES}`,
        "Restore it from the backup. A new key would make every stored credential useless.",
      );
    }
    return key;
  } finally {
    closeSync(file);
  }
}

function openExisting(path: string): number | null {
  try {
    return openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW);
  } catch (error) {
    const code = errorCode(error);
    if (code === "ENOENT") return null;
    throw new OperatorError(EXIT.permission, `cannot read ${path}: ${code ?? errorMessage(error)}`);
  }
}

/** A complete file is linked to its name; `link` fails when the name is taken, `rename` would replace a key. */
function makeKey(stateDir: string, path: string): void {
  const draft = join(stateDir, `.key-${randomBytes(8).toString("hex")}`);
  try {
    writeDurably(draft, randomBytes(KEY_BYTES));
    try {
      linkSync(draft, path);
    } catch (error) {
      if (errorCode(error) !== "EEXIST") throw error;
    }
    syncDir(stateDir);
  } catch (error) {
    throw new OperatorError(
      EXIT.cannotCreate,
      `cannot create ${path}: ${errorCode(error) ?? errorMessage(error)}`,
    );
  } finally {
    removeQuietly(draft);
  }
}

function writeDurably(path: string, bytes: Uint8Array): void {
  const file = openSync(
    path,
    constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW,
    0o600,
  );
  try {
    fchmodSync(file, 0o600);
    if (writeSync(file, bytes) !== bytes.length) throw new Error("short write");
    fsyncSync(file);
  } finally {
    closeSync(file);
  }
}

function syncDir(path: string): void {
  const dir = openSync(path, constants.O_RDONLY);
  try {
    fsyncSync(dir);
  } finally {
    closeSync(dir);
  }
}

function removeQuietly(path: string): void {
  try {
    unlinkSync(path);
  } catch {
    // It was never made, or a full disk keeps it: an unused random file in a directory of mode 0700.
  }
}
