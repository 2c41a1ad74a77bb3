/**
 * An allowed request goes to its upstream, and the answer becomes a reply.
 *
 * Invariant: what was matched is what is sent, byte for byte; nothing is invented, nothing is sent twice, and a
 * client that leaves takes the upstream's call with it.
 */
import { forwardedFields, passedFields, type RequestFilter, responseFields } from "./headers.ts";
import type { Reason } from "./reasons.ts";
import type { Origin, RequestView } from "./request-view.ts";
import { type BodyFault, type BodySource, bytesSource } from "./wire/body.ts";
import { BodyReadError } from "./wire/collect.ts";
import type { Exchange, Reply } from "./wire/exchange.ts";
import { RequestBody } from "./wire/request-body.ts";
import { UpstreamFault, type UpstreamResponse } from "./wire/upstream-call.ts";
import type { UpstreamPool } from "./wire/upstream-pool.ts";

/** An upstream, ready to be called. */
export interface Upstream {
  readonly name: string;
  readonly pool: UpstreamPool;
  readonly authority: string;
  readonly basePath: string;
  readonly preservesHost: boolean;
  readonly idleMs: number | null;
  /** Injected lines, serialised; may hold secrets. */
  readonly injectedFields: string;
  /** Their names, lower case: the client's copies are dropped. */
  readonly injectedNames: ReadonlySet<string>;
}

/** Everything that one forwarding needs. */
export interface Forwarding {
  readonly exchange: Exchange;
  readonly view: RequestView;
  readonly origin: Origin;
  readonly upstream: Upstream;
  readonly filter: RequestFilter;
  /** Credential headers to remove and injected names, lower case. */
  readonly removed: ReadonlySet<string>;
  /** Identity lines, serialised. */
  readonly identityFields: string;
  /** `null`: no limit. */
  readonly maxBodyBytes: number | null;
  /** A chunked body is held, up to `maxBodyBytes`, and sent with its length. */
  readonly holdsChunked: boolean;
  /** X-Forwarded-* are sent. */
  readonly tellsClient: boolean;
  /** Lines for the reply (CORS of the route), which replace the upstream's. */
  readonly corsFields: string | null;
  /** Set on the reply over what the upstream sent. */
  readonly responseHeaders: readonly (readonly [string, string])[];
  /** The handshake passes as one: a 101 makes a tunnel with this. */
  readonly upgrade: ((response: UpstreamResponse) => Reply["tunnel"]) | null;
}

export type Forwarded =
  | { readonly kind: "reply"; readonly reply: Reply }
  | { readonly kind: "refused"; readonly reason: Reason; readonly error: unknown };

/** Sends the request and waits for the head of the answer. Never throws. */
export async function forward(forwarding: Forwarding): Promise<Forwarded> {
  const { exchange, view, upstream } = forwarding;
  const unheld = forwarding.holdsChunked ? await holdChunked(view, forwarding.maxBodyBytes) : null;
  if (unheld !== null) return { kind: "refused", reason: unheld, error: null };
  const body = view.body instanceof Uint8Array ? bytesSource(view.body) : view.body;
  if (!limitBody(body, forwarding.maxBodyBytes)) {
    return { kind: "refused", reason: "body_too_large", error: null };
  }
  const broken = exchange.body?.brokenBy ?? null;
  if (broken !== null) return { kind: "refused", reason: bodyReason(broken), error: null };
  const isUnbodied = body === null;
  const call = upstream.pool.call({
    method: view.method,
    head: requestHead(forwarding, body),
    body,
    isChunked: body !== null && body.length === null,
    mayRepeat: isUnbodied && (view.method === "GET" || view.method === "HEAD"),
    mayUpgrade: forwarding.upgrade !== null,
  });
  exchange.onAbort(() => call.abort());
  try {
    const response = await call.response;
    if (exchange.isAborted) return abandoned(response);
    return { kind: "reply", reply: replyTo(forwarding, response) };
  } catch (error) {
    return { kind: "refused", reason: reasonOf(error), error };
  }
}

/** The client left in the moment in which the answer came. */
function abandoned(response: UpstreamResponse): Forwarded {
  response.upgraded?.destroy();
  if (response.body !== null && !(response.body instanceof Uint8Array)) response.body.cancel();
  return { kind: "refused", reason: "client_closed", error: null };
}

/** Reads a body without a length ahead, so that it has one; the reason when that cannot be. */
async function holdChunked(view: RequestView, maxBytes: number | null): Promise<Reason | null> {
  if (view.body === null || view.body.length !== null) return null;
  try {
    const bytes = await view.wholeBody(maxBytes ?? Number.POSITIVE_INFINITY);
    return bytes === null ? "body_too_large" : null;
  } catch (error) {
    if (error instanceof BodyReadError) return bodyReason(error.fault);
    throw error;
  }
}

/** False when the announced length is over the limit already. */
function limitBody(body: BodySource | null, maxBytes: number | null): boolean {
  if (body === null || maxBytes === null) return true;
  if (body.length !== null) return body.length <= maxBytes;
  if (body instanceof RequestBody) body.limit(maxBytes);
  return true;
}

function requestHead(forwarding: Forwarding, body: BodySource | null): string {
  const { exchange, view, origin, upstream } = forwarding;
  const { fields, framing } = exchange.head;
  const host =
    upstream.preservesHost && origin.authority !== "" ? origin.authority : upstream.authority;
  let head = `${view.method} ${upstream.basePath}${view.path}${view.query} HTTP/1.1\r\nHost: ${host}\r\n`;
  head += passedFields(fields, forwarding.filter, forwarding.removed);
  head += forwarding.tellsClient
    ? forwardedFields(origin, fields, exchange.peer.address)
    : `X-Request-Id: ${origin.requestId}\r\n`;
  head += forwarding.identityFields + upstream.injectedFields;
  if (body !== null && body.length === null) head += "Transfer-Encoding: chunked\r\n";
  else if (body !== null) head += `Content-Length: ${body.length}\r\n`;
  else if (framing.kind === "length") head += "Content-Length: 0\r\n";
  if (forwarding.upgrade !== null) head += "Connection: Upgrade\r\nUpgrade: websocket\r\n";
  return `${head}\r\n`;
}

function replyTo(forwarding: Forwarding, response: UpstreamResponse): Reply {
  const { head } = response;
  const isBodyless = forwarding.view.method === "HEAD" || head.status === 304;
  const copied = responseFields(head.fields, {
    keepsLength: isBodyless,
    dropsCors: forwarding.corsFields !== null,
    set: forwarding.responseHeaders,
  });
  let fields = copied.text + (forwarding.corsFields ?? "");
  // An upstream's own id stays where its clients look for it; ours must still lead to our log.
  const idName = copied.hasRequestId ? "X-Gatehouse-Request-Id" : "X-Request-Id";
  fields += `${idName}: ${forwarding.origin.requestId}\r\n`;
  const tunnel = response.upgraded === null ? undefined : forwarding.upgrade?.(response);
  if (tunnel !== undefined) fields += "Upgrade: websocket\r\n";
  const { status, reason } = head;
  const { body } = response;
  return tunnel === undefined
    ? { status, reason, fields, body }
    : { status, reason, fields, body, tunnel };
}

function reasonOf(error: unknown): Reason {
  if (!(error instanceof UpstreamFault)) return "upstream_broken";
  switch (error.code) {
    case "unreachable":
    case "untrusted_certificate":
      return "upstream_unreachable";
    case "connect_timeout":
    case "response_timeout":
      return "upstream_timeout";
    case "broken_response":
    case "closed_early":
      return "upstream_broken";
    case "cancelled":
      return "client_closed";
    case "request_body":
      return bodyReason(error.bodyFault);
  }
}

/** The reason for a request body that could not be read to its end. */
export function bodyReason(fault: BodyFault | null): Reason {
  if (fault === "too_large") return "body_too_large";
  if (fault === "too_slow" || fault === "idle_timeout") return "body_timeout";
  if (fault === "bad_chunk") return "body_malformed";
  return "client_closed";
}
