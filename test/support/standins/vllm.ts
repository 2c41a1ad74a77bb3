/**
 * A stand-in for vLLM's API server: its endpoints (docs/usage/security.md, 2026), and an --api-key that guards by
 * prefix as the real one does.
 *
 * Invariant: everything outside of /v1, /v2, /inference and /cohere answers without the key, dev mode and profiler on.
 */
import { chatCompletion, done, message, modelList } from "./dialects.ts";
import { type Endpoint, each, json, type StandIn, standIn, text } from "./standin.ts";

const GUARDED = ["/v1", "/v2", "/inference", "/cohere"];

const ok: Endpoint = () => new Response(null, { status: 200 });

/** Starts it. @param apiKey its --api-key; none without */
export function vllmStandIn(apiKey?: string): StandIn {
  return standIn({
    headers: { server: "uvicorn" },
    before: ({ method, target, headers }) => {
      const isGuarded = GUARDED.some((prefix) => target.startsWith(prefix));
      if (apiKey === undefined || method === "OPTIONS" || !isGuarded) return null;
      const isRight = headers.get("authorization") === `Bearer ${apiKey}`;
      return isRight ? null : json({ error: "Unauthorized" }, 401);
    },
    endpoints: {
      "GET /v1/models": modelList,
      "POST /v1/chat/completions": chatCompletion,
      "POST /v1/messages": message,
      ...each(
        [
          "/v1/chat/completions/batch",
          "/v1/chat/completions/render",
          "/v1/completions",
          "/v1/completions/render",
          "/v1/embeddings",
          "/v1/audio/transcriptions",
          "/v1/audio/translations",
          "/v1/messages/count_tokens",
          "/v1/responses",
          "/v1/responses/:id/cancel",
          "/v1/score",
          "/v1/rerank",
          "/v1/load_lora_adapter",
          "/v1/unload_lora_adapter",
          "/v2/embed",
          "/v2/rerank",
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
          "/pause",
          "/resume",
          "/scale_elastic_ep",
          "/init_weight_transfer_engine",
          "/update_weights",
          "/abort_requests",
          "/reset_prefix_cache",
          "/reset_mm_cache",
          "/sleep",
          "/wake_up",
          "/collective_rpc",
          "/start_profile",
          "/stop_profile",
        ].map((path) => `POST ${path}`),
        done,
      ),
      "GET /v1/responses/:id": done,
      ...each(["GET /health", "GET /ping", "POST /ping"], ok),
      "GET /version": () => json({ version: "0.27.0" }),
      "GET /load": () => json({ server_load: 0 }),
      "GET /metrics": () => text("# HELP vllm:num_requests_running\n"),
      "GET /tokenizer_info": () => json({ chat_template: "secret" }),
      "GET /server_info": () => json({ vllm_config: "secret" }),
      "GET /is_sleeping": () => json({ is_sleeping: false }),
      "GET /is_paused": () => json({ is_paused: false }),
      "GET /get_world_size": () => json({ world_size: 1 }),
      "GET /openapi.json": () => json({ openapi: "3.1.0" }),
      "GET /docs": () => text("<html>docs</html>"),
    },
    notAllowed: () => json({ detail: "Method Not Allowed" }, 405),
    notFound: () => json({ detail: "Not Found" }, 404),
  });
}
