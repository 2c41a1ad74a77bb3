/**
 * An issuer that is down, slow, broken or not who it should be: what requests get, what the operator is told, and
 * how often it is asked.
 *
 * Invariant: no answer about a token follows from a failure; whoever could be right gets a fault, and tokens whose
 * key is known go on as if nothing were wrong.
 */
import { afterEach, beforeAll, describe, expect, test } from "bun:test";
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

let key: IssuerKey;
let other: IssuerKey;

beforeAll(() => {
  key = newIssuerKey("ES256", "one");
  other = newIssuerKey("ES256", "two");
});

afterEach(endOidc);

/** Of the right form, by a key that nobody publishes. */
function stranger(server: KeyServer, kid: string): string {
  return tokenMaker(server.url)(other, { header: { kid } });
}

/** Valid for a month, for tests that move the clock. */
function lasting(server: KeyServer, signer: IssuerKey = key): string {
  return tokenMaker(server.url)(signer, { claims: { exp: NOW_S + 30 * 86_400 } });
}

const DESPITE_RATE = 5001;

describe("an issuer that has no answer at the start", () => {
  const html = () => new Response("<!doctype html><title>Welcome</title>");
  const big = () => new Response(`{"keys":[],"x":"${"x".repeat(5_000_000)}"}`);
  const never = () => new Promise<Response>(() => {});
  const drip = () =>
    new Response(
      new ReadableStream({
        start: (controller) => controller.enqueue(new TextEncoder().encode('{"keys":[')),
        pull: () => new Promise<void>(() => {}),
      }),
    );

  test.each<[string, () => Response | Promise<Response>, string]>([
    ["5 MB", big, "answered with more than 1 MiB"],
    [
      "17 MB",
      () => new Response(new Uint8Array(17_000_000)),
      "cannot be asked: it failed, or its answer is too large",
    ],
    ["nothing, for ever", never, "cannot be asked: no answer within 300 ms"],
    ["a beginning and then nothing, for ever", drip, "cannot be asked: no answer within 300 ms"],
    [
      "a redirect",
      () => Response.redirect("http://127.0.0.1:1/keys", 302),
      "leads elsewhere (302)",
    ],
    ["a redirect to good keys", () => Response.redirect("/real", 307), "leads elsewhere (307)"],
    ["HTML", html, "answered with something that is not JSON"],
    ["HTML with 404", () => new Response("<h1>no</h1>", { status: 404 }), "answered 404"],
    ["500", () => Response.json({ keys: [] }, { status: 500 }), "answered 500"],
    ["204", () => new Response(null, { status: 204 }), "answered 204"],
    ["half of a document", () => new Response('{"keys":[{"kty":"EC"'), "not JSON"],
    [
      "bytes that are not UTF-8",
      () => new Response(new Uint8Array([0x7b, 0xff, 0x7d])),
      "not JSON",
    ],
    ["a list", () => Response.json([]), "it is no set of keys"],
    ["null", () => Response.json(null), "it is no set of keys"],
    ["keys that are no list", () => Response.json({ keys: { a: 1 } }), "it is no set of keys"],
    ["too many keys", () => Response.json({ keys: Array(501).fill({}) }), "more than 500 keys"],
  ])(
    "%s instead of keys: 503, a condition, a line in the log, and well again by itself",
    async (_, respond, why) => {
      const server = startKeyServer(key);
      server.answer(() => Response.json({ keys: [key.jwk] }), "/real");
      server.answer(respond);
      const oidc = await startOidc(plugin, {
        issuer: server.url,
        jwks_url: server.keysUrl,
        timeout: "300ms",
      });
      const fault = await oidc.answer(lasting(server));
      expect(fault).toStartWith("fault: the issuer's keys are not known: ");
      expect(fault).toContain(why);
      expect(oidc.conditions()).toEqual(["keys_missing"]);
      const lines = oidc.context.log.lines.filter(({ event }) => event === "oidc.keys_not_fetched");
      expect(lines[0]).toMatchObject({ level: "warn" });
      expect(String(lines[0]?.fields.why)).toContain(why);
      server.answer(null);
      oidc.context.clock.advance(DESPITE_RATE);
      expect(await oidc.answer(lasting(server))).toBe("accept");
      expect(oidc.conditions()).toEqual([]);
    },
  );

  test("nobody listens: it starts at once, says so, and works as soon as the issuer is there", async () => {
    const server = startKeyServer(key);
    await server.down();
    const oidc = await startOidc(plugin, { issuer: server.url });
    expect(["keys_pending", "keys_missing"]).toContain(oidc.conditions()[0] ?? "");
    expect(await oidc.answer(lasting(server))).toContain("cannot be asked: no connection");
    expect(oidc.conditions()).toEqual(["keys_missing"]);
    const [condition] = oidc.instance.health?.() ?? [];
    expect(condition?.severity).toBe("error");
    expect(condition?.text).toContain("answered 503");
    server.up();
    // Without a request: it tries again by itself after a second.
    await eventually("the keys are fetched", () => oidc.conditions().length === 0);
    expect(await oidc.answer(lasting(server))).toBe("accept");
  });

  test("requests that come before the first answer wait for it, together", async () => {
    const server = startKeyServer(key);
    const { promise, resolve } = Promise.withResolvers<void>();
    server.answer(() => promise.then(() => Response.json({ keys: [key.jwk] })));
    const oidc = await startOidc(plugin, { issuer: server.url });
    const asked = Array.from({ length: 100 }, () => oidc.answer(lasting(server)));
    await eventually("it was asked", () => server.asked === 1);
    resolve();
    expect(new Set(await Promise.all(asked))).toEqual(new Set(["accept"]));
    expect(server.asked).toBe(1);
  });

  test("what is no token of the issuer needs none of its keys to be left to others", async () => {
    const server = startKeyServer(key);
    await server.down();
    const oidc = await startOidc(plugin, { issuer: server.url });
    expect(await oidc.answer("opaque")).toBe("unknown");
    const expired = tokenMaker(server.url)(key, { claims: { exp: NOW_S - 3600 } });
    expect(await oidc.answer(expired)).toBe("token_expired: expired");
  });

  test("a command does not ask the issuer", async () => {
    const server = startKeyServer(key);
    const oidc = await startOidc(plugin, { issuer: server.url });
    const settings = plugin.config.parse({ issuer: server.url, audience: "api" });
    const before = server.paths.length;
    const forCommand = await plugin.init(settings, { ...oidc.context.host, purpose: "command" });
    expect(await oidc.answer(lasting(server))).toBe("accept");
    expect(server.paths.length - before).toBeLessThanOrEqual(2);
    await forCommand.close?.();
    expect(forCommand.health?.().map(({ code }) => code)).toEqual(["keys_pending"]);
  });
});

describe("discovery", () => {
  const OPENID = "/.well-known/openid-configuration";
  const OAUTH = "/.well-known/oauth-authorization-server";

  test.each<[string, (url: string) => unknown]>([
    ["another", () => "https://other.example.com"],
    ["the same with a slash", (url) => `${url}/`],
    ["none", () => undefined],
    ["a list with it", (url) => [url]],
    ["something long that is no URL", () => "x".repeat(10_000)],
  ])(
    "a document whose issuer is %s is a mistake in the configuration and says so",
    async (_, named) => {
      const server = startKeyServer(key);
      const issuer = named(server.url);
      server.answer(() => Response.json({ issuer, jwks_uri: server.keysUrl }), OPENID);
      const oidc = await startOidc(plugin, { issuer: server.url });
      expect(await oidc.answer(lasting(server))).toContain(
        "is of another issuer than the setting `issuer`",
      );
      expect(oidc.conditions()).toEqual(["issuer_mismatch", "keys_missing"]);
      expect(oidc.instance.health?.()[0]?.severity).toBe("error");
      const line = oidc.context.log.lines.find(({ event }) => event === "oidc.keys_not_fetched");
      expect(line?.level).toBe("error");
      const isTold = typeof issuer === "string" && issuer.startsWith("http");
      expect(String(line?.fields.why).includes(`it says ${issuer}`)).toBe(isTold);
      expect(server.asked).toBe(0);
    },
  );

  test("an issuer without OpenID Connect is found by RFC 8414, with a path in its place", async () => {
    const server = startKeyServer(key);
    const issuer = `${server.url}/tenant/a`;
    const document = () => Response.json({ issuer, jwks_uri: server.keysUrl });
    server.answer(document, `${OAUTH}/tenant/a`);
    // A page for everything, as single-page applications are served.
    server.answer(() => new Response("<html>"), `/tenant/a${OPENID}`);
    const oidc = await startOidc(plugin, { issuer });
    expect(await oidc.answer(tokenMaker(issuer)(key))).toBe("accept");
    expect(server.paths).toEqual([`/tenant/a${OPENID}`, `${OAUTH}/tenant/a`, "/keys"]);
  });

  test("an issuer that does not answer is not asked a second way", async () => {
    const server = startKeyServer(key);
    server.answer(() => new Promise(() => {}), OPENID);
    const oidc = await startOidc(plugin, { issuer: server.url, timeout: "300ms" });
    expect(await oidc.answer(lasting(server))).toContain("no answer within 300 ms");
    expect(server.paths).toEqual([OPENID]);
  });

  test("an issuer that ends in a slash has its document below it", async () => {
    const server = startKeyServer(key);
    const issuer = `${server.url}/realm/`;
    server.answer(() => Response.json({ issuer, jwks_uri: server.keysUrl }), `/realm${OPENID}`);
    const oidc = await startOidc(plugin, { issuer });
    expect(await oidc.answer(tokenMaker(issuer)(key))).toBe("accept");
    expect(await oidc.answer(tokenMaker(issuer.slice(0, -1))(key))).toBe("unknown");
  });

  test.each([
    ["none", undefined, "names no `jwks_uri`"],
    ["a list", ["http://127.0.0.1/keys"], "names no `jwks_uri`"],
    ["plain http elsewhere", "http://keys.example.com/", "that is not https"],
    ["a file", "file:///etc/passwd", "that is not https"],
    ["no URL", "keys", "that is not https"],
    ["a broken URL", "https://[", "that is not https"],
    ["one with a password", "https://a:b@keys.example.com/", "that is not https"],
  ])("a document whose jwks_uri is %s is not followed", async (_, jwks_uri, why) => {
    const server = startKeyServer(key);
    server.answer(() => Response.json({ issuer: server.url, jwks_uri }), OPENID);
    const oidc = await startOidc(plugin, { issuer: server.url });
    expect(await oidc.answer(lasting(server))).toContain(why);
    expect(server.asked).toBe(0);
  });

  test("the address of the keys may change: the document is read again when they are no longer there", async () => {
    const server = startKeyServer(key);
    const oidc = await startOidc(plugin, { issuer: server.url });
    expect(await oidc.answer(lasting(server))).toBe("accept");
    server.answer(() => new Response(null, { status: 410 }));
    server.answer(() => Response.json({ keys: [other.jwk] }), "/moved");
    server.answer(
      () => Response.json({ issuer: server.url, jwks_uri: `${server.url}/moved` }),
      OPENID,
    );
    expect(await oidc.answer(lasting(server, other))).toContain("answered 410");
    oidc.context.clock.advance(DESPITE_RATE);
    expect(await oidc.answer(lasting(server, other))).toBe("accept");
  });
});

describe("keys", () => {
  async function withKeys(...keys: object[]): Promise<{ server: KeyServer; oidc: StartedOidc }> {
    const server = startKeyServer();
    server.publish(...keys);
    return { server, oidc: await startOidc(plugin, { issuer: server.url }) };
  }

  test("one that is broken does not harm the others", async () => {
    const rsa = newIssuerKey("RS256", "rsa");
    const { n: _, ...withoutN } = rsa.jwk;
    const broken: object[] = [
      { kty: "EC" },
      { ...key.jwk, kid: "x", x: "AAAA" },
      { ...key.jwk, kid: "x", x: "A".repeat(43) },
      { ...key.jwk, kid: "x", crv: "P-999" },
      { ...key.jwk, kid: 7 },
      { ...key.jwk, kid: "x", alg: "RS256" },
      { ...key.jwk, kid: "x", alg: "none" },
      { ...rsa.jwk, kid: "x", n: "!!" },
      withoutN,
      { kty: "oct", k: "c2VjcmV0", kid: "x", alg: "HS256" },
      [],
    ];
    const { server, oidc } = await withKeys(...broken, key, ...broken);
    expect(await oidc.answer(lasting(server))).toBe("accept");
    expect(oidc.conditions()).toEqual(["keys_skipped"]);
    expect(oidc.instance.health?.()[0]?.text).toStartWith(`${broken.length * 2} of`);
    expect(await oidc.answer(stranger(server, "x"))).toBe("invalid_token: unknown_key");
  });

  test("keys for encryption and for other uses are left alone, without a word", async () => {
    const { server, oidc } = await withKeys(
      { ...other.jwk, use: "enc" },
      { ...other.jwk, use: undefined, key_ops: ["deriveBits"] },
      { ...other.jwk, use: "other" },
      key,
    );
    expect(await oidc.answer(lasting(server))).toBe("accept");
    expect(await oidc.answer(lasting(server, other))).toBe("invalid_token: unknown_key");
    expect(oidc.conditions()).toEqual([]);
  });

  test("keys that are too weak, or whose private half is published, check nothing", async () => {
    const short = newIssuerKey("RS256", "short", 1024);
    const good = newIssuerKey("RS256", "rsa");
    const { server, oidc } = await withKeys(
      short,
      { ...good.jwk, kid: "one", e: "AQ" },
      other.privateJwk,
      good,
    );
    const make = tokenMaker(server.url);
    expect(await oidc.answer(make(good))).toBe("accept");
    expect(await oidc.answer(make(short))).toBe("invalid_token: unknown_key");
    expect(await oidc.answer(make(good, { header: { kid: "one" } }))).toBe(
      "invalid_token: unknown_key",
    );
    expect(await oidc.answer(make(other))).toBe("invalid_token: unknown_key");
    const leaked = { ...good.privateJwk, kid: "leaked" };
    server.publish(leaked, good);
    oidc.context.clock.advance(DESPITE_RATE);
    const signed = make(good, { header: { kid: "leaked" } });
    expect(await oidc.answer(signed)).toBe("invalid_token: unknown_key");
  });

  test("keys with the same id are all tried", async () => {
    const twin = newIssuerKey("ES256", "one");
    const { server, oidc } = await withKeys(twin, key);
    expect(await oidc.answer(lasting(server))).toBe("accept");
    expect(await oidc.answer(lasting(server, twin))).toBe("accept");
    expect(await oidc.answer(stranger(server, "one"))).toBe("signature_invalid: signature_wrong");
  });

  test("a key without alg and use works with every algorithm of its kind, one without id for tokens without", async () => {
    const rsa = newIssuerKey("RS256", null);
    const { alg: _alg, use: _use, ...bare } = rsa.jwk;
    const { server, oidc } = await withKeys(bare);
    const make = tokenMaker(server.url);
    expect(await oidc.answer(make(rsa))).toBe("accept");
    expect(await oidc.answer(make(rsa, { header: { alg: "RS512" } }))).toBe(
      "signature_invalid: signature_wrong",
    );
    expect(await oidc.answer(make(rsa, { header: { kid: "x" } }))).toBe(
      "invalid_token: unknown_key",
    );
  });

  test("an empty set takes every key away: 503, not 401, and a condition", async () => {
    const { server, oidc } = await withKeys(key);
    const token = lasting(server);
    expect(await oidc.answer(token)).toBe("accept");
    server.publish();
    expect(await oidc.answer(stranger(server, "x"))).toContain("the issuer has published none");
    expect(await oidc.answer(token)).toContain("the issuer has published none");
    expect(oidc.conditions()).toEqual(["keys_empty"]);
  });
});
