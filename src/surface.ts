/**
 * Endpoints of a plugin that answer on a route instead of its upstream.
 *
 * Invariant: the handler gets a whole request with a bounded body and gives a whole answer; it never touches the
 * client's connection. What it throws is a fault (503), and its text is for the operator only.
 */
import type { Surface, SurfaceCaller } from "./contract/plugin.ts";
import type { Upstream } from "./forward.ts";
import { statusTitle } from "./reasons.ts";
import type { RequestView } from "./request-view.ts";
import type { BodySource } from "./wire/body.ts";
import { collectBody } from "./wire/collect.ts";
import type { Exchange, Reply } from "./wire/exchange.ts";
import type { UpstreamResponse } from "./wire/upstream-call.ts";

/** Largest request body of a surface; over it 413. */
const MAX_REQUEST_BYTES = 1_048_576;
/** Largest answer of an upstream that a surface reads. */
const MAX_RESPONSE_BYTES = 16_777_216;

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
  const body = await wholeBody(call.view);
  if (body === null) return { kind: "too_large" };
  const { upstream } = call;
  const response = await call.surface.handle(requestOf(call, body), {
    ...call.caller,
    upstream: upstream === null ? null : (request) => askUpstream(call, upstream, request),
  });
  return { kind: "reply", reply: await replyOf(response, call) };
}

async function wholeBody(view: RequestView): Promise<Uint8Array | null> {
  const { body } = view;
  if (body === null) return new Uint8Array();
  if (body instanceof Uint8Array) return body.length > MAX_REQUEST_BYTES ? null : body;
  return collectBody(body, MAX_REQUEST_BYTES);
}

function requestOf({ exchange, view }: SurfaceCall, body: Uint8Array): Request {
  const headers = new Headers();
  const { lower, values } = exchange.head.fields;
  lower.forEach((name, index) => {
    headers.append(name, values[index] ?? "");
  });
  const hasBody = body.length > 0 && view.method !== "GET" && view.method !== "HEAD";
  return new Request(`http://surface${view.path}${view.query}`, {
    method: view.method,
    headers,
    ...(hasBody ? { body } : {}),
  });
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
    reason: response.status < 300 ? "OK" : statusTitle(response.status),
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
  const url = new URL(request.url);
  const body = new Uint8Array(await request.arrayBuffer());
  let head = `${request.method} ${upstream.basePath}${url.pathname}${url.search} HTTP/1.1\r\n`;
  head += `Host: ${upstream.authority}\r\nX-Request-Id: ${view.requestId}\r\n`;
  request.headers.forEach((value, name) => {
    if (!UPSTREAM_OWN.has(name) && !upstream.injectedNames.has(name))
      head += `${name}: ${value}\r\n`;
  });
  head += `${upstream.injectedFields}Content-Length: ${body.length}\r\n\r\n`;
  const call = upstream.pool.call({
    method: request.method,
    head,
    body: body.length === 0 ? null : bytesOnce(body),
    isChunked: false,
    mayRepeat: request.method === "GET",
    mayUpgrade: false,
  });
  exchange.onAbort(() => call.abort());
  return responseOf(await call.response);
}

const UPSTREAM_OWN = new Set([
  "host",
  "connection",
  "content-length",
  "transfer-encoding",
  "x-request-id",
]);

function bytesOnce(bytes: Uint8Array): BodySource {
  return {
    length: bytes.length,
    pipe(sink) {
      sink.write(bytes);
      sink.end();
    },
    resume() {},
    cancel() {},
  };
}

async function responseOf({ head, body }: UpstreamResponse): Promise<Response> {
  const bytes =
    body === null || body instanceof Uint8Array
      ? body
      : await collectBody(body, MAX_RESPONSE_BYTES);
  if (body !== null && bytes === null) throw new Error("the upstream's answer is too large");
  const headers = new Headers();
  head.fields.lower.forEach((name, index) => {
    if (name !== "connection" && name !== "transfer-encoding" && name !== "content-length") {
      headers.append(name, head.fields.values[index] ?? "");
    }
  });
  const isNull = head.status === 204 || head.status === 304;
  return new Response(isNull ? null : bytes, { status: head.status, headers });
}
