/**
 * Tokens that must not pass, made by hand: each is one step away from one that does.
 *
 * Invariant: every forgery is refused for the reason that is its own, so that none of these tests passes because
 * of another mistake in the token; and the right token of the same issuer still passes.
 */
import { afterEach, beforeAll, beforeEach, describe, expect, test } from "bun:test";
import { TEST_NOW_MS } from "../../test/support/host.ts";
import {
  hmacWith,
  type IssuerKey,
  type KeyServer,
  type MakeToken,
  NOW_S,
  newIssuerKey,
  startKeyServer,
  type TokenDescription,
  tokenMaker,
} from "../../test/support/issuer-keys.ts";
import { endOidc, type StartedOidc, startOidc } from "../../test/support/issuer-strategy.ts";
import plugin from "./index.ts";

let ec: IssuerKey;
let rsa: IssuerKey;
let server: KeyServer;
let make: MakeToken;
let oidc: StartedOidc;

beforeAll(() => {
  ec = newIssuerKey("ES256", "ec");
  rsa = newIssuerKey("RS256", "rsa");
  server = startKeyServer(ec, rsa);
  make = tokenMaker(server.url);
});

beforeEach(async () => {
  oidc = await startOidc(plugin, { issuer: server.url });
});

afterEach(endOidc);

const encoded = (value: unknown): string =>
  Buffer.from(typeof value === "string" ? value : JSON.stringify(value)).toString("base64url");

test("the token that all others are made from is accepted", async () => {
  expect(await oidc.answer(make(ec))).toBe("accept");
  expect(await oidc.answer(make(rsa))).toBe("accept");
});

describe("algorithms", () => {
  test.each([
    "none",
    "None",
    "NONE",
    "nOnE",
    "",
    "HS256",
    "HS384",
    "HS512",
    "rs256",
    "ES256K",
    "dir",
    "__proto__",
  ])("alg %p is refused, whoever signed", async (alg) => {
    const expected = "invalid_token: algorithm_not_accepted";
    expect(await oidc.answer(make(ec, { header: { alg } }))).toBe(expected);
    expect(await oidc.answer(make(ec, { header: { alg }, sign: () => "" }))).toBe(expected);
  });

  test.each([[undefined], [null], [7], [["ES256"]], [{ ES256: true }]])(
    "alg as %p is refused",
    async (alg) => {
      const expected = "invalid_token: algorithm_not_accepted";
      expect(await oidc.answer(make(ec, { header: { alg } }))).toBe(expected);
    },
  );

  test("HS256 with the public key as secret is refused in every form that the key can have", async () => {
    const { publicKey, jwk } = rsa;
    const pem = publicKey.export({ type: "spki", format: "pem" }).toString();
    const secrets: (string | Uint8Array)[] = [
      pem,
      pem.trim(),
      pem.replaceAll(/-----.*-----|\n/g, ""),
      publicKey.export({ type: "pkcs1", format: "pem" }).toString(),
      publicKey.export({ type: "spki", format: "der" }),
      publicKey.export({ type: "pkcs1", format: "der" }),
      JSON.stringify(jwk),
      String(jwk.n),
      Buffer.from(String(jwk.n), "base64url"),
    ];
    for (const secret of secrets) {
      for (const alg of ["HS256", "RS256"]) {
        const forged = make(rsa, { header: { alg }, sign: hmacWith(secret) });
        expect(await oidc.answer(forged)).toBe(
          alg === "HS256"
            ? "invalid_token: algorithm_not_accepted"
            : "signature_invalid: signature_wrong",
        );
      }
    }
  });

  test("a key id that leads to a key of another kind or algorithm finds no key", async () => {
    for (const [key, alg] of [
      [ec, "RS256"],
      [rsa, "ES256"],
      [rsa, "RS512"],
      [rsa, "PS256"],
      [ec, "ES384"],
    ] as const) {
      const crossed = make(key, { header: { alg } });
      expect(await oidc.answer(crossed)).toBe("invalid_token: unknown_key");
    }
  });

  test("a narrower list refuses what is not on it", async () => {
    const narrow = await startOidc(plugin, { issuer: server.url, algorithms: ["RS256"] });
    expect(await narrow.answer(make(rsa))).toBe("accept");
    expect(await narrow.answer(make(ec))).toBe("invalid_token: algorithm_not_accepted");
  });

  test("every accepted algorithm is one that works", async () => {
    const algorithms = ["PS384", "RS512", "ES384", "ES512", "EdDSA", "Ed25519"];
    const keys = algorithms.map((alg) => newIssuerKey(alg, alg));
    const many = startKeyServer(...keys);
    const strategy = await startOidc(plugin, { issuer: many.url });
    for (const key of keys) expect(await strategy.answer(tokenMaker(many.url)(key))).toBe("accept");
    const [first, second] = keys as [IssuerKey, IssuerKey];
    const wrong = tokenMaker(many.url)(first, { sign: (input) => second.sign(input) });
    expect(await strategy.answer(wrong)).toBe("signature_invalid: signature_wrong");
  });
});

describe("headers", () => {
  test.each([
    "logout+jwt",
    "secevent+jwt",
    "dpop+jwt",
    "jose",
    "at+jwt;x",
    "",
    "application/json",
    "JWE",
  ])("typ %p is refused", async (typ) => {
    expect(await oidc.answer(make(ec, { header: { typ } }))).toBe("invalid_token: wrong_type");
  });

  test.each([[undefined], ["JWT"], ["jwt"], ["at+jwt"], ["AT+JWT"], ["application/at+jwt"]])(
    "typ %p is accepted",
    async (typ) => {
      expect(await oidc.answer(make(ec, { header: { typ } }))).toBe("accept");
    },
  );

  test("typ that is no text is refused, and token_type at+jwt takes nothing else", async () => {
    for (const typ of [null, 1, ["at+jwt"]]) {
      expect(await oidc.answer(make(ec, { header: { typ } }))).toBe("invalid_token: wrong_type");
    }
    const strict = await startOidc(plugin, { issuer: server.url, token_type: "at+jwt" });
    expect(await strict.answer(make(ec))).toBe("accept");
    for (const typ of [undefined, "JWT"]) {
      expect(await strict.answer(make(ec, { header: { typ } }))).toBe("invalid_token: wrong_type");
    }
  });

  test.each<[string, Record<string, unknown>]>([
    ["crit", { crit: ["exp"] }],
    ["crit with what the library knows", { crit: ["b64"], b64: true }],
    ["an empty crit", { crit: [] }],
    ["crit that is null", { crit: null }],
    ["b64 false", { b64: false }],
    ["b64 false, marked as critical", { crit: ["b64"], b64: false }],
  ])("%s is refused", async (_, header) => {
    expect(await oidc.answer(make(ec, { header }))).toBe("invalid_token: critical_header");
  });

  test("a payload that is not encoded is no token of ours", async () => {
    const header = encoded({ alg: "ES256", kid: "ec", b64: false, crit: ["b64"] });
    const claims = JSON.stringify({ iss: server.url, aud: "api", sub: "x", exp: NOW_S + 60 });
    const input = `${header}.${claims.replaceAll(",", " ")}`;
    expect(await oidc.answer(`${input}.${ec.sign(input)}`)).not.toBe("accept");
  });

  test("a key or an address of keys that the token brings along is not looked at", async () => {
    const own = newIssuerKey("ES256", "mine");
    const elsewhere = startKeyServer(own);
    const { keysUrl } = elsewhere;
    for (const header of [
      { jwk: own.jwk },
      { jwk: own.jwk, kid: undefined },
      { jku: keysUrl },
      { x5u: keysUrl, x5c: ["AAAA"] },
      { jku: keysUrl, x5t: "AAAA", jwk: own.jwk },
    ]) {
      const unknown = make(own, { header });
      expect(await oidc.answer(unknown)).toMatch(
        /^(invalid_token: unknown_key|signature_invalid: )/,
      );
      const named = make(own, { header: { ...header, kid: "ec" } });
      expect(await oidc.answer(named)).toBe("signature_invalid: signature_wrong");
      // They do not harm a right token either.
      expect(await oidc.answer(make(ec, { header: { ...header, kid: "ec" } }))).toBe("accept");
    }
    expect(elsewhere.paths).toEqual([]);
  });

  test.each([
    ["of 5 kB", "k".repeat(5000)],
    ["that is a path", "../../../../dev/null"],
    ["with a NUL", "ec\0"],
    ["that is SQL", "ec' OR '1'='1"],
    ["that is __proto__", "__proto__"],
    ["that is constructor", "constructor"],
    ["in another case", "EC"],
    ["that is empty", ""],
    ["with a line break", "ec\r\nx: y"],
  ])("a key id %s finds no key", async (_, kid) => {
    expect(await oidc.answer(make(ec, { header: { kid } }))).toBe("invalid_token: unknown_key");
  });

  test.each([[7], [null], [["ec"]], [{ ec: 1 }], [true]])(
    "a key id as %p is refused",
    async (kid) => {
      expect(await oidc.answer(make(ec, { header: { kid } }))).toBe(
        "invalid_token: malformed_key_id",
      );
    },
  );

  test("without a key id a token passes only if one key alone fits", async () => {
    expect(await oidc.answer(make(ec, { header: { kid: undefined } }))).toBe("accept");
    const two = startKeyServer(ec, newIssuerKey("ES256", "other"), rsa);
    const strategy = await startOidc(plugin, { issuer: two.url });
    const bare = { header: { kid: undefined } };
    expect(await strategy.answer(tokenMaker(two.url)(ec, bare))).toBe("invalid_token: unknown_key");
    expect(await strategy.answer(tokenMaker(two.url)(rsa, bare))).toBe("accept");
    expect(await strategy.answer(tokenMaker(two.url)(ec))).toBe("accept");
  });
});

describe("whose and for whom", () => {
  test.each<[string, unknown]>([
    ["another", "https://evil.example.com"],
    ["with a slash more", "SLASH"],
    ["in capitals", "CAPITALS"],
    ["missing", undefined],
    ["a list", ["https://evil.example.com"]],
    ["null", null],
  ])(
    "a token whose issuer is %s is left to other strategies, also with jwks_url",
    async (_, iss) => {
      const issuers: Record<string, string> = {
        SLASH: `${server.url}/`,
        CAPITALS: server.url.toUpperCase(),
      };
      const claims = { iss: typeof iss === "string" ? (issuers[iss] ?? iss) : iss };
      expect(await oidc.answer(make(ec, { claims }))).toBe("unknown");
      const direct = await startOidc(plugin, { issuer: server.url, jwks_url: server.keysUrl });
      expect(await direct.answer(make(ec))).toBe("accept");
      expect(await direct.answer(make(ec, { claims }))).toBe("unknown");
    },
  );

  test.each<[string, unknown, string]>([
    ["another", "other", "wrong_audience: wrong_audience"],
    ["with a prefix", "api2", "wrong_audience: wrong_audience"],
    ["in capitals", "API", "wrong_audience: wrong_audience"],
    ["missing", undefined, "wrong_audience: wrong_audience"],
    ["an empty list", [], "wrong_audience: wrong_audience"],
    ["a list without it", ["a", "b"], "wrong_audience: wrong_audience"],
    ["a list in a list", [["api"]], "wrong_audience: wrong_audience"],
    ["an object", { api: true }, "wrong_audience: wrong_audience"],
    ["the word any", "any", "wrong_audience: wrong_audience"],
    ["a list with it", ["other", "api"], "accept"],
  ])("an audience that is %s", async (_, aud, expected) => {
    expect(await oidc.answer(make(ec, { claims: { aud } }))).toBe(expected);
  });

  test("a list of audiences needs one of them; any needs none and is reported", async () => {
    const two = await startOidc(plugin, { issuer: server.url, audience: ["one", "any"] });
    for (const aud of ["one", ["x", "any"]]) {
      expect(await two.answer(make(ec, { claims: { aud } }))).toBe("accept");
    }
    expect(await two.answer(make(ec))).toBe("wrong_audience: wrong_audience");
    const all = await startOidc(plugin, { issuer: server.url, audience: "any" });
    for (const aud of ["whoever", undefined]) {
      expect(await all.answer(make(ec, { claims: { aud } }))).toBe("accept");
    }
    expect(all.conditions()).toContain("audience_any");
    expect(two.conditions()).not.toContain("audience_any");
  });

  test("who has no signature learns nothing about the audience", async () => {
    const forged: TokenDescription = { claims: { aud: "guess" }, sign: () => "AAAA" };
    expect(await oidc.answer(make(ec, forged))).toBe("signature_invalid: signature_wrong");
  });

  test("tokens that are bound to a key, or are messages about events, are refused", async () => {
    const bound = make(ec, { claims: { cnf: { jkt: "AAAA" } } });
    expect(await oidc.answer(bound)).toBe("invalid_token: bound_token");
    const events = { "http://schemas.openid.net/event/backchannel-logout": {} };
    expect(await oidc.answer(make(ec, { claims: { events } }))).toBe("invalid_token: event_token");
  });

  test("require_claims by path: one text, one of several, or a list that holds it", async () => {
    const strategy = await startOidc(plugin, {
      issuer: server.url,
      require_claims: { typ: "Bearer", "realm.roles": ["a", "b"], verified: "true" },
    });
    const good = { typ: "Bearer", realm: { roles: ["x", "b"] }, verified: true };
    expect(await strategy.answer(make(ec, { claims: good }))).toBe("accept");
    for (const claims of [
      { ...good, typ: "ID" },
      { ...good, typ: ["bearer"] },
      { ...good, realm: { roles: [["a"]] } },
      { ...good, realm: undefined },
      { ...good, verified: 1 },
    ]) {
      expect(await strategy.answer(make(ec, { claims }))).toBe("invalid_token: claim_missing");
    }
  });
});

describe("times", () => {
  const expired = "token_expired: expired";
  const early = "token_not_yet_valid: not_yet_valid";

  test.each<[string, string, Record<string, unknown>, string]>([
    ["exp is now, no leeway", "0s", { exp: NOW_S }, expired],
    ["exp is a second away, no leeway", "0s", { exp: NOW_S + 1 }, "accept"],
    ["exp was a second ago, no leeway", "0s", { exp: NOW_S - 1 }, expired],
    ["exp is half a second away, no leeway", "0s", { exp: NOW_S + 0.5 }, "accept"],
    ["exp was just inside the leeway", "60s", { exp: NOW_S - 59 }, "accept"],
    ["exp was just as long ago as the leeway", "60s", { exp: NOW_S - 60 }, expired],
    ["nbf is now, no leeway", "0s", { nbf: NOW_S }, "accept"],
    ["nbf is a second away, no leeway", "0s", { nbf: NOW_S + 1 }, early],
    ["nbf is as far away as the leeway", "60s", { nbf: NOW_S + 60 }, "accept"],
    ["nbf is just beyond the leeway", "60s", { nbf: NOW_S + 61 }, early],
    ["nbf in ten years", "60s", { nbf: NOW_S + 3e8, exp: NOW_S + 4e8 }, early],
    ["exp is zero", "60s", { exp: 0 }, expired],
  ])("%s (%s)", async (_, leeway, claims, expected) => {
    const strategy = await startOidc(plugin, { issuer: server.url, leeway });
    expect(await strategy.answer(make(ec, { claims }))).toBe(expected);
  });

  test.each<[string, Record<string, unknown>, string]>([
    ["no exp", { exp: undefined }, "no_expiry"],
    ["exp as text", { exp: String(NOW_S + 600) }, "malformed_time"],
    ["exp as a list", { exp: [NOW_S + 600] }, "malformed_time"],
    ["exp null", { exp: null }, "malformed_time"],
    ["exp negative", { exp: -1 }, "malformed_time"],
    ["exp beyond all dates", { exp: 9e12 }, "malformed_time"],
    ["nbf as text", { nbf: "0" }, "malformed_time"],
    ["nbf null", { nbf: null }, "malformed_time"],
    ["iat as text", { iat: "x" }, "malformed_time"],
  ])("%s is refused", async (_, claims, why) => {
    expect(await oidc.answer(make(ec, { claims }))).toBe(`invalid_token: ${why}`);
  });

  test("exp 1e400, which is infinite to JavaScript, is refused", async () => {
    const claimsText = `{"iss":"${server.url}","aud":"api","sub":"a","exp":1e400}`;
    expect(await oidc.answer(make(ec, { claimsText }))).toBe("invalid_token: malformed_time");
  });

  test("a token that was accepted ends when its time is over, to the millisecond", async () => {
    const token = make(ec, { claims: { exp: NOW_S + 10 } });
    const outcome = await oidc.ask(token);
    if (outcome.outcome !== "accept") throw new Error("not accepted");
    expect(outcome.identity.expiresAtMs).toBe(TEST_NOW_MS + 70_000);
    oidc.context.clock.advance(69_999);
    expect(await oidc.answer(token)).toBe("accept");
    expect(await oidc.instance.isCurrent?.(outcome.identity)).toBe(true);
    oidc.context.clock.advance(1);
    expect(await oidc.answer(token)).toBe(expired);
    expect(await oidc.instance.isCurrent?.(outcome.identity)).toBe(false);
  });

  test("a token that was accepted is not, when the clock goes back before its time", async () => {
    const token = make(ec, { claims: { nbf: NOW_S + 30 } });
    expect(await oidc.answer(token)).toBe("accept");
    oidc.context.clock.advance(-31_000);
    expect(await oidc.answer(token)).toBe(early);
  });
});

describe("form", () => {
  test.each([
    ["opaque text", () => "gate_0123456789ab_secret"],
    ["two dots alone", () => ".."],
    ["one part", () => make(ec).split(".")[0] ?? ""],
    ["two parts", () => make(ec).split(".").slice(0, 2).join(".")],
    ["four parts", () => `${make(ec)}.AAAA`],
    ["five parts, encrypted", () => `${encoded({ alg: "RSA-OAEP", enc: "A256GCM" })}.AA.AA.AA.AA`],
    ["a header that is not JSON", () => make(ec, { headerText: "{" })],
    ["a header that is a list", () => make(ec, { headerText: "[1]" })],
    ["claims that are a text", () => make(ec, { claimsText: '"x"' })],
    ["claims that are null", () => make(ec, { claimsText: "null" })],
    [
      "claims behind a byte order mark",
      () => make(ec, { claimsText: `\ufeff{"iss":"${server.url}"}` }),
    ],
    ["standard base64", () => make(ec).replace(".", "+.")],
    ["padding", () => make(ec).replace(".", "=.")],
    ["JSON serialisation", () => encoded({ payload: "e30", signatures: [] })],
  ])("%s is nobody's, as far as this strategy knows", async (_, token) => {
    expect(await oidc.answer(token())).toBe("unknown");
  });

  test("a token has one spelling only", async () => {
    const token = make(ec);
    const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    const last = alphabet.indexOf(token.at(-1) ?? "");
    // 64 bytes end in a digit of which only two bits count.
    const twin = `${token.slice(0, -1)}${alphabet[last ^ 1]}`;
    expect(Buffer.from(twin, "base64url")).toEqual(Buffer.from(token, "base64url"));
    expect(await oidc.answer(twin)).toBe("unknown");
    expect(await oidc.answer(token)).toBe("accept");
  });

  test("a name that stands twice, at any level or escaped, is refused", async () => {
    const rest = `"aud":"api","sub":"alice","exp":${NOW_S + 600}`;
    const iss = `"iss":"${server.url}"`;
    for (const claimsText of [
      `{${iss},${rest},"sub":"bob"}`,
      `{"iss":"https://other.example.com",${rest},${iss}}`,
      `{${iss},${rest},"su\\u0062":"bob"}`,
      `{${iss},${rest},"realm":{"roles":[],"roles":["admin"]}}`,
      `{${iss},${rest},"x":[{"a":1,"a":2}]}`,
    ]) {
      expect(await oidc.answer(make(ec, { claimsText }))).toBe("invalid_token: name_twice");
    }
    const headerText = '{"alg":"none","kid":"ec","alg":"ES256"}';
    expect(await oidc.answer(make(ec, { headerText }))).toBe("invalid_token: name_twice");
    const fine = `{${iss},${rest},"a":{"sub":1},"b":{"sub":"}{\\"sub\\":"},"c":["sub","sub"]}`;
    expect(await oidc.answer(make(ec, { claimsText: fine }))).toBe("accept");
  });

  test("bytes that are not UTF-8 are no token", async () => {
    const [header = ""] = make(ec).split(".");
    const claims = Buffer.from(`{"iss":"${server.url}","sub":"\xff"}`, "latin1");
    const input = `${header}.${claims.toString("base64url")}`;
    expect(await oidc.answer(`${input}.${ec.sign(input)}`)).toBe("unknown");
  });

  test("every part counts: one changed character anywhere is not accepted", async () => {
    const token = make(ec);
    for (let at = 0; at < token.length; at += 7) {
      const other = token[at] === "A" ? "B" : "A";
      const changed = `${token.slice(0, at)}${other}${token.slice(at + 1)}`;
      expect(await oidc.answer(changed)).not.toBe("accept");
    }
  });

  test("a token of 8,192 characters is looked at, a larger one is malformed", async () => {
    const filler = (size: number) => make(ec, { claims: { filler: "x".repeat(size) } });
    const room = 8192 - filler(0).length;
    const largest = filler(Math.floor((room * 3) / 4));
    expect(largest.length).toBeLessThanOrEqual(8192);
    expect(await oidc.answer(largest)).toBe("accept");
    expect(await oidc.answer(filler(6500))).toBe("malformed_credential: ");
    expect(await oidc.answer("x".repeat(100_000))).toBe("malformed_credential: ");
  });
});

test("nothing of a token is in the log, whatever it was refused for", async () => {
  const secret = "sEcReTcLaImVaLuE";
  const token = make(ec, { claims: { exp: NOW_S - 1000, email: secret, sub: secret } });
  const forged = make(ec, { claims: { sub: secret }, sign: () => encoded(secret) });
  const wrong = make(ec, { claims: { sub: secret, aud: secret } });
  for (const bad of [token, forged, wrong]) {
    expect(await oidc.answer(bad)).not.toBe("accept");
    const log = oidc.context.log.text();
    expect(log).not.toContain(secret);
    for (const part of bad.split(".")) expect(log).not.toContain(part);
  }
});
