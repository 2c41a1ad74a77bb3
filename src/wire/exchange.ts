/**
 * One request and its reply, as the listener and the gateway hand them to each other.
 *
 * Invariant: a reply is a value, made once; the listener writes it and nobody calls back into the gateway but to
 * say that it has been sent.
 */
import type { BodySource } from "./body.ts";
import type { RequestHead } from "./head.ts";
import type { RawWire } from "./raw.ts";
import type { RequestBody } from "./request-body.ts";

/** Where a connection comes from. */
export interface Peer {
  /** IP address; empty for a unix socket. */
  readonly address: string;
  readonly isUnix: boolean;
  /** TLS on our own listener. */
  readonly isSecure: boolean;
  /** One of `server.trusted_proxies`. */
  readonly isTrusted: boolean;
}

/** A request as it came in. */
export interface Exchange {
  readonly head: RequestHead;
  /** `null` when the request has none. */
  readonly body: RequestBody | null;
  readonly peer: Peer;
  /** Monotonic milliseconds at which the head was complete. */
  readonly startedMs: number;
  /** True once the client is gone. */
  readonly isAborted: boolean;
  /** Called when the client goes before the reply is sent; at once if it has gone. One listener at a time. */
  onAbort(listener: () => void): void;
}

/** How a reply ended. */
export interface Sent {
  readonly bodyBytes: number;
  /** False: the client left, or the body broke off. */
  readonly isComplete: boolean;
}

export interface Reply {
  readonly status: number;
  readonly reason: string;
  /** Header lines, each ending in CRLF, without framing and Connection: those are the listener's. */
  readonly fields: string;
  /** `null`: no body. For HEAD, 204 and 304 this is `null` and `fields` may say what a body would be. */
  readonly body: Uint8Array | BodySource | null;
  /** End the connection after this reply. */
  readonly close?: boolean;
  /** After a 101: the connection becomes a tunnel. */
  readonly tunnel?: (client: RawWire) => void;
  /** Once, when the last byte was handed to the kernel or the reply broke off. */
  readonly onSent?: (sent: Sent) => void;
  /** Set by the listener: breaks the reply off, visibly. */
  abort?: () => void;
}

/** Why the listener refuses a request without a route. */
export type WireRefusal =
  | "bad_request"
  | "head_too_large"
  | "uri_too_long"
  | "unsupported_transfer_encoding"
  | "unsupported_method"
  | "unsupported_version"
  | "expectation_failed"
  | "request_timeout";

/** What a listener does with requests. Neither call may throw; a promise may not reject. */
export interface ExchangeHandler {
  handle(exchange: Exchange): Reply | Promise<Reply>;
  /** The reply to a request that could not be read; the connection is closed after it. */
  refuse(refusal: WireRefusal, peer: Peer): Reply;
}
