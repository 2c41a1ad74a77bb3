/**
 * What an error of SQLite is, by its code.
 *
 * Invariant: reads errors, whatever was thrown, and throws nothing.
 */

/** Whether SQLite said that somebody else holds the lock. */
export function isBusy(error: unknown): boolean {
  return codeOf(error).startsWith("SQLITE_BUSY");
}

/** `SQLITE_…` or `unknown`. */
export function codeOf(error: unknown): string {
  if (typeof error !== "object" || error === null || !("code" in error)) return "unknown";
  return String(error.code);
}
