/**
 * One whole request to another server and its whole answer, over our own client: for surfaces that ask their
 * upstream and for plugins that ask an issuer.
 *
 * Invariant: both bodies are bounded and in memory; redirects are answers; nothing is sent twice but a GET on a kept
 * connection that was dead. There is no ceiling on calls in flight, as `fetch` has one.
 */
import type { BodySource } from "./wire/body.ts";
import { bytesSource } from "./wire/body.ts";
import { collectBody } from "./wire/collect.ts";
import type { PendingCall, UpstreamResponse } from "./wire/upstream-call.ts";
import type { UpstreamPool } from "./wire/upstream-pool.ts";

/** Largest answer that is read. */
const MAX_RESPONSE_BYTES = 16_777_216;

/** Framing, and what belongs to one connection. */
const NOT_COPIED = new Set([
  "host",
  "connection",
  "content-length",
  "transfer-encoding",
  "keep-alive",
  "expect",
  "upgrade",
  "te",
]);

/** Where and with what a request goes. */
export interface WholeCall {
  readonly pool: UpstreamPool;
  readonly authority: string;
  /** Before the path of the request's URL. */
  readonly basePath: string;
  /** Lines of our own, serialised. */
  readonly fields: string;
  /** Lower-case names that the request must not set. */
  readonly reserved: ReadonlySet<string>;
}

/** A call under way. */
export interface WholeCallUnderWay {
  readonly response: Promise<Response>;
  abort(): void;
}

/** Sends it. The response rejects with UpstreamFault, or Error when the answer is too large. */
export async function startWhole(call: WholeCall, request: Request): Promise<WholeCallUnderWay> {
  const url = new URL(request.url);
  const body = new Uint8Array(await request.arrayBuffer());
  let head = `${request.method} ${call.basePath}${url.pathname}${url.search} HTTP/1.1\r\n`;
  head += `Host: ${call.authority}\r\n`;
  request.headers.forEach((value, name) => {
    if (NOT_COPIED.has(name) || call.reserved.has(name)) return;
    head += `${name}: ${value}\r\n`;
  });
  const isBodyless = body.length === 0 && (request.method === "GET" || request.method === "HEAD");
  head += `${call.fields}${isBodyless ? "" : `Content-Length: ${body.length}\r\n`}\r\n`;
  const pending: PendingCall = call.pool.call({
    method: request.method,
    head,
    body: body.length === 0 ? null : bytesSource(body),
    isChunked: false,
    mayRepeat: isBodyless,
    mayUpgrade: false,
  });
  let streaming: BodySource | null = null;
  const response = pending.response.then((answer) => {
    if (answer.body !== null && !(answer.body instanceof Uint8Array)) streaming = answer.body;
    return responseOf(answer);
  });
  return {
    response,
    abort() {
      pending.abort();
      streaming?.cancel();
    },
  };
}

async function responseOf({ head, body }: UpstreamResponse): Promise<Response> {
  const bytes =
    body === null || body instanceof Uint8Array
      ? body
      : await collectBody(body, MAX_RESPONSE_BYTES);
  if (body !== null && bytes === null) throw new Error("the answer is too large");
  const headers = new Headers();
  head.fields.lower.forEach((name, index) => {
    if (!NOT_COPIED.has(name)) headers.append(name, head.fields.values[index] ?? "");
  });
  const isNull = head.status === 204 || head.status === 205 || head.status === 304;
  return new Response(isNull ? null : bytes, { status: head.status, headers });
}
