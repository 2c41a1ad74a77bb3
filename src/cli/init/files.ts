/**
 * Files and directories that a set-up makes.
 *
 * Invariant: a file is there whole, with its mode, or not at all; one that is there is replaced only when that was
 * asked for; what is said about a failure names the place and what to do.
 */
import { createHash, randomBytes } from "node:crypto";
import {
  chmodSync,
  chownSync,
  closeSync,
  existsSync,
  fchmodSync,
  fsyncSync,
  linkSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeSync,
} from "node:fs";
import { basename, dirname, join } from "node:path";
import { EXIT, errorCode, errorMessage, OperatorError } from "../../errors.ts";

/** Puts `text` there; what is there already is never written over. @throws OperatorError */
export function createFile(path: string, text: string, mode: number): void {
  writeBeside(path, text, mode, (draft) => {
    linkSync(draft, path);
    rmSync(draft);
  });
}

/** Puts `text` in the place of what is there, in one step; the owner stays. @throws OperatorError */
export function replaceFile(path: string, text: string, mode: number): void {
  const before = statSync(path, { throwIfNoEntry: false });
  writeBeside(path, text, mode, (draft) => {
    if (before !== undefined && process.geteuid?.() === 0) chownSync(draft, before.uid, before.gid);
    renameSync(draft, path);
  });
}

/**
 * The directory with its parents.
 * @returns those that were made, outermost first
 * @throws OperatorError; what was made before that is removed again
 */
export function makeDirectories(path: string, mode: number): readonly string[] {
  const missing = missingDirectories(path);
  const made: string[] = [];
  try {
    for (const dir of missing) {
      mkdirSync(dir, { mode });
      made.push(dir);
      // A umask may have taken bits away that the owner needs.
      chmodSync(dir, mode);
    }
    if (made.length > 0) syncDirectory(dirname(made[0] ?? path));
    return made;
  } catch (error) {
    for (const dir of made.toReversed()) rmSync(dir, { recursive: true, force: true });
    throw unwritable(path, error);
  }
}

/** Those of a directory and its parents that are not there, outermost first. */
export function missingDirectories(path: string): readonly string[] {
  const missing: string[] = [];
  for (let at = path; !existsSync(at); at = dirname(at)) missing.unshift(at);
  return missing;
}

/** SHA-256 of a file in hex; null when it is not there or cannot be read. */
export function fileSum(path: string): string | null {
  try {
    return sumOf(readFileSync(path));
  } catch {
    return null;
  }
}

/** SHA-256 in hex. */
export function sumOf(content: string | Uint8Array): string {
  return createHash("sha256").update(content).digest("hex");
}

/** Why something cannot be written, with the exit code that says so. */
export function unwritable(path: string, error: unknown): OperatorError {
  if (error instanceof OperatorError) return error;
  const code = errorCode(error) ?? errorMessage(error);
  const isDenied = code === "EACCES" || code === "EPERM";
  const hints: Readonly<Record<string, string>> = {
    EROFS: "The file system is read-only: choose another place with --dir DIR.",
    ENOSPC: "The disk is full: make room, then run init again.",
    EDQUOT: "Your share of the disk is used up: make room, then run init again.",
    EEXIST: "There is something of this name already, and init never writes over it.",
    ENOTDIR: "A part of the path is not a directory: choose another place with --dir DIR.",
  };
  const denied = "Run it with sudo, or choose a place of your own with --dir DIR.";
  return new OperatorError(
    isDenied ? EXIT.permission : EXIT.cannotCreate,
    `cannot write ${path}: ${code}`,
    hints[code] ?? (isDenied ? denied : undefined),
  );
}

function writeBeside(
  path: string,
  text: string,
  mode: number,
  putInPlace: (draft: string) => void,
): void {
  const draft = join(dirname(path), `.${basename(path)}.${randomBytes(6).toString("hex")}`);
  try {
    const file = openSync(draft, "wx", 0o600);
    try {
      let rest: Uint8Array = Buffer.from(text);
      while (rest.length > 0) rest = rest.subarray(writeSync(file, rest));
      fchmodSync(file, mode);
      fsyncSync(file);
    } finally {
      closeSync(file);
    }
    putInPlace(draft);
    syncDirectory(dirname(path));
  } catch (error) {
    rmSync(draft, { force: true });
    throw unwritable(path, error);
  }
}

/** So that names survive a power cut, too. */
function syncDirectory(path: string): void {
  const file = openSync(path, "r");
  try {
    fsyncSync(file);
  } finally {
    closeSync(file);
  }
}
