/** Pages of tokens: every order, behind every token, with and without a search. */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import type { StrategyInstance, TokenOrder, TokenQuery, TokenRecord, TokenStore } from "gatehouse";
import { type TestHost, testHost } from "../../test/support/host.ts";
import { authRequest } from "../../test/support/request.ts";
import plugin from "./index.ts";

let context: TestHost;
let instance: StrategyInstance;
let tokens: Required<TokenStore>;

beforeEach(async () => {
  context = testHost({ strategy: "team" });
  instance = await plugin.init(plugin.config.parse({}), context.host);
  tokens = instance.tokens as Required<TokenStore>;
});
afterEach(async () => {
  await instance.close?.();
  context.dispose();
});

const NAMES = ["", "beta", "Alpha", "alpha", "beta", "éclair", "100%_x", "🦊", ""];

/** Several with the same name, several of the same moment. */
async function fill(): Promise<void> {
  for (const [index, name] of NAMES.entries()) {
    await tokens.create({
      owner: index % 2 === 0 ? "alice" : "Bob",
      ...(name === "" ? {} : { name }),
    });
    if (index % 3 === 0) context.clock.advance(1);
  }
}

async function inPages(query: Omit<TokenQuery, "after">): Promise<TokenRecord[]> {
  const found: TokenRecord[] = [];
  for (;;) {
    const after = found.at(-1);
    const page = await tokens.page({ ...query, ...(after === undefined ? {} : { after }) });
    expect(page.records.length).toBeLessThanOrEqual(query.limit);
    if (page.records.length === 0) return found;
    found.push(...page.records);
    expect(page.total).toBeGreaterThanOrEqual(found.length);
  }
}

const ids = (records: readonly TokenRecord[]): string[] => records.map(({ id }) => id);

describe("pages", () => {
  test.each<[TokenOrder, TokenOrder]>([
    ["newest", "oldest"],
    ["name", "name_reversed"],
  ])("%s gives each token once, whatever the size, and %s is the reverse", async (order, other) => {
    await fill();
    const whole = await tokens.page({ order, limit: 100, revoked: false });
    expect(whole.total).toBe(NAMES.length);
    if (order === "newest") expect(whole.records).toEqual(await tokens.list());
    const names = whole.records.map(({ name }) => name);
    if (order === "name") expect(names).toEqual([...names].sort());
    for (const limit of [1, 2, 4, 9, 10]) {
      expect(ids(await inPages({ order, limit, revoked: false }))).toEqual(ids(whole.records));
      const reversed = await inPages({ order: other, limit, revoked: false });
      expect(ids(reversed).reverse()).toEqual(ids(whole.records));
    }
  });

  test("a page goes on behind a token that is gone, and new ones do not disturb it", async () => {
    await fill();
    const before = await tokens.list();
    const first = await tokens.page({ order: "newest", limit: 4, revoked: false });
    const last = first.records.at(-1);
    await tokens.revoke(last?.id ?? "", "");
    context.clock.advance(10);
    await tokens.create({ name: "newer" });
    const second = await tokens.page({
      order: "newest",
      limit: 100,
      revoked: false,
      ...(last === undefined ? {} : { after: last }),
    });
    expect(ids([...first.records, ...second.records])).toEqual(ids(before));
  });

  test.each([
    ["alpha", 2],
    ["lph", 2],
    ["100%_", 1],
    ["%", 1],
    ["_", 1],
    ["bob", 4],
    ["alice", 5],
    ["éCLAIR", 1],
    ["🦊", 1],
    ["' or 1=1 --", 0],
  ])("%p is looked for literally and without regard to case: %d", async (text, count) => {
    await fill();
    const { records, total } = await tokens.page({
      order: "newest",
      limit: 100,
      revoked: false,
      text,
    });
    expect([records.length, total]).toEqual([count, count]);
  });

  test("an id is found by its middle, and revoked tokens only when asked for", async () => {
    const { record } = await tokens.create({ name: "ci" });
    const text = record.id.slice(3, 10).toLowerCase();
    const look = (revoked: boolean) => tokens.page({ order: "name", limit: 5, revoked, text });
    expect(ids((await look(false)).records)).toEqual([record.id]);
    await tokens.revoke(record.id, "");
    expect(await look(false)).toEqual({ records: [], total: 0 });
    expect(await look(true)).toMatchObject({ total: 1, records: [{ id: record.id }] });
  });

  test("the times of last use that are not written yet are in them", async () => {
    const { token } = await tokens.create({ name: "ci" });
    await instance.authenticate(authRequest({ headers: { authorization: `Bearer ${token}` } }));
    const { records } = await tokens.page({ order: "newest", limit: 1, revoked: false });
    expect(records[0]?.lastUsedAtMs).toBe(context.clock.nowMs());
  });
});
