/**
 * Every reason for which a request is refused, with what the client is told: the only reason-to-status table.
 *
 * Invariant: the union is closed and stable; docs/reasons.md lists it and a meta-test asserts that each has a test.
 * What an outsider must not learn (whether a token existed, was revoked or has expired) is folded into one public
 * reason; the log keeps the precise one.
 */
import type { RejectReason } from "./contract/outcome.ts";
import type { WireRefusal } from "./wire/exchange.ts";

export type Reason =
  | WireRefusal
  | RejectReason
  | "path_ambiguous"
  | "path_malformed"
  | "credential_in_url"
  | "untrusted_proxy"
  | "original_unreadable"
  | "no_route"
  | "no_upstream"
  | "no_credential"
  | "scheme_refused"
  | "insufficient_role"
  | "insufficient_scope"
  | "model_denied"
  | "model_unreadable"
  | "strategy_fault"
  | "internal_fault"
  | "body_too_large"
  | "body_malformed"
  | "body_timeout"
  | "upstream_unreachable"
  | "upstream_timeout"
  | "upstream_broken"
  | "client_closed";

export interface ReasonEntry {
  readonly status: number;
  /** What the client reads as `reason`. */
  readonly public: Reason;
  /** One sentence for the client; no internal name, no credential. */
  readonly detail: string;
  /** RFC 6750 section 3.1, for the Bearer challenge. */
  readonly bearerError?: "invalid_request" | "invalid_token" | "insufficient_scope";
}

const WRONG_CREDENTIAL: ReasonEntry = {
  status: 401,
  public: "invalid_token",
  detail: "The credential is not valid.",
  bearerError: "invalid_token",
};

const plain = (status: number, reason: Reason, detail: string): ReasonEntry => ({
  status,
  public: reason,
  detail,
});

const proof = (reason: Reason, detail: string): ReasonEntry => ({
  ...plain(401, reason, detail),
  bearerError: "invalid_token",
});

/** @see Reason */
export const REASONS: Readonly<Record<Reason, ReasonEntry>> = {
  bad_request: plain(400, "bad_request", "The request is not valid HTTP."),
  head_too_large: plain(431, "head_too_large", "The request head is too large."),
  uri_too_long: plain(414, "uri_too_long", "The request target is too long."),
  unsupported_transfer_encoding: plain(
    501,
    "unsupported_transfer_encoding",
    "Only the transfer encoding chunked is supported.",
  ),
  unsupported_method: plain(501, "unsupported_method", "The method is not supported."),
  unsupported_version: plain(505, "unsupported_version", "Only HTTP/1.0 and HTTP/1.1 are spoken."),
  expectation_failed: plain(417, "expectation_failed", "Only 100-continue can be expected."),
  request_timeout: plain(408, "request_timeout", "The request head did not arrive in time."),
  path_ambiguous: plain(400, "path_ambiguous", "The path can be read in more than one way."),
  path_malformed: plain(400, "path_malformed", "The path holds a bad or forbidden escape."),
  credential_in_url: {
    ...plain(400, "credential_in_url", "Credentials in the URL are refused; send a header."),
    bearerError: "invalid_request",
  },
  untrusted_proxy: plain(403, "untrusted_proxy", "Only trusted proxies may ask here."),
  original_unreadable: plain(
    400,
    "original_unreadable",
    "The question does not name one original request in this proxy's headers.",
  ),
  no_route: plain(404, "no_route", "Nothing is served here."),
  no_upstream: plain(404, "no_upstream", "Nothing is served here."),
  no_credential: plain(401, "no_credential", "A credential is needed."),
  invalid_token: WRONG_CREDENTIAL,
  token_revoked: WRONG_CREDENTIAL,
  token_expired: WRONG_CREDENTIAL,
  token_not_yet_valid: WRONG_CREDENTIAL,
  // About a signed proof, whose author has to know what to mend; none of these says whether a token exists.
  signature_invalid: proof("signature_invalid", "The signature does not fit the request."),
  replayed: proof("replayed", "This proof was used before; sign anew, with a nonce tag."),
  stale_proof: proof("stale_proof", "The timestamp is too far from the gateway's clock."),
  wrong_audience: proof("wrong_audience", "The proof is for another URL, method or service."),
  not_registered: plain(403, "not_registered", "This identity is not registered here."),
  malformed_credential: {
    ...plain(400, "malformed_credential", "The credential is malformed."),
    bearerError: "invalid_request",
  },
  ambiguous_credential: {
    ...plain(400, "ambiguous_credential", "More than one credential was sent."),
    bearerError: "invalid_request",
  },
  scheme_refused: plain(403, "scheme_refused", "This kind of credential is not accepted here."),
  model_denied: plain(403, "model_denied", "The model is not allowed here."),
  model_unreadable: plain(
    403,
    "model_unreadable",
    "The model could not be read; send plain JSON with one model.",
  ),
  insufficient_role: plain(403, "insufficient_role", "The identity lacks the role for this."),
  insufficient_scope: {
    ...plain(403, "insufficient_scope", "The identity lacks a scope for this."),
    bearerError: "insufficient_scope",
  },
  strategy_fault: plain(
    503,
    "strategy_fault",
    "The credential cannot be checked at the moment; it may be fine. Try again.",
  ),
  internal_fault: plain(500, "internal_fault", "Something went wrong inside the gateway."),
  body_too_large: plain(413, "body_too_large", "The request body is too large."),
  body_malformed: plain(400, "body_malformed", "The request body is not framed correctly."),
  body_timeout: plain(408, "body_timeout", "The request body did not arrive in time."),
  upstream_unreachable: plain(502, "upstream_unreachable", "The upstream cannot be reached."),
  upstream_timeout: plain(504, "upstream_timeout", "The upstream did not answer in time."),
  upstream_broken: plain(
    502,
    "upstream_broken",
    "The upstream's answer was cut or not valid HTTP.",
  ),
  // Nobody reads this answer; the number is nginx's, for the log.
  client_closed: plain(499, "client_closed", "The client left."),
};

const STATUS_TITLES: Readonly<Record<number, string>> = {
  400: "Bad Request",
  401: "Unauthorized",
  403: "Forbidden",
  404: "Not Found",
  408: "Request Timeout",
  413: "Content Too Large",
  414: "URI Too Long",
  417: "Expectation Failed",
  431: "Request Header Fields Too Large",
  499: "Client Closed Request",
  500: "Internal Server Error",
  501: "Not Implemented",
  502: "Bad Gateway",
  503: "Service Unavailable",
  504: "Gateway Timeout",
  505: "HTTP Version Not Supported",
};

/** The reason phrase of one of our own statuses. */
export function statusTitle(status: number): string {
  return STATUS_TITLES[status] ?? "Error";
}
