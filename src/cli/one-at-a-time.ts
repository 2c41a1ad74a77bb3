/**
 * Work that may be asked for at any time and is done once at a time.
 *
 * Invariant: whoever asks while it is under way gets the next one, which begins after that; all who wait share it. There
 * are never two at once.
 */

/** @param work never rejects */
export function oneAtATime<Value>(work: () => Promise<Value>): () => Promise<Value> {
  let running: Promise<unknown> | null = null;
  let next: Promise<Value> | null = null;
  const start = (): Promise<Value> => {
    const begun = work().finally(() => {
      if (running === begun) running = null;
    });
    running = begun;
    return begun;
  };
  return () => {
    // First, because one may be due although the one before it is over already.
    if (next !== null) return next;
    if (running === null) return start();
    next = running.then(() => {
      next = null;
      return start();
    });
    return next;
  };
}
