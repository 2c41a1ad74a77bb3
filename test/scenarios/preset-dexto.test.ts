/**
 * The preset `dexto` in front of a stand-in with the holes of the real server, from a file and as `serve --preset dexto`.
 *
 * Invariant: three exact paths are open, for reading; everything else needs a credential, /mcp too; the agent is
 * changed by admins; there is one set of CORS fields and the server's own key stays inside.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { runBinary, startBinary } from "../support/binary.ts";
import { describeBoth, type GatewayUnderTest, scratch } from "../support/gateway.ts";
import {
  checkSpellings,
  checkTable,
  presetConfig,
  rowsFor,
  TEAM_TOKEN,
  TOKENS_ENV,
} from "../support/preset-table.ts";
import { dextoStandIn } from "../support/standins/dexto.ts";

const DEXTO_KEY = "dexto-own-key-canary-0123456789";
const UPSTREAM = { headers: { authorization: "Bearer ${env:DEXTO_SERVER_API_KEY}" } };
const ENV = { ...TOKENS_ENV, DEXTO_SERVER_API_KEY: DEXTO_KEY };
const PUBLIC = ["/health", "/.well-known/agent-card.json", "/openapi.json"];

describeBoth("the preset dexto", (start) => {
  const upstream = dextoStandIn(DEXTO_KEY);
  let gateway: GatewayUnderTest;
  const subject = { gateway: () => gateway, seenCount: () => upstream.seen.length };

  beforeAll(async () => {
    gateway = await start({
      config: presetConfig("dexto", upstream.url, { upstream: UPSTREAM }),
      env: ENV,
    });
  });
  afterAll(() => upstream.stop());

  checkTable(subject, [
    ...rowsFor(PUBLIC, "GET", { nobody: 200, stranger: 200, user: 200, admin: 200 }),
    ...rowsFor(PUBLIC, "POST", { nobody: 401, user: 403 }),
    ...rowsFor(PUBLIC, "OPTIONS", { nobody: 401 }),
    ...rowsFor(["/healthzzz", "/health/x", "/openapi.jsonx", "/openapi.json/x"], "GET", {
      nobody: 401,
      user: 404,
    }),
    ["HEAD", "/health", "nobody", 200],
    ...rowsFor(["/mcp", "/mcp/x", "/mcp?session=1"], "POST", {
      nobody: 401,
      stranger: 401,
      user: 200,
    }),
    ...rowsFor(["/mcp", "/mcpx"], "GET", { nobody: 401, user: 200 }),
    ["POST", "/mcpx", "user", 403],
    ...rowsFor(
      ["/api/message", "/v1/message:send", "/v1/tasks/t:cancel", "/api/approvals/a"],
      "POST",
      {
        nobody: 401,
        stranger: 401,
      },
    ),
    ["POST", "/api/message", "user", 202],
    ["POST", "/v1/message:send", "user", 200],
    ["POST", "/v1/tasks/t:cancel", "user", 200],
    ["DELETE", "/api/sessions/s", "user", 200],
    ...rowsFor(
      ["/api/sessions", "/api/tools", "/api/llm/catalog", "/api/mcp/servers", "/"],
      "GET",
      {
        nobody: 401,
        user: 200,
        admin: 200,
      },
    ),
    ...rowsFor(
      [
        "/api/agent/config",
        "/api/llm/key",
        "/api/llm/switch",
        "/api/agents/install",
        "/api/mcp/servers",
        "/api/mcp/servers/s/tools/t/execute",
        "/api/webhooks",
        "/api/schedules",
      ],
      "POST",
      { nobody: 401, user: 403, admin: 200 },
    ),
    ["PUT", "/api/system-prompt", "user", 403],
    ["PUT", "/api/system-prompt", "admin", 200],
    ...rowsFor(
      ["/api/agent/config", "/api/agent/config/export", "/api/llm/key/openai", "/api/webhooks"],
      "GET",
      { nobody: 401, user: 403, admin: 200 },
    ),
    ["GET", "/api/nothing", "user", 404],
    ["POST", "/api/new-in-the-next-version", "user", 403],
    ["POST", "/api/new-in-the-next-version", "admin", 404],
    ["HEAD", "/api/resources/r", "user", 200],
  ]);

  checkSpellings(subject, [
    ["POST", "/mcp", "nobody"],
    ["GET", "/api/sessions", "nobody"],
    ["POST", "/api/llm/key", "user"],
  ]);

  test.each([
    ["POST", "/api/message-stream"],
    ["GET", "/api/sessions/s/events"],
  ])("%s %s streams, and says so to proxies in front", async (method, path) => {
    const response = await fetch(gateway.url + path, {
      method,
      headers: { authorization: `Bearer ${TEAM_TOKEN}` },
    });
    expect(response.headers.get("content-type")).toBe("text/event-stream");
    expect(response.headers.get("x-accel-buffering")).toBe("no");
    const text = await response.text();
    expect(text).toStartWith("event: llm:thinking");
    expect(text).toContain(": keepalive\n\n");
    expect(text).toEndWith('event: run:complete\ndata: {"finishReason":"stop"}\n\n');
  });

  test("the server gets its own key; the client's and every other never arrive, nor does the key come out", async () => {
    upstream.seen.length = 0;
    const response = await fetch(`${gateway.url}/api/tools`, {
      headers: { "x-api-key": TEAM_TOKEN },
    });
    const text = (await response.text()) + JSON.stringify([...response.headers]);
    expect(upstream.seen[0]?.headers.get("authorization")).toBe(`Bearer ${DEXTO_KEY}`);
    expect(upstream.seen[0]?.headers.get("x-api-key")).toBeNull();
    expect(text + gateway.logs()).not.toContain(DEXTO_KEY);
  });

  test("a 401 has Dexto's shape", async () => {
    const response = await fetch(`${gateway.url}/api/tools`);
    expect(await response.json()).toMatchObject({
      error: "Unauthorized",
      message: expect.stringContaining("Invalid or missing API key"),
      reason: "no_credential",
    });
  });

  test("without origins Dexto's own CORS fields pass, once", async () => {
    const response = await fetch(`${gateway.url}/api/tools`, {
      headers: { authorization: `Bearer ${TEAM_TOKEN}`, origin: "http://localhost:5173" },
    });
    expect(response.headers.get("access-control-allow-origin")).toBe("http://localhost:5173");
  });
});

describeBoth("the options of the preset dexto", (start) => {
  const upstream = dextoStandIn(DEXTO_KEY);
  let gateway: GatewayUnderTest;
  const subject = { gateway: () => gateway, seenCount: () => upstream.seen.length };
  const APP = "https://app.example.com";

  beforeAll(async () => {
    const config = presetConfig("dexto", upstream.url, {
      upstream: UPSTREAM,
      with: { open: ["/health"], origins: [APP] },
    });
    gateway = await start({ config, env: ENV });
  });
  afterAll(() => upstream.stop());

  checkTable(subject, [
    ["GET", "/health", "nobody", 200],
    ["GET", "/openapi.json", "nobody", 401],
    ["GET", "/.well-known/agent-card.json", "nobody", 401],
    ["GET", "/openapi.json", "user", 200],
  ]);

  test("with origins there is one set of CORS fields, and refusals have it too", async () => {
    const headers = { authorization: `Bearer ${TEAM_TOKEN}`, origin: APP };
    const passed = await fetch(`${gateway.url}/api/tools`, { headers });
    expect(passed.headers.get("access-control-allow-origin")).toBe(APP);
    expect(passed.headers.get("access-control-allow-credentials")).toBe("true");
    const refused = await fetch(`${gateway.url}/api/tools`, { headers: { origin: APP } });
    expect([refused.status, refused.headers.get("access-control-allow-origin")]).toEqual([
      401,
      APP,
    ]);
  });

  test("another origin gets none, whatever Dexto says about it", async () => {
    const headers = { authorization: `Bearer ${TEAM_TOKEN}`, origin: "http://localhost:5173" };
    const response = await fetch(`${gateway.url}/api/tools`, { headers });
    expect(response.headers.get("access-control-allow-origin")).toBeNull();
  });

  test("a preflight is answered here and needs no credential", async () => {
    const before = upstream.seen.length;
    const response = await fetch(`${gateway.url}/api/message`, {
      method: "OPTIONS",
      headers: { origin: APP, "access-control-request-method": "POST" },
    });
    expect(response.status).toBe(204);
    expect(response.headers.get("access-control-allow-headers")).toContain("authorization");
    expect(upstream.seen.length).toBe(before);
  });
});

describe("serve --preset dexto", () => {
  const upstream = dextoStandIn(DEXTO_KEY);
  const dir = scratch();
  afterAll(() => upstream.stop());
  const args = ["--preset", "dexto", "--port", "0"];
  const env = { DEXTO_SERVER_API_KEY: DEXTO_KEY, DEXTO_ALLOWED_ORIGINS: "https://app.example.com" };

  test("takes the place of its API-key mode, for old clients and for new tokens", async () => {
    const { port } = new URL(upstream.url);
    const gateway = await startBinary(["serve", ...args], {
      cwd: dir,
      env: { ...env, PORT: port },
    });
    const ask = (path: string, token: string | null, method = "GET") =>
      fetch(gateway.url + path, {
        method,
        headers: token === null ? {} : { authorization: `bearer ${token}` },
      });
    expect((await ask("/health", null)).status).toBe(200);
    expect((await ask("/mcp", null)).status).toBe(401);
    expect((await ask("/api/llm/switch", DEXTO_KEY, "POST")).status).toBe(200);
    const made = await runBinary(["token", "create", "--preset", "dexto", "--name", "alice"], {
      cwd: dir,
    });
    const token = made.stdout.trim();
    expect((await ask("/api/tools", token)).status).toBe(200);
    expect((await ask("/api/llm/switch", token, "POST")).status).toBe(403);
    const preflight = await fetch(`${gateway.url}/api/message`, {
      method: "OPTIONS",
      headers: { origin: "https://app.example.com", "access-control-request-method": "POST" },
    });
    expect(preflight.headers.get("access-control-allow-origin")).toBe("https://app.example.com");
    expect(gateway.stdout()).toContain("DEXTO_BASE_URL");
    expect(gateway.stdout() + gateway.stderr()).not.toContain(DEXTO_KEY);
    await gateway.kill();
  });

  test.each([
    ["no key", {}, "DEXTO_SERVER_API_KEY is not set"],
    ["a blank key", { DEXTO_SERVER_API_KEY: "  " }, "DEXTO_SERVER_API_KEY"],
    ["a key that can be guessed", { DEXTO_SERVER_API_KEY: "short" }, "shorter than 16"],
    ["a bad origin", { ...env, DEXTO_ALLOWED_ORIGINS: "app.example.com" }, "exact origin"],
  ])("with %s it does not start, and says why", async (_, bad, said) => {
    const { code, stderr } = await runBinary(["serve", ...args], { cwd: dir, env: bad });
    expect(code).toBe(78);
    expect(stderr).toContain(said);
  });

  test("a flag of another preset is refused", async () => {
    const { code, stderr } = await runBinary(["serve", ...args, "--auth-env", "X"], {
      cwd: dir,
      env,
    });
    expect(code).toBe(78);
    expect(stderr).toContain("--auth-env means nothing to the preset dexto");
  });
});
