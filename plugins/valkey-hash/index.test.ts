/** What is read from a request, what is answered, and that both programs understand each other's tokens. */
import { afterAll, afterEach, beforeAll, describe, expect, test } from "bun:test";
import type { StrategyInstance } from "gatehouse";
import { authRequest, type RequestDescription } from "../../test/support/request.ts";
import {
  endStrategies,
  startOn,
  startValkey,
  TEST_SALT,
  type TestValkey,
  valkeyMissing,
} from "../../test/support/valkey.ts";
import { keyedHasher } from "./hash.ts";
import plugin from "./index.ts";

const suite = valkeyMissing === null ? describe : describe.skip;
const hash = keyedHasher(TEST_SALT);
const basic = (text: string | Uint8Array) => ({
  authorization: `Basic ${Buffer.from(text).toString("base64")}`,
});

async function answerTo(instance: StrategyInstance, headers: RequestDescription["headers"]) {
  const request = authRequest(headers === undefined ? {} : { headers });
  const outcome = await instance.authenticate(request);
  return outcome.outcome === "reject" ? outcome.reason : outcome.outcome;
}

suite(`requests${valkeyMissing === null ? "" : ` (${valkeyMissing})`}`, () => {
  let valkey: TestValkey;
  beforeAll(async () => {
    valkey = await startValkey();
  });
  afterEach(endStrategies);
  afterAll(() => valkey.stop());

  test("Basic gives its password, or its user when that is blank, or the whole without a colon", async () => {
    const { instance, tokens } = await startOn(plugin, valkey.url);
    const { token } = await tokens.create({ name: "ci" });
    for (const text of [
      `git:${token}`,
      `:${token}`,
      `${token}:`,
      `${token}: `,
      token,
      ` ${token} `,
    ]) {
      expect(await answerTo(instance, basic(text))).toBe("accept");
    }
    expect(await answerTo(instance, { authorization: `bAsIc  ${btoa(token)}` })).toBe("accept");
    // The password is everything after the first colon.
    expect(await answerTo(instance, basic(`a:b:${token}`))).toBe("unknown");
    expect(instance.challenges?.()).toContainEqual({
      scheme: "Basic",
      parameters: { charset: "UTF-8" },
    });
  });

  test("Basic in a broken form is malformed and no fault", async () => {
    const { instance, tokens } = await startOn(plugin, valkey.url);
    const { token } = await tokens.create({ name: "ci" });
    const good = btoa(`git:${token}`);
    for (const value of [
      "Basic",
      "Basic ",
      "Basic =",
      "Basic !!!!",
      `Basic ${good}=`,
      `Basic ${good.replace(/=*$/, "")}%`,
      `Basic ${good} ${good}`,
      `Basic ${btoa(token).replace(/=+$/, "").slice(0, -1)}`,
      basic(":").authorization,
      basic(" : ").authorization,
      basic("").authorization,
      basic(`git:${token}\0`).authorization,
      basic(`git:${token}\nx`).authorization,
      basic(`git:${token},x`).authorization,
      basic(new Uint8Array([0xff, 0xfe, 0x3a, 0x61])).authorization,
      basic("ü:é").authorization,
      basic(`git:${"x".repeat(9000)}`).authorization,
    ]) {
      expect(await answerTo(instance, { authorization: value })).toBe("malformed_credential");
    }
    const line: [string, string] = ["authorization", `Basic ${good}`];
    expect(await answerTo(instance, [line, line])).toBe("ambiguous_credential");
    expect(await answerTo(instance, { authorization: `Basic ${good}, Basic ${good}` })).toBe(
      "ambiguous_credential",
    );
  });

  test("with basic: false Basic is left to others", async () => {
    const { instance, tokens } = await startOn(plugin, valkey.url, { basic: false });
    const { token } = await tokens.create({ name: "ci" });
    expect(await answerTo(instance, basic(`git:${token}`))).toBe("absent");
    expect(instance.challenges?.()).toEqual([{ scheme: "Bearer" }]);
  });

  test("tokens of every length and byte are answered", async () => {
    const { instance } = await startOn(plugin, valkey.url);
    expect(await answerTo(instance, { authorization: "Bearer " })).toBe("malformed_credential");
    expect(await answerTo(instance, { authorization: "Bearer x" })).toBe("unknown");
    expect(await answerTo(instance, { authorization: `Bearer ${"x".repeat(8000)}` })).toBe(
      "unknown",
    );
    for (let byte = 0; byte < 256; byte += 1) {
      const value = `Bearer a${String.fromCharCode(byte)}b`;
      expect(["absent", "unknown", "malformed_credential", "ambiguous_credential"]).toContain(
        await answerTo(instance, { authorization: value }),
      );
    }
  });

  test("a mistyped checked token is rejected without a look-up, a whole one that is not held is unknown", async () => {
    const { instance, tokens, ask } = await startOn(plugin, valkey.url, { format: "checked" });
    const { token, record } = await tokens.create({ name: "ci" });
    expect(token).toStartWith(`gate_${record.id}_`);
    expect(ask(token.slice(0, -1))).toEqual({ outcome: "reject", reason: "invalid_token" });
    expect(await answerTo(instance, { authorization: `Bearer ${token}` })).toBe("accept");
    await tokens.revoke(record.id, "");
    expect(await answerTo(instance, { authorization: `Bearer ${token}` })).toBe("unknown");
  });

  test("times are kept to the millisecond, and Valkey drops the key itself", async () => {
    const { tokens, answer, context } = await startOn(plugin, valkey.url);
    const now = context.clock.nowMs();
    const { token, record } = await tokens.create({
      name: "short",
      notBeforeMs: now + 1000,
      expiresAtMs: now + 60_000,
    });
    for (const [atMs, expected] of [
      [now + 999, "token_not_yet_valid"],
      [now + 1000, "accept"],
      [now + 60_000, "token_expired"],
    ] as const) {
      context.clock.set(atMs);
      expect(await answer(token)).toBe(expected);
    }
    const left = await valkey.client().pttl(`auth:token:${record.id}`);
    expect(left).toBeGreaterThan(50_000);
    expect(left).toBeLessThanOrEqual(60_000);
  });

  test("tokens that the original made are accepted, whatever their subject is", async () => {
    const { ask, tokens } = await startOn(plugin, valkey.url);
    const raw = valkey.client();
    for (const sub of ["bob", "a/b", "100%", "line\nbreak", "🦊", " "]) {
      const token = `Original${Buffer.from(sub).toString("hex").padEnd(24, "0")}`;
      const id = hash(token);
      await raw
        .multi()
        .hset(`auth:token:${id}`, {
          sub,
          created_at: "2025-06-01T10:11:12.123456789Z",
          description: "",
        })
        .sadd(`auth:user_tokens:${sub}`, id)
        .exec();
      expect(await ask(token)).toEqual({
        outcome: "accept",
        identity: { id, role: "user", owner: sub, scopes: [], attributes: { token_hash: id } },
      });
      expect(await tokens.get(id)).toMatchObject({ owner: sub, name: "", foreign: false });
      await tokens.revoke(id, "");
      expect(await raw.exists(`auth:token:${id}`, `auth:user_tokens:${sub}`)).toBe(0);
    }
  });

  test("tokens that are made here are the original's", async () => {
    const { tokens, context } = await startOn(plugin, valkey.url);
    const raw = valkey.client();
    const { token, record } = await tokens.create({ name: "ci", owner: "alice" });
    expect(token).toMatch(/^[A-Za-z0-9]{32}$/);
    expect(record.id).toBe(hash(token));
    const created = new Date(context.clock.nowMs()).toISOString();
    const fields = ["sub", "created_at", "description"];
    expect(await raw.hmget(`auth:token:${record.id}`, ...fields)).toEqual(["alice", created, "ci"]);
    expect(await raw.smembers("auth:user_tokens:alice")).toEqual([record.id]);
    expect(await raw.pttl(`auth:token:${record.id}`)).toBe(-1);
    // As the original deletes.
    const script = `local s = redis.call('HGET', ARGV[1], 'sub')
      redis.call('DEL', ARGV[1]) redis.call('SREM', 'auth:user_tokens:' .. s, ARGV[2]) return 1`;
    await raw.eval(script, 0, `auth:token:${record.id}`, record.id);
    await expect(tokens.get(record.id)).rejects.toMatchObject({ code: "not_found" });
  });

  test("with two salts old tokens work and new ones are made with the new salt", async () => {
    const before = await startOn(plugin, valkey.url);
    const old = await before.tokens.create({ name: "old" });
    const salts = { salt: "0f".repeat(32), previous_salt: TEST_SALT };
    const both = await startOn(plugin, valkey.url, salts);
    const fresh = await both.tokens.create({ name: "fresh" });
    expect([await both.answer(old.token), await both.answer(fresh.token)]).toEqual([
      "accept",
      "accept",
    ]);
    expect(await both.answer("nobody-holds-this")).toBe("unknown");
    const rotated = await both.tokens.rotate("old", 0);
    const after = await startOn(plugin, valkey.url, { salt: salts.salt });
    expect(await after.answer(old.token)).toBe("unknown");
    expect([await after.answer(rotated.token), await after.answer(fresh.token)]).toEqual([
      "accept",
      "accept",
    ]);
  });
});
