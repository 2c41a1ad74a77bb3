/**
 * The preset `vllm` in front of a stand-in whose own key guards what vLLM's does, and no more.
 *
 * Invariant: nothing that vLLM serves is open, whatever its prefix; what steers the engine reaches it from admins alone,
 * and only when that was asked for.
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
import { vllmStandIn } from "../support/standins/vllm.ts";

const VLLM_KEY = "vllm-own-key-0123456789";

const INFERENCE = [
  "/v1/chat/completions",
  "/v1/chat/completions/batch",
  "/v1/completions",
  "/v1/responses",
  "/v1/responses/resp_1/cancel",
  "/v1/messages/count_tokens",
  "/v1/audio/transcriptions",
  "/v2/embed",
  "/cohere/v2/chat",
  "/inference/v1/generate",
  "/invocations",
  "/generative_scoring",
  "/pooling",
  "/classify",
  "/score",
  "/rerank",
  "/tokenize",
  "/detokenize",
];
const CONTROL = [
  "/pause",
  "/resume",
  "/scale_elastic_ep",
  "/update_weights",
  "/abort_requests",
  "/reset_prefix_cache",
  "/sleep",
  "/wake_up",
  "/collective_rpc",
  "/start_profile",
];
const OPERATORS = ["/metrics", "/load", "/tokenizer_info", "/server_info"];

describeBoth("the preset vllm", (start) => {
  const upstream = vllmStandIn(VLLM_KEY);
  let gateway: GatewayUnderTest;
  const subject = { gateway: () => gateway, seenCount: () => upstream.seen.length };

  beforeAll(async () => {
    const config = presetConfig("vllm", upstream.url, {
      upstream: { headers: { authorization: "Bearer ${env:VLLM_API_KEY}" } },
    });
    gateway = await start({ config, env: { ...TOKENS_ENV, VLLM_API_KEY: VLLM_KEY } });
  });
  afterAll(() => upstream.stop());

  checkTable(subject, [
    ...rowsFor(INFERENCE, "POST", { nobody: 401, stranger: 401, user: 200, admin: 200 }),
    ...rowsFor(["/v1/models", "/version", "/health", "/ping", "/v1/responses/resp_1"], "GET", {
      nobody: 401,
      user: 200,
      admin: 200,
    }),
    ...rowsFor(OPERATORS, "GET", { nobody: 401, stranger: 401, user: 403, admin: 200 }),
    ...rowsFor(["/v1/load_lora_adapter", "/v1/unload_lora_adapter"], "POST", {
      nobody: 401,
      user: 403,
      admin: 200,
    }),
    ...rowsFor(CONTROL, "POST", { nobody: 401, stranger: 401, user: 404, admin: 404 }),
    ...rowsFor(["/docs", "/openapi.json", "/is_sleeping", "/get_world_size", "/"], "GET", {
      nobody: 401,
      user: 404,
      admin: 404,
    }),
    ["HEAD", "/metrics", "nobody", 401],
    ["OPTIONS", "/v1/chat/completions", "nobody", 401],
    ["OPTIONS", "/collective_rpc", "nobody", 401],
    ["GET", "/v1/chat/completions", "user", 405],
  ]);

  checkSpellings(subject, [
    ["POST", "/collective_rpc", "user"],
    ["POST", "/v1/load_lora_adapter", "user"],
    ["GET", "/metrics", "user"],
    ["POST", "/invocations", "nobody"],
    ["GET", "/health", "nobody"],
  ]);

  // Written out, because this is how a key for /v1 alone is got around.
  checkTable(subject, [
    ["GET", "/v1/../metrics", "user", 403],
    ["GET", "/v1/%2e%2e/metrics", "user", 403],
    ["GET", "/v1/models/../../metrics", "user", 403],
    ["GET", "/v1/..%2fmetrics", "user", 400],
  ]);

  test("the upstream gets its own key and never the token", async () => {
    upstream.seen.length = 0;
    const openai = new OpenAI({ apiKey: TEAM_TOKEN, baseURL: `${gateway.url}/v1`, maxRetries: 0 });
    const stream = await openai.chat.completions.create({
      model: "m",
      messages: [{ role: "user", content: "Who is it?" }],
      stream: true,
    });
    const pieces: string[] = [];
    for await (const chunk of stream) pieces.push(chunk.choices[0]?.delta.content ?? "");
    expect(pieces.filter((piece) => piece !== "")).toEqual(PIECES);
    expect(upstream.seen[0]?.headers.get("authorization")).toBe(`Bearer ${VLLM_KEY}`);
    expect(JSON.stringify(upstream.seen[0]?.headers)).not.toContain(TEAM_TOKEN);
  });
});

describeBoth("the options of the preset vllm", (start) => {
  const upstream = vllmStandIn();
  let gateway: GatewayUnderTest;
  const subject = { gateway: () => gateway, seenCount: () => upstream.seen.length };

  beforeAll(async () => {
    const config = presetConfig("vllm", upstream.url, {
      with: { health: true, unlisted: "admin" },
    });
    gateway = await start({ config, env: TOKENS_ENV });
  });
  afterAll(() => upstream.stop());

  checkTable(subject, [
    ...rowsFor(["/health", "/ping"], "GET", { nobody: 200, stranger: 200, user: 200 }),
    ["POST", "/ping", "nobody", 401],
    ["GET", "/version", "nobody", 401],
    ...rowsFor(CONTROL, "POST", { nobody: 401, user: 403, admin: 200 }),
  ]);

  checkSpellings(subject, [["POST", "/collective_rpc", "user"]]);
});
