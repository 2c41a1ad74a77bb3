/** Shared state in the state database: exactly one is new, what is revoked stays so, what expired goes. */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { randomBytes } from "node:crypto";
import { type TestHost, testHost } from "../../test/support/host.ts";
import { inOtherProcess } from "../../test/support/other-process.ts";
import type { SharedState } from "../contract/shared.ts";
import { lazyDatabase } from "../host.ts";
import { embeddedState } from "./embedded-state.ts";
import { type SharedTables, sharedTables } from "./shared-tables.ts";

let context: TestHost;
let state: SharedState;

beforeEach(() => {
  context = testHost();
  state = context.host.shared;
});
afterEach(() => context.dispose());

function claim(expiresInMs = 1000) {
  const nowMs = context.clock.nowMs();
  const key = randomBytes(16).toString("hex");
  return { space: "nip98", key, bornMs: nowMs, untilMs: nowMs + expiresInMs };
}

/** A second connection to the same file, as another process has it, with what it holds. */
function second() {
  const { clock, log } = context;
  const database = lazyDatabase(context.host.stateDir, clock);
  const tables = sharedTables({ database, clock, log });
  const other = embeddedState(tables, () => clock.nowMs());
  return { tables, database, state: other, close: () => database.close() };
}

function rowsIn(tables: SharedTables): number {
  return tables.claims().rows(null, 100_000).length;
}

describe("claims", () => {
  test("the first is new, every other one is not", async () => {
    const one = claim();
    expect(state.isClaimed(one.space, one.key)).toBe(false);
    const all = await Promise.all(Array.from({ length: 20 }, () => state.claim(one)));
    expect(all.filter(Boolean)).toHaveLength(1);
    expect(state.isClaimed(one.space, one.key)).toBe(true);
    expect(await state.claim({ ...one, untilMs: one.untilMs + 9 })).toBe(false);
    expect(await state.claim({ ...one, space: "other" })).toBe(true);
  });

  test("of 40 over two connections exactly one is new, and it stays so over a restart", async () => {
    const other = second();
    const one = claim();
    const all = await Promise.all(
      Array.from({ length: 40 }, (_, n) => (n % 2 === 0 ? state : other.state).claim(one)),
    );
    expect(all.filter(Boolean)).toHaveLength(1);
    other.close();
    const later = second();
    expect(await later.state.claim(one)).toBe(false);
    later.close();
  });

  test("another process sees it", async () => {
    const one = claim();
    expect(await state.claim(one)).toBe(true);
    const code = `
      import { lazyDatabase, ownState } from "./src/host.ts";
      const [stateDir, text, nowMs] = Bun.argv.slice(-3);
      const log = { debug() {}, info() {}, warn() {}, error() {} };
      const clock = { nowMs: () => Number(nowMs) };
      const database = lazyDatabase(stateDir, clock);
      console.log(await ownState({ database, clock, log }).claim(JSON.parse(text)));
      database.close();`;
    const { stateDir } = context.host;
    const now = String(context.clock.nowMs());
    expect(inOtherProcess(code, stateDir, JSON.stringify(one), now)).toBe("false");
    expect(inOtherProcess(code, stateDir, JSON.stringify(claim()), now)).toBe("true");
  });

  test("what is over before it begins is not new", async () => {
    expect(await state.claim(claim(0))).toBe(false);
    expect(await state.claim(claim(-1))).toBe(false);
  });

  test("a lock that does not end is an error, and one that ends is waited for", async () => {
    const blocker = second();
    const { database } = blocker.database.get();
    state.open();
    database.run("BEGIN IMMEDIATE");
    await expect(state.claim(claim())).rejects.toMatchObject({ code: "SQLITE_BUSY" });
    const waiting = state.claim(claim());
    database.run("ROLLBACK");
    expect(await waiting).toBe(true);
    blocker.close();
  });

  test("the connection's settings are as they were", async () => {
    const database = context.host.database("x", []);
    const settings = () =>
      ["busy_timeout", "synchronous"].map((name) => database.query(`PRAGMA ${name}`).values());
    const before = settings();
    await state.claim(claim());
    expect(settings()).toEqual(before);
  });

  test.each([
    ["an empty space", { space: "" }],
    ["a space with a colon", { space: "a:b" }],
    ["an empty key", { key: "" }],
    ["a key with a line break", { key: "a\nb" }],
    ["a long key", { key: "a".repeat(201) }],
    ["half a millisecond", { untilMs: 1.5 }],
    ["no birth", { bornMs: Number.NaN }],
  ])("%s is a mistake of the caller", (_, change) => {
    expect(() => state.claim({ ...claim(), ...change })).toThrow(TypeError);
  });
});

describe("sweeping", () => {
  test.each([
    [-1, 1],
    [0, 0],
    [1, 0],
  ])("%d ms after the end %d are kept", async (lateMs, kept) => {
    const { tables, state: own, close } = second();
    await own.claim(claim());
    context.clock.advance(1000 + lateMs);
    await tables.sweep();
    expect(rowsIn(tables)).toBe(kept);
    close();
  });

  test("thousands go in pieces, wherever they lie, and what must stay stays", async () => {
    const { tables, state: own, close } = second();
    const kept = [claim(1e9), claim(1e9), { ...claim(1e9), space: "zz" }];
    for (const one of kept) await own.claim(one);
    for (let n = 0; n < 2500; n += 1) await own.claim(claim(1));
    context.clock.advance(10);
    await tables.sweep();
    expect(rowsIn(tables)).toBe(3);
    for (const { space, key } of kept) expect(own.isClaimed(space, key)).toBe(true);
    close();
  });

  test("revocations that need not be remembered go, the others stay", async () => {
    const { tables, state: own, close } = second();
    const nowMs = context.clock.nowMs();
    await own.revoke("x", [
      { id: "short", untilMs: nowMs + 5 },
      { id: "ever", untilMs: null },
    ]);
    context.clock.advance(10);
    await tables.sweep();
    expect([own.isRevoked("x", "short"), own.isRevoked("x", "ever")]).toEqual([false, true]);
    close();
  });
});

describe("revocations", () => {
  test("hold at once, here and over another connection, in their space alone", async () => {
    const other = second();
    expect(other.state.isRevoked("x", "a")).toBe(false);
    await state.revoke("x", [{ id: "a", untilMs: null }]);
    expect([state.isRevoked("x", "a"), other.state.isRevoked("x", "a")]).toEqual([true, true]);
    expect([state.isRevoked("y", "a"), state.isRevoked("x", "b")]).toEqual([false, false]);
    other.close();
  });

  test("an end never becomes earlier", async () => {
    const { tables, state: own, close } = second();
    const nowMs = context.clock.nowMs();
    for (const untilMs of [nowMs + 50, nowMs + 5]) await own.revoke("x", [{ id: "a", untilMs }]);
    for (const untilMs of [null, nowMs + 5]) await own.revoke("x", [{ id: "b", untilMs }]);
    context.clock.advance(10);
    await tables.sweep();
    expect([own.isRevoked("x", "a"), own.isRevoked("x", "b")]).toEqual([true, true]);
    close();
  });

  test("all or none, and a name that is none is a mistake", async () => {
    const bad = [
      { id: "good", untilMs: null },
      { id: "not good", untilMs: null },
    ];
    await expect(state.revoke("x", bad)).rejects.toThrow(TypeError);
    await expect(state.revoke("x", [{ id: "a", untilMs: 0.5 }])).rejects.toThrow(TypeError);
    expect(state.isRevoked("x", "good")).toBe(false);
  });
});

describe("the database", () => {
  test("one that was closed is an error for every question", async () => {
    await state.claim(claim());
    context.breakDatabase();
    expect(() => state.isClaimed("x", "a")).toThrow();
    expect(() => state.isRevoked("x", "a")).toThrow();
    await expect(state.claim(claim())).rejects.toThrow();
    await expect(state.revoke("x", [{ id: "a", untilMs: null }])).rejects.toThrow();
  });

  test("nothing is made before somebody asks, and a plugin cannot take the gateway's names", () => {
    const tables = () =>
      context.host.database("x", []).query("SELECT name FROM sqlite_schema ORDER BY name").values();
    expect(tables().flat()).not.toContain("gatehouse_claims");
    state.open();
    expect(tables().flat()).toContain("gatehouse_claims");
    expect(() => context.host.database("gatehouse_shared", [])).toThrow("the gateway's");
  });
});
