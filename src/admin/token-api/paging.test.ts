/** Pages of records that were read already, and what leads from one to the next. */
import { describe, expect, test } from "bun:test";
import type { TokenRecord } from "../../contract/tokens.ts";
import { Problem } from "../answers.ts";
import { pageHeaders, pageOf, storeQuery } from "./paging.ts";
import { listQuerySchema } from "./schemas.ts";

function record(id: string, name: string, createdAtMs: number, revokedAtMs: number | null = null) {
  return {
    id,
    name,
    createdAtMs,
    revokedAtMs,
    owner: "alice",
    role: "user",
    scopes: [],
    createdBy: null,
    expiresAtMs: null,
    notBeforeMs: null,
    lastUsedAtMs: null,
    revokedReason: null,
    graceUntilMs: null,
    foreign: false,
  } as const satisfies TokenRecord;
}

/** Some of the same time, some of the same name. */
const RECORDS: readonly TokenRecord[] = [
  record("d", "build", 3),
  record("a", "", 2),
  record("c", "Build", 2),
  record("b", "build", 2),
  record("e", "éclair 100%", 1),
  record("f", "gone", 9, 10),
];
const idAndName = ({ id, name }: TokenRecord) => [id, name];

function walk(params: Readonly<Record<string, string>>): { ids: string[]; totals: Set<number> } {
  const ids: string[] = [];
  const totals = new Set<number>();
  let search: URLSearchParams | null = new URLSearchParams(params);
  for (let pages = 0; search !== null; pages += 1) {
    if (pages > 20) throw new Error("it does not end");
    const query = listQuerySchema.parse(Object.fromEntries(search));
    const limit = query.limit ?? null;
    const { records, total } = pageOf(RECORDS, storeQuery(query, limit), idAndName);
    const shown = limit === null ? records : records.slice(0, limit);
    totals.add(total);
    ids.push(...shown.map(({ id }) => id));
    const last = shown.length < records.length ? shown.at(-1) : undefined;
    const { link } = pageHeaders(total, last, query);
    search =
      link === undefined ? null : new URLSearchParams(/^<\?(.*)>; rel="next"$/.exec(link)?.[1]);
  }
  return { ids, totals };
}

describe("pages", () => {
  test.each([
    ["-created_at", ["d", "a", "b", "c", "e"]],
    ["created_at", ["e", "c", "b", "a", "d"]],
    ["description", ["a", "c", "b", "d", "e"]],
    ["-description", ["e", "d", "b", "c", "a"]],
  ])("sorted by %s, each token is in one of them, whatever the size", (sort, expected) => {
    expect(walk({ sort })).toEqual({ ids: expected, totals: new Set([5]) });
    for (const limit of ["1", "2", "3", "5", "1000"]) {
      expect(walk({ sort, limit })).toEqual({ ids: expected, totals: new Set([5]) });
    }
  });

  test("a search goes on in the next page", () => {
    expect(walk({ q: "BUILD", limit: "1" })).toEqual({
      ids: ["d", "b", "c"],
      totals: new Set([3]),
    });
    expect(walk({ q: "ÉCL" }).ids).toEqual(["e"]);
    expect(walk({ q: "100%" }).ids).toEqual(["e"]);
    expect(walk({ q: "nothing" })).toEqual({ ids: [], totals: new Set([0]) });
    expect(walk({ q: "" }).ids).toHaveLength(5);
  });

  test("revoked ones are there when they are asked for, in the next page too", () => {
    expect(walk({ revoked: "true", limit: "1" }).ids).toEqual(["f", "d", "a", "b", "c", "e"]);
  });
});

describe("cursors", () => {
  const query = (cursor: string, sort = "-created_at") =>
    storeQuery(listQuerySchema.parse({ cursor, sort }), 10);
  const encoded = (value: unknown) =>
    Buffer.from(JSON.stringify(value), "utf8").toString("base64url");

  test.each([
    ["nonsense", "nonsense"],
    ["nothing", ""],
    ["a text", encoded("x")],
    ["too short", encoded(["newest", 1, ""])],
    ["of the wrong types", encoded(["newest", "1", "", 5])],
    ["no whole number", encoded(["newest", 1.5, "", "a"])],
    ["of another sort", encoded(["oldest", 1, "", "a"])],
  ])("that are %s are refused", (_, cursor) => {
    expect(() => query(cursor)).toThrow(Problem);
  });

  test("say only where", () => {
    expect(query(encoded(["newest", 1, "", "a"])).after).toEqual({
      createdAtMs: 1,
      name: "",
      id: "a",
    });
  });
});
