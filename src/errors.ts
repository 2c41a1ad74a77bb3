/**
 * Errors that end a command, and the exit codes they end it with.
 *
 * Invariant: the message is for the operator, in one line, and never holds a secret. Programmer mistakes stay
 * `TypeError`; what a client did wrong is a value (see respond.ts), never one of these.
 */

/** sysexits(3) where it has a number; 3 is ours: a check came out negative. */
export const EXIT = {
  ok: 0,
  failure: 1,
  usage: 2,
  negative: 3,
  unavailable: 69,
  cannotCreate: 73,
  permission: 77,
  config: 78,
} as const;

export type ExitCode = (typeof EXIT)[keyof typeof EXIT];

/** Ends a command: `message` on standard error, then `hint` if there is one. */
export class OperatorError extends Error {
  readonly exitCode: ExitCode;
  /** What to do about it. */
  readonly hint: string | undefined;
  constructor(exitCode: ExitCode, message: string, hint?: string) {
    super(message);
    this.name = "OperatorError";
    this.exitCode = exitCode;
    this.hint = hint;
  }
}

/** Errors that say that something else is down, rather than that the configuration is wrong. */
const UNAVAILABLE =
  /^(ECONN\w+|ETIMEDOUT|EHOSTUNREACH|ENETUNREACH|ENOTFOUND|EAI_AGAIN|OFFLINE|LOADING|MASTERDOWN|CLUSTERDOWN|OOM|MISCONF|NOREPLICAS)$/;

/** The exit code of a start that failed so. */
export function startExitCode(error: unknown): ExitCode {
  if (error instanceof OperatorError) return error.exitCode;
  return UNAVAILABLE.test(errorCode(error) ?? "") ? EXIT.unavailable : EXIT.config;
}

/** The `code` of a system error such as `ENOENT`, or undefined. */
export function errorCode(error: unknown): string | undefined {
  if (typeof error !== "object" || error === null || !("code" in error)) return undefined;
  return typeof error.code === "string" ? error.code : undefined;
}

/** The message of anything that was thrown. */
export function errorMessage(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
