/**
 * Time. Invariant: nothing else in src/ or plugins/ reads the wall clock on the way of a request.
 */
import type { Clock } from "./contract/host.ts";

/** The machine's clock. */
export const systemClock: Clock = Object.freeze({ nowMs: () => Date.now() });
