/** The memory of used proofs: exactly one is new, and what expired goes without standing in anybody's way. */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { randomBytes } from "node:crypto";
import { type TestHost, testHost } from "../../test/support/host.ts";
import { MIGRATIONS } from "./members-table.ts";
import { openReplayStore, type ReplayStore } from "./replay.ts";

let context: TestHost;
let store: ReplayStore;

beforeEach(() => {
  context = testHost();
  const database = context.host.database("nip98", MIGRATIONS);
  store = openReplayStore(database, context.clock, context.log);
});
afterEach(() => {
  store.close();
  context.dispose();
});

function entry(expiresInMs: number) {
  const nowMs = context.clock.nowMs();
  const createdAt = Math.floor(nowMs / 1000);
  return { createdAt, key: randomBytes(32), expiresAtMs: nowMs + expiresInMs };
}

describe("recording", () => {
  test("the first is new, every other one is not", async () => {
    const used = entry(1000);
    expect(store.has(used.createdAt, used.key)).toBe(false);
    const all = await Promise.all(Array.from({ length: 20 }, () => store.record(used)));
    expect(all.filter(Boolean)).toHaveLength(1);
    expect(store.has(used.createdAt, used.key)).toBe(true);
  });

  test("the connection's settings are as they were", async () => {
    const database = context.host.database("nip98", MIGRATIONS);
    const settings = () =>
      ["busy_timeout", "synchronous"].map((name) => database.query(`PRAGMA ${name}`).values());
    const before = settings();
    await store.record(entry(1000));
    store.prune();
    expect(settings()).toEqual(before);
  });
});

describe("pruning", () => {
  test.each([
    [-1, 0],
    [0, 1],
    [1, 1],
  ])("%d ms after the expiry %d are forgotten", async (lateMs, count) => {
    const used = entry(1000);
    await store.record(used);
    context.clock.advance(1000 + lateMs);
    expect(store.prune()).toBe(count);
    expect(store.has(used.createdAt, used.key)).toBe(count === 0);
  });

  test("a bounded number goes at once, and what must stay stays", async () => {
    const kept = entry(1e9);
    await store.record(kept);
    for (let count = 0; count < 1500; count += 1) await store.record(entry(1));
    context.clock.advance(10);
    expect(store.prune()).toBeLessThanOrEqual(1000);
    while (store.prune() > 0);
    expect(store.has(kept.createdAt, kept.key)).toBe(true);
    const database = context.host.database("nip98", MIGRATIONS);
    expect(database.query("SELECT count(*) FROM nip98_replay").values()).toEqual([[1]]);
  });

  test("closing twice is fine", () => {
    store.close();
    store.close();
  });
});
