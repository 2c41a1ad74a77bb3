/**
 * When tokens were last used: collected in memory, written in batches.
 *
 * Invariant: nothing here delays or fails a request. What could not be written is kept for the next try, within a
 * bound; what is lost at worst is when a token was last seen.
 */
import type { Clock, Log } from "gatehouse";
import type { Hash } from "./hash.ts";
import type { Store } from "./store.ts";

const MAX_PENDING = 100_000;
/** Writes on their way at once, so that they do not stand before look-ups for long. */
const AT_ONCE = 100;
const COMPLAIN_EVERY_MS = 60_000;

/** Collects and writes. */
export interface LastUsed {
  note(hash: Hash, nowMs: number): void;
  /** The time noted but not yet written, or null. */
  pending(hash: Hash): number | null;
  /** Of a token that is gone, nothing is written any more. */
  forget(hash: Hash): void;
  isFailing(): boolean;
  /** Writes what it can and stops. Idempotent. */
  close(): Promise<void>;
}

/** What it needs. */
export interface LastUsedOptions {
  readonly store: Pick<Store, "touch">;
  readonly clock: Clock;
  readonly log: Log;
  readonly intervalMs: number;
}

/** Starts the timer, which does not keep the process alive. */
export function openLastUsed(options: LastUsedOptions): LastUsed {
  const times = new Map<Hash, number>();
  let isFailing = false;
  let silentUntilMs = Number.NEGATIVE_INFINITY;
  let writing: Promise<void> | null = null;

  const writeSome = async (): Promise<boolean> => {
    const batch = [...times.entries().take(AT_ONCE)];
    await Promise.all(batch.map(([hash, atMs]) => options.store.touch(hash, atMs)));
    for (const [hash, atMs] of batch) if (times.get(hash) === atMs) times.delete(hash);
    return batch.length === AT_ONCE;
  };
  const writeAll = async (): Promise<void> => {
    try {
      while (await writeSome());
      isFailing = false;
    } catch {
      isFailing = true;
      const nowMs = options.clock.nowMs();
      if (nowMs < silentUntilMs) return;
      silentUntilMs = nowMs + COMPLAIN_EVERY_MS;
      options.log.warn("token.last_used_failed", { pending: times.size });
    }
  };
  const flush = (): Promise<void> => {
    writing ??= writeAll().finally(() => {
      writing = null;
    });
    return writing;
  };
  const timer = setInterval(() => void flush(), options.intervalMs);
  timer.unref();
  return {
    note(hash, nowMs) {
      if (times.size < MAX_PENDING || times.has(hash)) times.set(hash, nowMs);
    },
    pending: (hash) => times.get(hash) ?? null,
    forget: (hash) => void times.delete(hash),
    isFailing: () => isFailing,
    close() {
      clearInterval(timer);
      return flush();
    },
  };
}
