/**
 * Reading a file that a configuration names, also while a gateway is serving.
 *
 * Invariant: never waits (a pipe that nobody writes to would stop every request) and never reads without an end, so only
 * regular files are read, and of those no more than the caller allows.
 */
import { closeSync, constants, fstatSync, openSync, readFileSync } from "node:fs";

/** More than any certificate chain, bundle of authorities or settings file that people keep. */
const MAX_FILE_BYTES = 16_777_216;

/**
 * The text of a regular file of at most 16 MiB.
 * @throws what node:fs throws; an Error whose `code` says it in words when it is something else or larger
 */
export function readRegularFile(path: string): string {
  const descriptor = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  try {
    const status = fstatSync(descriptor);
    if (status.isDirectory()) throw unfit(path, "EISDIR");
    if (!status.isFile()) throw unfit(path, "not a regular file");
    if (status.size > MAX_FILE_BYTES) throw unfit(path, "larger than 16 MiB");
    return readFileSync(descriptor, "utf8");
  } finally {
    closeSync(descriptor);
  }
}

function unfit(path: string, code: string): Error {
  return Object.assign(new Error(`${path}: ${code}`), { code });
}
