/** Creating, finding, rotating, revoking and importing, against a real database. */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { type StrategyInstance, TokenError, type TokenStore } from "gatehouse";
import { type TestHost, testHost } from "../../test/support/host.ts";
import { authRequest } from "../../test/support/request.ts";
import plugin from "./index.ts";
import { isId, tokenForm } from "./token.ts";

const FOREIGN = "sk-imported-0123456789abcdef";

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

async function answer(token: string): Promise<string> {
  const request = authRequest({ headers: { authorization: `Bearer ${token}` } });
  const outcome = await instance.authenticate(request);
  return outcome.outcome === "reject" ? outcome.reason : outcome.outcome;
}

async function mistake(work: () => unknown): Promise<TokenError> {
  try {
    await work();
  } catch (error) {
    if (error instanceof TokenError) return error;
    throw error;
  }
  throw new Error("it was accepted");
}

describe("creating and finding", () => {
  test("a token is created with everything that was said about it, and works", async () => {
    const now = context.clock.nowMs();
    const { token, record } = await tokens.create({
      name: "ci",
      owner: "alice",
      role: "admin",
      scopes: ["a", "b"],
      expiresAtMs: now + 1000,
      notBeforeMs: now,
      createdBy: "cli:root",
    });
    expect(isId(record.id)).toBe(true);
    expect(token).toStartWith(`gate_${record.id}_`);
    expect(record).toEqual({
      id: record.id,
      name: "ci",
      owner: "alice",
      role: "admin",
      scopes: ["a", "b"],
      createdAtMs: now,
      createdBy: "cli:root",
      expiresAtMs: now + 1000,
      notBeforeMs: now,
      lastUsedAtMs: null,
      revokedAtMs: null,
      revokedReason: null,
      graceUntilMs: null,
      foreign: false,
    });
    expect(await answer(token)).toBe("accept");
    expect(await tokens.get(record.id)).toEqual({ ...record, lastUsedAtMs: now });
  });

  test("the list has the newest first", async () => {
    for (const name of ["first", "second", "third"]) {
      await tokens.create({ name });
      context.clock.advance(1);
    }
    expect((await tokens.list()).map(({ name }) => name)).toEqual(["third", "second", "first"]);
  });

  test("a name finds the one token that is not revoked", async () => {
    const old = await tokens.create({ name: "ci" });
    await tokens.revoke("ci", "");
    const fresh = await tokens.create({ name: "ci" });
    expect((await tokens.get("ci")).id).toBe(fresh.record.id);
    expect((await tokens.get(old.record.id)).id).toBe(old.record.id);
  });

  test("a name that several tokens have is refused with their ids", async () => {
    const ids = [await tokens.create({ name: "ci" }), await tokens.create({ name: "ci" })].map(
      ({ record }) => record.id,
    );
    for (const work of [
      () => tokens.get("ci"),
      () => tokens.revoke("ci", ""),
      () => tokens.rotate("ci", 0),
    ]) {
      const { code, message } = await mistake(work);
      expect(code).toBe("not_unique");
      for (const id of ids) expect(message).toContain(id);
    }
    expect((await tokens.list()).every((record) => record.revokedAtMs === null)).toBe(true);
  });

  test("a token cannot be hidden behind another one that is named like its id", async () => {
    const { record } = await tokens.create({ name: "victim" });
    await tokens.create({ name: record.id });
    expect((await tokens.get(record.id)).name).toBe("victim");
  });

  test.each(["", "nobody", "aaaaaaaaaaaa", "ci' OR '1'='1", "%", "c_", "\0", "a".repeat(400)])(
    "what does not exist is not found and not repeated: %p",
    async (idOrName) => {
      await tokens.create({ name: "ci" });
      const { code, message } = await mistake(() => tokens.get(idOrName));
      expect(code).toBe("not_found");
      if (idOrName.length > 2) expect(message).not.toContain(idOrName);
    },
  );

  test("names are compared letter by letter, capitals and accents included", async () => {
    await tokens.create({ name: "Ci" });
    expect((await mistake(() => tokens.get("ci"))).code).toBe("not_found");
  });

  test("a draft that is refused leaves nothing behind", async () => {
    expect((await mistake(() => tokens.create({ name: "" }))).code).toBe("invalid");
    expect(await tokens.list()).toEqual([]);
  });
});

describe("one owner's tokens", () => {
  test("are listed alone, newest first", async () => {
    const ids: string[] = [];
    for (const owner of ["alice", "bob", "alice", "Alice"]) {
      const { record } = await tokens.create({ name: "ci", owner });
      if (owner === "alice") ids.unshift(record.id);
      context.clock.advance(1);
    }
    await tokens.create({});
    expect((await tokens.list({ owner: "alice" })).map(({ id }) => id)).toEqual(ids);
    expect(await tokens.list({ owner: "carol" })).toEqual([]);
    expect(await tokens.list({ owner: "" })).toEqual([]);
  });

  test("are the only ones that a filtered call finds, by id and by name", async () => {
    const owner = "alice";
    const own = await tokens.create({ name: "own", owner });
    const other = await tokens.create({ name: "other", owner: "bob" });
    const nobodys = await tokens.create({ name: "nobodys" });
    for (const wanted of [other.record.id, "other", nobodys.record.id, "nobodys", "ABCDEFGHIJKL"]) {
      for (const work of [
        () => tokens.get(wanted, { owner }),
        () => tokens.rotate(wanted, 0, { owner }),
        () => tokens.revoke(wanted, "", { owner }),
      ]) {
        expect((await mistake(work)).code).toBe("not_found");
      }
    }
    expect([await answer(other.token), await answer(nobodys.token)]).toEqual(["accept", "accept"]);
    expect((await tokens.get("own", { owner })).id).toBe(own.record.id);
    expect((await tokens.rotate(own.record.id, 0, { owner })).record.id).toBe(own.record.id);
    await tokens.revoke(own.record.id, "", { owner });
    expect(await answer(own.token)).not.toBe("accept");
  });

  test("may be without a name, and then none is shown or found", async () => {
    const { token, record } = await tokens.create({ owner: "alice" });
    expect(record.name).toBe("");
    expect((await mistake(() => tokens.get(""))).code).toBe("not_found");
    const request = authRequest({ headers: { authorization: `Bearer ${token}` } });
    const outcome = await instance.authenticate(request);
    if (outcome.outcome !== "accept") throw new Error("it was not accepted");
    expect(outcome.identity).not.toHaveProperty("name");
  });
});

describe("rotating", () => {
  test("the id stays, the new secret works at once and the old one until the grace time ends", async () => {
    const first = await tokens.create({ name: "ci" });
    const second = await tokens.rotate("ci", 1000);
    expect(second.record.id).toBe(first.record.id);
    expect(second.record.graceUntilMs).toBe(context.clock.nowMs() + 1000);
    expect(await answer(second.token)).toBe("accept");
    for (const [ms, expected] of [
      [999, "accept"],
      [1, "invalid_token"],
      [1, "invalid_token"],
    ] as const) {
      context.clock.advance(ms);
      expect(await answer(first.token)).toBe(expected);
      expect(await answer(second.token)).toBe("accept");
    }
  });

  test("without a grace time the old secret ends at once", async () => {
    const first = await tokens.create({ name: "ci" });
    const second = await tokens.rotate("ci", 0);
    expect(second.record.graceUntilMs).toBeNull();
    expect(await answer(first.token)).toBe("invalid_token");
    expect(await answer(second.token)).toBe("accept");
  });

  test("a second rotation within the grace time ends the oldest secret", async () => {
    const first = await tokens.create({ name: "ci" });
    const second = await tokens.rotate("ci", 1000);
    const third = await tokens.rotate("ci", 1000);
    expect(await answer(first.token)).toBe("invalid_token");
    expect(await answer(second.token)).toBe("accept");
    expect(await answer(third.token)).toBe("accept");
    await tokens.rotate("ci", 0);
    expect(await answer(second.token)).toBe("invalid_token");
    expect(await answer(third.token)).toBe("invalid_token");
  });

  test("an imported token becomes one of our own form under the same id", async () => {
    const record = await tokens.adopt(FOREIGN, { name: "old" });
    const second = await tokens.rotate("old", 1000);
    expect(second.token).toStartWith(`gate_${record.id}_`);
    expect(await answer(FOREIGN)).toBe("accept");
    expect(await answer(second.token)).toBe("accept");
    const third = await tokens.rotate("old", 1000);
    expect(await answer(FOREIGN)).toBe("invalid_token");
    expect(await answer(second.token)).toBe("accept");
    expect(await answer(third.token)).toBe("accept");
  });

  test("an imported token that is rotated without a grace time ends at once", async () => {
    await tokens.adopt(FOREIGN, { name: "old" });
    await tokens.rotate("old", 0);
    expect(await answer(FOREIGN)).toBe("invalid_token");
    expect((await mistake(() => tokens.adopt(FOREIGN, { name: "again" }))).code).toBe("conflict");
  });

  test("a token that is revoked or expired is not rotated", async () => {
    const { record } = await tokens.create({ name: "a" });
    await tokens.revoke("a", "");
    expect((await mistake(() => tokens.rotate(record.id, 0))).message).toContain("revoked");
    await tokens.create({ name: "b", expiresAtMs: context.clock.nowMs() + 1 });
    context.clock.advance(1);
    expect((await mistake(() => tokens.rotate("b", 0))).message).toContain("expired");
  });

  test("an open stream ends with the secret that opened it", async () => {
    const first = await tokens.create({ name: "ci" });
    const request = authRequest({ headers: { authorization: `Bearer ${first.token}` } });
    const outcome = await instance.authenticate(request);
    if (outcome.outcome !== "accept") throw new Error("it was not accepted");
    expect(await instance.isCurrent?.(outcome.identity)).toBe(true);
    await tokens.rotate("ci", 1000);
    expect(await instance.isCurrent?.(outcome.identity)).toBe(true);
    context.clock.advance(1000);
    expect(await instance.isCurrent?.(outcome.identity)).toBe(false);
  });
});

describe("revoking", () => {
  test("a revoked token is refused at once, and revoking again keeps the first time and reason", async () => {
    const { token, record } = await tokens.create({ name: "ci" });
    const revokedAtMs = context.clock.nowMs();
    const revoked = await tokens.revoke("ci", "leaked");
    expect(revoked).toMatchObject({ id: record.id, revokedAtMs, revokedReason: "leaked" });
    expect(await answer(token)).toBe("token_revoked");
    context.clock.advance(5);
    expect(await tokens.revoke(record.id, "other")).toEqual(revoked);
  });

  test("both secrets of a rotated token are revoked", async () => {
    const first = await tokens.create({ name: "ci" });
    const second = await tokens.rotate("ci", 1000);
    await tokens.revoke("ci", "");
    expect(await answer(first.token)).toBe("token_revoked");
    expect(await answer(second.token)).toBe("token_revoked");
  });

  test("no reason is no reason", async () => {
    const { record } = await tokens.create({ name: "ci" });
    expect((await tokens.revoke(record.id, "")).revokedReason).toBeNull();
  });

  test("a reason that holds a token is refused and nothing is revoked", async () => {
    const { token, record } = await tokens.create({ name: "ci" });
    expect((await mistake(() => tokens.revoke("ci", `leaked: ${token}`))).code).toBe("invalid");
    expect((await tokens.get(record.id)).revokedAtMs).toBeNull();
  });
});

describe("importing", () => {
  test("an imported token works as it was", async () => {
    const record = await tokens.adopt(FOREIGN, { name: "old", scopes: ["a"] });
    expect(record).toMatchObject({ name: "old", scopes: ["a"], foreign: true });
    expect(await answer(FOREIGN)).toBe("accept");
    expect(await answer(`${FOREIGN}x`)).toBe("unknown");
    expect(await answer(FOREIGN.toUpperCase())).toBe("unknown");
  });

  test("a token that is there is a conflict, also when it is revoked", async () => {
    const { id } = await tokens.adopt(FOREIGN, { name: "old" });
    const again = () => tokens.adopt(FOREIGN, { name: "new" });
    expect(await mistake(again)).toMatchObject({ code: "conflict" });
    await tokens.revoke("old", "");
    const { code, message } = await mistake(again);
    expect(code).toBe("conflict");
    expect(message).toContain(id);
    expect(message).not.toContain(FOREIGN);
    expect(await answer(FOREIGN)).toBe("token_revoked");
  });

  test("a token of our own form is not imported, whole or cut", async () => {
    const own = tokenForm("gate").issue("0123456789Az");
    for (const token of [own, own.slice(0, -1), own.slice(0, 30)]) {
      expect((await mistake(() => tokens.adopt(token, { name: "n" }))).code).toBe("invalid");
    }
    const other = tokenForm("other").issue("0123456789Az");
    await tokens.adopt(other, { name: "from another gateway" });
    expect(await answer(other)).toBe("accept");
  });

  test("a token that is part of its own description is refused and not repeated", async () => {
    const entry = { name: "n", owner: `key ${FOREIGN}` };
    const { code, message } = await mistake(() => tokens.adopt(FOREIGN, entry));
    expect(code).toBe("invalid");
    expect(message).not.toContain(FOREIGN);
  });

  test("many are imported at once, or none: the error says which one was wrong", async () => {
    const entry = (n: number) => ({ token: `${FOREIGN}${n}`, draft: { name: `n${n}` } });
    const wrong = [entry(1), entry(2), { ...entry(3), token: "short" }, entry(4)];
    expect(await mistake(() => tokens.adoptAll(wrong))).toMatchObject({
      code: "invalid",
      index: 2,
    });
    const twice = [entry(1), entry(1)];
    expect(await mistake(() => tokens.adoptAll(twice))).toMatchObject({
      code: "conflict",
      index: 1,
    });
    expect(await tokens.list()).toEqual([]);
    const records = await tokens.adoptAll([entry(1), entry(2)]);
    expect(records.map(({ name }) => name)).toEqual(["n1", "n2"]);
    expect(await answer(`${FOREIGN}2`)).toBe("accept");
  });
});

describe("two strategies in one database", () => {
  test("they share nothing: not tokens, not names, not imported ones", async () => {
    const host = { ...context.host, strategy: "ops" };
    const ops = await plugin.init(plugin.config.parse({ prefix: "gate" }), host);
    const mine = await tokens.create({ name: "ci" });
    await tokens.adopt(FOREIGN, { name: "old" });
    for (const token of [mine.token, FOREIGN]) {
      const request = authRequest({ headers: { authorization: `Bearer ${token}` } });
      expect(await ops.authenticate(request)).toEqual({ outcome: "unknown" });
    }
    expect(await ops.tokens?.list()).toEqual([]);
    for (const idOrName of ["ci", mine.record.id]) {
      expect((await mistake(() => ops.tokens?.revoke(idOrName, ""))).code).toBe("not_found");
      expect((await mistake(() => ops.tokens?.rotate(idOrName, 0))).code).toBe("not_found");
    }
    expect(await ops.isCurrent?.({ id: mine.record.id, attributes: { rotation: "0" } })).toBe(
      false,
    );
    await ops.tokens?.adopt?.(FOREIGN, { name: "old" });
    await tokens.revoke("old", "");
    const request = authRequest({ headers: { authorization: `Bearer ${FOREIGN}` } });
    expect(await ops.authenticate(request)).toMatchObject({ outcome: "accept" });
    await ops.close?.();
  });
});
