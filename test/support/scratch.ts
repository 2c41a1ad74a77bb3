/**
 * Directories of tests.
 *
 * Invariant: a test file that takes one says `afterAll(removeScratch)`; here it would be said once for all files.
 */
import { rmSync } from "node:fs";
import { temporaryDirectory } from "./host.ts";

const made = new Set<string>();

/** A new, empty one. */
export function scratchDirectory(): string {
  const directory = temporaryDirectory();
  made.add(directory);
  return directory;
}

/** Removes all of them, with what is in them. */
export function removeScratch(): void {
  for (const directory of made) rmSync(directory, { recursive: true, force: true });
  made.clear();
}
