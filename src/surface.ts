/**
 * Endpoints of a plugin that answer on a route instead of its upstream.
 *
 * Invariant: the handler gets a whole request with a bounded body and gives a whole answer; it never touches the
 * client's connection. What it throws is a fault (503), and its text is for the operator only.
 */

import { STATUS_CODES } from "node:http";
import type { Surface, SurfaceCaller } from "./contract/plugin.ts";
import type { Upstream } from "./forward.ts";
import type { RequestView } from "./request-view.ts";
import { startWhole } from "./whole-call.ts";
import type { Exchange, Reply } from "./wire/exchange.ts";

/** Largest request body of a surface; over it 413. */
const MAX_REQUEST_BYTES = 1_048_576;

/** What one call of a surface needs. */
export interface SurfaceCall {
  readonly exchange: Exchange;
  readonly view: RequestView;
  readonly surface: Surface;
  readonly caller: Omit<SurfaceCaller, "upstream">;
  readonly upstream: Upstream | null;
  /** Lines for the reply (CORS of the route). */
  readonly extraFields: string;
}

export type SurfaceAnswer =
  | { readonly kind: "reply"; readonly reply: Reply }
  | { readonly kind: "too_large" };

/** Asks the handler. @throws what the handler throws, or BodyReadError */
export async function askSurface(call: SurfaceCall): Promise<SurfaceAnswer> {
  const body = await call.view.wholeBody(MAX_REQUEST_BYTES);
  if (body === null) return { kind: "too_large" };
  const { upstream } = call;
  const response = await call.surface.handle(requestOf(call, body), {
    ...call.caller,
    upstream: upstream === null ? null : (request) => askUpstream(call, upstream, request),
  });
  return { kind: "reply", reply: await replyOf(response, call) };
}

function requestOf({ exchange, view }: SurfaceCall, body: Uint8Array): Request {
  const headers = new Headers();
  const { lower, values } = exchange.head.fields;
  lower.forEach((name, index) => {
    headers.append(name, values[index] ?? "");
  });
  const hasBody = body.length > 0 && view.method !== "GET" && view.method !== "HEAD";
  const request = new Request(`http://surface${asUrl(view.path)}${asUrl(view.query)}`, {
    method: view.method,
    headers,
    ...(hasBody ? { body } : {}),
  });
  // The runtime makes a GET of a method that it does not know, and a surface would answer what was not asked.
  if (request.method !== view.method) {
    Object.defineProperty(request, "method", { value: view.method });
  }
  return request;
}

/**
 * What a URL parser would read otherwise than the router did: a `#` ends nothing here, a backslash is no slash, and a
 * character stands for one byte.
 */
function asUrl(text: string): string {
  return text.replace(
    /[#\\\x80-\xff]/g,
    (char) => `%${char.charCodeAt(0).toString(16).padStart(2, "0").toUpperCase()}`,
  );
}

async function replyOf(response: Response, { view, extraFields }: SurfaceCall): Promise<Reply> {
  const bytes = new Uint8Array(await response.arrayBuffer());
  let fields = `X-Request-Id: ${view.requestId}\r\nCache-Control: no-store\r\n${extraFields}`;
  response.headers.forEach((value, name) => {
    if (!OWN_FIELDS.has(name) && /^[\t\x20-\x7e\x80-\xff]*$/.test(value)) {
      fields += `${name}: ${value}\r\n`;
    }
  });
  const isHead = view.method === "HEAD";
  if (isHead) fields += `Content-Length: ${bytes.length}\r\n`;
  return {
    status: response.status,
    reason: STATUS_CODES[response.status] ?? "",
    fields,
    body: isHead ? null : bytes,
  };
}

/** Framing and what we set ourselves. */
const OWN_FIELDS = new Set([
  "content-length",
  "transfer-encoding",
  "connection",
  "x-request-id",
  "cache-control",
]);

/** One whole request to the route's upstream, with the upstream's own injected headers. */
async function askUpstream(
  { exchange, view }: SurfaceCall,
  upstream: Upstream,
  request: Request,
): Promise<Response> {
  const call = await startWhole(
    {
      pool: upstream.pool,
      authority: upstream.authority,
      basePath: upstream.basePath,
      fields: `X-Request-Id: ${view.requestId}\r\n${upstream.injectedFields}`,
      reserved: new Set([...upstream.injectedNames, "x-request-id"]),
    },
    request,
  );
  exchange.onAbort(call.abort);
  return call.response;
}
