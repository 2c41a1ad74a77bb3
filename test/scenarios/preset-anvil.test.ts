/**
 * The preset `anvil` in front of a stand-in for anvil-serving, from a file and as `serve --preset anvil`.
 *
 * Invariant: clients of its front door notice no difference (Bearer or x-api-key with their precedence, shapes,
 * `/healthz`, the 503), every body reaches it with its length, and only admins see what everybody does.
 */
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "bun:test";
import { runBinary, startBinary } from "../support/binary.ts";
import { describeBoth, type GatewayUnderTest, scratch } from "../support/gateway.ts";
import {
  BOSS_TOKEN,
  checkSpellings,
  checkTable,
  presetConfig,
  rowsFor,
  TEAM_TOKEN,
  TOKENS_ENV,
} from "../support/preset-table.ts";
import { openRaw, raw, valuesOf } from "../support/raw.ts";
import { anvilStandIn } from "../support/standins/anvil.ts";

const ROUTER_TOKEN = "anvil-router-token-canary-0123456789";
const ENV = { ...TOKENS_ENV, ANVIL_ROUTER_TOKEN: ROUTER_TOKEN };
const MORE = {
  server: { health_path: null },
  upstream: { headers: { authorization: "Bearer ${env:ANVIL_ROUTER_TOKEN}" } },
};

describeBoth("the preset anvil", (start) => {
  const upstream = anvilStandIn(ROUTER_TOKEN);
  let gateway: GatewayUnderTest;
  const subject = { gateway: () => gateway, seenCount: () => upstream.seen.length };

  beforeAll(async () => {
    const config = presetConfig("anvil", `http://${upstream.address}`, MORE);
    gateway = await start({ config, env: ENV });
  });
  beforeEach(() => {
    upstream.seen.length = 0;
    upstream.isExhausted = false;
  });
  afterAll(() => upstream.stop());

  checkTable(subject, [
    ...rowsFor(["/healthz", "/healthz/", "/healthz?x=1"], "GET", { nobody: 200, stranger: 200 }),
    ["HEAD", "/healthz", "nobody", 401],
    ["HEAD", "/healthz", "admin", 501],
    ["POST", "/healthz", "nobody", 401],
    ["GET", "/health", "nobody", 401],
    ["GET", "/healthzz", "nobody", 401],
    ...rowsFor(
      [
        "/v1/chat/completions",
        "/v1/messages",
        "/v1/responses",
        "/v1/embeddings",
        "/v1/rerank",
        "/v1/audio/speech",
      ],
      "POST",
      { nobody: 401, stranger: 401, user: 200, admin: 200 },
    ),
    ...rowsFor(["/v1/models", "/v1/models/capacity", "/v1/health/tiers"], "GET", {
      nobody: 401,
      user: 200,
      admin: 200,
    }),
    ...rowsFor(["/metrics", "/v1/stats", "/v1/decisions?limit=5", "/v1/requests/r"], "GET", {
      nobody: 401,
      user: 403,
      admin: 200,
    }),
    ["POST", "/v1/admin/transition", "user", 403],
    ["POST", "/v1/admin/transition", "admin", 200],
    // As anvil: nobody learns whether a path is there, who has the token gets its own answer.
    ["GET", "/nothing", "nobody", 401],
    ["GET", "/nothing", "admin", 404],
    ["GET", "/v1/messages", "user", 405],
    ["OPTIONS", "/v1/messages", "nobody", 401],
    ["OPTIONS", "/v1/messages", "user", 501],
    ["DELETE", "/v1/models", "user", 501],
  ]);

  checkSpellings(subject, [
    ["GET", "/metrics", "user"],
    ["POST", "/v1/admin/transition", "user"],
    ["POST", "/v1/messages", "nobody"],
  ]);

  const BEARER = `Authorization: Bearer ${TEAM_TOKEN}\r\n`;
  const KEY = `X-Api-Key: ${TEAM_TOKEN}\r\n`;

  test.each([
    ["a Bearer token", BEARER, 200],
    ["the scheme in other letters", `authorization: bEARER ${TEAM_TOKEN}\r\n`, 200],
    ["x-api-key", KEY, 200],
    ["an empty Authorization and a good x-api-key", `Authorization: \r\n${KEY}`, 200],
    ["Basic and a good x-api-key", `Authorization: Basic eDp5\r\n${KEY}`, 401],
    ["a wrong Bearer and a good x-api-key", `Authorization: Bearer nope\r\n${KEY}`, 401],
    ["a bare token in Authorization", `Authorization: ${TEAM_TOKEN}\r\n`, 401],
    // Stricter than the original, which takes the first.
    ["two Authorization lines", `${BEARER}Authorization: Bearer nope\r\n`, 400],
  ])("%s is answered %i", async (_, lines, status) => {
    const { text, statuses } = await raw(
      gateway.address,
      `GET /v1/models HTTP/1.1\r\nHost: h\r\nConnection: close\r\n${lines}\r\n`,
    );
    expect(statuses).toEqual([status]);
    if (status === 200) {
      expect(valuesOf(upstream.seen[0], "authorization")).toEqual([`Bearer ${ROUTER_TOKEN}`]);
      expect(valuesOf(upstream.seen[0], "x-api-key")).toEqual([]);
      return;
    }
    expect(upstream.seen).toEqual([]);
    const error =
      status === 401
        ? { type: "authentication_error", message: "invalid or missing API key" }
        : { type: "invalid_request" };
    expect(JSON.parse(text.slice(text.indexOf("\r\n\r\n")))).toMatchObject({ error });
  });

  const chunked = (chunks: readonly string[], token = TEAM_TOKEN) =>
    `POST /v1/messages HTTP/1.1\r\nHost: h\r\nConnection: close\r\nAuthorization: Bearer ${token}\r\nTransfer-Encoding: chunked\r\n\r\n${[...chunks, ""].map((chunk) => `${chunk.length.toString(16)}\r\n${chunk}\r\n`).join("")}`;

  test.each([
    ["in one chunk", ['{"model":"m"}']],
    ["in several", ['{"mod', 'el":', '"m"}']],
    ["that is empty", []],
    ["that is large", ["x".repeat(300_000), "y".repeat(300_000)]],
  ])("a chunked body %s reaches it whole and with its length", async (_, chunks) => {
    const { statuses } = await raw(gateway.address, chunked(chunks));
    expect(statuses).toEqual([200]);
    const body = chunks.join("");
    expect(valuesOf(upstream.seen[0], "content-length")).toEqual([String(body.length)]);
    expect(valuesOf(upstream.seen[0], "transfer-encoding")).toEqual([]);
    expect(upstream.seen[0]?.body === body).toBe(true);
  });

  test("a chunked body over 32 MiB is 413 in its shape, and reaches nothing", async () => {
    const megabyte = "x".repeat(1_048_576);
    const { text, statuses } = await raw(gateway.address, chunked(Array(33).fill(megabyte)), {
      timeoutMs: 20_000,
    });
    expect(statuses).toEqual([413]);
    expect(text).toContain('"type":"payload_too_large"');
    expect(upstream.seen).toEqual([]);
  });

  test("a chunked body without a credential is not waited for", async () => {
    const connection = await openRaw(gateway.address);
    connection.send(chunked(["x"], "nope").replace("0\r\n\r\n", ""));
    const { statuses } = await connection.read({ until: (text) => text.includes("\r\n\r\n") });
    connection.kill();
    expect(statuses).toEqual([401]);
  });

  test("its 503 passes as it is, once, and ours would look different", async () => {
    upstream.isExhausted = true;
    const response = await fetch(`${gateway.url}/v1/chat/completions`, {
      method: "POST",
      headers: { authorization: `Bearer ${TEAM_TOKEN}` },
      body: '{"model":"m"}',
    });
    expect(response.status).toBe(503);
    expect(await response.text()).toBe(
      '{"error":{"type":"service_unavailable","message":"no tier is ready"}}',
    );
    expect(response.headers.get("retry-after")).toBeNull();
    expect(response.headers.get("x-gatehouse-reason")).toBeNull();
    expect(upstream.seen.length).toBe(1);
  });

  test("a stream comes through with what it says about itself", async () => {
    const response = await fetch(`${gateway.url}/v1/chat/completions`, {
      method: "POST",
      headers: { "x-api-key": BOSS_TOKEN },
      body: '{"model":"m","stream":true}',
    });
    expect(await response.text()).toEndWith("data: [DONE]\n\n");
    expect(response.headers.get("warning")).toContain("max_tokens clamped");
    expect(response.headers.get("x-anvil-tier")).toBe("primary");
  });
});

describeBoth("an anvil that is down", (start) => {
  test("is 502 with a type that is not its own 503's", async () => {
    const upstream = anvilStandIn(ROUTER_TOKEN);
    const config = presetConfig("anvil", `http://${upstream.address}`, MORE);
    upstream.stop();
    const gateway = await start({ config, env: ENV });
    const response = await fetch(`${gateway.url}/v1/models`, {
      headers: { authorization: `Bearer ${TEAM_TOKEN}` },
    });
    expect(response.status).toBe(502);
    expect(await response.json()).toMatchObject({ error: { type: "upstream_unreachable" } });
  });
});

describe("serve --preset anvil", () => {
  const upstream = anvilStandIn(ROUTER_TOKEN);
  const dir = scratch();
  afterAll(() => upstream.stop());
  const args = ["--preset", "anvil", "--port", "0", "--upstream", `http://${upstream.address}`];

  test("takes the variable that --auth-env names, for old clients and for new tokens", async () => {
    const gateway = await startBinary(["serve", ...args, "--auth-env", "MY_ROUTER"], {
      cwd: dir,
      env: { MY_ROUTER: ` ${ROUTER_TOKEN} ` },
    });
    const ask = async (path: string, token: string) =>
      (await fetch(gateway.url + path, { headers: { "x-api-key": token } })).status;
    expect((await fetch(`${gateway.url}/healthz`)).status).toBe(200);
    expect(await ask("/v1/models", "wrong")).toBe(401);
    expect(await ask("/metrics", ROUTER_TOKEN)).toBe(200);
    const made = await runBinary(["token", "create", "--preset", "anvil", "--name", "alice"], {
      cwd: dir,
    });
    expect(await ask("/v1/models", made.stdout.trim())).toBe(200);
    expect(await ask("/metrics", made.stdout.trim())).toBe(403);
    expect(gateway.stdout() + gateway.stderr()).not.toContain(ROUTER_TOKEN);
    await gateway.kill();
  });

  test("without --auth-env it is ANVIL_ROUTER_TOKEN", async () => {
    const { code, stdout } = await runBinary(["config", "validate", "--preset", "anvil"], {
      cwd: dir,
      env: { ANVIL_ROUTER_TOKEN: ROUTER_TOKEN },
    });
    expect([code, stdout]).toEqual([0, expect.stringContaining("anvil: ok")]);
  });

  test.each([
    ["a variable that is not set", "MY_ROUTER", {}, "MY_ROUTER is not set"],
    ["a variable that is blank", "MY_ROUTER", { MY_ROUTER: " \t " }, "MY_ROUTER"],
    ["a name that looks like a value", "sk-anvil-0123456789", {}, "takes the name of a variable"],
    ["a name that is an access key", "AKIAIOSFODNN7EXAMPLE", {}, "takes the name of a variable"],
  ])("%s stops the start with 78, and no value is repeated", async (_, name, env, said) => {
    const { code, stderr } = await runBinary(["serve", ...args, "--auth-env", name], {
      cwd: dir,
      env,
    });
    expect(code).toBe(78);
    expect(stderr).toContain(said);
    if (said.startsWith("takes")) expect(stderr).not.toContain(name);
  });

  test("--auth-env without a preset is refused", async () => {
    const { code, stderr } = await runBinary(["serve", "--auth-env", "X"], { cwd: dir });
    expect([code, stderr]).toEqual([2, expect.stringContaining("--auth-env goes with --preset")]);
  });
});
