/**
 * The read-only view of a request that strategies get.
 *
 * Invariant: nothing here can change the request or write an answer, so two strategies cannot fight over one.
 */

/** Header fields as the client sent them. Names are compared without regard to case. */
export interface RequestHeaders {
  /** The value of the field; several lines are joined with `, `. `null` when there is none. */
  get(name: string): string | null;
  /** One entry per header line, in order. Empty when there is none. */
  all(name: string): readonly string[];
}

/**
 * What the body hash came to; `too_large` when the body is over the cap that was asked for, `unavailable` when a
 * reverse proxy asks about a request whose body it keeps: there may be one.
 */
export type BodyHash =
  | { readonly kind: "hash"; readonly sha256: Uint8Array; readonly length: number }
  | { readonly kind: "too_large" }
  | { readonly kind: "unavailable" };

/** One request, as a strategy sees it. */
export interface AuthRequest {
  /** Upper-case method token as sent. */
  readonly method: string;
  /** The path that routes were matched on and that is forwarded, percent-encoding untouched. */
  readonly path: string;
  /** The query with its `?`, byte for byte; empty string when there is none. */
  readonly query: string;
  /** Absolute URLs this request may have been addressed to, best first (`server.public_url`, else Host). */
  readonly urls: readonly string[];
  readonly headers: RequestHeaders;
  /** Address of the client: the peer, or what trusted proxies say. Empty for a unix-socket peer. */
  readonly clientAddress: string;
  /** Also in every log line and every refusal. */
  readonly requestId: string;
  /**
   * SHA-256 of the raw body. The body is held in memory up to `maxBytes` and only when a strategy asks;
   * what was read is still forwarded. An absent body hashes as zero bytes.
   */
  bodyHash(maxBytes: number): Promise<BodyHash>;
}
