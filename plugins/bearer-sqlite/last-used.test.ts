/** Times of last use: batched, bounded, and nobody's problem. */
import { Database } from "bun:sqlite";
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { join } from "node:path";
import { type TestHost, testHost } from "../../test/support/host.ts";
import { type LastUsed, openLastUsed } from "./last-used.ts";
import { MIGRATIONS, openTokensTable, type TokensTable } from "./tokens-table.ts";

const FAILURES: readonly [string, (database: Database) => void, (database: Database) => void][] = [
  [
    "SQLITE_READONLY",
    (database) => database.run("PRAGMA query_only = ON"),
    (database) => database.run("PRAGMA query_only = OFF"),
  ],
  [
    "SQLITE_FULL",
    (database) => {
      // As small as the file is; the rows below need more.
      database.run("PRAGMA max_page_count = 1");
    },
    (database) => database.run("PRAGMA max_page_count = 4294967294"),
  ],
];

let context: TestHost;
let database: Database;
let table: TokensTable;
const opened: LastUsed[] = [];

beforeEach(() => {
  context = testHost({ strategy: "team" });
  database = context.host.database("bearer_sqlite", MIGRATIONS);
  table = openTokensTable(database, "team");
});
afterEach(() => {
  for (const one of opened.splice(0)) one.close();
  context.dispose();
});

/** An hour between writes: these tests call `flush` themselves. */
function open(maxPending?: number, intervalMs = 3_600_000): LastUsed {
  const { clock, log } = context.host;
  const bound = maxPending === undefined ? {} : { maxPending };
  const lastUsed = openLastUsed({ table, clock, log, intervalMs, ...bound });
  opened.push(lastUsed);
  return lastUsed;
}

function written(): Map<string, number> {
  const rows = database
    .prepare<{ id: string; at: number }, []>("SELECT id, at FROM bearer_sqlite_last_used")
    .all();
  return new Map(rows.map(({ id, at }) => [id, at]));
}

describe("last used", () => {
  test("many uses of one token are one write of the latest time", () => {
    const lastUsed = open();
    for (const time of [5, 6, 7]) lastUsed.note("a", time);
    expect(lastUsed.pending("a")).toBe(7);
    expect(written().size).toBe(0);
    lastUsed.flush();
    expect([...written()]).toEqual([["a", 7]]);
    expect(lastUsed.pending("a")).toBeNull();
  });

  test("an earlier time, from another process, does not replace a later one", () => {
    const lastUsed = open();
    lastUsed.note("a", 7);
    lastUsed.flush();
    lastUsed.note("a", 6);
    lastUsed.flush();
    expect(written().get("a")).toBe(7);
  });

  test("a large number is written in several short transactions", () => {
    const lastUsed = open();
    for (let index = 0; index < 2500; index += 1) lastUsed.note(`t${index}`, index);
    lastUsed.flush();
    expect(written().size).toBe(1000);
    lastUsed.close();
    expect(written().size).toBe(2500);
  });

  test("the timer writes by itself", async () => {
    const lastUsed = open(undefined, 1);
    lastUsed.note("a", 7);
    while (lastUsed.pending("a") !== null) await new Promise((resolve) => setImmediate(resolve));
    expect(written().get("a")).toBe(7);
  });

  test("a lock of another process is not waited for, and what is kept is written later", () => {
    const other = new Database(join(context.host.stateDir, "gatehouse.db"));
    other.run("BEGIN IMMEDIATE");
    const lastUsed = open();
    lastUsed.note("a", 1);
    const start = Bun.nanoseconds();
    lastUsed.flush();
    // The connection's own patience is a second.
    expect((Bun.nanoseconds() - start) / 1e6).toBeLessThan(500);
    expect(context.log.lines.map((line) => line.fields)).toEqual([
      { code: "SQLITE_BUSY", pending: 1, strategy: "team" },
    ]);
    other.run("ROLLBACK");
    other.close();
    lastUsed.flush();
    expect(written().get("a")).toBe(1);
  });

  test.each(FAILURES)(
    "what cannot be written for %s is kept and written later",
    (code, cause, mend) => {
      const lastUsed = open();
      cause(database);
      for (let index = 0; index < 900; index += 1) lastUsed.note(`token-${index}`, 1);
      lastUsed.flush();
      expect(lastUsed.isFailing()).toBe(true);
      expect(context.log.lines).toEqual([
        {
          level: "warn",
          event: "token.last_used_failed",
          fields: { code, pending: 900, strategy: "team" },
        },
      ]);
      expect(lastUsed.pending("token-1")).toBe(1);
      mend(database);
      lastUsed.note("token-1", 2);
      lastUsed.flush();
      expect(written().size).toBe(900);
      expect(written().get("token-1")).toBe(2);
      expect(lastUsed.isFailing()).toBe(false);
    },
  );

  test("the settings of the shared connection are put back, also when writing fails", () => {
    const settings = () =>
      ["busy_timeout", "synchronous"].map((name) => database.prepare(`PRAGMA ${name}`).values());
    const before = settings();
    const lastUsed = open();
    lastUsed.note("a", 1);
    lastUsed.flush();
    expect(settings()).toEqual(before);
    database.run("PRAGMA query_only = ON");
    lastUsed.note("a", 2);
    lastUsed.flush();
    expect(lastUsed.isFailing()).toBe(true);
    expect(settings()).toEqual(before);
  });

  test.each([
    [59_999, 1],
    [60_000, 2],
    [60_001, 2],
  ])("trouble that lasts is logged once a minute: after %d ms %d times", (ms, lines) => {
    const lastUsed = open();
    database.run("PRAGMA query_only = ON");
    lastUsed.note("a", 1);
    lastUsed.flush();
    lastUsed.flush();
    context.clock.advance(ms);
    lastUsed.flush();
    expect(context.log.lines).toHaveLength(lines);
  });

  test("memory is bounded: a token that does not fit is not noted, one that is there is updated", () => {
    const lastUsed = open(2);
    lastUsed.note("a", 1);
    lastUsed.note("b", 2);
    lastUsed.note("c", 3);
    lastUsed.note("a", 4);
    lastUsed.close();
    expect([...written()]).toEqual([
      ["a", 4],
      ["b", 2],
    ]);
  });

  test("closing while the database is gone ends, and closing twice is fine", () => {
    const lastUsed = open();
    for (let index = 0; index < 2500; index += 1) lastUsed.note(`t${index}`, index);
    context.breakDatabase();
    lastUsed.close();
    lastUsed.close();
    expect(lastUsed.isFailing()).toBe(true);
  });
});
