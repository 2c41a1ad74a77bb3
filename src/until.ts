/**
 * Waiting for something that nobody announces: the last connection to go, the last answer to be given.
 *
 * Invariant: it ends, at the latest when the time is up; only for the ends of things, never on the way of a request.
 */

const LOOK_MS = 20;

/** Resolves when `isDone` says so or after `withinMs`, which may be Infinity. */
export function until(isDone: () => boolean, withinMs: number): Promise<void> {
  const endMs = performance.now() + withinMs;
  return new Promise((resolve) => {
    const look = (): void => {
      if (isDone() || performance.now() >= endMs) resolve();
      else setTimeout(look, LOOK_MS);
    };
    look();
  });
}
