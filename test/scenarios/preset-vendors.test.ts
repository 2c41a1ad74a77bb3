/**
 * The presets `openai` and `anthropic` in front of stand-ins that only the vendor's own key opens.
 *
 * Invariant: clients never see that key and the vendor never sees theirs, nor who they are; what belongs to the account
 * is closed, and what is kept under the one key is for admins.
 */
import { afterAll, beforeAll, expect, test } from "bun:test";
import Anthropic from "@anthropic-ai/sdk";
import OpenAI from "openai";
import { describeBoth, type GatewayUnderTest } from "../support/gateway.ts";
import {
  checkSpellings,
  checkTable,
  credentialLine,
  presetConfig,
  rowsFor,
  SPOOFED,
  TEAM_TOKEN,
  TOKENS_ENV,
} from "../support/preset-table.ts";
import { raw } from "../support/raw.ts";
import { PIECES } from "../support/standins/dialects.ts";
import { anthropicStandIn, openaiStandIn } from "../support/standins/vendors.ts";

const VENDOR_KEY = "sk-vendor-canary-0123456789abcdef";
const MESSAGES = [{ role: "user" as const, content: "Who is it?" }];

/** Names that would tell the vendor who asks. */
const TELLING = /^(?:x-forwarded-|x-gatehouse-|forwarded$|remote-|x-real-ip$|x-auth-request-)/;

describeBoth("the preset openai", (start) => {
  const upstream = openaiStandIn(VENDOR_KEY);
  let gateway: GatewayUnderTest;
  const subject = { gateway: () => gateway, seenCount: () => upstream.seen.length };
  const client = (apiKey = TEAM_TOKEN) =>
    new OpenAI({ apiKey, baseURL: `${gateway.url}/v1`, maxRetries: 0, organization: "org-client" });

  beforeAll(async () => {
    const config = presetConfig("openai", upstream.url, {
      upstream: { headers: { authorization: "Bearer ${env:OPENAI_API_KEY}" } },
    });
    gateway = await start({ config, env: { ...TOKENS_ENV, OPENAI_API_KEY: VENDOR_KEY } });
  });
  afterAll(() => upstream.stop());

  checkTable(subject, [
    ...rowsFor(
      [
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/embeddings",
        "/v1/moderations",
        "/v1/images/generations",
        "/v1/audio/speech",
        "/v1/responses",
        "/v1/responses/resp_1/cancel",
        "/v1/conversations",
      ],
      "POST",
      { nobody: 401, stranger: 401, user: 200, admin: 200 },
    ),
    ...rowsFor(["/v1/models", "/v1/models/m", "/v1/responses/resp_1"], "GET", {
      nobody: 401,
      user: 200,
      admin: 200,
    }),
    ...rowsFor(["/v1/files", "/v1/batches", "/v1/vector_stores"], "POST", {
      nobody: 401,
      user: 403,
      admin: 200,
    }),
    ...rowsFor(
      ["/v1/files", "/v1/files/file_1/content", "/v1/videos", "/v1/chat/completions"],
      "GET",
      { nobody: 401, user: 403, admin: 200 },
    ),
    ...rowsFor(
      ["/v1/realtime/client_secrets", "/v1/chatkit/sessions", "/v1/fine_tuning/jobs"],
      "POST",
      { nobody: 401, user: 403, admin: 200 },
    ),
    ["DELETE", "/v1/models/m", "user", 403],
    ...rowsFor(
      [
        "/v1/organization/users",
        "/v1/organization/admin_api_keys",
        "/v1/projects/proj_1/roles",
        "/v1/vaults",
        "/dashboard/billing/usage",
        "/",
      ],
      "GET",
      { nobody: 401, user: 404, admin: 404 },
    ),
    ["POST", "/v1/organization/projects", "admin", 404],
    ["POST", "/v1/webhook_endpoints", "admin", 404],
    ["GET", "/v1/models?api_key=x", "user", 400],
  ]);

  checkSpellings(subject, [
    ["GET", "/v1/organization/users", "admin"],
    ["GET", "/v1/files", "user"],
  ]);

  test("its SDK streams, and asks for models", async () => {
    const stream = await client().chat.completions.create({
      model: "m",
      messages: MESSAGES,
      stream: true,
    });
    const pieces: string[] = [];
    for await (const chunk of stream) pieces.push(chunk.choices[0]?.delta.content ?? "");
    expect(pieces.filter((piece) => piece !== "")).toEqual(PIECES);
    expect((await client().models.list()).data).toHaveLength(1);
  });

  test("its SDK reads our refusals as its own", async () => {
    const error = await client("sk-wrong-wrong-wrong")
      .models.list()
      .catch((caught) => caught);
    expect(error).toBeInstanceOf(OpenAI.AuthenticationError);
    const denied = await client()
      .files.list()
      .catch((caught) => caught);
    expect(denied).toBeInstanceOf(OpenAI.PermissionDeniedError);
  });

  test("the vendor sees its key and its own headers, and nothing of the client", async () => {
    upstream.seen.length = 0;
    const { text } = await raw(
      gateway.address,
      `GET /v1/models HTTP/1.1\r\nHost: gate.example\r\nConnection: close\r\n${credentialLine("user", "X-Api-Key")}OpenAI-Beta: assistants=v2\r\n${SPOOFED}\r\n\r\n`,
    );
    const headers = upstream.seen[0]?.headers;
    expect(headers?.get("authorization")).toBe(`Bearer ${VENDOR_KEY}`);
    expect(headers?.get("openai-beta")).toBe("assistants=v2");
    expect([...(headers?.keys() ?? [])].filter((name) => TELLING.test(name))).toEqual([]);
    expect(JSON.stringify([...(headers ?? [])])).not.toContain(TEAM_TOKEN);
    expect(text).toContain("x-ratelimit-remaining-requests: 99");
    expect(text + gateway.logs()).not.toContain(VENDOR_KEY);
  });
});

describeBoth("the options of the preset openai", (start) => {
  const upstream = openaiStandIn(VENDOR_KEY);
  let gateway: GatewayUnderTest;
  const subject = { gateway: () => gateway, seenCount: () => upstream.seen.length };

  beforeAll(async () => {
    const config = presetConfig("openai", upstream.url, {
      upstream: { headers: { authorization: "Bearer ${env:OPENAI_API_KEY}" } },
      with: { stored: "all", models: ["m"] },
    });
    gateway = await start({ config, env: { ...TOKENS_ENV, OPENAI_API_KEY: VENDOR_KEY } });
  });
  afterAll(() => upstream.stop());

  checkTable(subject, [
    ["GET", "/v1/files", "user", 200],
    ["POST", "/v1/realtime/client_secrets", "user", 403],
    ["GET", "/v1/organization/users", "user", 404],
    ["POST", "/v1/chat/completions", "user", 200],
  ]);

  test.each([
    ["/v1/chat/completions", '{"model":"gpt-large"}'],
    ["/v1/batches", '{"input_file_id":"file_1","endpoint":"/v1/chat/completions"}'],
    ["/v1/conversations", "{}"],
  ])("with a list of models, %s with %s is refused", async (path, body) => {
    upstream.seen.length = 0;
    const response = await fetch(gateway.url + path, {
      method: "POST",
      headers: { authorization: `Bearer ${TEAM_TOKEN}`, "content-type": "application/json" },
      body,
    });
    expect(response.status).toBe(403);
    expect(upstream.seen).toEqual([]);
  });
});

describeBoth("the preset anthropic", (start) => {
  const upstream = anthropicStandIn(VENDOR_KEY);
  let gateway: GatewayUnderTest;
  const subject = { gateway: () => gateway, seenCount: () => upstream.seen.length };
  const client = (auth: { apiKey?: string | null; authToken?: string | null }) =>
    new Anthropic({ apiKey: null, authToken: null, baseURL: gateway.url, maxRetries: 0, ...auth });

  beforeAll(async () => {
    const config = presetConfig("anthropic", upstream.url, {
      upstream: { headers: { "x-api-key": "${env:ANTHROPIC_API_KEY}" } },
    });
    gateway = await start({ config, env: { ...TOKENS_ENV, ANTHROPIC_API_KEY: VENDOR_KEY } });
  });
  afterAll(() => upstream.stop());

  checkTable(subject, [
    // 400 is the vendor's: the version is missing.
    ...rowsFor(["/v1/messages", "/v1/messages?beta=true", "/v1/messages/count_tokens"], "POST", {
      nobody: 401,
      stranger: 401,
      user: 400,
      admin: 400,
    }),
    ...rowsFor(["/v1/models", "/v1/models/m"], "GET", { nobody: 401, user: 400 }),
    ...rowsFor(["/v1/files", "/v1/messages/batches"], "GET", {
      nobody: 401,
      user: 403,
      admin: 400,
    }),
    ...rowsFor(["/v1/messages/batches", "/v1/skills"], "POST", { user: 403, admin: 400 }),
    ...rowsFor(
      ["/v1/organizations/me", "/v1/organizations/api_keys", "/v1/agents", "/v1/vaults", "/"],
      "GET",
      { nobody: 401, user: 404, admin: 404 },
    ),
    ["POST", "/v1/sessions", "admin", 404],
    ["POST", "/v1/tunnels/tun_1/reveal_token", "admin", 404],
    ["GET", "/v1/messages", "user", 404],
  ]);

  checkSpellings(subject, [
    ["GET", "/v1/organizations/api_keys", "admin"],
    ["GET", "/v1/messages/batches", "user"],
  ]);

  test.each([
    ["x-api-key", { apiKey: TEAM_TOKEN }],
    ["Authorization", { authToken: TEAM_TOKEN }],
  ])("its SDK streams with the token in %s", async (_, auth) => {
    upstream.seen.length = 0;
    const stream = client(auth).messages.stream({ model: "m", max_tokens: 5, messages: MESSAGES });
    const pieces: string[] = [];
    stream.on("text", (piece) => pieces.push(piece));
    await stream.finalMessage();
    expect(pieces).toEqual(PIECES);
    const headers = upstream.seen[0]?.headers;
    expect(headers?.get("x-api-key")).toBe(VENDOR_KEY);
    expect(headers?.get("anthropic-version")).toMatch(/^\d{4}-\d\d-\d\d$/);
    expect([...(headers?.keys() ?? [])].filter((name) => TELLING.test(name))).toEqual([]);
    expect(JSON.stringify([...(headers ?? [])])).not.toContain(TEAM_TOKEN);
    expect(gateway.logs()).not.toContain(VENDOR_KEY);
  });

  test("version and beta headers pass, and the vendor's answer comes back as it was", async () => {
    upstream.seen.length = 0;
    const response = await fetch(`${gateway.url}/v1/messages/count_tokens?beta=true`, {
      method: "POST",
      headers: {
        "x-api-key": TEAM_TOKEN,
        "anthropic-version": "2023-06-01",
        "anthropic-beta": "context-1m-2025-08-07",
      },
      body: '{"model":"m"}',
    });
    expect(await response.json()).toEqual({ input_tokens: 3 });
    expect(response.headers.get("request-id")).toBe("req_vendor");
    expect(upstream.seen[0]?.headers.get("anthropic-beta")).toBe("context-1m-2025-08-07");
    expect(upstream.seen[0]?.target).toBe("/v1/messages/count_tokens?beta=true");
  });

  test("its SDK reads our refusals as its own", async () => {
    const error = await client({ apiKey: "wrong-wrong-wrong-wrong" })
      .models.list()
      .catch((caught) => caught);
    expect(error).toBeInstanceOf(Anthropic.AuthenticationError);
    expect(error.error).toMatchObject({ type: "error", error: { type: "authentication_error" } });
  });
});
