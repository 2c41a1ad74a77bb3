/**
 * Tokens that were looked up, as long as nothing has changed them.
 *
 * Invariant: an entry is found only under the token that it was looked up for, and lies beside the hash that was asked
 * for. A look-up whose key changed while it was on its way is not kept, whichever of its answer and the message comes
 * first: a message that comes before marks the reading, one that comes after drops the entry.
 */
import type { Outcome } from "gatehouse";
import { accepted, type Entry } from "./entry.ts";
import type { Hash } from "./hash.ts";

/** About 60 MB at worst. Beyond it the oldest make room. */
const MAX_HELD = 100_000;

/** A known token and the answer about it while nothing stands against it. */
export interface Held {
  readonly entry: Entry;
  readonly accept: Outcome;
  /** From then on and until just before then nothing stands against it. */
  readonly fromMs: number;
  readonly untilMs: number;
  /** When its use was noted last. */
  notedMs: number;
}

/** A look-up on its way. */
export interface Reading {
  readonly hash: Hash;
  isStale: boolean;
  readers: number;
}

/** What is held. Tokens are named by a hash of this process's own. */
export interface Answers {
  find(token: string): Held | undefined;
  findHash(hash: Hash): Held | undefined;
  /** Before a look-up is sent. Each must be ended by `end`. */
  begin(hash: Hash): Reading;
  end(reading: Reading): void;
  /** Keeps what a reading found, unless it is stale. `token` `null`: looked up by its hash alone. */
  keep(reading: Reading, token: string | null, entry: Entry): Held;
  drop(hash: Hash): void;
  clear(): void;
  size(): number;
}

/** Nothing is held at first. */
export function openAnswers(): Answers {
  const byToken = new Map<string, Held>();
  const tokens = new Map<Hash, string>();
  const readings = new Map<Hash, Reading>();
  const forget = (token: string): void => {
    const held = byToken.get(token);
    if (held === undefined) return;
    byToken.delete(token);
    tokens.delete(held.entry.hash);
  };
  return {
    find: (token) => byToken.get(token),
    findHash: (hash) => byToken.get(tokens.get(hash) ?? ""),
    begin(hash) {
      const reading = readings.get(hash) ?? { hash, isStale: false, readers: 0 };
      readings.set(hash, reading);
      reading.readers += 1;
      return reading;
    },
    end(reading) {
      reading.readers -= 1;
      if (reading.readers === 0 && readings.get(reading.hash) === reading) {
        readings.delete(reading.hash);
      }
    },
    keep(reading, token, entry) {
      const held = toHeld(entry);
      if (reading.isStale || token === null) return held;
      forget(token);
      const [oldest] = byToken.size >= MAX_HELD ? byToken.keys() : [];
      if (oldest !== undefined) forget(oldest);
      byToken.set(token, held);
      tokens.set(entry.hash, token);
      return held;
    },
    drop(hash) {
      const reading = readings.get(hash);
      if (reading !== undefined) reading.isStale = true;
      // Whoever asks from now on asks anew.
      readings.delete(hash);
      forget(tokens.get(hash) ?? "");
    },
    clear() {
      for (const reading of readings.values()) reading.isStale = true;
      readings.clear();
      byToken.clear();
      tokens.clear();
    },
    size: () => byToken.size,
  };
}

/** What each request needs is worked out once: among 100,000 tokens every further object is far away in memory. */
function toHeld(entry: Entry): Held {
  const { expiresAtMs, goneAtMs, notBeforeMs } = entry;
  return {
    entry,
    accept: accepted(entry),
    fromMs: notBeforeMs ?? Number.NEGATIVE_INFINITY,
    untilMs: Math.min(expiresAtMs ?? Infinity, goneAtMs ?? Infinity),
    notedMs: Number.NEGATIVE_INFINITY,
  };
}
