/**
 * Where the surfaces of our own are mounted: the token API below any prefix and in parts, its documentation, health,
 * what is refused before anything listens, and what a store in trouble comes to.
 *
 * Invariant: a route opens the endpoints that its patterns name and no others.
 */
import { beforeAll, describe, expect, test } from "bun:test";
import { join } from "node:path";
import { runBinary } from "../support/binary.ts";
import { describeBoth, type GatewayUnderTest, scratch } from "../support/gateway.ts";
import {
  ask,
  credential,
  describeTokenApi,
  make,
  ROOT,
  somebody,
  tryToken,
  WHO,
} from "../support/token-api.ts";
import { until } from "../support/valkey.ts";

const FILES = { "who.ts": WHO };
const HEAD = `version: 1
server: { listen: "127.0.0.1:0", public_url: "https://llm.example.com" }
strategies:
  who: { use: ./who.ts }
  staff: { use: ./who.ts, header: x-staff }
  team: { use: bearer-sqlite }
routes:
`;

/** Two people's tokens, and answers that look at no owner. */
const CARELESS = `
import { definePlugin, TokenError, z } from "gatehouse";
const record = (id, owner) => ({
  id, owner, name: "by-name", role: "user", scopes: [], createdAtMs: 1, createdBy: null, expiresAtMs: null,
  notBeforeMs: null, lastUsedAtMs: null, revokedAtMs: null, revokedReason: null, graceUntilMs: null, foreign: false,
});
const all = [record("a", "alice"), record("b", "bob")];
export default definePlugin({
  name: "careless", contract: 1, config: z.strictObject({}),
  init: () => ({
    authenticate: () => ({ outcome: "absent" }),
    tokens: {
      list: () => all,
      get: (wanted) => all.find(({ id }) => id === wanted) ?? all[0],
      rotate: () => { throw new TokenError("conflict", "rotated by somebody else"); },
      revoke: () => { throw new Error("nothing is revoked here"); },
      create: () => { throw new Error("secret of the store"); },
    },
  }),
});
`;

const CARELESS_CONFIG = `version: 1
server: { listen: "127.0.0.1:0" }
strategies: { who: { use: ./who.ts }, careless: { use: ./careless.ts } }
routes: [{ match: { path: /api/** }, access: [who], surface: careless.tokens }]
`;

async function request(gateway: GatewayUnderTest, line: string, headers: Record<string, string>) {
  const [method = "GET", path = "/"] = line.split(" ");
  const isPost = method === "POST";
  const response = await fetch(`${gateway.url}${path}`, {
    method,
    headers: { ...headers, ...(isPost ? { "content-type": "application/json" } : {}) },
    ...(isPost ? { body: "{}" } : {}),
  });
  const text = await response.text();
  const body = text.startsWith("{") || text.startsWith("[") ? JSON.parse(text) : null;
  return { status: response.status, headers: response.headers, text, body };
}

describeBoth("the token API in several places", (start) => {
  let gateway: GatewayUnderTest;
  beforeAll(async () => {
    gateway = await start({
      files: FILES,
      config: `${HEAD}
  - match: { path: /gate/keys/me/** }
    access: [who, staff]
    surface: team.tokens
  - match: { path: [/gate/keys/users/**, /gate/keys/tokens] }
    access: [staff]
    surface: team.tokens
  - match: { path: /read/me/tokens, methods: [GET] }
    access: [who]
    surface: team.tokens
  - match: { path: /staff-only/** }
    access: [staff]
    surface: team.tokens
  - match: { path: /help/** }
    access: public
    surface: team.docs
  - match: { path: /who/health/** }
    access: public
    surface: who.health
`,
    });
  });
  const who = (id: string, role = "user") => credential({ id, role } as never);
  const staff = (id: string) => credential({ id, role: "admin" }, "x-staff");

  test("a prefix and parts of it work, and their addresses are right", async () => {
    const made = await request(gateway, "POST /gate/keys/me/tokens", who("alice"));
    expect(made.status).toBe(201);
    const place = new URL(made.headers.get("location") ?? "", `${gateway.url}/gate/keys/me/tokens`);
    expect(place.pathname).toBe(`/gate/keys/me/tokens/${made.body.id}`);
    const users = await request(gateway, "GET /gate/keys/users/alice/tokens", staff("s"));
    expect(users.body).toMatchObject([{ id: made.body.id }]);
    expect((await request(gateway, "GET /read/me/tokens", who("alice"))).body).toHaveLength(1);
    expect((await request(gateway, "POST /read/me/tokens", who("alice"))).status).toBe(404);
  });

  test("an admin whom the admins' route does not accept gets nothing by way of another one", async () => {
    await request(gateway, "POST /gate/keys/me/tokens", who("bob"));
    const headers = who("eve", "admin");
    for (const path of [
      "/gate/keys/users/bob/tokens",
      "/gate/keys/tokens",
      "/gate/keys/me/users/bob/tokens",
      "/gate/keys/me/tokens/../../users/bob/tokens",
      "/gate/keys/me/%2e%2e/users/bob/tokens",
      "/gate/keys/me/..%2fusers/bob/tokens",
      "/gate/keys/me//users/bob/tokens",
      "/gate/keys/me/me/tokens",
      "/read/users/bob/tokens",
    ]) {
      const answer = await request(gateway, `GET ${path}`, headers);
      expect([path, answer.status >= 400]).toEqual([path, true]);
      expect(answer.text).not.toContain("bob");
    }
  });

  test("the same id from another strategy is somebody else, also where only that one is asked", async () => {
    const { body: hers } = await request(gateway, "POST /gate/keys/me/tokens", who("carol"));
    const listed = await request(gateway, "GET /staff-only/me/tokens", staff("carol"));
    expect([listed.status, listed.body]).toEqual([200, []]);
    const { body: made } = await request(gateway, "POST /staff-only/me/tokens", staff("carol"));
    expect(made.sub).toBe("staff:carol");
    for (const line of [
      `DELETE /staff-only/me/tokens/${hers.id}`,
      `GET /staff-only/me/tokens/${hers.id}`,
    ]) {
      expect([line, (await request(gateway, line, staff("carol"))).status]).toEqual([line, 404]);
    }
    const own = await request(gateway, "GET /gate/keys/me/tokens", who("carol"));
    expect(own.body.map(({ id }: { id: string }) => id)).toEqual([hers.id]);
    const pretender = await request(gateway, "GET /read/me/tokens", who("staff:carol"));
    expect([pretender.status, pretender.body.reason]).toEqual([403, "subject_ambiguous"]);
  });

  test("the document has what is mounted, where it is", async () => {
    const { body, headers } = await request(gateway, "GET /help/openapi.json", {});
    expect(headers.get("content-type")).toBe("application/json");
    expect(body.openapi).toBe("3.1.0");
    expect(body.servers).toEqual([{ url: "https://llm.example.com" }]);
    const paths = Object.keys(body.paths);
    expect(paths).toContain("/gate/keys/me/tokens/{id}/rotate");
    expect(paths).toContain("/gate/keys/users/{sub}/tokens/{id}");
    expect(paths).toContain("/gate/keys/tokens");
    expect(paths).not.toContain("/gate/keys/tokens/{id}");
    expect(Object.keys(body.paths["/read/me/tokens"])).toEqual(["get"]);
    for (const path of paths) expect(path).toMatch(/^\/(gate\/keys|read|staff-only)\//);
  });

  test("the page is whole as it comes, and names its own style", async () => {
    const page = await request(gateway, "GET /help", {});
    expect(page.headers.get("content-type")).toBe("text/html; charset=utf-8");
    expect(page.text).toContain("/gate/keys/me/tokens");
    expect(page.text).toContain('href="/help/openapi.json"');
    const style = /<style>([\s\S]*?)<\/style>/.exec(page.text)?.[1] ?? "";
    const hash = new Bun.CryptoHasher("sha256").update(style).digest("base64");
    expect(page.headers.get("content-security-policy")).toContain(`style-src 'sha256-${hash}'`);
    expect(page.text).not.toMatch(/<script|https?:\/\/(?!llm\.example\.com)/);
    expect((await request(gateway, "GET /help/other", {})).status).toBe(404);
    const post = await request(gateway, "POST /help", {});
    expect([post.status, post.headers.get("allow")]).toEqual([405, "GET, HEAD"]);
  });

  test("every strategy has health", async () => {
    expect((await request(gateway, "GET /who/health/live", {})).body).toEqual({ status: "ok" });
    expect((await request(gateway, "GET /who/health/ready", {})).body).toEqual({ status: "ready" });
    expect((await request(gateway, "GET /who/health", {})).status).toBe(404);
    expect((await request(gateway, "POST /who/health/ready", {})).status).toBe(405);
  });

  test.each([
    ["auto", 503],
    ["message", 500],
  ])(
    "not ready is, with errors: %s, %d, and says no more than what is missing",
    async (errors, status) => {
      const ill = await start({
        files: {
          "ill.ts": `
          import { definePlugin, z } from "gatehouse";
          export default definePlugin({
            name: "ill", contract: 1, config: z.strictObject({}),
            init: () => ({
              authenticate: () => ({ outcome: "absent" }),
              health: () => [{ code: "disk_full", severity: "error", text: "inner detail" }],
            }),
          });`,
        },
        config: `version: 1
server: { listen: "127.0.0.1:0" }
strategies: { ill: { use: ./ill.ts } }
routes: [{ match: { path: /health/** }, access: public, surface: ill.health, errors: ${errors} }]
`,
      });
      const ready = await request(ill, "GET /health/ready", {});
      expect([ready.status, ready.body.message]).toEqual([status, "strategy unavailable"]);
      expect(ready.text).not.toContain("inner");
      expect((await request(ill, "GET /health/live", {})).status).toBe(200);
    },
  );

  test("a strategy's own surface of the same name goes first", async () => {
    const own = await start({
      files: {
        "mine.ts": `
          import { definePlugin, z } from "gatehouse";
          export default definePlugin({
            name: "mine", contract: 1, config: z.strictObject({}),
            init: () => ({
              authenticate: () => ({ outcome: "absent" }),
              surfaces: [{ name: "tokens", handle: () => new Response("mine") }],
            }),
          });`,
      },
      config: `version: 1
server: { listen: "127.0.0.1:0" }
strategies: { mine: { use: ./mine.ts } }
routes: [{ match: { path: /api/** }, access: public, surface: mine.tokens }]
`,
    });
    expect((await request(own, "GET /api/me/tokens", {})).text).toBe("mine");
  });

  test("a store that heeds no filter shows nobody anything of others", async () => {
    const careless = await start({
      files: { ...FILES, "careless.ts": CARELESS },
      config: CARELESS_CONFIG,
    });
    const [alice, bob] = [credential({ id: "alice" }), credential({ id: "bob" })];
    expect((await request(careless, "GET /api/me/tokens", alice)).body).toMatchObject([
      { id: "a", sub: "alice" },
    ]);
    for (const line of [
      "GET /api/me/tokens/a",
      "DELETE /api/me/tokens/a",
      "POST /api/me/tokens/a/rotate",
      "GET /api/me/tokens/by-name",
      "DELETE /api/me/tokens/by-name",
    ]) {
      const answer = await request(careless, line, bob);
      expect([line, answer.status, answer.body.message]).toEqual([line, 404, "token not found"]);
    }
    const { status, body } = await request(careless, "POST /api/me/tokens/a/rotate", alice);
    expect([status, body.reason]).toEqual([409, "conflict"]);
    const thrown = await request(careless, "POST /api/me/tokens", alice);
    expect([thrown.status, thrown.body.reason]).toEqual([503, "strategy_fault"]);
    expect(thrown.text + careless.logs()).not.toContain("secret of the store");
    expect(careless.events("token.revoked")).toEqual([]);
  });

  test.each([
    ["quiet.tokens", "strategy quiet keeps no tokens"],
    ["quiet.docs", "strategy quiet keeps no tokens"],
    ["quiet.metrics", "strategy quiet has no surface metrics"],
  ])("%s of a plugin that did not say so stops the start in clear words", async (surface, why) => {
    const setup = {
      files: { "quiet.ts": WHO.replace(/offers:.*\n/, "").replace('"who"', '"quiet"') },
      config: `version: 1
server: { listen: "127.0.0.1:0" }
strategies: { quiet: { use: ./quiet.ts } }
routes: [{ match: { path: /api/** }, access: [quiet], surface: ${surface} }]
`,
    };
    await expect(start(setup)).rejects.toThrow(`routes[0].surface: ${surface}: ${why}`);
  });
});

describeTokenApi("a store of tokens in trouble", (api, use) => {
  test("is a fault: 503 for the API and its tokens, never an answer about them", async () => {
    const { valkey, gateway } = api();
    if (valkey === null) return expect(use).toBe("bearer-sqlite");
    const alice = somebody();
    const made = await make(api(), alice);
    expect((await ask(api(), null, "GET /health/ready")).body).toEqual({ status: "ready" });
    await valkey.kill();
    await until(async () => (await ask(api(), null, "GET /health/ready")).status === 503);
    const ready = await ask(api(), null, "GET /health/ready");
    expect(ready.body).toMatchObject({ message: "valkey unavailable", reason: "not_ready" });
    expect((await ask(api(), null, "GET /health/live")).body).toEqual({ status: "ok" });
    for (const [line, body] of [
      ["GET /api/me/tokens", undefined],
      ["POST /api/me/tokens", {}],
      [`DELETE /api/me/tokens/${made.id}`, undefined],
      [`POST /api/me/tokens/${made.id}/rotate`, {}],
    ] as const) {
      const answer = await ask(api(), alice, line, { body });
      expect(answer).toMatchObject({ status: 503, body: { reason: "strategy_fault" } });
      expect(answer.text).not.toContain(String(valkey.port));
    }
    expect((await ask(api(), ROOT, "GET /api/tokens")).status).toBe(503);
    expect(await tryToken(api(), made.token)).toBe(503);
    await valkey.restart();
    await until(async () => (await ask(api(), null, "GET /health/ready")).status === 200);
    // It came back empty.
    expect((await ask(api(), alice, "GET /api/me/tokens")).body).toEqual([]);
    expect(await tryToken(api(), made.token)).toBe(401);
    expect(gateway.logs()).not.toContain(made.token);
  });
});

describe("the executable", () => {
  const dir = scratch();
  const validate = async (routes: string) => {
    const file = join(dir, "gatehouse.yaml");
    await Bun.write(file, `${HEAD}${routes}`, { mode: 0o600 });
    await Bun.write(join(dir, "who.ts"), WHO, { mode: 0o600 });
    return runBinary(["config", "validate", "-c", file], { cwd: dir });
  };

  test("config validate knows the surfaces, and who keeps tokens", async () => {
    const fine = await validate(
      "  - { match: { path: /api/** }, access: [who], surface: team.tokens }\n  - { match: { path: /docs }, access: public, surface: team.docs }\n  - { match: { path: /h/** }, access: public, surface: who.health }\n",
    );
    expect([fine.code, fine.stderr]).toEqual([0, ""]);
    const wrong = await validate(
      "  - { match: { path: /api/** }, access: [who], surface: who.tokens }\n",
    );
    expect(wrong.code).toBe(78);
    expect(wrong.stderr).toContain("strategy `who` (who) keeps no tokens");
    expect(wrong.stderr).toContain("name one that does: team");
  });
});
