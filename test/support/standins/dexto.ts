/**
 * A stand-in for a Dexto server with its key on: CORS first, then the key, then routes, and `/mcp` before all of them.
 *
 * Invariant: it has the holes of the real one (public paths by prefix, MCP without a key), so that a test sees who closes
 * them.
 */
import { done } from "./dialects.ts";
import {
  type Endpoint,
  each,
  json,
  type SeenCall,
  type StandIn,
  standIn,
  stream,
  text,
} from "./standin.ts";

const PUBLIC = ["/health", "/.well-known/agent-card.json", "/openapi.json"];

/** Origins on this machine always, and those of DEXTO_ALLOWED_ORIGINS. */
const ALLOWED = /^https?:\/\/(?:localhost|127\.0\.0\.1)(?::\d+)?$|^https:\/\/app\.example\.com$/;

const events: Endpoint = () =>
  stream("text/event-stream", [
    'event: llm:thinking\ndata: {"sessionId":"s"}\n\n',
    ": keepalive\n\n",
    'event: llm:chunk\ndata: {"content":"It is me."}\n\n',
    'event: run:complete\ndata: {"finishReason":"stop"}\n\n',
  ]);

function corsOf(call: SeenCall): Record<string, string> {
  const origin = call.headers.get("origin");
  return {
    vary: "Origin",
    "access-control-allow-credentials": "true",
    ...(origin !== null && ALLOWED.test(origin) ? { "access-control-allow-origin": origin } : {}),
  };
}

function withCors(response: Response, call: SeenCall): Response {
  for (const [name, value] of Object.entries(corsOf(call))) response.headers.set(name, value);
  return response;
}

/** Starts it. @param apiKey DEXTO_SERVER_API_KEY */
export function dextoStandIn(apiKey: string): StandIn {
  const cors =
    (endpoint: Endpoint): Endpoint =>
    (call, parameters) =>
      withCors(endpoint(call, parameters), call);
  const endpoints: Readonly<Record<string, Endpoint>> = {
    ...each(["GET /health", "HEAD /health"], () => text("OK")),
    ...each(["GET /.well-known/agent-card.json", "HEAD /.well-known/agent-card.json"], () =>
      json({ protocolVersion: "0.3.0", url: "http://localhost:3001/mcp" }),
    ),
    "GET /openapi.json": () => json({ openapi: "3.0.0" }),
    "POST /api/message": () => json({ accepted: true, sessionId: "s" }, 202),
    "POST /api/message-stream": events,
    "GET /api/sessions/:id/events": events,
    ...each(["GET /api/sessions", "POST /api/sessions", "DELETE /api/sessions/:id"], done),
    "POST /api/approvals/:id": done,
    "POST /jsonrpc": () =>
      stream("text/event-stream", [
        "event: connected\ndata: {}\n\n",
        "event: task.message\ndata: {}\n\n",
      ]),
    ...each(["POST /v1/message:send", "POST /v1/tasks/:id", "GET /v1/tasks/:id"], done),
    ...each(
      [
        "GET /api/agent/config",
        "GET /api/agent/config/export",
        "POST /api/agent/config",
        "GET /api/llm/key/:provider",
        "POST /api/llm/key",
        "POST /api/llm/switch",
        "GET /api/llm/catalog",
        "GET /api/agents",
        "POST /api/agents/install",
        "GET /api/mcp/servers",
        "POST /api/mcp/servers",
        "POST /api/mcp/servers/:id/tools/:tool/execute",
        "GET /api/webhooks",
        "POST /api/webhooks",
        "POST /api/schedules",
        "PUT /api/system-prompt",
        "GET /api/tools",
        "HEAD /api/resources/:id",
      ],
      done,
    ),
    ...each(["GET /", "GET /assets/app.js"], () => text("<html>ui</html>")),
  };
  return standIn({
    before: (call) => {
      const path = call.target.split("?")[0] ?? "";
      if (path.startsWith("/mcp") && ["GET", "POST"].includes(call.method)) {
        return json({ jsonrpc: "2.0", id: 1, result: { tools: [] } });
      }
      if (call.method === "OPTIONS") {
        const answer = new Response(null, { status: 204 });
        answer.headers.set("access-control-allow-headers", "Content-Type,Authorization");
        return withCors(answer, call);
      }
      if (PUBLIC.some((one) => path.startsWith(one))) return null;
      const given = call.headers.get("authorization")?.replace(/^Bearer\s+/i, "");
      if (given === apiKey) return null;
      const message = "Invalid or missing API key. Provide Authorization: Bearer <api-key> header.";
      return withCors(json({ error: "Unauthorized", message }, 401), call);
    },
    endpoints: Object.fromEntries(
      Object.entries(endpoints).map(([name, endpoint]) => [name, cors(endpoint)]),
    ),
    notFound: cors((call) => json({ error: "Not Found", path: call.target }, 404)),
  });
}
