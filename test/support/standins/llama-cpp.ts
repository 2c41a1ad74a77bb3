/**
 * A stand-in for llama.cpp's llama-server in router mode: its endpoints and what its own key leaves open
 * (tools/server, 2026).
 *
 * Invariant: like the real one it answers OPTIONS and reflects Origin for everybody, and `/predict` runs any endpoint.
 */
import { chatCompletion, done, message, modelList } from "./dialects.ts";
import { each, json, type StandIn, standIn, stream, text } from "./standin.ts";

const OPEN = ["/health", "/v1/health", "/models", "/v1/models", "/", "/index.html", "/bundle.js"];

/** Starts it. @param apiKey its --api-key */
export function llamaCppStandIn(apiKey: string): StandIn {
  return standIn({
    headers: { server: "llama.cpp", "access-control-allow-origin": "" },
    before: ({ method, target, headers }) => {
      if (method === "OPTIONS") return text("");
      const [path = ""] = target.split("?");
      const given = (headers.get("authorization") ?? headers.get("x-api-key") ?? "").replace(
        /^Bearer /,
        "",
      );
      if (OPEN.includes(path) || given === apiKey) return null;
      const error = { message: "Invalid API Key", type: "authentication_error", code: 401 };
      return json({ error }, 401);
    },
    endpoints: {
      ...each(["GET /health", "GET /v1/health"], () => json({ status: "ok" })),
      ...each(["GET /models", "GET /v1/models"], modelList),
      "GET /props": () => json({ total_slots: 1, chat_template: "x" }),
      "POST /props": () => json({ success: true }),
      "GET /metrics": () => text("# HELP llamacpp:prompt_tokens_total\n"),
      "GET /slots": () => json([{ id: 0, prompt: "somebody's prompt" }]),
      "POST /slots/:id": () => json({ id_slot: 0 }),
      "GET /lora-adapters": () => json([]),
      "POST /lora-adapters": () => json({ success: true }),
      ...each(["POST /chat/completions", "POST /v1/chat/completions"], chatCompletion),
      "POST /v1/messages": message,
      ...each(
        [
          "/completion",
          "/completions",
          "/v1/completions",
          "/v1/responses",
          "/v1/audio/transcriptions",
          "/v1/messages/count_tokens",
          "/v1/chat/completions/input_tokens",
          "/v1/chat/completions/control",
          "/infill",
          "/embedding",
          "/embeddings",
          "/v1/embeddings",
          "/rerank",
          "/v1/reranking",
          "/tokenize",
          "/detokenize",
          "/apply-template",
          "/v1/streams/lookup",
          "/models",
          "/models/load",
          "/models/unload",
          "/tools",
          "/cors-proxy",
          "/predict",
        ].map((path) => `POST ${path}`),
        done,
      ),
      "DELETE /models": done,
      "GET /models/sse": () => stream("text/event-stream", ["data: {}\n\n"]),
      ...each(["GET /v1/stream", "DELETE /v1/stream", "GET /tools", "GET /cors-proxy"], done),
      ...each(["GET /", "GET /index.html"], () => text("<html>chat</html>")),
      "GET /_app/*": () => text("js"),
    },
    notFound: () =>
      json({ error: { message: "File Not Found", type: "not_found_error", code: 404 } }, 404),
  });
}
