/**
 * Which proofs have been used, in the state database: shared between processes and kept over a restart.
 *
 * Invariant: of all who record the same key exactly one is told that it was new. A key stays until its proof is
 * refused for its age, everywhere and with room to spare. Nothing here waits for another process while requests
 * wait for us.
 */
import type { Database } from "bun:sqlite";
import type { Clock, Log } from "gatehouse";

/** Used proofs. `createdAt` is the proof's own, in epoch seconds; it keeps keys of one time together on disk. */
export interface ReplayStore {
  has(createdAt: number, key: Uint8Array): boolean;
  /** Whether it was new. @throws (rejects) when the database cannot be written for a second */
  record(entry: ReplayEntry): Promise<boolean>;
  /** Forgets what has expired, a bounded number of keys; returns how many. */
  prune(): number;
  /** Idempotent. */
  close(): void;
}

/** One use of a proof. */
export interface ReplayEntry {
  readonly createdAt: number;
  readonly key: Uint8Array;
  /** Epoch milliseconds after which the proof is refused anyway. */
  readonly expiresAtMs: number;
}

const PRUNE_EVERY_MS = 10_000;
/** A few milliseconds of work. */
const PRUNE_BATCH = 1000;
const BUSY_RETRY_MS = 2;
const BUSY_GIVE_UP_MS = 1000;
const COMPLAIN_EVERY_MS = 60_000;

/** Starts the pruning timer, which does not keep the process alive. */
export function openReplayStore(database: Database, clock: Clock, log: Log): ReplayStore {
  const statements = prepareAll(database);
  const complain = complainer(clock, log);
  let more: ReturnType<typeof setTimeout> | undefined;

  const insert = (entry: ReplayEntry): boolean =>
    withoutWaiting(database, () => {
      const { createdAt, key, expiresAtMs } = entry;
      return statements.insert.run(createdAt, key, expiresAtMs).changes === 1;
    });

  function prune(): number {
    return withoutWaiting(database, () => statements.prune.run(clock.nowMs(), PRUNE_BATCH).changes);
  }

  function pruneAll(): void {
    clearTimeout(more);
    try {
      if (prune() < PRUNE_BATCH) return;
    } catch (error) {
      if (!isBusy(error)) complain(error);
      return;
    }
    // In pieces, so that requests get their turn.
    more = setTimeout(pruneAll, 5);
    more.unref();
  }

  const timer = setInterval(pruneAll, PRUNE_EVERY_MS);
  timer.unref();
  return {
    has: (createdAt, key) => statements.has.get(createdAt, key) !== null,
    record: (entry) => whenFree(() => insert(entry)),
    prune,
    close() {
      clearInterval(timer);
      clearTimeout(more);
      for (const statement of Object.values(statements)) statement.finalize();
    },
  };
}

function prepareAll(database: Database) {
  return {
    has: database.prepare<{ one: number }, [number, Uint8Array]>(
      "SELECT 1 AS one FROM nip98_replay WHERE created_at = ? AND key = ?",
    ),
    insert: database.prepare<null, [number, Uint8Array, number]>(
      "INSERT OR IGNORE INTO nip98_replay (created_at, key, expires_at) VALUES (?, ?, ?)",
    ),
    // Only the oldest are looked at; what an instance with a longer max_age still needs is among them, and stays.
    prune: database.prepare<null, [number, number]>(
      `DELETE FROM nip98_replay WHERE (created_at, key) IN (
         SELECT created_at, key FROM (
           SELECT created_at, key, expires_at FROM nip98_replay ORDER BY created_at, key LIMIT ?2
         ) WHERE expires_at <= ?1)`,
    ),
  };
}

/** Another process may be writing: asks again, leaving the event loop to others meanwhile. */
async function whenFree<T>(work: () => T): Promise<T> {
  const giveUpMs = performance.now() + BUSY_GIVE_UP_MS;
  for (;;) {
    try {
      return work();
    } catch (error) {
      if (!isBusy(error) || performance.now() > giveUpMs) throw error;
    }
    await Bun.sleep(BUSY_RETRY_MS);
  }
}

/** Whether SQLite said that somebody else holds the lock. */
export function isBusy(error: unknown): boolean {
  return codeOf(error).startsWith("SQLITE_BUSY");
}

/** `SQLITE_…` or `unknown`. */
export function codeOf(error: unknown): string {
  if (typeof error !== "object" || error === null || !("code" in error)) return "unknown";
  return String(error.code);
}

/**
 * Neither waits for a lock nor for the disk: a crash of the process loses nothing, a power cut may lose the last
 * moments, and only a proof of the last minutes is of any use after it. The settings belong to the connection,
 * which others share, so they are put back whatever happens.
 */
function withoutWaiting<T>(database: Database, work: () => T): T {
  const timeoutMs = setting(database, "PRAGMA busy_timeout");
  const synchronous = setting(database, "PRAGMA synchronous");
  try {
    database.run("PRAGMA busy_timeout = 0");
    database.run("PRAGMA synchronous = NORMAL");
    return work();
  } finally {
    database.run(`PRAGMA busy_timeout = ${timeoutMs}`);
    database.run(`PRAGMA synchronous = ${synchronous}`);
  }
}

function setting(database: Database, pragma: string): number {
  const statement = database.prepare(pragma);
  try {
    return Number(statement.values()[0]?.[0]);
  } finally {
    statement.finalize();
  }
}

/** Once a minute at most: a full disk must not fill the log as well. */
function complainer(clock: Clock, log: Log): (error: unknown) => void {
  let silentUntilMs = Number.NEGATIVE_INFINITY;
  return (error) => {
    if (clock.nowMs() < silentUntilMs) return;
    silentUntilMs = clock.nowMs() + COMPLAIN_EVERY_MS;
    log.warn("nip98.prune_failed", { code: codeOf(error) });
  };
}
