/**
 * The shapes of error bodies: our own, those of the two big APIs, and those of replaced systems.
 *
 * Invariant: every shape says the public reason and the request id, beside what its clients look for.
 */
import type { ErrorDialect } from "./config/model.ts";
import { type Reason, type ReasonEntry, statusTitle } from "./reasons.ts";

/** Gives a body, to be written as JSON. */
type Shape = (entry: ReasonEntry, requestId: string) => object;

function openaiBody(entry: ReasonEntry, requestId: string): object {
  return {
    error: {
      message: entry.detail,
      type: entry.status >= 500 ? "server_error" : "invalid_request_error",
      param: null,
      code: entry.status === 401 ? "invalid_api_key" : entry.public,
      reason: entry.public,
      request_id: requestId,
    },
  };
}

/** Type names of Anthropic's API by status. */
const ANTHROPIC_TYPES: Readonly<Record<number, string>> = {
  401: "authentication_error",
  403: "permission_error",
  404: "not_found_error",
  413: "request_too_large",
  504: "timeout_error",
};

function anthropicBody(entry: ReasonEntry, requestId: string): object {
  const fallback = entry.status >= 500 ? "api_error" : "invalid_request_error";
  return {
    type: "error",
    error: { type: ANTHROPIC_TYPES[entry.status] ?? fallback, message: entry.detail },
    reason: entry.public,
    request_id: requestId,
  };
}

function ollamaBody(entry: ReasonEntry, requestId: string): object {
  return { error: entry.detail, reason: entry.public, request_id: requestId };
}

function dextoBody(entry: ReasonEntry, requestId: string): object {
  const message =
    entry.status === 401
      ? "Invalid or missing API key. Provide Authorization: Bearer <api-key> header."
      : entry.detail;
  const error = statusTitle(entry.status);
  return { error, message, reason: entry.public, request_id: requestId };
}

/** Type names of anvil-serving by status; faults keep ours, so that nobody takes them for its `service_unavailable`. */
const ANVIL_TYPES: Readonly<Record<number, string>> = {
  400: "invalid_request",
  401: "authentication_error",
  404: "not_found",
  413: "payload_too_large",
};

function anvilBody(entry: ReasonEntry, requestId: string): object {
  const message = entry.status === 401 ? "invalid or missing API key" : entry.detail;
  return {
    error: { type: ANVIL_TYPES[entry.status] ?? entry.public, message },
    reason: entry.public,
    request_id: requestId,
  };
}

/** Texts that clients of routstrd-auth show or look for; elsewhere our own are as good. */
const ROUTSTRD_TEXTS: Readonly<Partial<Record<Reason, string>>> = {
  no_credential: "Missing Authorization header",
  invalid_token: "Invalid API key",
  malformed_credential: "Invalid Authorization format or NIP-98 event",
  ambiguous_credential: "Invalid Authorization format: more than one credential",
  scheme_refused: "API keys cannot access this endpoint",
  insufficient_role: "Admin access required",
  not_registered: "This npub is not registered; ask an admin, or run `routstrd npubs register`",
  stale_proof: "NIP-98 timestamp is out of range",
  wrong_audience: "NIP-98 URL tag does not match the request, or its method tag does not",
  signature_invalid: "Invalid NIP-98 signature or payload tag",
  replayed: "NIP-98 replay: this event was used before",
  upstream_unreachable: "Upstream unreachable",
};

function routstrdBody(entry: ReasonEntry, requestId: string): object {
  const error = ROUTSTRD_TEXTS[entry.public] ?? entry.detail;
  return { error, reason: entry.public, request_id: requestId };
}

/** Texts of rusty-valkey-forward-auth; what its clients show is `message`. */
const MESSAGE_TEXTS: Readonly<Partial<Record<Reason, string>>> = {
  no_credential: "missing token",
  invalid_token: "invalid token",
  malformed_credential: "missing token",
  insufficient_role: "admin privileges required",
};

function messageBody(entry: ReasonEntry, requestId: string): object {
  const message = MESSAGE_TEXTS[entry.public] ?? entry.detail;
  return { message, reason: entry.public, request_id: requestId };
}

/** RFC 9457. */
function problemBody(entry: ReasonEntry, requestId: string): object {
  return {
    type: `urn:gatehouse:reason:${entry.public}`,
    title: statusTitle(entry.status),
    status: entry.status,
    detail: entry.detail,
    reason: entry.public,
    request_id: requestId,
  };
}

const SHAPES: Readonly<Record<ErrorDialect, Shape>> = {
  problem: problemBody,
  openai: openaiBody,
  anthropic: anthropicBody,
  ollama: ollamaBody,
  dexto: dextoBody,
  anvil: anvilBody,
  routstrd: routstrdBody,
  message: messageBody,
};

/** The body of a refusal in one dialect. */
export function errorBody(dialect: ErrorDialect, entry: ReasonEntry, requestId: string): object {
  return SHAPES[dialect](entry, requestId);
}
