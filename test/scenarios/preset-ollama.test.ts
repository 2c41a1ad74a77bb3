/**
 * The preset `ollama` in front of a stand-in with Ollama's paths, methods and statuses.
 *
 * Invariant: whoever is accepted infers and lists; only admins fetch, change or delete models; nothing else is there.
 */
import { afterAll, beforeAll, expect, test } from "bun:test";
import Anthropic from "@anthropic-ai/sdk";
import OpenAI from "openai";
import { describeBoth, type GatewayUnderTest } from "../support/gateway.ts";
import {
  BOSS_TOKEN,
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
import { ollamaStandIn } from "../support/standins/ollama.ts";

const FOR_ALL = ["/api/generate", "/api/chat", "/api/embed", "/api/embeddings", "/api/show"];
const LISTS = ["/", "/api/version", "/api/tags", "/api/ps", "/api/status", "/v1/models"];
const FOR_ADMINS = ["/api/pull", "/api/push", "/api/create", "/api/copy", "/api/signout"];

describeBoth("the preset ollama", (start) => {
  const upstream = ollamaStandIn();
  let gateway: GatewayUnderTest;
  const subject = { gateway: () => gateway, seenCount: () => upstream.seen.length };

  beforeAll(async () => {
    gateway = await start({ config: presetConfig("ollama", upstream.url), env: TOKENS_ENV });
  });
  afterAll(() => upstream.stop());

  checkTable(subject, [
    ...rowsFor(LISTS, "GET", { nobody: 401, stranger: 401, user: 200, admin: 200 }),
    ...rowsFor(FOR_ALL, "POST", { nobody: 401, stranger: 401, user: 200, admin: 200 }),
    ...rowsFor(["/v1/chat/completions", "/v1/messages", "/v1/embeddings"], "POST", {
      nobody: 401,
      user: 200,
      admin: 200,
    }),
    ...rowsFor(FOR_ADMINS, "POST", { nobody: 401, stranger: 401, user: 403, admin: 200 }),
    ...rowsFor(["/api/experimental/web_search"], "POST", { nobody: 401, user: 403, admin: 200 }),
    ...rowsFor(["/api/delete", "/api/user/keys/abc"], "DELETE", {
      nobody: 401,
      user: 403,
      admin: 200,
    }),
    ["POST", "/api/blobs/sha256:abc", "user", 403],
    ["POST", "/api/blobs/sha256:abc", "admin", 201],
    ["HEAD", "/api/blobs/sha256:abc", "user", 403],
    ["HEAD", "/api/blobs/sha256:abc", "admin", 200],
    ["HEAD", "/", "nobody", 401],
    ["HEAD", "/", "user", 200],
    ["OPTIONS", "/api/chat", "nobody", 401],
    // Its own answers pass: 405 and the 401 of a machine that is not signed in.
    ["GET", "/api/chat", "user", 405],
    ["POST", "/api/me", "user", 403],
    ["POST", "/api/me", "admin", 401],
    // OpenAI's API deletes models, Ollama's may one day.
    ["DELETE", "/v1/models/m", "user", 404],
    ["DELETE", "/v1/models/m", "admin", 404],
    ...rowsFor(["/debug/pprof/", "/debug/pprof/heap", "/metrics", "/api/new"], "GET", {
      nobody: 401,
      user: 404,
      admin: 404,
    }),
  ]);

  checkSpellings(subject, [
    ["POST", "/api/pull", "user"],
    ["DELETE", "/api/delete", "user"],
    ["GET", "/debug/pprof/", "user"],
    ["GET", "/api/tags", "nobody"],
  ]);

  test("a stream of NDJSON comes through line by line as it was made", async () => {
    const response = await fetch(`${gateway.url}/api/chat`, {
      method: "POST",
      headers: { authorization: `Bearer ${TEAM_TOKEN}` },
      body: '{"model":"m","messages":[]}',
    });
    expect(response.headers.get("content-type")).toBe("application/x-ndjson");
    const lines = (await response.text()).trim().split("\n");
    expect(lines.map((line) => (JSON.parse(line) as { done: boolean }).done)).toEqual([
      false,
      false,
      false,
      true,
    ]);
  });

  test("the upstream hears who asks from us alone, and never the token", async () => {
    upstream.seen.length = 0;
    await raw(
      gateway.address,
      `GET /api/tags HTTP/1.1\r\nHost: gate.example\r\nConnection: close\r\n${credentialLine("user")}${SPOOFED}\r\n\r\n`,
    );
    const [seen] = upstream.seen;
    expect(seen?.headers.get("x-gatehouse-identity")).toBe("team");
    expect(seen?.headers.get("x-gatehouse-role")).toBe("user");
    expect(seen?.headers.get("host")).toBe(new URL(upstream.url).host);
    expect(JSON.stringify([...(seen?.headers ?? [])])).not.toMatch(
      /boss|pull|DELETE|forwarded: for/,
    );
    expect(JSON.stringify(upstream.seen)).not.toContain(TEAM_TOKEN);
  });

  test("refusals below /api are in Ollama's shape, where its clients read `error`", async () => {
    const response = await fetch(`${gateway.url}/api/tags`);
    expect(response.headers.get("www-authenticate")).toStartWith("Bearer");
    expect(await response.json()).toMatchObject({
      error: expect.any(String),
      reason: "no_credential",
    });
  });

  test("the SDKs of OpenAI and Anthropic work with only their address and key changed", async () => {
    const openai = new OpenAI({ apiKey: TEAM_TOKEN, baseURL: `${gateway.url}/v1`, maxRetries: 0 });
    const messages = [{ role: "user" as const, content: "Who is it?" }];
    const stream = await openai.chat.completions.create({ model: "m", messages, stream: true });
    const pieces: string[] = [];
    for await (const chunk of stream) pieces.push(chunk.choices[0]?.delta.content ?? "");
    expect(pieces.filter((piece) => piece !== "")).toEqual(PIECES);
    const anthropic = new Anthropic({ apiKey: TEAM_TOKEN, baseURL: gateway.url, maxRetries: 0 });
    const answer = await anthropic.messages.create({ model: "m", max_tokens: 5, messages });
    expect(answer.content).toEqual([expect.objectContaining({ text: PIECES.join("") })]);
  });
});

describeBoth("the options of the preset ollama", (start) => {
  const upstream = ollamaStandIn();
  let gateway: GatewayUnderTest;
  const subject = { gateway: () => gateway, seenCount: () => upstream.seen.length };

  beforeAll(async () => {
    const config = presetConfig("ollama", upstream.url, {
      with: {
        health: true,
        unlisted: "admin",
        models: ["m"],
        host: "gate.example",
        origins: ["http://localhost:5173"],
      },
    });
    gateway = await start({ config, env: TOKENS_ENV });
  });
  afterAll(() => upstream.stop());

  checkTable(subject, [
    ["GET", "/", "nobody", 200],
    ["HEAD", "/", "nobody", 200],
    ["POST", "/", "nobody", 401],
    ["GET", "/api/version", "nobody", 401],
    ["GET", "/debug/pprof/heap", "user", 403],
    ["GET", "/debug/pprof/heap", "admin", 200],
    ["POST", "/v1/chat/completions", "user", 200],
  ]);

  test("another model is refused, a name in other letters too", async () => {
    upstream.seen.length = 0;
    for (const body of ['{"model":"large"}', '{"model":"M"}', '{"model":"m","Model":"large"}']) {
      const response = await fetch(`${gateway.url}/api/chat`, {
        method: "POST",
        headers: { authorization: `Bearer ${BOSS_TOKEN}`, host: "gate.example" },
        body,
      });
      expect(response.status).toBe(403);
    }
    expect(upstream.seen).toEqual([]);
  });

  test("another host is not this preset's", async () => {
    const response = await fetch(`${gateway.url}/`, { headers: { host: "other.example" } });
    expect([response.status, response.headers.get("x-gatehouse-reason")]).toEqual([
      404,
      "no_route",
    ]);
  });

  test("a page of a listed origin may ask, its preflight needs no token", async () => {
    const response = await fetch(`${gateway.url}/api/chat`, {
      method: "OPTIONS",
      headers: {
        host: "gate.example",
        origin: "http://localhost:5173",
        "access-control-request-method": "POST",
      },
    });
    expect(response.status).toBe(204);
    expect(response.headers.get("access-control-allow-origin")).toBe("http://localhost:5173");
    expect(response.headers.get("access-control-allow-headers")).toBe("authorization, *");
  });
});
