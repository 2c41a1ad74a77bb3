/**
 * The mark that a restore leaves in the state directory while it swaps files.
 *
 * Invariant: as long as the mark is there, nobody opens the state: between two of its files may lie a power cut, and
 * tokens of one day with the key of another let nobody in, or the wrong ones.
 */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { EXIT, OperatorError } from "../errors.ts";

/** Name of the mark in the state directory. */
export const RESTORE_MARK = "restore.pending";

/** @throws OperatorError when a restore of this directory was interrupted, or is under way */
export function refuseUnfinishedRestore(stateDir: string): void {
  if (!existsSync(join(stateDir, RESTORE_MARK))) return;
  throw new OperatorError(
    EXIT.failure,
    `a restore of ${stateDir} was interrupted, or is under way`,
    "If none is running, `gatehouse restore --undo` brings back what was there before; so does the next restore.",
  );
}
