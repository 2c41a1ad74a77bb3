/**
 * vLLM: every path behind a credential, not those below /v1 alone, and what steers the engine for admins or not at all.
 *
 * Invariant: vLLM's own --api-key guards /v1, /v2, /inference and /cohere; the same inference answers on /invocations,
 * /pooling and others, and endpoints for operators and developers stand beside them. Only paths named here pass.
 */
import { z } from "zod";
import { definePreset } from "./preset.ts";
import { common, flag, modelsOption, onlyIf, rest, routesFrom, unlistedOption } from "./rules.ts";
import { serveWithTokens } from "./serving.ts";

const options = () =>
  z.strictObject({
    ...common,
    ...modelsOption,
    ...unlistedOption,
    health: flag("Open /health and /ping to anyone, for reading."),
  });

const INFERENCE = [
  "/v1/chat/completions",
  "/v1/chat/completions/*",
  "/v1/completions",
  "/v1/completions/*",
  "/v1/responses",
  "/v1/responses/**",
  "/v1/messages",
  "/v1/messages/count_tokens",
  "/v1/embeddings",
  "/v1/audio/transcriptions",
  "/v1/audio/translations",
  "/v1/realtime",
  "/v1/score",
  "/v1/rerank",
  "/v2/embed",
  "/v2/rerank",
  "/cohere/v2/chat",
  "/cohere/v2/chat/render",
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

const LISTING = ["/v1/models", "/version", "/health", "/ping"];

/** Adapters change what everybody's model says; the others tell what everybody does, or how the server is set up. */
const ADMIN = [
  "/v1/load_lora_adapter",
  "/v1/unload_lora_adapter",
  "/metrics",
  "/metrics/**",
  "/load",
  "/tokenizer_info",
  "/server_info",
];

const usual = {
  upstream: "http://127.0.0.1:8000",
  key: { env: "VLLM_API_KEY", header: "authorization", prefix: "Bearer ", isOptional: true },
};

/** @see docs/presets.md */
export const vllm = definePreset({
  name: "vllm",
  description: "vLLM: everything behind a credential, not only /v1; engine controls closed",
  options,
  routes: (given) =>
    routesFrom(given, [
      ...onlyIf(given.health, { for: "anyone", path: ["/health", "/ping"] }),
      { for: "admins", path: ADMIN },
      { for: "everybody", path: [...LISTING, ...INFERENCE] },
      // Among them /sleep, /pause, /update_weights and /collective_rpc, which runs any method of the engine.
      rest(given.unlisted),
    ]),
  usual,
  serve: serveWithTokens("vllm", usual),
});
