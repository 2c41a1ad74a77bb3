/**
 * One file on its way into a backup.
 *
 * Invariant: what is packed is, byte for byte, what was hashed; a file that changes in between ends the backup instead
 * of getting into it.
 */
import { createHash } from "node:crypto";
import { closeSync, constants, fstatSync, openSync, readSync } from "node:fs";
import { EXIT, errorCode, OperatorError } from "../../errors.ts";
import { type Snapshot, type Steps, takeSnapshot } from "../../store/snapshot.ts";
import type { ManifestFile } from "./manifest.ts";

/** A file as the manifest names it, with its content. */
export interface Entry {
  readonly file: ManifestFile;
  /** Empty unless it is a state database. */
  readonly steps: Steps;
  /** From the beginning, each time. @throws OperatorError when the content is not the one that was hashed */
  chunks(): Iterable<Uint8Array>;
  /** Idempotent. */
  close(): void;
}

const CHUNK_BYTES = 64 * 1024;
/** Smaller files are kept in memory from the first reading. */
const KEPT_BYTES = 1024 * 1024;
const SQLITE_MAGIC = "SQLite format 3\0";

/**
 * The regular file at `path`; a link is not followed.
 * @returns null when it is not there any more, or no regular file
 * @throws OperatorError when it cannot be read
 */
export function fileEntry(name: string, path: string): Entry | null {
  const descriptor = openRegular(path);
  if (descriptor === null) return null;
  const stats = fstatSync(descriptor);
  // Append-only files grow while they are read: the backup has what was there at the start.
  const bytes = stats.size;
  const kept = bytes <= KEPT_BYTES ? Buffer.concat([...chunksOf(descriptor, bytes, path)]) : null;
  if (kept !== null) closeSync(descriptor);
  let isOpen = kept === null;
  const read = (): Iterable<Uint8Array> =>
    kept === null ? chunksOf(descriptor, bytes, path) : [kept];
  const sha256 = hashOf(read());
  const mode = (stats.mode & 0o777).toString(8).padStart(3, "0");
  return {
    file: { name, bytes, sha256, mode, isDatabase: false },
    steps: {},
    chunks: () => unchanged(read(), sha256, path),
    close() {
      if (isOpen) closeSync(descriptor);
      isOpen = false;
    },
  };
}

/** The SQLite file at `path`, as it is at this moment. @throws OperatorError when it cannot be read */
export function databaseEntry(name: string, path: string, scratchDir: string): Entry {
  const snapshot: Snapshot = takeSnapshot(path, { scratchDir });
  const sha256 = hashOf(snapshot.chunks());
  return {
    file: { name, bytes: snapshot.bytes, sha256, mode: "600", isDatabase: true },
    steps: snapshot.steps,
    chunks: () => snapshot.chunks(),
    close: () => snapshot.close(),
  };
}

/** Whether the file is an SQLite database. Must not be asked while this process has it open: locks would be lost. */
export function isDatabase(path: string): boolean {
  const descriptor = openRegular(path);
  if (descriptor === null) return false;
  try {
    const head = Buffer.alloc(SQLITE_MAGIC.length);
    const count = readSync(descriptor, head, 0, head.length, 0);
    return head.toString("latin1", 0, count) === SQLITE_MAGIC;
  } finally {
    closeSync(descriptor);
  }
}

/** NONBLOCK: a pipe must not hold us up. */
function openRegular(path: string): number | null {
  const flags = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK;
  let descriptor: number;
  try {
    descriptor = openSync(path, flags);
  } catch (error) {
    const code = errorCode(error);
    if (code === "ENOENT" || code === "ELOOP" || code === "ENXIO") return null;
    throw new OperatorError(EXIT.permission, `${path} cannot be read (${code})`);
  }
  if (fstatSync(descriptor).isFile()) return descriptor;
  closeSync(descriptor);
  return null;
}

function* chunksOf(descriptor: number, bytes: number, path: string): Iterable<Uint8Array> {
  for (let at = 0; at < bytes; ) {
    const chunk = new Uint8Array(Math.min(CHUNK_BYTES, bytes - at));
    const count = readSync(descriptor, chunk, 0, chunk.length, at);
    if (count === 0) throw changed(path);
    at += count;
    yield chunk.subarray(0, count);
  }
}

function* unchanged(
  chunks: Iterable<Uint8Array>,
  sha256: string,
  path: string,
): Iterable<Uint8Array> {
  const hash = createHash("sha256");
  for (const chunk of chunks) {
    hash.update(chunk);
    yield chunk;
  }
  if (hash.digest("hex") !== sha256) throw changed(path);
}

function hashOf(chunks: Iterable<Uint8Array>): string {
  const hash = createHash("sha256");
  for (const chunk of chunks) hash.update(chunk);
  return hash.digest("hex");
}

function changed(path: string): OperatorError {
  return new OperatorError(
    EXIT.unavailable,
    `${path} was changed while it was read`,
    "Run the backup again.",
  );
}
