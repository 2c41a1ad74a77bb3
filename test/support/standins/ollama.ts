/**
 * A stand-in for Ollama: the paths, methods, statuses and shapes of its router (server/routes.go, 2026).
 *
 * Invariant: like the real one it asks nobody for anything, checks Host and Origin only, and its profiler is on the
 * same listener.
 */
import { chatCompletion, done, message, modelList } from "./dialects.ts";
import { type Endpoint, each, json, type StandIn, standIn, stream, text } from "./standin.ts";

const running: Endpoint = () => text("Ollama is running");
const version: Endpoint = () => json({ version: "0.31.0" });
const tags: Endpoint = () => json({ models: [{ name: "m:latest", model: "m:latest", size: 1 }] });

/** NDJSON unless the body says `"stream": false`. */
const chat: Endpoint = (call) => {
  if (call.body === "") return json({ error: "missing request body" }, 400);
  const { model, stream: wanted } = JSON.parse(call.body) as { model: string; stream?: boolean };
  const base = { model, created_at: "2026-11-01T00:00:00Z" };
  const last = { ...base, message: { role: "assistant", content: "" }, done: true };
  if (wanted === false) {
    return json({ ...last, message: { role: "assistant", content: "It is me." } });
  }
  const lines = ["It ", "is ", "me."].map((content) => ({
    ...base,
    message: { role: "assistant", content },
    done: false,
  }));
  return stream(
    "application/x-ndjson",
    [...lines, last].map((line) => `${JSON.stringify(line)}\n`),
  );
};

const progress: Endpoint = () =>
  stream("application/x-ndjson", [
    '{"status":"pulling manifest"}\n',
    '{"status":"downloading","total":2,"completed":1}\n',
    '{"status":"success"}\n',
  ]);

const nothing: Endpoint = () => new Response(null, { status: 200 });

/** Starts it. */
export function ollamaStandIn(): StandIn {
  return standIn({
    // gin-contrib/cors: an origin that is not on the list gets 403 and no answer.
    before: ({ headers }) => {
      const origin = headers.get("origin");
      const isLocal = origin === null || /^https?:\/\/(?:localhost|127\.0\.0\.1)/.test(origin);
      return isLocal ? null : new Response(null, { status: 403 });
    },
    endpoints: {
      ...each(["GET /", "HEAD /"], running),
      ...each(["GET /api/version", "HEAD /api/version"], version),
      "GET /api/status": () => json({ cloud: { disabled: false, source: "none" } }),
      ...each(["GET /api/tags", "HEAD /api/tags"], tags),
      "GET /api/ps": () => json({ models: [] }),
      "POST /api/show": () => json({ modelfile: "FROM m", details: { family: "llama" } }),
      "POST /api/generate": chat,
      "POST /api/chat": chat,
      "POST /api/embed": done,
      "POST /api/embeddings": done,
      "POST /api/pull": progress,
      "POST /api/push": progress,
      "POST /api/create": progress,
      "POST /api/copy": nothing,
      "DELETE /api/delete": nothing,
      "POST /api/blobs/:digest": () => new Response(null, { status: 201 }),
      "HEAD /api/blobs/:digest": nothing,
      "POST /api/me": () =>
        json({ error: "unauthorized", signin_url: "https://ollama.com/x" }, 401),
      "POST /api/signout": nothing,
      "DELETE /api/user/keys/:key": nothing,
      "POST /api/experimental/web_search": done,
      "POST /api/experimental/web_fetch": done,
      "POST /v1/chat/completions": chatCompletion,
      "POST /v1/completions": done,
      "POST /v1/embeddings": done,
      "GET /v1/models": modelList,
      "GET /v1/models/:model": done,
      "POST /v1/responses": done,
      "POST /v1/images/generations": done,
      "POST /v1/audio/transcriptions": done,
      "POST /v1/messages": message,
      "GET /debug/pprof/": () => text("<html>profiles</html>"),
      "GET /debug/pprof/*": () => text("profile"),
    },
    notAllowed: () => text("405 method not allowed", 405),
    notFound: () => text("404 page not found", 404),
  });
}
