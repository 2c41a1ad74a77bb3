/**
 * What was revoked, in the state database: here, or as far as it was heard of, in another replica.
 *
 * Invariant: a revocation that was reported as written has reached the disk, and the next read of any process sees it.
 * A later end never becomes an earlier one.
 */
import type { Database } from "bun:sqlite";

/** Something revoked; `until` in epoch milliseconds, `null` for ever. */
export interface RevocationRow {
  readonly space: string;
  readonly id: string;
  readonly until: number | null;
}

/** The statements. Each throws SQLite's error when the database cannot do it. */
export interface RevocationsTable {
  /** Whether it is revoked, also when it need not be remembered any more. */
  has(space: string, id: string): boolean;
  /** All or none. `isTold`: the other replicas know. */
  insert(rows: readonly RevocationRow[], isTold: boolean): void;
  markTold(rows: readonly RevocationRow[]): void;
  /** Rows that the other replicas may not know, at most `limit`. */
  untold(limit: number): readonly RevocationRow[];
  /** Rows behind `after` in the table's order, at most `limit`; `null`: from the first. */
  rows(after: RevocationRow | null, limit: number): readonly RevocationRow[];
  /** Deletes what need not be remembered. */
  prune(nowMs: number): number;
  finalize(): void;
}

export const REVOCATIONS_SQL = `
  CREATE TABLE gatehouse_revoked (
    space TEXT NOT NULL,
    id TEXT NOT NULL,
    until INTEGER,
    told INTEGER NOT NULL CHECK (told IN (0, 1)),
    PRIMARY KEY (space, id)
  ) STRICT, WITHOUT ROWID;
  CREATE INDEX gatehouse_revoked_untold ON gatehouse_revoked (told) WHERE told = 0;
  CREATE INDEX gatehouse_revoked_until ON gatehouse_revoked (until) WHERE until IS NOT NULL;`;

/** Prepares the statements. */
export function openRevocationsTable(database: Database): RevocationsTable {
  const statements = prepareAll(database);
  const immediate = database.transaction((work: () => void) => work()).immediate;
  const each = (rows: readonly RevocationRow[], work: (row: RevocationRow) => void): void => {
    if (rows.length > 0) immediate(() => rows.forEach(work));
  };
  return {
    has: (space, id) => statements.has.get(space, id) !== null,
    insert: (rows, isTold) =>
      each(rows, ({ space, id, until }) => {
        statements.insert.run(space, id, until, isTold ? 1 : 0);
      }),
    markTold: (rows) => each(rows, ({ space, id }) => void statements.markTold.run(space, id)),
    untold: (limit) => statements.untold.all(limit),
    rows: (after, limit) => statements.rows.all(after?.space ?? "", after?.id ?? "", limit),
    prune: (nowMs) => statements.prune.run(nowMs).changes,
    finalize() {
      for (const statement of Object.values(statements)) statement.finalize();
    },
  };
}

function prepareAll(database: Database) {
  return {
    has: database.prepare<{ one: number }, [string, string]>(
      "SELECT 1 AS one FROM gatehouse_revoked WHERE space = ? AND id = ?",
    ),
    insert: database.prepare<null, [string, string, number | null, number]>(
      `INSERT INTO gatehouse_revoked (space, id, until, told) VALUES (?1, ?2, ?3, ?4)
       ON CONFLICT (space, id) DO UPDATE SET
         until = iif(until IS NULL OR excluded.until IS NULL, NULL, max(until, excluded.until)),
         told = excluded.told`,
    ),
    markTold: database.prepare<null, [string, string]>(
      "UPDATE gatehouse_revoked SET told = 1 WHERE space = ? AND id = ?",
    ),
    untold: database.prepare<RevocationRow, [number]>(
      "SELECT space, id, until FROM gatehouse_revoked WHERE told = 0 LIMIT ?",
    ),
    rows: database.prepare<RevocationRow, [string, string, number]>(
      `SELECT space, id, until FROM gatehouse_revoked WHERE (space, id) > (?, ?)
       ORDER BY space, id LIMIT ?`,
    ),
    prune: database.prepare<null, [number]>("DELETE FROM gatehouse_revoked WHERE until <= ?"),
  };
}
