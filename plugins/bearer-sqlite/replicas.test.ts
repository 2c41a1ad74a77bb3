/** Two gateways with copies of one database: what one revokes or rotates, the other refuses. */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import type { Identity, IssuedToken, Outcome, StrategyInstance, TokenStore } from "gatehouse";
import { testHost } from "../../test/support/host.ts";
import { endReplicas, openReplica, type Replica } from "../../test/support/replicas.ts";
import { authRequest } from "../../test/support/request.ts";
import { startValkey, type TestValkey, until, valkeyMissing } from "../../test/support/valkey.ts";
import plugin from "./index.ts";

const suite = valkeyMissing === null ? describe : describe.skip;
const FOREIGN = "sk-imported-0123456789abcdef";

interface Started {
  readonly replica: Replica;
  readonly instance: StrategyInstance;
  readonly tokens: Required<TokenStore>;
  ask(token: string): Outcome | Promise<Outcome>;
  /** The outcome's name, the reason of a reject, or `fault`. */
  answer(token: string): Promise<string>;
}

const running: StrategyInstance[] = [];
let valkey: TestValkey;

async function start(replica: Replica): Promise<Started> {
  const instance = await plugin.init(plugin.config.parse({}), replica.host);
  running.push(instance);
  const ask = (token: string) =>
    instance.authenticate(authRequest({ headers: { authorization: `Bearer ${token}` } }));
  return {
    replica,
    instance,
    tokens: instance.tokens as Required<TokenStore>,
    ask,
    async answer(token) {
      try {
        const outcome = await ask(token);
        return outcome.outcome === "reject" ? outcome.reason : outcome.outcome;
      } catch {
        return "fault";
      }
    },
  };
}

/** A gateway, and one whose database is a copy of its. */
async function twins(make: (tokens: Required<TokenStore>) => unknown): Promise<[Started, Started]> {
  const a = await start(await openReplica(valkey.url));
  await make(a.tokens);
  const b = await start(await openReplica(valkey.url, { copyOf: a.replica.host.stateDir }));
  return [a, b];
}

beforeEach(async () => {
  if (valkeyMissing === null) valkey = await startValkey();
});
afterEach(async () => {
  for (const instance of running.splice(0)) await instance.close?.();
  endReplicas();
  await valkey?.stop();
});

suite(`replicas of tokens${valkeyMissing === null ? "" : ` (${valkeyMissing})`}`, () => {
  test("what one revokes the other refuses on the next request, and its streams end", async () => {
    let issued: IssuedToken | undefined;
    const [a, b] = await twins(async (tokens) => {
      issued = await tokens.create({ name: "ci" });
    });
    const { token = "", record } = issued ?? {};
    await until(() => !(b.ask(token) instanceof Promise));
    const before = await b.ask(token);
    if (before.outcome !== "accept") throw new Error("it was refused");
    expect(await b.instance.isCurrent?.(before.identity)).toBe(true);
    await a.tokens.revoke("ci", "");
    expect(await b.ask(token)).toEqual({
      outcome: "reject",
      reason: "token_revoked",
      credentialId: record?.id ?? "",
    });
    expect(await b.instance.isCurrent?.(before.identity)).toBe(false);
    expect(await a.answer(token)).toBe("token_revoked");
  });

  test("the identity is the one that it is without replicas, and the secret's name beside it", async () => {
    const [a] = await twins(() => {});
    const { token } = await a.tokens.create({ name: "ci", owner: "alice", scopes: ["x"] });
    const alone = testHost({ strategy: "team", copyOf: a.replica.host.stateDir });
    const instance = await plugin.init(plugin.config.parse({}), alone.host);
    const request = authRequest({ headers: { authorization: `Bearer ${token}` } });
    const there = await instance.authenticate(request);
    const here = await a.ask(token);
    if (there.outcome !== "accept" || here.outcome !== "accept") throw new Error("refused");
    const { secret_id, ...rest } = here.identity.attributes ?? {};
    const same: Identity = { ...here.identity, attributes: rest };
    expect(same).toEqual(there.identity);
    expect(secret_id).toMatch(new RegExp(`^${here.identity.id}\\.[A-Za-z0-9_-]{22}$`));
    expect(token).not.toContain(secret_id?.slice(13) ?? "");
    await instance.close?.();
    alone.dispose();
  });

  test("a rotation without grace ends the old secret in both; the new one works where it was made", async () => {
    let old = "";
    const [a, b] = await twins(async (tokens) => {
      old = (await tokens.create({ name: "ci" })).token;
    });
    expect(await b.answer(old)).toBe("accept");
    const stream = await b.ask(old);
    const { token: fresh } = await a.tokens.rotate("ci", 0);
    expect([await a.answer(old), await b.answer(old)]).toEqual(["invalid_token", "invalid_token"]);
    expect([await a.answer(fresh), await b.answer(fresh)]).toEqual(["accept", "invalid_token"]);
    if (stream.outcome !== "accept") throw new Error("it was refused");
    expect(await b.instance.isCurrent?.(stream.identity)).toBe(false);
  });

  test("a grace keeps the old secret in both, and the next rotation ends it in both", async () => {
    let first = "";
    const [a, b] = await twins(async (tokens) => {
      first = (await tokens.create({ name: "ci" })).token;
    });
    await a.tokens.rotate("ci", 60_000);
    expect([await a.answer(first), await b.answer(first)]).toEqual(["accept", "accept"]);
    const { token: third } = await a.tokens.rotate("ci", 60_000);
    expect([await a.answer(first), await b.answer(first)]).toEqual([
      "invalid_token",
      "invalid_token",
    ]);
    expect(await a.answer(third)).toBe("accept");
  });

  test("an imported token is ended by its first rotation without grace, or by its second", async () => {
    const [a, b] = await twins(async (tokens) => {
      await tokens.adopt(FOREIGN, { name: "now" });
      await tokens.adopt(`${FOREIGN}-2`, { name: "later" });
    });
    await a.tokens.rotate("now", 0);
    expect(await b.answer(FOREIGN)).toBe("invalid_token");
    await a.tokens.rotate("later", 60_000);
    expect(await b.answer(`${FOREIGN}-2`)).toBe("accept");
    await a.tokens.rotate("later", 60_000);
    expect(await b.answer(`${FOREIGN}-2`)).toBe("invalid_token");
  });

  test("a rotation in a restored database does not make its new secret an old one", async () => {
    const [a, b] = await twins((tokens) => tokens.create({ name: "ci" }));
    await a.tokens.rotate("ci", 0);
    await a.tokens.rotate("ci", 0);
    const { token } = await b.tokens.rotate("ci", 0);
    expect(await b.answer(token)).toBe("accept");
  });

  test("what was revoked before there were replicas is told at the start", async () => {
    const alone = testHost({ strategy: "team", nowMs: Date.now() });
    const before = await plugin.init(plugin.config.parse({}), alone.host);
    const { token } = (await before.tokens?.create({ name: "ci" })) ?? { token: "" };
    const stateDir = alone.host.stateDir;
    const b = await start(await openReplica(valkey.url, { copyOf: stateDir }));
    expect(await b.answer(token)).toBe("accept");
    await before.tokens?.revoke("ci", "");
    await before.close?.();
    await start(await openReplica(valkey.url, { copyOf: stateDir }));
    expect(await b.answer(token)).toBe("token_revoked");
    alone.dispose();
  });

  test("without Valkey a good token is a fault, a revoked one stays refused, others are not asked about", async () => {
    const [a] = await twins(() => {});
    const good = await a.tokens.create({ name: "good" });
    const gone = await a.tokens.create({ name: "gone" });
    await a.tokens.revoke("gone", "");
    await valkey.kill();
    await until(async () => (await a.answer(good.token)) === "fault");
    expect(await a.answer(gone.token)).toBe("token_revoked");
    expect(await a.answer("nobody-holds-this-one")).toBe("unknown");
    expect(await a.answer(`${good.token.slice(0, -1)}-`)).not.toBe("accept");
  });

  test("without Valkey what another one has revoked stays refused, and that is all that happens", async () => {
    const issued: IssuedToken[] = [];
    const [a, b] = await twins(async (tokens) => {
      for (const name of ["revoked", "rotated"]) issued.push(await tokens.create({ name }));
    });
    await a.tokens.revoke("revoked", "");
    await a.tokens.rotate("rotated", 0);
    const answers = () => Promise.all(issued.map(({ token }) => b.answer(token)));
    await until(async () => (await answers()).join() === "token_revoked,invalid_token");
    await valkey.kill();
    await until(() => b.instance.health?.().some(({ code }) => code === "shared_down") === true);
    // Of a rotated token Valkey would have to be asked whether it was revoked as well.
    for (let times = 0; times < 3; times += 1)
      expect(await answers()).toEqual(["token_revoked", "fault"]);
  });

  test("without Valkey a revocation holds here and says that it was not told; a rotation gives its secret", async () => {
    const [a, b] = await twins(() => {});
    const { token, record } = await a.tokens.create({ name: "ci" });
    const other = await a.tokens.create({ name: "other" });
    await valkey.kill();
    await until(async () => (await a.answer(token)) === "fault");
    await expect(a.tokens.revoke("ci", "")).rejects.toThrow("revoked here, but the other replicas");
    expect((await a.tokens.get(record.id)).revokedAtMs).not.toBeNull();
    expect(await a.answer(token)).toBe("token_revoked");
    const rotated = await a.tokens.rotate("other", 0);
    expect(rotated.record.id).toBe(other.record.id);
    const warnings = a.replica.log.lines.filter(({ event }) => event === "token.replicas_not_told");
    expect(warnings).toHaveLength(1);
    await valkey.restart();
    await until(async () => (await a.answer(rotated.token)) === "accept");
    expect(await a.answer(other.token)).toBe("invalid_token");
    const isKnown = async () => b.replica.state.isRevoked("bearer-sqlite", record.id);
    await until(() => isKnown().catch(() => false));
  });

  test("no token, hash or secret is in Valkey", async () => {
    const [a] = await twins(() => {});
    const { token } = await a.tokens.create({ name: "ci" });
    await a.tokens.rotate("ci", 0);
    await a.tokens.revoke("ci", "");
    const raw = valkey.client();
    const keys = await raw.keys("*");
    expect(keys.length).toBeGreaterThan(2);
    const [, , secret = ""] = token.split("_");
    expect(keys.join()).not.toContain(secret.slice(0, 12));
  });
});

test("without `shared` nobody is asked and nothing is written about replicas", async () => {
  const context = testHost({ strategy: "team" });
  const instance = await plugin.init(plugin.config.parse({}), context.host);
  const issued = await instance.tokens?.create({ name: "ci" });
  await instance.tokens?.rotate("ci", 0);
  await instance.tokens?.revoke("ci", "");
  const tables = context.host
    .database("x", [])
    .query("SELECT name FROM sqlite_schema WHERE name LIKE 'gatehouse_revoked%'")
    .values();
  expect(tables).toEqual([]);
  expect(issued?.record.name).toBe("ci");
  await instance.close?.();
  context.dispose();
});
