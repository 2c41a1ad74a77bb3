/**
 * When tokens were last used: collected in memory, written in batches.
 *
 * Invariant: nothing here delays or fails a request. What could not be written is kept for the next try, within
 * a bound; what is lost at worst (a crash, a bound reached) is when a token was last seen.
 */
import type { Clock, Log } from "gatehouse";
import type { TokensTable } from "./tokens-table.ts";

/** About 10 MB. Beyond it, uses of further tokens are not noted until the next write. */
const MAX_PENDING = 100_000;

/** One transaction of this size takes a few milliseconds, during which requests wait. */
const BATCH = 1000;

const COMPLAIN_EVERY_MS = 60_000;

/** Collects and writes. */
export interface LastUsed {
  note(id: string, nowMs: number): void;
  /** The time noted but not yet written, or null. */
  pending(id: string): number | null;
  /** Writes one batch, and arranges for the rest if there is more. */
  flush(): void;
  /** Whether the last write failed. */
  isFailing(): boolean;
  /** Writes everything it can and stops. Idempotent. */
  close(): void;
}

/** What it needs. */
export interface LastUsedOptions {
  readonly table: Pick<TokensTable, "touch" | "transaction" | "withoutWaiting">;
  readonly clock: Clock;
  readonly log: Log;
  readonly intervalMs: number;
  /** Most entries held. Default 100,000. */
  readonly maxPending?: number;
}

/** Starts the timer, which does not keep the process alive. */
export function openLastUsed(options: LastUsedOptions): LastUsed {
  const entries = new Map<string, number>();
  const maxPending = options.maxPending ?? MAX_PENDING;
  const complain = complainer(options);
  let isFailing = false;
  let more: ReturnType<typeof setTimeout> | undefined;

  function writeBatch(): boolean {
    if (entries.size === 0) return false;
    const batch = firstOf(entries, BATCH);
    try {
      options.table.withoutWaiting(() =>
        options.table.transaction(() => {
          for (const [id, atMs] of batch) options.table.touch(id, atMs);
        }),
      );
    } catch (error) {
      isFailing = true;
      complain(error, entries.size);
      return false;
    }
    isFailing = false;
    for (const [id] of batch) entries.delete(id);
    return entries.size > 0;
  }

  function flush(): void {
    clearTimeout(more);
    if (!writeBatch()) return;
    more = setTimeout(flush, 0);
    more.unref();
  }

  const timer = setInterval(flush, options.intervalMs);
  timer.unref();
  return {
    note(id, nowMs) {
      if (entries.size < maxPending || entries.has(id)) entries.set(id, nowMs);
    },
    pending: (id) => entries.get(id) ?? null,
    flush,
    isFailing: () => isFailing,
    close() {
      clearInterval(timer);
      clearTimeout(more);
      while (writeBatch());
    },
  };
}

function firstOf(entries: ReadonlyMap<string, number>, count: number): [string, number][] {
  const batch: [string, number][] = [];
  for (const entry of entries) {
    batch.push(entry);
    if (batch.length === count) break;
  }
  return batch;
}

/** Once a minute at most: a full disk must not fill the log as well. */
function complainer(options: LastUsedOptions): (error: unknown, pending: number) => void {
  let silentUntilMs = Number.NEGATIVE_INFINITY;
  return (error, pending) => {
    const nowMs = options.clock.nowMs();
    if (nowMs < silentUntilMs) return;
    silentUntilMs = nowMs + COMPLAIN_EVERY_MS;
    options.log.warn("token.last_used_failed", { code: codeOf(error), pending });
  };
}

function codeOf(error: unknown): string {
  if (typeof error !== "object" || error === null || !("code" in error)) return "unknown";
  return String(error.code);
}
