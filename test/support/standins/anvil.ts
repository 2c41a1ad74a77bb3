/**
 * A stand-in for anvil-serving's front door, on a raw socket: what it demands of framing, its precedence of headers,
 * its shapes, and its 503.
 *
 * Invariant: like the real one it refuses every chunked body and every method but GET and POST, and asks for the token
 * before it looks whether a path is there.
 */
import { type RawUpstream, rawUpstream, type SeenRequest, valuesOf } from "../raw.ts";

export interface AnvilStandIn extends RawUpstream {
  /** No tier is ready: every generation is answered 503. */
  isExhausted: boolean;
}

const POSTS = [
  "/v1/chat/completions",
  "/v1/messages",
  "/v1/responses",
  "/v1/embeddings",
  "/v1/rerank",
  "/v1/audio/speech",
  "/v1/admin/transition",
];
const GETS = [
  "/v1/models",
  "/v1/models/capacity",
  "/v1/health/tiers",
  "/v1/router/status",
  "/v1/stats",
  "/v1/decisions",
  "/v1/requests/r",
  "/metrics",
];

function reply(status: number, title: string, body: string, fields = ""): string {
  const type = body.startsWith("<") ? "text/html" : "application/json";
  return `HTTP/1.1 ${status} ${title}\r\nServer: anvil\r\nContent-Type: ${type}\r\nContent-Length: ${body.length}\r\n${fields}\r\n${body}`;
}

function error(type: string, message: string): string {
  return JSON.stringify({ error: { type, message } });
}

const STREAM = ['data: {"choices":[{"delta":{"content":"It is me."}}]}\n\n', "data: [DONE]\n\n"]
  .map((event) => `${event.length.toString(16)}\r\n${event}\r\n`)
  .join("");

/** A non-empty Authorization decides alone; the first of several wins. */
function isRightToken(request: SeenRequest, token: string): boolean {
  const [authorization = ""] = valuesOf(request, "authorization");
  if (authorization !== "") {
    const [scheme = "", ...rest] = authorization.split(" ");
    return scheme.toLowerCase() === "bearer" && rest.join(" ").trim() === token;
  }
  return valuesOf(request, "x-api-key")[0] === token;
}

/** Starts it. @param token what `[server].auth_env` named */
export function anvilStandIn(token: string): AnvilStandIn {
  const upstream = rawUpstream((request, write, close) => {
    const [method = "", target = ""] = request.line.split(" ");
    const path = (target.split("?")[0] ?? "").replace(/\/+$/, "");
    if (method !== "GET" && method !== "POST") {
      write(reply(501, "Unsupported method", "<html>Unsupported method</html>"));
      return;
    }
    if (valuesOf(request, "transfer-encoding").length > 0) {
      write(reply(411, "Length Required", error("invalid_request", "length required")));
      close();
      return;
    }
    if (method === "GET" && path === "/healthz") {
      write(reply(200, "OK", '{"status":"ok","dialects":["openai"],"routes":["/v1/models"]}'));
      return;
    }
    if (!isRightToken(request, token)) {
      write(
        reply(401, "Unauthorized", error("authentication_error", "invalid or missing API key")),
      );
      return;
    }
    if (stand.isExhausted && POSTS.includes(path)) {
      write(reply(503, "Service Unavailable", error("service_unavailable", "no tier is ready")));
    } else if (method === "POST" && path === "/v1/chat/completions") {
      write(
        `HTTP/1.1 200 OK\r\nServer: anvil\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\nWarning: 299 anvil "max_tokens clamped"\r\nX-Anvil-Tier: primary\r\n\r\n${STREAM}0\r\n\r\n`,
      );
    } else if ((method === "POST" ? POSTS : GETS).includes(path)) {
      write(reply(200, "OK", '{"ok":true}'));
    } else if (POSTS.includes(path)) {
      write(
        reply(405, "Method Not Allowed", error("method_not_allowed", "POST"), "Allow: POST\r\n"),
      );
    } else write(reply(404, "Not Found", error("not_found", "unknown path")));
  });
  const stand: AnvilStandIn = Object.assign(upstream, { isExhausted: false });
  return stand;
}
