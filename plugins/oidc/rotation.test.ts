/**
 * Keys that come, go and cannot be asked for: rotation, withdrawal, outages, floods of unknown key ids.
 *
 * Invariant: what is counted are requests at the issuer's server, not calls of our own functions.
 */
import { afterEach, beforeAll, describe, expect, test } from "bun:test";
import type { Identity } from "../../src/contract/outcome.ts";
import {
  type IssuerKey,
  type KeyServer,
  NOW_S,
  newIssuerKey,
  startKeyServer,
  tokenMaker,
} from "../../test/support/issuer-keys.ts";
import { endOidc, type StartedOidc, startOidc } from "../../test/support/issuer-strategy.ts";
import { eventually } from "../../test/support/raw.ts";
import plugin from "./index.ts";

const UNKNOWN_KEY = "invalid_token: unknown_key";
const SECOND = 1000;
const HOUR = 3_600_000;

let first: IssuerKey;
let second: IssuerKey;
let server: KeyServer;

beforeAll(() => {
  first = newIssuerKey("ES256", "first");
  second = newIssuerKey("ES256", "second");
});

afterEach(endOidc);

const token = (key: IssuerKey, claims: Record<string, unknown> = {}, header = {}): string =>
  tokenMaker(server.url)(key, { claims: { exp: NOW_S + 30 * 86_400, ...claims }, header });

/** With `first` fetched. */
async function started(config: Record<string, unknown> = {}): Promise<StartedOidc> {
  server = startKeyServer(first);
  const oidc = await startOidc(plugin, {
    issuer: server.url,
    jwks_url: server.keysUrl,
    timeout: "300ms",
    ...config,
  });
  expect(await oidc.answer(token(first))).toBe("accept");
  expect(server.asked).toBe(1);
  return oidc;
}

async function identityOf(oidc: StartedOidc, text: string): Promise<Identity> {
  const outcome = await oidc.ask(text);
  if (outcome.outcome !== "accept") throw new Error(outcome.outcome);
  return outcome.identity;
}

describe("rotation", () => {
  test("a token by a new key is accepted on its first request, at once after the keys were fetched", async () => {
    const oidc = await started();
    server.publish(first, second);
    expect(await oidc.answer(token(second))).toBe("accept");
    expect(server.asked).toBe(2);
    expect(await oidc.answer(token(first))).toBe("accept");
    expect(server.asked).toBe(2);
  });

  test("many tokens by the new key at once cost one fetch", async () => {
    const oidc = await started();
    server.publish(second);
    const tokens = Array.from({ length: 200 }, (_, n) => token(second, { sub: `user-${n}` }));
    const answers = await Promise.all(tokens.map((text) => oidc.answer(text)));
    expect(new Set(answers)).toEqual(new Set(["accept"]));
    expect(server.asked).toBe(2);
  });

  test("a fetch that began before the rotation is not the last word, for any who waited for it", async () => {
    const oidc = await started();
    const { promise, resolve } = Promise.withResolvers<Response>();
    server.answer(() => promise);
    const stranger = oidc.answer(token(second, {}, { kid: "nobody" }));
    await eventually("the issuer was asked", () => server.asked === 2);
    const answers = Array.from({ length: 20 }, (_, n) =>
      oidc.answer(token(second, { sub: `${n}` })),
    );
    oidc.context.clock.advance(6 * SECOND);
    server.publish(first, second);
    server.answer(null);
    resolve(Response.json({ keys: [first.jwk] }));
    expect(new Set(await Promise.all(answers))).toEqual(new Set(["accept"]));
    expect(server.asked).toBe(3);
    expect(await stranger).toBe(UNKNOWN_KEY);
  });

  test("a withdrawn key is void as soon as it is known, also for tokens that were accepted and for streams", async () => {
    const oidc = await started();
    const old = token(first);
    const identity = await identityOf(oidc, old);
    expect(await oidc.instance.isCurrent?.(identity)).toBe(true);
    server.publish(second);
    expect(await oidc.answer(token(second))).toBe("accept");
    expect(await oidc.instance.isCurrent?.(identity)).toBe(false);
    expect(await oidc.answer(old)).toBe(UNKNOWN_KEY);
    expect(await oidc.answer(token(first, { sub: "another" }))).toBe(UNKNOWN_KEY);
    const current = await identityOf(oidc, token(second));
    expect(await oidc.instance.isCurrent?.(current)).toBe(true);
  });

  test("another key under the old id takes the old one's place, nothing of it is left", async () => {
    const oidc = await started();
    const old = token(first);
    const replaced = newIssuerKey("ES256", "first");
    server.publish(replaced, second);
    expect(await oidc.answer(token(second))).toBe("accept");
    expect(await oidc.answer(old)).toBe("signature_invalid: signature_wrong");
    expect(await oidc.answer(token(replaced))).toBe("accept");
  });

  test("a key that may now sign with another algorithm only is another key", async () => {
    const oidc = await started();
    const rsa = newIssuerKey("RS256", "rsa");
    server.publish(rsa);
    const old = token(rsa);
    expect(await oidc.answer(old)).toBe("accept");
    server.publish({ ...rsa.jwk, alg: "RS512" });
    oidc.context.clock.advance(6 * SECOND);
    expect(await oidc.answer(token(second))).toBe(UNKNOWN_KEY);
    expect(await oidc.answer(old)).toBe(UNKNOWN_KEY);
  });

  test("without key ids a new key is found when the old one does not fit", async () => {
    const bare = [newIssuerKey("ES256", null), newIssuerKey("ES256", null)] as const;
    const oidc = await started();
    server.publish(bare[0]);
    expect(await oidc.answer(token(bare[0]))).toBe("accept");
    server.publish(bare[1]);
    oidc.context.clock.advance(6 * SECOND);
    expect(await oidc.answer(token(bare[1]))).toBe("accept");
    expect(await oidc.answer(token(bare[0]))).toBe("signature_invalid: signature_wrong");
  });

  test("keys are fetched in the background, without any request", async () => {
    const oidc = await started({ refresh: "1s", keep_keys: "1m" });
    const identity = await identityOf(oidc, token(first));
    server.publish(second);
    await eventually("the key is gone", () => oidc.instance.isCurrent?.(identity) === false);
    const asked = server.asked;
    expect(await oidc.answer(token(second))).toBe("accept");
    expect(server.asked).toBe(asked);
  });
});

describe("an outage after the keys were fetched", () => {
  test("known keys go on, unknown ones are a fault, and all is well when the issuer is back", async () => {
    const oidc = await started();
    const identity = await identityOf(oidc, token(first));
    await server.down();
    expect(await oidc.answer(token(second))).toStartWith(
      "fault: the issuer's keys are not known: ",
    );
    expect(await oidc.answer(token(first))).toBe("accept");
    expect(await oidc.answer(token(first, { sub: "new" }))).toBe("accept");
    expect(await oidc.instance.isCurrent?.(identity)).toBe(true);
    expect(oidc.conditions()).toEqual(["keys_old"]);
    expect(oidc.instance.health?.()[0]).toMatchObject({ severity: "warning" });
    // Also while nobody may ask again: it may be right.
    expect(await oidc.answer(token(second))).toStartWith("fault: ");
    server.publish(first, second);
    server.up();
    oidc.context.clock.advance(6 * SECOND);
    expect(await oidc.answer(token(second))).toBe("accept");
    expect(oidc.conditions()).toEqual([]);
  });

  test("comes to an end by itself, without requests", async () => {
    const oidc = await started();
    await server.down();
    expect(await oidc.answer(token(second))).toStartWith("fault: ");
    server.up();
    await eventually("the keys are fetched again", () => oidc.conditions().length === 0);
  });

  test("lasts at most as long as keys are kept: then 503, and streams stay open", async () => {
    const oidc = await started({ keep_keys: "2h" });
    const identity = await identityOf(oidc, token(first));
    await server.down();
    oidc.context.clock.advance(2 * HOUR - 1);
    expect(await oidc.answer(token(first))).toBe("accept");
    oidc.context.clock.advance(1);
    expect(await oidc.answer(token(first))).toStartWith("fault: ");
    expect(oidc.conditions()).toEqual(["keys_old"]);
    expect(oidc.instance.health?.()[0]).toMatchObject({ severity: "error" });
    expect(await oidc.instance.isCurrent?.(identity)).toBe(true);
    server.up();
    oidc.context.clock.advance(6 * SECOND);
    expect(await oidc.answer(token(first))).toBe("accept");
  });

  test.each<[string, () => Response | Promise<Response>]>([
    ["500", () => new Response(null, { status: 500 })],
    ["HTML", () => new Response("<html>")],
    ["no set of keys", () => Response.json({})],
    ["nothing for ever", () => new Promise(() => {})],
  ])("answers of %s take no key away", async (_, respond) => {
    const oidc = await started();
    server.answer(respond);
    expect(await oidc.answer(token(second))).toStartWith("fault: ");
    expect(await oidc.answer(token(first, { sub: "new" }))).toBe("accept");
  });

  test("is in the log once, not once an attempt", async () => {
    const oidc = await started();
    await server.down();
    for (let attempt = 0; attempt < 5; attempt += 1) {
      oidc.context.clock.advance(6 * SECOND);
      expect(await oidc.answer(token(second))).toStartWith("fault: ");
    }
    const said = oidc.context.log.lines.filter(
      ({ event, level }) => event === "oidc.keys_not_fetched" && level !== "debug",
    );
    expect(said.length).toBe(1);
  });
});

describe("a flood of key ids that nobody has", () => {
  const flood = (count: number): string[] =>
    Array.from({ length: count }, () => token(second, {}, { kid: crypto.randomUUID() }));

  test("is answered 401, costs one fetch an interval, however many there are", async () => {
    const oidc = await started();
    for (let round = 0; round < 4; round += 1) {
      const answers = await Promise.all(flood(500).map((text) => oidc.answer(text)));
      expect(new Set(answers)).toEqual(new Set([UNKNOWN_KEY]));
      expect(server.asked).toBe(2 + round);
      oidc.context.clock.advance(4999);
      expect(await oidc.answer(flood(1)[0] ?? "")).toBe(UNKNOWN_KEY);
      expect(server.asked).toBe(2 + round);
      oidc.context.clock.advance(1);
    }
  });

  test("a clock that is set back does not stop the fetches", async () => {
    const oidc = await started();
    expect(await oidc.answer(flood(1)[0] ?? "")).toBe(UNKNOWN_KEY);
    oidc.context.clock.advance(-HOUR);
    server.publish(first, second);
    expect(await oidc.answer(token(second))).toBe("accept");
  });

  test("does not hold up tokens whose key is known, also while the issuer is silent", async () => {
    const oidc = await started({ timeout: "10s" });
    const { promise, resolve } = Promise.withResolvers<Response>();
    server.answer(() => promise);
    const waiting = flood(300).map((text) => oidc.answer(text));
    await eventually("the issuer was asked", () => server.asked === 2);
    let answered = 0;
    const isOver = Promise.all(waiting).then(() => (answered = waiting.length));
    // Known before, and never seen: neither waits for the fetch, which is still open.
    expect(await oidc.answer(token(first))).toBe("accept");
    for (let n = 0; n < 50; n += 1) {
      expect(await oidc.answer(token(first, { sub: `user-${n}` }))).toBe("accept");
    }
    expect(answered).toBe(0);
    expect(server.asked).toBe(2);
    resolve(Response.json({ keys: [first.jwk] }));
    await isOver;
    expect(new Set(await Promise.all(waiting))).toEqual(new Set([UNKNOWN_KEY]));
  });

  test("waits in bounds: beyond a thousand requests the rest is refused at once", async () => {
    const oidc = await started({ timeout: "10s" });
    const { promise, resolve } = Promise.withResolvers<Response>();
    server.answer(() => promise);
    const waiting = flood(1000).map((text) => oidc.answer(text));
    await eventually("the issuer was asked", () => server.asked === 2);
    expect(await oidc.answer(flood(1)[0] ?? "")).toBe(
      "fault: more than 1000 requests wait for the issuer's keys",
    );
    resolve(Response.json({ keys: [first.jwk] }));
    expect(new Set(await Promise.all(waiting))).toEqual(new Set([UNKNOWN_KEY]));
  });

  test("during an outage is answered 503 and does not keep the issuer busy", async () => {
    const oidc = await started();
    server.answer(() => new Response(null, { status: 500 }));
    const answers = await Promise.all(flood(500).map((text) => oidc.answer(text)));
    expect(answers.every((answer) => answer.startsWith("fault: "))).toBe(true);
    expect(server.asked).toBe(2);
  });

  test("a token that could not be right anyway asks nobody", async () => {
    const oidc = await started();
    const header = { kid: "nobody" };
    for (const text of [
      token(second, { exp: NOW_S - 3600 }, header),
      token(second, { exp: undefined }, header),
      token(second, { nbf: NOW_S + 3600 }, header),
      token(second, {}, { ...header, alg: "none" }),
      token(second, {}, { ...header, typ: "logout+jwt" }),
      token(second, { iss: "https://other.example.com" }, header),
    ]) {
      expect(await oidc.answer(text)).not.toBe("accept");
    }
    expect(server.asked).toBe(1);
  });
});

describe("tokens that were verified", () => {
  test("are answered without a promise, and by the same identity", async () => {
    const oidc = await started();
    const text = token(first, { sub: "bob" });
    const cold = oidc.ask(text);
    expect(cold).toBeInstanceOf(Promise);
    const warm = oidc.ask(text);
    expect(warm).toBeInstanceOf(Promise);
    await warm;
    const outcome = await cold;
    const again = oidc.ask(text);
    expect(again).not.toBeInstanceOf(Promise);
    expect(again).toEqual(outcome);
  });

  test("never give somebody else's identity: a thousand tokens in any order", async () => {
    const oidc = await started();
    const tokens = Array.from({ length: 1000 }, (_, n) => token(first, { sub: `user-${n}` }));
    for (let round = 0; round < 2; round += 1) {
      const ids = await Promise.all(tokens.map((text) => identityOf(oidc, text)));
      expect(ids.map(({ id }) => id)).toEqual(tokens.map((_, n) => `user-${n}`));
    }
  });

  test("after close nothing is asked any more", async () => {
    const oidc = await started({ refresh: "1s", keep_keys: "1m" });
    await oidc.instance.close?.();
    server.answer(() => new Response(null, { status: 500 }));
    oidc.context.clock.advance(6 * SECOND);
    expect(await oidc.answer(token(second))).toStartWith("fault: ");
    expect(server.asked).toBe(1);
  });
});
