/**
 * Is the open database still the file that its path names?
 *
 * Invariant: once another file lies there, or none, that is an error within {@link LOOK_EVERY_MS}. Whoever restores a
 * backup under a running gateway would otherwise revoke tokens in one file while the gateway reads another.
 */
import type { Database } from "bun:sqlite";
import { statSync } from "node:fs";

/** A look costs a system call, which is too much for each request; a file is not swapped and written in less. */
const LOOK_EVERY_MS = 200;

/** Its name stands in the log line of each request that it refuses. */
export class StateDatabaseReplaced extends Error {
  constructor(path: string) {
    super(`${path} is not the file that was opened at the start any more: restart the gateway`);
    this.name = "StateDatabaseReplaced";
  }
}

/** What looks, and throws a {@link StateDatabaseReplaced}. A file that is moved back is fine again. */
export function sameFile(database: Database): () => void {
  const path = database.filename;
  const opened = fileAt(path);
  let lookedMs = performance.now();
  return () => {
    const nowMs = performance.now();
    if (nowMs - lookedMs < LOOK_EVERY_MS) return;
    if (fileAt(path) !== opened) throw new StateDatabaseReplaced(path);
    // Only now: while it is gone, every request looks again.
    lookedMs = nowMs;
  };
}

/** Device and number of the file; empty when there is none. */
function fileAt(path: string): string {
  const status = statSync(path, { bigint: true, throwIfNoEntry: false });
  return status === undefined ? "" : `${status.dev}:${status.ino}`;
}
