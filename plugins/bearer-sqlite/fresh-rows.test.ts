/** Rows in memory: which are kept when there are more than fit, and that none outlives a change. */
import { Database } from "bun:sqlite";
import { afterEach, beforeEach, expect, test } from "bun:test";
import { join } from "node:path";
import { type TestHost, testHost } from "../../test/support/host.ts";
import { type FreshRows, freshRows } from "./fresh-rows.ts";
import { MIGRATIONS, openTokensTable, type TokensTable } from "./tokens-table.ts";

/** Twice what fits, and some. */
const COUNT = 20_500;
const idOf = (index: number) => `id${String(index).padStart(10, "0")}`;

let context: TestHost;
let table: TokensTable;
let reads: number;
let rows: FreshRows;

beforeEach(() => {
  context = testHost({ strategy: "team" });
  const database = context.host.database("bearer_sqlite", MIGRATIONS);
  table = openTokensTable(database, "team");
  table.transaction(() => {
    for (let index = 0; index < COUNT; index += 1) {
      table.insert({
        id: idOf(index),
        name: `name ${index}`,
        owner: null,
        role: "user",
        scopes: [],
        digest: new Uint8Array(32).fill(index % 256),
        foreignDigest: null,
        createdAtMs: 1,
        createdBy: "cli",
        notBeforeMs: null,
        expiresAtMs: null,
      });
    }
  });
  reads = 0;
  const byId = (id: string) => {
    reads += 1;
    return table.byId(id);
  };
  rows = freshRows({ ...table, byId });
});
afterEach(() => {
  table.close();
  context.dispose();
});

/** The row is the right one; how often the table was read for these. */
function readsFor(indexes: Iterable<number>): number {
  const before = reads;
  for (const index of indexes) expect(rows.byId(idOf(index))?.name).toBe(`name ${index}`);
  return reads - before;
}

function* range(from: number, to: number): Generator<number> {
  for (let index = from; index < to; index += 1) yield index;
}

test("rows that are asked for again and again stay, however many others come and go", () => {
  expect(readsFor(range(0, 100))).toBe(100);
  for (const from of range(0, 40)) {
    readsFor(range(100 + from * 500, 600 + from * 500));
    expect(readsFor(range(0, 100))).toBe(0);
  }
  // Of the rest no more than two halves are held.
  expect(readsFor(range(0, COUNT))).toBeGreaterThanOrEqual(COUNT - 20_000);
});

test("nothing that was kept outlives a change, in either half", async () => {
  readsFor(range(0, 15_000));
  rows.drop();
  expect(readsFor([0, 14_999])).toBe(2);
  readsFor(range(0, 15_000));
  const other = new Database(join(context.directory, "state", "gatehouse.db"));
  other.run("UPDATE bearer_sqlite_tokens SET revoked_at = 5 WHERE id IN (?, ?)", [
    idOf(1),
    idOf(14_999),
  ]);
  other.close();
  // The next turn of the event loop.
  await new Promise((resolve) => setImmediate(() => setImmediate(resolve)));
  for (const index of [1, 14_999]) expect(rows.byId(idOf(index))?.revokedAtMs).toBe(5);
});
