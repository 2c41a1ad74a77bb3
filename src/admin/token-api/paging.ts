/**
 * Searching, sorting and paging tokens, without a change of what a list looks like: the next page is in `Link`
 * (RFC 8288), the number of all in `X-Total-Count`.
 *
 * Invariant: pure. A page goes on behind the last token of the one before, so tokens that come or go meanwhile are
 * neither skipped nor shown twice. A cursor says where, and nothing about what may be seen.
 */
import { z } from "zod";
import type { TokenOrder, TokenPage, TokenQuery, TokenRecord } from "../../contract/tokens.ts";
import { Problem } from "../answers.ts";
import type { ListQuery } from "./schemas.ts";

const ORDERS: Readonly<Record<ListQuery["sort"], TokenOrder>> = {
  "-created_at": "newest",
  created_at: "oldest",
  description: "name",
  "-description": "name_reversed",
};

type Place = NonNullable<TokenQuery["after"]>;

/**
 * The query as a store has it; its `limit` is one more than asked for, which tells whether there is a next page.
 * @throws Problem when the cursor is none of ours, or of another order
 */
export function storeQuery(query: ListQuery, limit: number | null): TokenQuery {
  const order = ORDERS[query.sort];
  return {
    order,
    limit: limit === null ? Number.MAX_SAFE_INTEGER : limit + 1,
    revoked: query.revoked === "true",
    ...(query.q === undefined || query.q === "" ? {} : { text: query.q }),
    ...(query.cursor === undefined ? {} : { after: readCursor(query.cursor, order) }),
  };
}

/** A {@link TokenQuery} on records that were read already. `fields` says where the text is looked for. */
export function pageOf(
  records: readonly TokenRecord[],
  query: TokenQuery,
  fields: (record: TokenRecord) => readonly string[],
): TokenPage {
  const { after, limit, order, revoked } = query;
  const text = query.text?.toLowerCase();
  const compare = COMPARISONS[order];
  const holds = (record: TokenRecord): boolean =>
    text === undefined || fields(record).some((one) => one.toLowerCase().includes(text));
  const found = records
    .filter((record) => (revoked || record.revokedAtMs === null) && holds(record))
    .toSorted(compare);
  const rest = after === undefined ? found : found.filter((record) => compare(record, after) > 0);
  return { records: rest.slice(0, limit), total: found.length };
}

/** The headers of a page after whose last record there are more, or none when `last` is undefined. */
export function pageHeaders(
  total: number,
  last: TokenRecord | undefined,
  query: ListQuery & { readonly sub?: string | undefined },
): Record<string, string> {
  const headers = { "x-total-count": String(total) };
  if (last === undefined) return headers;
  const { limit, ...rest } = query;
  const next = new URLSearchParams({ cursor: cursorOf(last, ORDERS[query.sort]) });
  if (limit !== undefined) next.set("limit", String(limit));
  for (const name of ["q", "sort", "revoked", "sub"] as const) {
    const value = rest[name];
    if (value !== undefined) next.set(name, value);
  }
  // Relative to the address that was asked, which a proxy in front may have changed.
  return { ...headers, link: `<?${next}>; rel="next"` };
}

const byCreation = (a: Place, b: Place): number =>
  b.createdAtMs - a.createdAtMs || compareTexts(a.id, b.id);
const byName = (a: Place, b: Place): number =>
  compareTexts(a.name, b.name) || compareTexts(a.id, b.id);

const COMPARISONS: Readonly<Record<TokenOrder, (a: Place, b: Place) => number>> = {
  newest: byCreation,
  oldest: (a, b) => byCreation(b, a),
  name: byName,
  name_reversed: (a, b) => byName(b, a),
};

function compareTexts(a: string, b: string): number {
  if (a === b) return 0;
  return a < b ? -1 : 1;
}

const cursor = z.tuple([z.string(), z.int(), z.string(), z.string()]);

function cursorOf({ createdAtMs, name, id }: Place, order: TokenOrder): string {
  const isByName = order === "name" || order === "name_reversed";
  const place = [order, isByName ? 0 : createdAtMs, isByName ? name : "", id];
  return Buffer.from(JSON.stringify(place), "utf8").toString("base64url");
}

function readCursor(text: string, order: TokenOrder): Place {
  const { data } = cursor.safeParse(parsed(text));
  if (data === undefined) throw new Problem("invalid_request", "cursor: it is not from a Link");
  const [was, createdAtMs, name, id] = data;
  if (was !== order) {
    throw new Problem("invalid_request", "cursor: it belongs to another sort; begin without it");
  }
  return { createdAtMs, name, id };
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(Buffer.from(text, "base64url").toString("utf8"));
  } catch {
    return null;
  }
}
