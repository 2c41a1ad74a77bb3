/**
 * What the pool of an upstream is asked for and what comes back.
 *
 * Invariant: a call ends once: with a response head, or with an UpstreamFault that says whose fault it was.
 */
import type { BodyFault, BodySource } from "./body.ts";
import type { ResponseHead } from "./head.ts";
import type { RawWire } from "./raw.ts";

/** Where an upstream is. */
export type UpstreamAddress =
  | {
      readonly kind: "tcp";
      readonly host: string;
      readonly port: number;
      readonly tls: UpstreamTls | null;
    }
  | { readonly kind: "unix"; readonly path: string };

export interface UpstreamTls {
  /** Checked against the certificate. */
  readonly serverName: string;
  /** PEM certificates to trust instead of the system's, or `null`. */
  readonly ca: string | null;
}

/** In milliseconds; `null` means none. */
export interface UpstreamDeadlines {
  readonly connectMs: number;
  /** From the last byte of the request to the response head. */
  readonly responseMs: number | null;
  /** Longest silence inside a response body, without the time in which the client did not take it. */
  readonly idleMs: number | null;
}

/** One request to an upstream. */
export interface UpstreamCall {
  readonly method: string;
  /** The whole head, framing included, with the empty line. */
  readonly head: string;
  readonly body: BodySource | null;
  /** Frame the body as chunked; otherwise `body.length` bytes follow the head. */
  readonly isChunked: boolean;
  /** GET and HEAD without a body: sent again, once, when a kept connection turns out to be dead. */
  readonly mayRepeat: boolean;
  /** A 101 hands the connection over; without this it is a broken answer. */
  readonly mayUpgrade: boolean;
}

/** The answer of an upstream. */
export interface UpstreamResponse {
  readonly head: ResponseHead;
  /** Bytes when the whole body came with the head; `null` when there is none. */
  readonly body: Uint8Array | BodySource | null;
  /** After a 101: the connection. */
  readonly upgraded: RawWire | null;
}

export type UpstreamFaultCode =
  | "unreachable"
  | "untrusted_certificate"
  | "connect_timeout"
  | "response_timeout"
  | "broken_response"
  | "closed_early"
  | "cancelled"
  | "request_body";

/** Why there is no response. `detail` is for the operator's log, not for clients. */
export class UpstreamFault extends Error {
  readonly code: UpstreamFaultCode;
  /** For `request_body`: what was wrong with the client's body. */
  readonly bodyFault: BodyFault | null;
  constructor(code: UpstreamFaultCode, detail: string, bodyFault: BodyFault | null = null) {
    super(detail);
    this.name = "UpstreamFault";
    this.code = code;
    this.bodyFault = bodyFault;
  }
}

/** A call under way. */
export interface PendingCall {
  readonly response: Promise<UpstreamResponse>;
  /** Nobody wants the answer any more: closes the connection at once. */
  abort(): void;
}
