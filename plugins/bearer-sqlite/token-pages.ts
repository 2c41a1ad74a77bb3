/**
 * Records as they are shown, and pages of them.
 *
 * Invariant: the set of statements is fixed and all values are bound. A page is read from where it begins: a later one
 * costs what the first one cost. A search looks at all tokens, in turns that others can come between.
 */
import type { Database, Statement } from "bun:sqlite";
import type { TokenOrder, TokenPage, TokenQuery, TokenRecord } from "gatehouse";

/** What a {@link RecordRow} is selected with; `t` are the tokens. */
export const RECORD = `SELECT t.id, t.name, t.owner, t.role, t.scopes, t.created_at AS createdAtMs,
    t.created_by AS createdBy, t.expires_at AS expiresAtMs, t.not_before AS notBeforeMs, u.at AS lastUsedAtMs,
    t.revoked_at AS revokedAtMs, t.revoked_reason AS revokedReason, t.grace_until AS graceUntilMs,
    t.foreign_digest IS NOT NULL AS isForeign
  FROM bearer_sqlite_tokens AS t LEFT JOIN bearer_sqlite_last_used AS u ON u.id = t.id`;

/** A row as SQLite gives it. */
export type RecordRow = Omit<TokenRecord, "scopes" | "foreign"> & {
  readonly scopes: string;
  readonly isForeign: number;
};

/** The row as the contract has it. */
export function toRecord(row: RecordRow): TokenRecord {
  const { isForeign, scopes, ...rest } = row;
  return { ...rest, scopes: scopes === "" ? [] : scopes.split(" "), foreign: isForeign === 1 };
}

/** Pages of one strategy's tokens. */
export interface Pages {
  /** A promise only when something is searched for. */
  page(query: TokenQuery): TokenPage | Promise<TokenPage>;
  /** Finalizes the statements. */
  close(): void;
}

type Place = string | number | Uint8Array;

interface Order {
  /** Behind the token with this id at this place. The first half of each is for the index. */
  behind(place: string, id: string): string;
  readonly by: string;
  /** Before all tokens. */
  readonly start: Place;
  placeOf(token: NonNullable<TokenQuery["after"]>): Place;
}

const ORDERS: Readonly<Record<TokenOrder, Order>> = {
  newest: {
    behind: (at, id) => `t.created_at <= ${at} AND (t.created_at < ${at} OR t.id > ${id})`,
    by: "t.created_at DESC, t.id",
    start: Number.MAX_SAFE_INTEGER,
    placeOf: ({ createdAtMs }) => createdAtMs,
  },
  oldest: {
    behind: (at, id) => `t.created_at >= ${at} AND (t.created_at > ${at} OR t.id < ${id})`,
    by: "t.created_at, t.id DESC",
    start: -1,
    placeOf: ({ createdAtMs }) => createdAtMs,
  },
  name: {
    behind: (at, id) => `t.name >= ${at} AND (t.name > ${at} OR t.id > ${id})`,
    by: "t.name, t.id",
    start: "",
    placeOf: ({ name }) => name,
  },
  name_reversed: {
    behind: (at, id) => `t.name <= ${at} AND (t.name < ${at} OR t.id < ${id})`,
    by: "t.name DESC, t.id DESC",
    // To SQLite every blob is greater than every text.
    start: new Uint8Array([0]),
    placeOf: ({ name }) => name,
  },
};

/** Rows looked at in one go while searching: some 10 ms, in which nothing else is done. */
const WINDOW = 5000;

const LIVE = "AND t.revoked_at IS NULL";

/** Prepares the statements. */
export function openPages(database: Database, strategy: string): Pages {
  const withRevoked = prepareAll(database, "");
  const live = prepareAll(database, LIVE);
  const byId = database.prepare<RecordRow, [string, string]>(
    `${RECORD} WHERE t.id = ? AND t.strategy = ?`,
  );
  const recordOf = (id: string): TokenRecord[] => {
    const row = byId.get(id, strategy);
    return row === null ? [] : [toRecord(row)];
  };
  return {
    page(query) {
      const { order, limit, text, revoked } = query;
      const statements = revoked ? withRevoked : live;
      if (text === undefined) {
        const rows = statements[order].page.all(strategy, ...placeOf(query), limit);
        const total = statements.total.get(strategy)?.total ?? 0;
        return { total, records: rows.map(toRecord) };
      }
      return search(statements[order].window, { ...query, text }, strategy).then(
        ({ ids, total }) => ({ total, records: ids.flatMap(recordOf) }),
      );
    },
    close() {
      byId.finalize();
      for (const { total, ...orders } of [withRevoked, live]) {
        total.finalize();
        for (const { page, window } of Object.values(orders)) {
          page.finalize();
          window.finalize();
        }
      }
    },
  };
}

/** Place and id behind which the page begins. */
function placeOf({ order, after }: TokenQuery): [Place, string] {
  const { start, placeOf } = ORDERS[order];
  return after === undefined ? [start, ""] : [placeOf(after), after.id];
}

/** Looks at every token, some at a time, so that requests are not kept waiting by a search among very many. */
async function search(
  window: Statement<Seen, WindowValues>,
  query: TokenQuery & { readonly text: string },
  strategy: string,
): Promise<{ readonly ids: readonly string[]; readonly total: number }> {
  const wanted = query.text.toLowerCase();
  const behind = placeOf(query);
  let at: TokenQuery = { order: query.order, limit: WINDOW, revoked: query.revoked };
  const ids: string[] = [];
  let total = 0;
  for (;;) {
    const rows = window.all(strategy, ...placeOf(at), WINDOW, ...behind);
    for (const row of rows) {
      if (!holds(row, wanted)) continue;
      total += 1;
      if (row.isBehind === 1 && ids.length < query.limit) ids.push(row.id);
    }
    const last = rows.at(-1);
    if (last === undefined || rows.length < WINDOW) return { ids, total };
    at = { ...at, after: last };
    await new Promise((resolve) => setImmediate(resolve));
  }
}

function holds({ id, name, owner }: Seen, wanted: string): boolean {
  return (
    name.toLowerCase().includes(wanted) ||
    id.toLowerCase().includes(wanted) ||
    owner?.toLowerCase().includes(wanted) === true
  );
}

type PageValues = [string, Place, string, number];
type WindowValues = [...PageValues, Place, string];

/** As much of a token as a search looks at. */
interface Seen {
  readonly id: string;
  readonly name: string;
  readonly owner: string | null;
  readonly createdAtMs: number;
  readonly isBehind: number;
}

function prepareAll(database: Database, which: "" | typeof LIVE) {
  const where = `WHERE t.strategy = ?1 ${which}`;
  const both = ({ behind, by }: Order) => {
    const from = `${where} AND ${behind("?2", "?3")} ORDER BY ${by} LIMIT ?4`;
    return {
      page: database.prepare<RecordRow, PageValues>(`${RECORD} ${from}`),
      window: database.prepare<Seen, WindowValues>(
        `SELECT t.id, t.name, t.owner, t.created_at AS createdAtMs, ${behind("?5", "?6")} AS isBehind
         FROM bearer_sqlite_tokens AS t ${from}`,
      ),
    };
  };
  return {
    newest: both(ORDERS.newest),
    oldest: both(ORDERS.oldest),
    name: both(ORDERS.name),
    name_reversed: both(ORDERS.name_reversed),
    total: database.prepare<{ total: number }, [string]>(
      `SELECT count(*) AS total FROM bearer_sqlite_tokens AS t ${where}`,
    ),
  };
}
