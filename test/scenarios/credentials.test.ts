/**
 * Credentials, over raw sockets: one, or none, or a refusal; what a chain of strategies makes of it; and the
 * challenges of RFC 6750 section 3. A fault is 503 and never 401, because clients drop good tokens on 401.
 *
 * Invariant: every refusal asserts that the upstream saw nothing and that the answer names the request id.
 */
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "bun:test";
import { REJECT_REASONS } from "../../src/contract/outcome.ts";
import { describeBoth, type GatewayUnderTest, OPS_ENV, OPS_TOKEN } from "../support/gateway.ts";
import { eventually, type RawAnswer, type RawUpstream, raw, rawUpstream } from "../support/raw.ts";

/** A strategy that does what `x-mood` says, so that every outcome can be had. */
const MOODY = `import { definePlugin, z } from "gatehouse";

export default definePlugin({
  name: "moody",
  contract: 1,
  config: z.strictObject({}),
  init: () => ({
    credentialHeaders: ["x-mood"],
    challenges: () => [{ scheme: "Mood", parameters: { hint: 'say "please"' } }, { scheme: "bearer" }],
    authenticate(request) {
      const mood = request.headers.get("x-mood");
      if (mood === null) return { outcome: "absent" };
      const identity = { id: "moody" };
      const [kind, detail] = mood.split(":");
      if (kind === "throw") throw new Error("the store is down: " + mood);
      if (kind === "promise") return Promise.reject(new Error("the store is down: " + mood));
      if (kind === "string") throw mood;
      if (kind === "later") return new Promise((resolve) => setTimeout(resolve, 1, { outcome: "unknown" }));
      if (kind === "reject") return { outcome: "reject", reason: detail, credentialId: "mood-1" };
      if (kind === "nothing") return undefined;
      if (kind === "odd") return { outcome: "maybe" };
      if (kind === "nobody") return { outcome: "accept" };
      if (kind === "bare") return { outcome: "accept", identity: { id: "" } };
      if (kind === "bad") return { outcome: "accept", identity: { ...identity, ...JSON.parse(detail.replaceAll("=", ":")) } };
      if (kind === "accept") return { outcome: "accept", identity: { ...identity, scopes: detail?.split("+") ?? [] } };
      return { outcome: "unknown" };
    },
  }),
});
`;

/** Without challenges, and one whose challenges are not what the contract says. */
const SILENT = (
  name: string,
  challenges: string,
) => `import { ABSENT, definePlugin, z } from "gatehouse";
export default definePlugin({
  name: "${name}",
  contract: 1,
  config: z.strictObject({}),
  init: () => ({ authenticate: () => ABSENT, ${challenges} }),
});
`;

const CONFIG = (upstream: string) => `version: 1
server: { listen: 127.0.0.1:0 }
strategies:
  ops: { use: static-env, env: OPS_TOKEN }
  two: { use: static-env, env: TWO_TOKEN, role: admin }
  moody: { use: ./moody.ts }
  silent: { use: ./silent.ts }
  broken: { use: ./broken.ts }
upstreams: { api: { url: "http://${upstream}" } }
routes:
  - { match: { path: /nowhere }, access: [ops] }
  - { match: { path: /nowhere-public }, access: public }
  - { match: { path: /chain/** }, access: [moody, ops, two], upstream: api }
  - { match: { path: /last/** }, access: [ops, moody], upstream: api }
  - { match: { path: /admin/** }, access: [ops, two], require: { role: admin }, upstream: api }
  - { match: { path: /scoped/** }, access: [moody, ops], require: { scopes: [read, "wri\\"te"] }, upstream: api }
  - { match: { path: /silent }, access: [silent], upstream: api }
  - { match: { path: /broken }, access: [broken], upstream: api }
  - { match: { path: /public/** }, access: public, upstream: api }
  - { match: { path: /** }, access: [ops], upstream: api }
`;
const TWO_TOKEN = "two-token-0123456789-abcdefghij";
const BEARER = `Authorization: Bearer ${OPS_TOKEN}\r\n`;
const STRANGER = "Authorization: Bearer a-token-that-nobody-knows\r\n";
const FILES = {
  "moody.ts": MOODY,
  "silent.ts": SILENT("silent", ""),
  "broken.ts": SILENT("broken", "challenges: () => [{ scheme: 'Bearer', parameters: { n: 1 } }]"),
};

const basic = (user: string, password: string) =>
  `Authorization: Basic ${Buffer.from(`${user}:${password}`).toString("base64")}\r\n`;

/** Rejects that are not 401. */
const OTHER_STATUS: Readonly<Record<string, number>> = {
  malformed_credential: 400,
  ambiguous_credential: 400,
  not_registered: 403,
};

/** Values of WWW-Authenticate, in order. */
const challengesOf = ({ text }: RawAnswer) =>
  [...text.matchAll(/\r\nWWW-Authenticate: (.*)(?=\r)/g)].map((match) => match[1] ?? "");

describeBoth("credentials", (start) => {
  let upstream: RawUpstream;
  let gateway: GatewayUnderTest;
  beforeAll(async () => {
    upstream = rawUpstream();
    gateway = await start({
      config: CONFIG(upstream.address),
      env: { ...OPS_ENV, TWO_TOKEN },
      files: FILES,
    });
  });
  beforeEach(() => {
    upstream.seen.length = 0;
  });
  afterAll(async () => {
    upstream.stop();
    await gateway.stop();
  });

  const ask = (path: string, lines = "") =>
    raw(gateway.address, `GET ${path} HTTP/1.1\r\nHost: a\r\n${lines}Connection: close\r\n\r\n`);

  const refused = async (path: string, lines: string, status: number, reason: string) => {
    const answer = await ask(path, lines);
    expect([answer.statuses, reasonOf(answer)]).toEqual([[status], reason]);
    expect(answer.text).toMatch(/"request_id":"[0-9a-f-]{36}"/);
    expect(upstream.seen).toEqual([]);
    return answer;
  };
  const reasonOf = ({ text }: RawAnswer) => /\r\nX-Gatehouse-Reason: (.*)\r/.exec(text)?.[1];

  describe("what is one credential", () => {
    test.each([
      ["Bearer", BEARER],
      ["the scheme in lower case", `Authorization: bearer ${OPS_TOKEN}\r\n`],
      ["the scheme in upper case", `AUTHORIZATION: BEARER ${OPS_TOKEN}\r\n`],
      ["two blanks after the scheme", `Authorization: Bearer  ${OPS_TOKEN}\r\n`],
      ["x-api-key", `X-API-Key: ${OPS_TOKEN}\r\n`],
      ["x-api-key beside an empty Authorization", `Authorization:\r\nX-Api-Key: ${OPS_TOKEN}\r\n`],
      ["a right Authorization beside a wrong x-api-key", `${BEARER}X-Api-Key: nonsense\r\n`],
    ])("%s is accepted", async (_, lines) => {
      expect((await ask("/x", lines)).statuses).toEqual([200]);
      expect(upstream.seen.length).toBe(1);
      expect(upstream.seen[0]?.head).not.toContain(OPS_TOKEN);
    });

    test.each<[string, string, number, string]>([
      ["nothing", "", 401, "no_credential"],
      ["an unknown token", STRANGER, 401, "invalid_token"],
      ["the token in another case", BEARER.toUpperCase(), 401, "invalid_token"],
      ["the token and a sign", BEARER.replace("\r", "x\r"), 401, "invalid_token"],
      ["the token less a sign", BEARER.replace("j\r", "\r"), 401, "invalid_token"],
      ["a pattern", "Authorization: Bearer ops-token-%\r\n", 401, "invalid_token"],
      ["the token without a scheme", `Authorization: ${OPS_TOKEN}\r\n`, 401, "no_credential"],
      ["Basic", basic("ops", OPS_TOKEN), 401, "no_credential"],
      [
        "Basic beside a right x-api-key",
        `${basic("a", "b")}X-Api-Key: ${OPS_TOKEN}\r\n`,
        401,
        "no_credential",
      ],
      [
        "a wrong Bearer beside a right x-api-key",
        `${STRANGER}X-Api-Key: ${OPS_TOKEN}\r\n`,
        401,
        "invalid_token",
      ],
      ["two Authorization lines", BEARER + STRANGER, 400, "ambiguous_credential"],
      ["the same line twice", BEARER + BEARER, 400, "ambiguous_credential"],
      ["an empty line and a right one", `Authorization:\r\n${BEARER}`, 400, "ambiguous_credential"],
      [
        "two credentials joined by a comma",
        `Authorization: Bearer no, Bearer ${OPS_TOKEN}\r\n`,
        400,
        "ambiguous_credential",
      ],
      ["the right one first", BEARER.replace("\r", ", Bearer no\r"), 400, "ambiguous_credential"],
      [
        "two x-api-key lines",
        `X-Api-Key: ${OPS_TOKEN}\r\nX-Api-Key: no\r\n`,
        400,
        "ambiguous_credential",
      ],
      ["a comma in x-api-key", `X-Api-Key: no, ${OPS_TOKEN}\r\n`, 400, "ambiguous_credential"],
      ["Bearer alone", "Authorization: Bearer\r\n", 400, "malformed_credential"],
      [
        "a blank in the token",
        `Authorization: Bearer x ${OPS_TOKEN}\r\n`,
        400,
        "malformed_credential",
      ],
      ["a token beyond ASCII", BEARER.replace("\r", "\xe9\r"), 400, "malformed_credential"],
      ["a no-break space at the end", BEARER.replace("\r", "\xa0\r"), 400, "malformed_credential"],
      [
        "9,000 characters",
        `Authorization: Bearer ${"a".repeat(9000)}\r\n`,
        400,
        "malformed_credential",
      ],
      ["a spelling with an underscore", `X_Api_Key: ${OPS_TOKEN}\r\n`, 401, "no_credential"],
      [
        "a cookie",
        `Cookie: authorization=${OPS_TOKEN}; token=${OPS_TOKEN}\r\n`,
        401,
        "no_credential",
      ],
      ["Proxy-Authorization", `Proxy-${BEARER}`, 401, "no_credential"],
    ])("%s is refused", async (_, lines, status, reason) => {
      const answer = await refused("/x", lines, status, reason);
      expect(answer.text).not.toContain(OPS_TOKEN);
    });

    test.each(["access_token", "ACCESS_TOKEN", "api_key", "apikey"])(
      "?%s= is refused, also beside a right header, and not repeated",
      async (name) => {
        for (const query of [`?${name}=${OPS_TOKEN}`, `?a=b&${name}=`]) {
          const answer = await refused(`/x${query}`, BEARER, 400, "credential_in_url");
          expect(answer.text).not.toContain(OPS_TOKEN);
          expect(challengesOf(answer)).toEqual([
            'Bearer realm="gatehouse", error="invalid_request"',
          ]);
        }
      },
    );
  });

  describe("challenges", () => {
    test.each<[string, string, string, string[]]>([
      ["no credential: no error code", "/x", "", ['Bearer realm="gatehouse"']],
      [
        "a bad one: invalid_token",
        "/x",
        STRANGER,
        ['Bearer realm="gatehouse", error="invalid_token"'],
      ],
      [
        "two at once: invalid_request",
        "/x",
        BEARER + BEARER,
        ['Bearer realm="gatehouse", error="invalid_request"'],
      ],
      [
        "several schemes, each once, in the order of the route, quoted",
        "/chain/x",
        "",
        ['Mood realm="gatehouse", hint="say \\"please\\""', 'bearer realm="gatehouse"'],
      ],
      ["a strategy that advertises nothing", "/silent", "", ['Gatehouse realm="gatehouse"']],
    ])("%s", async (_, path, lines, expected) => {
      const answer = await ask(path, lines);
      expect(challengesOf(answer)).toEqual(expected);
      expect(upstream.seen).toEqual([]);
    });

    test("a fault while saying no is 500 with a request id, and nothing passes", async () => {
      await refused("/broken", "", 500, "internal_fault");
    });
  });

  describe("a chain of strategies", () => {
    test.each([
      ["absent, then accept", "/chain/x", BEARER],
      ["unknown, then accept", "/chain/x", `X-Mood: strange\r\n${BEARER}`],
      ["unknown after a while, then accept", "/chain/x", `X-Mood: later\r\n${BEARER}`],
      ["absent, unknown, accept", "/chain/x", `Authorization: Bearer ${TWO_TOKEN}\r\n`],
      [
        "the first accepts before the others are asked",
        "/chain/x",
        `X-Mood: accept\r\n${BEARER}${BEARER}`,
      ],
      ["the first accepts before one that would throw", "/last/x", `X-Mood: throw\r\n${BEARER}`],
    ])("%s", async (_, path, lines) => {
      expect((await ask(path, lines)).statuses).toEqual([200]);
    });

    test.each([...REJECT_REASONS])("a reject with %s stops the walk", async (reason) => {
      const answer = await ask("/chain/x", `X-Mood: reject:${reason}\r\n${BEARER}`);
      // To an outsider a revoked token and one that never was are the same; a proof's author is told what to mend.
      const shown = reason.startsWith("token_") ? "invalid_token" : reason;
      expect(answer.statuses).toEqual([OTHER_STATUS[reason] ?? 401]);
      expect(reasonOf(answer)).toBe(shown);
      expect(upstream.seen).toEqual([]);
      const logged = () =>
        gateway
          .events("auth.decision")
          .filter((one) => one.reason === reason && one.token_id === "mood-1");
      await eventually("the precise reason is logged", () => logged().length > 0);
    });

    test.each([
      ["throws", "throw:sesame"],
      ["throws a string", "string:sesame"],
      ["rejects its promise", "promise:sesame"],
      ["gives nothing", "nothing"],
      ["gives an outcome that is none", "odd"],
      ["accepts nobody", "nobody"],
      ["accepts an empty id", "bare"],
      ["accepts a name that is no text", 'bad:{"name"=1}'],
      ["accepts an owner that is no text", 'bad:{"owner"={}}'],
      ["accepts scopes that are no list", 'bad:{"scopes"="read"}'],
      ["accepts scopes that are numbers", 'bad:{"scopes"=[1]}'],
      ["accepts a role nobody knows", 'bad:{"role"="root"}'],
      ["rejects without a reason", "reject"],
      ["rejects with a reason that is none", "reject:because"],
      ["rejects with a name that every object has", "reject:constructor"],
      ["rejects with a reason that is not its to give", "reject:no_route"],
    ])("a strategy that %s is a fault: 503, and nobody else is asked", async (_, mood) => {
      for (const path of ["/chain/x", "/last/x"]) {
        const lines = `X-Mood: ${mood}\r\n${path === "/chain/x" ? BEARER : ""}`;
        const answer = await refused(path, lines, 503, "strategy_fault");
        expect(challengesOf(answer)).toEqual([]);
        expect(answer.text).toContain("\r\nRetry-After: ");
        expect(answer.text).not.toContain("sesame");
      }
      expect(gateway.logs()).not.toContain("sesame");
    });

    test.each([
      ["nothing", "no outcome"],
      ["odd", "outcome is none of absent, unknown, accept, reject"],
      ["nobody", "accept without an identity"],
      ["bare", "accept with an identity that is none"],
      ["reject:because", "reject with a reason that is none"],
    ])("the log says how a strategy broke the contract: %s", async (mood, why) => {
      await refused("/last/x", `X-Mood: ${mood}\r\n`, 503, "strategy_fault");
      const said = () => gateway.events("request.fault").map(({ error }) => error);
      await eventually("it is logged", () => said().includes(`ContractBreach: ${why}`));
    });
  });

  describe("what an identity may do", () => {
    test("a route without an upstream asks for the credential first", async () => {
      await refused("/nowhere", "", 401, "no_credential");
      await refused("/nowhere", STRANGER, 401, "invalid_token");
      await refused("/nowhere", BEARER, 404, "no_upstream");
      await refused("/nowhere-public", "", 404, "no_upstream");
    });

    test("a role that is missing is 403 without a challenge", async () => {
      const answer = await refused("/admin/x", BEARER, 403, "insufficient_role");
      expect(challengesOf(answer)).toEqual([]);
      expect((await ask("/admin/x", `X-Api-Key: ${TWO_TOKEN}\r\n`)).statuses).toEqual([200]);
    });

    test("a scope that is missing is 403 with what is needed, quoted", async () => {
      for (const mood of ["accept", "accept:read", "accept:READ+write", "accept:read write"]) {
        const answer = await refused("/scoped/x", `X-Mood: ${mood}\r\n`, 403, "insufficient_scope");
        expect(challengesOf(answer)).toContain(
          'bearer realm="gatehouse", error="insufficient_scope", scope="read wri\\"te"',
        );
      }
      const all = 'X-Mood: accept:other+wri"te+read\r\n';
      expect((await ask("/scoped/x", all)).statuses).toEqual([200]);
    });

    test("a public route asks nobody, whatever is presented", async () => {
      const lines = `X-Mood: throw\r\n${BEARER}${BEARER}`;
      expect((await ask("/public/x?access_token=theirs", lines)).statuses).toEqual([200]);
    });
  });
});
