/**
 * Reads the source of an external plugin, after making sure that nobody but root and the current user could
 * have put it there.
 *
 * Invariant: the bytes that are returned come from the very inode that was checked (one open, fstat, read), so
 * what is hashed and imported is what was judged.
 */
import { createHash } from "node:crypto";
import {
  closeSync,
  constants,
  fstatSync,
  lstatSync,
  openSync,
  readFileSync,
  realpathSync,
  type Stats,
  statSync,
} from "node:fs";
import { dirname } from "node:path";
import { EXIT, errorCode, errorMessage, OperatorError } from "./errors.ts";

/** A plugin's source as it was checked. */
export interface PluginFile {
  /** Absolute, symbolic links resolved. */
  readonly path: string;
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** Of the bytes, 64 lower-case hexadecimal digits. */
  readonly sha256: string;
}

/** Far above any source file; keeps a wrong path (a database, a log) from being read into memory. */
const MAX_SOURCE_BYTES = 4 * 1024 * 1024;

const OTHERS_WRITE = 0o002;
const GROUP_WRITES = 0o020;
const STICKY = 0o1000;

/**
 * The file at `path` (absolute), symbolic links followed.
 * @throws OperatorError when it is missing, unreadable, not a regular file, or could have been written or
 *   swapped by another user; the message says which path and how to mend it
 */
export function readPluginFile(path: string): PluginFile {
  const real = realPath(path);
  // The path as written is checked too: whoever owns a link, or its directory, chooses where it leads.
  checkOwner(lstatSync(path), path);
  for (const directory of new Set([...parents(path), ...parents(real)])) checkDirectory(directory);
  const bytes = readChecked(real);
  return { path: real, bytes, sha256: createHash("sha256").update(bytes).digest("hex") };
}

function realPath(path: string): string {
  try {
    return realpathSync(path);
  } catch (error) {
    if (errorCode(error) === "ENOENT" || errorCode(error) === "ENOTDIR") {
      throw new OperatorError(
        EXIT.config,
        `plugin file ${path} does not exist`,
        "The path after `use` is relative to the directory of the config file.",
      );
    }
    throw unreadable(path, error);
  }
}

function unreadable(path: string, error: unknown): OperatorError {
  return new OperatorError(
    EXIT.permission,
    `plugin file ${path} cannot be read: ${errorMessage(error)}`,
    "The user that runs Gatehouse needs read access to it and to its directories.",
  );
}

/** Every directory above `path`, nearest first, up to `/`. */
function parents(path: string): string[] {
  const found: string[] = [];
  for (let at = dirname(path); ; at = dirname(at)) {
    found.push(at);
    if (at === dirname(at)) return found;
  }
}

function checkDirectory(directory: string): void {
  const stats = statSync(directory);
  checkOwner(stats, directory);
  // With the sticky bit (as on /tmp) others can add files but cannot replace ours.
  if ((stats.mode & STICKY) === 0) checkMode(stats, directory, "can swap the plugin file");
}

function readChecked(path: string): Uint8Array<ArrayBuffer> {
  const descriptor = open(path);
  try {
    const stats = fstatSync(descriptor);
    if (!stats.isFile()) {
      throw new OperatorError(
        EXIT.config,
        `plugin file ${path} is not a regular file`,
        "Name the .ts or .js file whose default export is the plugin.",
      );
    }
    if (stats.size > MAX_SOURCE_BYTES) {
      throw new OperatorError(EXIT.config, `plugin file ${path} is larger than 4 MiB`);
    }
    checkOwner(stats, path);
    checkMode(stats, path, "can change the plugin");
    return new Uint8Array(readFileSync(descriptor));
  } finally {
    closeSync(descriptor);
  }
}

function open(path: string): number {
  try {
    // NONBLOCK: opening a pipe must not wait for a writer. NOFOLLOW: links were resolved before.
    return openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  } catch (error) {
    throw unreadable(path, error);
  }
}

function checkOwner(stats: Stats, path: string): void {
  const self = process.getuid?.();
  if (self === undefined || stats.uid === 0 || stats.uid === self) return;
  throw new OperatorError(
    EXIT.permission,
    `${path} belongs to user ${stats.uid}, who could put another plugin there`,
    `It must belong to root or to the user that runs Gatehouse: chown ${self} ${path}`,
  );
}

function checkMode(stats: Stats, path: string, what: string): void {
  const groups = [0, process.getgid?.() ?? 0];
  const others = (stats.mode & OTHERS_WRITE) !== 0;
  const group = (stats.mode & GROUP_WRITES) !== 0 && !groups.includes(stats.gid);
  if (!others && !group) return;
  const mode = (stats.mode & 0o7777).toString(8).padStart(4, "0");
  const who = others ? "everyone" : `group ${stats.gid}`;
  throw new OperatorError(
    EXIT.permission,
    `${path} is writable by ${who} (mode ${mode}), who ${what}`,
    `Run: chmod go-w ${path}`,
  );
}
