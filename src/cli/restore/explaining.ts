/**
 * Why something of a restore could not be written, in words.
 *
 * Invariant: what was already said to the operator is said as it is.
 */
import { EXIT, type ExitCode, errorCode, errorMessage, OperatorError } from "../../errors.ts";

/** What is said around the reason. */
export interface Attempt {
  /** `the state cannot be written to /var/lib/gatehouse`. */
  readonly failed: string;
  /** Where it is not a right that is missing. */
  readonly exitCode: ExitCode;
  readonly hint: string;
}

const REASONS: Readonly<Record<string, string>> = {
  ENOSPC: "the disk is full",
  EDQUOT: "the quota is used up",
  EACCES: "this user may not write there",
  EPERM: "this user may not write there",
  EROFS: "the file system is read-only",
  ENOTDIR: "a part of its path is no directory",
  EBUSY: "a file in it is a mount of its own",
};

/** @throws OperatorError instead of a system error of `work` */
export function explaining<T>({ failed, exitCode, hint }: Attempt, work: () => T): T {
  try {
    return work();
  } catch (error) {
    if (error instanceof OperatorError) throw error;
    const code = errorCode(error) ?? "";
    throw new OperatorError(
      /^E(?:ACCES|PERM)$/.test(code) ? EXIT.permission : exitCode,
      `${failed}: ${REASONS[code] ?? errorMessage(error)}`,
      hint,
    );
  }
}
