/**
 * Room for signals in work that never waits for anything.
 *
 * Invariant: costs microseconds; without it a chain of streams that are always ready would run to its end first.
 */

/** Resolves after the runtime has looked for signals. */
export function letSignalsIn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
