/**
 * Keys that were used and may not be used again, in the state database: shared between processes and kept over a
 * restart.
 *
 * Invariant: of all who record the same key exactly one is told that it was new, until the key has expired. Nothing
 * here waits for another process or for the disk while requests wait for us: a crash of the process loses nothing, a
 * power cut may lose the last moments.
 */
import type { Database } from "bun:sqlite";
import { firstValue } from "./migrations.ts";

/** A key and when it need not be kept any more, in epoch milliseconds. */
export interface ClaimRow {
  readonly space: string;
  readonly key: string;
  readonly until: number;
}

/** The statements. Each throws SQLite's error when the database cannot do it, and at once when it is locked. */
export interface ClaimsTable {
  has(space: string, key: string): boolean;
  /** Whether it was new. */
  insert(row: ClaimRow): boolean;
  /** Rows behind `after` in the table's order, at most `limit`; `null`: from the first. */
  rows(after: ClaimRow | null, limit: number): readonly ClaimRow[];
  /** Deletes what expired by `nowMs` behind `after` and up to `last`. */
  prune(after: ClaimRow | null, last: ClaimRow, nowMs: number): number;
  finalize(): void;
}

/** Comes before every key. */
const FIRST: ClaimRow = { space: "", key: "", until: 0 };

/**
 * Without an index on `until`: a second tree to write would cost each claim half as much again. What has expired is
 * found by walking through, in pieces.
 */
export const CLAIMS_SQL = `
  CREATE TABLE gatehouse_claims (
    space TEXT NOT NULL,
    key TEXT NOT NULL,
    until INTEGER NOT NULL,
    PRIMARY KEY (space, key)
  ) STRICT, WITHOUT ROWID;`;

/** Prepares the statements. */
export function openClaimsTable(database: Database): ClaimsTable {
  const statements = prepareAll(database);
  const withoutWaiting = notWaiting(database);
  return {
    has: (space, key) => statements.has.get(space, key) !== null,
    insert: ({ space, key, until }) =>
      withoutWaiting(() => statements.insert.run(space, key, until).changes === 1),
    rows: (after, limit) =>
      statements.rows.all((after ?? FIRST).space, (after ?? FIRST).key, limit),
    prune(after, last, nowMs) {
      const { space, key } = after ?? FIRST;
      return withoutWaiting(
        () => statements.prune.run(space, key, last.space, last.key, nowMs).changes,
      );
    },
    finalize() {
      for (const statement of Object.values(statements)) statement.finalize();
    },
  };
}

function prepareAll(database: Database) {
  return {
    has: database.prepare<{ one: number }, [string, string]>(
      "SELECT 1 AS one FROM gatehouse_claims WHERE space = ? AND key = ?",
    ),
    insert: database.prepare<null, [string, string, number]>(
      "INSERT OR IGNORE INTO gatehouse_claims (space, key, until) VALUES (?, ?, ?)",
    ),
    rows: database.prepare<ClaimRow, [string, string, number]>(
      `SELECT space, key, until FROM gatehouse_claims WHERE (space, key) > (?, ?)
       ORDER BY space, key LIMIT ?`,
    ),
    prune: database.prepare<null, [string, string, string, string, number]>(
      `DELETE FROM gatehouse_claims
       WHERE (space, key) > (?, ?) AND (space, key) <= (?, ?) AND until <= ?`,
    ),
  };
}

/**
 * Runs work with no waiting for locks and without waiting for the disk. The settings belong to the connection, which
 * others share, so they are put back whatever happens.
 */
function notWaiting(database: Database) {
  const timeout = firstValue(database, "PRAGMA busy_timeout");
  const synchronous = firstValue(database, "PRAGMA synchronous");
  const back = [`PRAGMA busy_timeout = ${timeout}`, `PRAGMA synchronous = ${synchronous}`] as const;
  return <T>(work: () => T): T => {
    try {
      database.run("PRAGMA busy_timeout = 0");
      database.run("PRAGMA synchronous = NORMAL");
      return work();
    } finally {
      database.run(back[0]);
      database.run(back[1]);
    }
  };
}
