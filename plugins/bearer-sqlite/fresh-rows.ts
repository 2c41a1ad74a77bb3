/**
 * Rows of tokens that were just asked for, as long as the database has not changed.
 *
 * Invariant: a row is used only if no process has committed anything since it was read. That is asked (`PRAGMA
 * data_version`) once in each turn of the event loop, before the first row of that turn is used; every request of the
 * turn had begun by then, so what was committed before a request began holds for it. Our own writes, which the
 * pragma does not count, drop the rows themselves.
 */
import type { TokensTable } from "./tokens-table.ts";
import type { StoredToken } from "./verify.ts";

/** Rows kept in each of two halves. When one is full, the other one, which nobody has asked for since, is forgotten. */
const HALF_ROWS = 10_000;

/** A turn that lasts longer asks again: something in it has waited. */
const LONG_TURN_MS = 1;

/** The look-ups of the way of a request. Both throw SQLite's error when the database cannot be asked. */
export interface FreshRows {
  byId(id: string): StoredToken | null;
  byForeignDigest(digest: Uint8Array): StoredToken | null;
  /** After a write of our own. */
  drop(): void;
}

/** Puts rows before a table. */
export function freshRows(table: TokensTable): FreshRows {
  let rows = new Map<string, StoredToken>();
  let older = new Map<string, StoredToken>();
  let version: number | null = null;
  let isAsked = false;
  let askedMs = 0;
  const newTurn = (): void => {
    isAsked = false;
  };
  const forget = (): void => {
    rows.clear();
    older.clear();
  };
  const keep = (key: string, row: StoredToken): StoredToken => {
    if (rows.size >= HALF_ROWS) {
      [rows, older] = [older, rows];
      rows.clear();
    }
    rows.set(key, row);
    return row;
  };
  const ask = (): void => {
    const nowMs = performance.now();
    if (isAsked && nowMs - askedMs < LONG_TURN_MS) return;
    const current = table.version();
    if (current !== version) forget();
    version = current;
    askedMs = nowMs;
    if (isAsked) return;
    isAsked = true;
    // Runs before the loop waits for new events, so a request that has not begun yet finds the flag down.
    setImmediate(newTurn);
  };
  const look = (key: string, read: () => StoredToken | null): StoredToken | null => {
    ask();
    const known = rows.get(key);
    if (known !== undefined) return known;
    const row = older.get(key) ?? read();
    return row === null ? null : keep(key, row);
  };
  return {
    byId: (id) => look(id, () => table.byId(id)),
    byForeignDigest: (digest) =>
      look(Buffer.from(digest).toString("latin1"), () => table.byForeignDigest(digest)),
    drop: forget,
  };
}
