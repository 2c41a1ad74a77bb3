/**
 * The preset `llama-cpp` in front of a stand-in for llama-server, its own key on.
 *
 * Invariant: completions are for everybody who is accepted, settings, slots, adapters and metrics for admins, and what
 * acts for whoever asks (/predict, /tools, /cors-proxy) for nobody.
 */
import { afterAll, beforeAll, expect, test } from "bun:test";
import OpenAI from "openai";
import { describeBoth, type GatewayUnderTest } from "../support/gateway.ts";
import {
  checkSpellings,
  checkTable,
  presetConfig,
  rowsFor,
  TEAM_TOKEN,
  TOKENS_ENV,
} from "../support/preset-table.ts";
import { PIECES } from "../support/standins/dialects.ts";
import { llamaCppStandIn } from "../support/standins/llama-cpp.ts";

const LLAMA_KEY = "llama-own-key-0123456789";
const UPSTREAM = { headers: { authorization: "Bearer ${env:LLAMA_API_KEY}" } };
const ENV = { ...TOKENS_ENV, LLAMA_API_KEY: LLAMA_KEY };

const COMPLETIONS = [
  "/completion",
  "/completions",
  "/v1/completions",
  "/chat/completions",
  "/v1/chat/completions",
  "/v1/chat/completions/input_tokens",
  "/v1/responses",
  "/v1/audio/transcriptions",
  "/v1/messages",
  "/v1/messages/count_tokens",
  "/infill",
  "/embedding",
  "/v1/embeddings",
  "/rerank",
  "/v1/reranking",
  "/tokenize",
  "/detokenize",
  "/apply-template",
];

describeBoth("the preset llama-cpp", (start) => {
  const upstream = llamaCppStandIn(LLAMA_KEY);
  let gateway: GatewayUnderTest;
  const subject = { gateway: () => gateway, seenCount: () => upstream.seen.length };

  beforeAll(async () => {
    const config = presetConfig("llama-cpp", upstream.url, { upstream: UPSTREAM });
    gateway = await start({ config, env: ENV });
  });
  afterAll(() => upstream.stop());

  checkTable(subject, [
    ...rowsFor(COMPLETIONS, "POST", { nobody: 401, stranger: 401, user: 200, admin: 200 }),
    ...rowsFor(["/health", "/v1/health", "/models", "/v1/models", "/props"], "GET", {
      nobody: 401,
      stranger: 401,
      user: 200,
      admin: 200,
    }),
    ...rowsFor(["/props", "/slots/0", "/lora-adapters", "/models", "/models/load"], "POST", {
      nobody: 401,
      user: 403,
      admin: 200,
    }),
    ...rowsFor(["/metrics", "/slots", "/lora-adapters", "/models/sse"], "GET", {
      nobody: 401,
      user: 403,
      admin: 200,
    }),
    ["POST", "/slots/0?action=erase", "user", 403],
    ["DELETE", "/models?model=m", "user", 403],
    ["DELETE", "/models?model=m", "admin", 200],
    ...rowsFor(["/predict", "/tools", "/cors-proxy", "/v1/chat/completions/control"], "POST", {
      nobody: 401,
      user: 404,
      admin: 404,
    }),
    ...rowsFor(
      ["/", "/index.html", "/v1/stream", "/cors-proxy?url=http://169.254.169.254/"],
      "GET",
      {
        nobody: 401,
        user: 404,
        admin: 404,
      },
    ),
    ["OPTIONS", "/completion", "nobody", 401],
    ["HEAD", "/slots", "nobody", 401],
  ]);

  checkSpellings(subject, [
    ["POST", "/props", "user"],
    ["GET", "/slots", "user"],
    ["POST", "/predict", "user"],
    ["GET", "/health", "nobody"],
  ]);

  test("the SDK of OpenAI streams, with its own key for the server and not the token", async () => {
    upstream.seen.length = 0;
    const openai = new OpenAI({ apiKey: TEAM_TOKEN, baseURL: `${gateway.url}/v1`, maxRetries: 0 });
    const messages = [{ role: "user" as const, content: "Who is it?" }];
    const stream = await openai.chat.completions.create({ model: "m", messages, stream: true });
    const pieces: string[] = [];
    for await (const chunk of stream) pieces.push(chunk.choices[0]?.delta.content ?? "");
    expect(pieces.filter((piece) => piece !== "")).toEqual(PIECES);
    expect(upstream.seen[0]?.headers.get("authorization")).toBe(`Bearer ${LLAMA_KEY}`);
  });
});

describeBoth("the options of the preset llama-cpp", (start) => {
  const upstream = llamaCppStandIn(LLAMA_KEY);
  let gateway: GatewayUnderTest;
  const subject = { gateway: () => gateway, seenCount: () => upstream.seen.length };

  beforeAll(async () => {
    const config = presetConfig("llama-cpp", upstream.url, {
      upstream: UPSTREAM,
      with: { health: true, ui: true, unlisted: "admin" },
    });
    gateway = await start({ config, env: ENV });
  });
  afterAll(() => upstream.stop());

  checkTable(subject, [
    ...rowsFor(["/health", "/v1/health", "/", "/index.html", "/_app/x.js"], "GET", {
      nobody: 200,
      stranger: 200,
      user: 200,
    }),
    ["POST", "/health", "nobody", 401],
    ["GET", "/models", "nobody", 401],
    ["GET", "/props", "nobody", 401],
    ["POST", "/v1/streams/lookup", "user", 200],
    ["POST", "/tools", "user", 403],
    ["POST", "/tools", "admin", 200],
    // The page's files are named one by one: there is no way from them to anything else.
    ["GET", "/_app/../slots", "nobody", 401],
    ["GET", "/_app/..%2fslots", "nobody", 400],
    ["GET", "/_app/x;/../../slots", "nobody", 401],
  ]);
});
