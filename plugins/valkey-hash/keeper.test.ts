/** Creating, finding, rotating, revoking and importing, against a real server. */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { TokenError } from "gatehouse";
import {
  endStrategies,
  type Started,
  startOn,
  startValkey,
  type TestValkey,
  until,
  valkeyMissing,
} from "../../test/support/valkey.ts";
import plugin from "./index.ts";

const suite = valkeyMissing === null ? describe : describe.skip;
const FOREIGN = "sk-imported-0123456789abcdef";

async function mistake(work: () => unknown): Promise<TokenError> {
  try {
    await work();
  } catch (error) {
    if (error instanceof TokenError) return error;
    throw error;
  }
  throw new Error("it was accepted");
}

suite.each(["plain", "checked"])("tokens of the form %s", (format) => {
  let valkey: TestValkey;
  let started: Started;
  let raw: ReturnType<TestValkey["client"]>;
  beforeEach(async () => {
    valkey = await startValkey();
    raw = valkey.client();
    started = await startOn(plugin, valkey.url, { format });
  });
  afterEach(async () => {
    await endStrategies();
    await valkey.stop();
  });

  test("a token is created with everything that was said about it, and works", async () => {
    const { tokens, context, answer } = started;
    const now = context.clock.nowMs();
    const { token, record } = await tokens.create({
      name: "ci",
      owner: "alice",
      role: "admin",
      scopes: ["a", "b", "a"],
      expiresAtMs: now + 100_000,
      notBeforeMs: now,
      createdBy: "cli:root",
    });
    const expected = {
      id: record.id,
      name: "ci",
      owner: "alice",
      role: "admin",
      scopes: ["a", "b"],
      createdAtMs: now,
      createdBy: "cli:root",
      expiresAtMs: now + 100_000,
      notBeforeMs: now,
      lastUsedAtMs: null,
      revokedAtMs: null,
      revokedReason: null,
      graceUntilMs: null,
      foreign: false,
    } as const;
    expect(record).toEqual(expected);
    expect(await answer(token)).toBe("accept");
    const used = { ...expected, lastUsedAtMs: now };
    expect(await tokens.get("ci")).toEqual(used);
    expect(await tokens.get(record.id)).toEqual(used);
    expect(await tokens.list()).toEqual([used]);
  });

  test("the list has the newest first, and a name that several have is refused with their ids", async () => {
    const { tokens, context } = started;
    for (const name of ["first", "twice", "twice"]) {
      await tokens.create({ name });
      context.clock.advance(1);
    }
    const records = await tokens.list();
    expect(records.map(({ name }) => name)).toEqual(["twice", "twice", "first"]);
    const { code, message } = await mistake(() => tokens.revoke("twice", ""));
    expect(code).toBe("not_unique");
    for (const { id } of records.slice(0, 2)) expect(message).toContain(id);
    const secretName = "a-token-pasted-by-mistake";
    const missing = await mistake(() => tokens.get(secretName));
    expect(missing.code).toBe("not_found");
    expect(missing.message).not.toContain(secretName);
  });

  test("rotated, the id stays and the old secret works until its grace is over", async () => {
    const { tokens, answer, context } = started;
    const first = await tokens.create({ name: "ci", owner: "alice" });
    const second = await tokens.rotate("ci", 60_000);
    const until = context.clock.nowMs() + 60_000;
    expect(second.record).toMatchObject({ id: first.record.id, graceUntilMs: until });
    const shown = (await tokens.list())[0];
    expect(Math.abs((shown?.graceUntilMs ?? 0) - until)).toBeLessThan(1000);
    expect(await answer(first.token)).toBe("accept");
    expect(await answer(second.token)).toBe("accept");
    const third = await tokens.rotate(first.record.id, 60_000);
    expect(await answer(first.token)).toBe("unknown");
    expect(await answer(second.token)).toBe("accept");
    context.clock.advance(60_001);
    expect(await answer(second.token)).not.toBe("accept");
    expect(await answer(third.token)).toBe("accept");
    await tokens.rotate("ci", 0);
    expect(await answer(third.token)).toBe("unknown");
    expect(await tokens.list()).toHaveLength(1);
  });

  test("a short grace ends in Valkey itself, for both programs", async () => {
    const { tokens, answer, context } = started;
    const first = await tokens.create({ name: "ci" });
    await tokens.rotate("ci", 50);
    expect(await answer(first.token)).toBe("accept");
    await until(async () => (await raw.keys("auth:token:*")).length === 1);
    context.clock.advance(50);
    expect(await answer(first.token)).not.toBe("accept");
  });

  test("a stream ends with the secret that opened it", async () => {
    const { tokens, ask, instance } = started;
    const first = await tokens.create({ name: "ci" });
    const outcome = await ask(first.token);
    if (outcome.outcome !== "accept") throw new Error("it was not accepted");
    expect(await instance.isCurrent?.(outcome.identity)).toBe(true);
    await tokens.rotate("ci", 60_000);
    expect(await instance.isCurrent?.(outcome.identity)).toBe(true);
    await tokens.rotate("ci", 60_000);
    expect(await instance.isCurrent?.(outcome.identity)).toBe(false);
  });

  test("revoked, every secret of the id is gone from Valkey", async () => {
    const { tokens, answer, context } = started;
    const first = await tokens.create({ name: "ci", owner: "alice" });
    const second = await tokens.rotate("ci", 60_000);
    const record = await tokens.revoke(first.record.id, "laptop lost");
    expect(record).toMatchObject({
      id: first.record.id,
      revokedAtMs: context.clock.nowMs(),
      revokedReason: "laptop lost",
    });
    expect([await answer(first.token), await answer(second.token)]).toEqual(["unknown", "unknown"]);
    expect(await raw.keys("auth:*")).toEqual([]);
    expect((await mistake(() => tokens.revoke(first.record.id, ""))).code).toBe("not_found");
  });

  test("rotating and revoking at once never leaves a secret that works", async () => {
    const other = await startOn(plugin, valkey.url, { format });
    for (let round = 0; round < 60; round += 1) {
      const { record } = await started.tokens.create({ name: `n${round}` });
      const rotating = Promise.resolve(started.tokens.rotate(record.id, 60_000)).catch(() => null);
      if (round % 3 > 0) await Bun.sleep(round % 3);
      await Promise.resolve(other.tokens.revoke(record.id, "")).catch(() => null);
      const issued = await rotating;
      const left = (await started.tokens.list()).map(({ id }) => id);
      const isAlive = issued !== null && (await other.answer(issued.token)) === "accept";
      // Whoever was later has won, and what lives on can be listed and revoked.
      expect(left).toEqual(isAlive ? [record.id] : []);
      if (isAlive) await started.tokens.revoke(record.id, "");
    }
    expect(await raw.keys("auth:token:*")).toEqual([]);
  });

  test("what was said to be revoked is, also when it is rotated again and again meanwhile", async () => {
    const other = await startOn(plugin, valkey.url, { format });
    let revoked = 0;
    for (let round = 0; round < 120; round += 1) {
      const { token, record } = await started.tokens.create({ owner: "alice" });
      const secrets = [token];
      const rotations = [0, 60_000, 0].slice(0, 1 + (round % 3)).map(async (graceMs, index) => {
        for (let pings = (index * round) % 7; pings > 0; pings -= 1) await raw.ping();
        const issued = await Promise.resolve(started.tokens.rotate(record.id, graceMs)).catch(
          () => null,
        );
        if (issued !== null) secrets.push(issued.token);
      });
      for (let pings = round % 11; pings > 0; pings -= 1) await raw.ping();
      const filter = round % 2 === 0 ? undefined : { owner: "alice" };
      await other.tokens.revoke(record.id, "", filter);
      revoked += 1;
      await Promise.all(rotations);
      const answers = await Promise.all(secrets.map((one) => started.answer(one)));
      expect([round, answers]).toEqual([round, secrets.map(() => "unknown")]);
    }
    expect(await raw.keys("auth:*")).toEqual([]);
    expect(revoked).toBe(120);
  });

  test("of many rotations at once one comes through, and a revocation ends what it made", async () => {
    const other = await startOn(plugin, valkey.url, { format });
    for (let round = 0; round < 20; round += 1) {
      const { token, record } = await started.tokens.create({ owner: "alice" });
      const rotations = Array.from({ length: 8 }, (_, index) => {
        const { tokens } = index % 2 === 0 ? started : other;
        return Promise.resolve(tokens.rotate(record.id, 60_000)).catch(() => null);
      });
      const issued = (await Promise.all(rotations)).flatMap((one) => one?.token ?? []);
      expect(issued.length).toBeGreaterThan(0);
      const secrets = [token, ...issued];
      const answers = await Promise.all(secrets.map((one) => started.answer(one)));
      // The last one, and the one before it for its grace.
      expect(answers.filter((one) => one === "accept")).toHaveLength(2);
      await other.tokens.revoke(record.id, "");
      const later = await Promise.all(secrets.map((one) => started.answer(one)));
      expect(later.filter((one) => one === "accept")).toEqual([]);
    }
    expect(await raw.keys("auth:*")).toEqual([]);
  });

  test("what a rotation that broke off has left stands in nobody's way", async () => {
    const { token, record } = await started.tokens.create({ owner: "alice" });
    const [key] = (await raw.keys("auth:token:*")) as [string];
    const left = `auth:token:${"ab".repeat(32)}`;
    const fields = { ...(await raw.hgetall(key)), id: record.id, generation: "1", state: "new" };
    await raw.hset(left, fields);
    await raw.hset(key, "next", "ab".repeat(32));
    await raw.sadd("auth:user_tokens:alice", "ab".repeat(32));
    expect((await started.tokens.list()).map(({ id }) => id)).toEqual([record.id]);
    const rotated = await started.tokens.rotate(record.id, 0);
    expect([await started.answer(token), await started.answer(rotated.token)]).toEqual([
      "unknown",
      "accept",
    ]);
    expect(await raw.exists(left)).toBe(0);
    await started.tokens.revoke(record.id, "");
    expect(await raw.keys("auth:*")).toEqual([]);
  });

  test("an imported token works, once, and a wrong entry imports none", async () => {
    const { tokens, answer } = started;
    const record = await tokens.adopt(FOREIGN, { name: "old", owner: "alice" });
    expect(record).toMatchObject({ foreign: true, owner: "alice" });
    expect(await answer(FOREIGN)).toBe("accept");
    expect((await mistake(() => tokens.adopt(FOREIGN, { name: "again" }))).code).toBe("conflict");
    expect(await raw.exists("auth:user_tokens:gatehouse:nobody")).toBe(0);
    const entries = Array.from({ length: 250 }, (_, n) => ({
      token: n === 220 ? FOREIGN : `sk-many-0123456789-${n}`,
      draft: { name: `n${n}` },
    }));
    expect(await mistake(() => tokens.adoptAll(entries))).toMatchObject({
      code: "conflict",
      index: 220,
    });
    const twice = entries.with(220, { token: "sk-many-0123456789-7", draft: { name: "twice" } });
    expect(await mistake(() => tokens.adoptAll(twice))).toMatchObject({
      code: "conflict",
      index: 220,
    });
    expect(await tokens.list()).toHaveLength(1);
    expect(await tokens.adoptAll(entries.toSpliced(220, 1))).toHaveLength(249);
    const second = await tokens.rotate("old", 0);
    expect(await answer(FOREIGN)).toBe("unknown");
    expect(await answer(second.token)).toBe("accept");
  });

  test("a list takes members of tokens that are gone out of the sets, and puts missing ones in", async () => {
    const { tokens } = started;
    const gone = await tokens.create({ name: "gone", owner: "alice" });
    const [goneKey] = await raw.keys("auth:token:*");
    const kept = await tokens.create({ name: "kept", owner: "alice" });
    await raw.del(goneKey ?? "");
    const hash = (await raw.keys("auth:token:*"))[0]?.slice("auth:token:".length) ?? "";
    await raw.srem("auth:user_tokens:alice", hash);
    await raw.sadd("auth:user_tokens:bob", hash);
    expect((await tokens.list()).map(({ id }) => id)).toEqual([kept.record.id]);
    expect(gone.record.id).not.toBe(kept.record.id);
    expect(await raw.smembers("auth:user_tokens:alice")).toEqual([hash]);
    expect(await raw.exists("auth:user_tokens:bob")).toBe(0);
  });

  test("one owner's tokens are listed and found alone, without a look at the others", async () => {
    const { tokens, answer, context } = started;
    const owner = "alice";
    const ids: string[] = [];
    for (const one of [owner, "bob", owner, "Alice"]) {
      const { record } = await tokens.create({ name: "ci", owner: one });
      if (one === owner) ids.unshift(record.id);
      context.clock.advance(1);
    }
    const nobodys = await tokens.create({});
    const bobs = (await tokens.list({ owner: "bob" }))[0]?.id ?? "";
    // SCAN would be a look at everybody's.
    await raw.config("RESETSTAT");
    expect((await tokens.list({ owner })).map(({ id }) => id)).toEqual(ids);
    expect(await tokens.list({ owner: "carol" })).toEqual([]);
    expect(await tokens.list({ owner: "gatehouse:nobody" })).toEqual([]);
    for (const wanted of [bobs, nobodys.record.id, "f".repeat(64), "none"]) {
      for (const work of [
        () => tokens.get(wanted, { owner }),
        () => tokens.rotate(wanted, 0, { owner }),
        () => tokens.revoke(wanted, "", { owner }),
      ]) {
        expect((await mistake(work)).code).toBe("not_found");
      }
    }
    const rotated = await tokens.rotate(ids[0] ?? "", 60_000, { owner });
    const shown = await tokens.get(ids[0] ?? "", { owner });
    expect(shown).toMatchObject({ id: ids[0], owner });
    expect(shown.graceUntilMs).not.toBeNull();
    await tokens.revoke(ids[0] ?? "", "", { owner });
    expect(await answer(rotated.token)).toBe("unknown");
    expect(await raw.info("commandstats")).not.toContain("cmdstat_scan:");
    expect((await tokens.list({ owner })).map(({ id }) => id)).toEqual(ids.slice(1));
  });

  test("members of a set that are gone, wrong or another's are passed over", async () => {
    const { tokens } = started;
    const kept = await tokens.create({ name: "kept", owner: "alice" });
    const other = await tokens.create({ name: "other", owner: "bob" });
    const [bobs = ""] = await raw.smembers("auth:user_tokens:bob");
    await raw.set(`auth:token:${"a".repeat(64)}`, "not a hash");
    await raw.sadd("auth:user_tokens:alice", bobs, "f".repeat(64), "a".repeat(64), "nonsense");
    const listed = await tokens.list({ owner: "alice" });
    expect(listed.map(({ id }) => id)).toEqual([kept.record.id]);
    expect((await tokens.get(other.record.id)).owner).toBe("bob");
  });

  test("nobody can be given what belongs to nobody", async () => {
    const { tokens } = started;
    const reserved = { name: "a", owner: "gatehouse:nobody" };
    expect((await mistake(() => tokens.create(reserved))).code).toBe("invalid");
    expect(await tokens.list()).toEqual([]);
  });

  test("times of last use are written beside the tokens and do not touch them", async () => {
    const { tokens, answer, instance, context } = started;
    const { token, record } = await tokens.create({ name: "ci" });
    await answer(token);
    await instance.close?.();
    const [key] = await raw.keys("auth:token_used:*");
    expect(await raw.get(key ?? "")).toBe(String(context.clock.nowMs()));
    const again = await startOn(plugin, valkey.url, { format });
    expect((await again.tokens.get(record.id)).lastUsedAtMs).toBe(context.clock.nowMs());
  });
});
