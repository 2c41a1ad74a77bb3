/**
 * Our own answers: a reason becomes status, headers and a body in the dialect of the route.
 *
 * Invariant: a refusal always names its public reason and the request id, and never a credential, an internal host
 * name or a stack. The header `x-gatehouse-reason` tells ours from the upstream's, which never carries it.
 */
import type { ErrorDialect } from "./config/model.ts";
import type { Challenge } from "./contract/plugin.ts";
import { REASONS, type Reason, type ReasonEntry, statusTitle } from "./reasons.ts";
import type { Reply } from "./wire/exchange.ts";

/** What a refusal is made of. */
export interface Refusal {
  readonly reason: Reason;
  readonly requestId: string;
  readonly dialect: ErrorDialect;
  /** For 401 and for Bearer errors: what the route's strategies advertise, in config order. */
  readonly challenges: readonly Challenge[];
  /** For `insufficient_scope`: what is needed. */
  readonly scopes?: readonly string[];
  /** CORS lines of the route, so that a page can read the refusal. */
  readonly extraFields?: string;
  readonly method: string;
  /** Instead of the reason's own, for a reader that does not understand it. */
  readonly status?: number;
  /** The connection cannot be used again. */
  readonly close?: boolean;
}

const encoder = new TextEncoder();

/** The reply to a refused request. */
export function refuse(refusal: Refusal): Reply {
  const known = REASONS[refusal.reason];
  const entry = refusal.status === undefined ? known : { ...known, status: refusal.status };
  const body = encoder.encode(`${JSON.stringify(bodyOf(entry, refusal))}\n`);
  const type = refusal.dialect === "problem" ? "application/problem+json" : "application/json";
  let fields = `Date: ${httpDate()}\r\nContent-Type: ${type}\r\nCache-Control: no-store\r\n`;
  fields += `X-Request-Id: ${refusal.requestId}\r\nX-Gatehouse-Reason: ${entry.public}\r\n`;
  fields += challengeFields(entry, refusal);
  if (known.status === 503) fields += "Retry-After: 5\r\n";
  fields += refusal.extraFields ?? "";
  const isHead = refusal.method === "HEAD";
  if (isHead) fields += `Content-Length: ${body.length}\r\n`;
  return {
    status: entry.status,
    reason: statusTitle(entry.status),
    fields,
    body: isHead ? null : body,
    close: refusal.close === true,
  };
}

function bodyOf(entry: ReasonEntry, refusal: Refusal): object {
  if (refusal.dialect === "openai") return openaiBody(entry, refusal.requestId);
  if (refusal.dialect === "anthropic") return anthropicBody(entry, refusal.requestId);
  if (refusal.dialect === "routstrd") return routstrdBody(entry, refusal.requestId);
  return {
    type: `urn:gatehouse:reason:${entry.public}`,
    title: statusTitle(entry.status),
    status: entry.status,
    detail: entry.detail,
    reason: entry.public,
    request_id: refusal.requestId,
  };
}

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

/** RFC 9110 section 11.6.1 and RFC 6750 section 3: one line a scheme; no error code when no credential came. */
function challengeFields(entry: ReasonEntry, refusal: Refusal): string {
  if (entry.status !== 401 && entry.bearerError === undefined) return "";
  let lines = "";
  // RFC 9110 section 15.5.2: a 401 has at least one challenge, also where no strategy of the route offers any.
  const isBare = entry.status === 401 && refusal.challenges.length === 0;
  for (const challenge of isBare ? [{ scheme: "Gatehouse" }] : refusal.challenges) {
    const parameters = [`realm="gatehouse"`];
    for (const [name, value] of Object.entries(challenge.parameters ?? {})) {
      parameters.push(`${name}=${quoted(value)}`);
    }
    if (challenge.scheme.toLowerCase() === "bearer" && entry.bearerError !== undefined) {
      parameters.push(`error="${entry.bearerError}"`);
      if (refusal.scopes?.length) parameters.push(`scope=${quoted(refusal.scopes.join(" "))}`);
    }
    lines += `WWW-Authenticate: ${challenge.scheme} ${parameters.join(", ")}\r\n`;
  }
  return lines;
}

function quoted(value: string): string {
  return `"${value.replace(/[^\x20-\x7e]/g, "").replace(/["\\]/g, "\\$&")}"`;
}

/** A small answer of our own that is no refusal: health, preflight. `body` is plain text. */
export function answer(status: number, fields: string, body: string | null): Reply {
  const title = status === 204 ? "No Content" : "OK";
  const type = body === null ? "" : "Content-Type: text/plain; charset=utf-8\r\n";
  return {
    status,
    reason: title,
    fields: `Date: ${httpDate()}\r\n${type}${fields}`,
    body: body === null ? null : encoder.encode(body),
  };
}

/** The shape of errors on a path when the route does not say: by the well-known paths of the two APIs. */
export function dialectOf(path: string, hasAnthropicVersion: boolean): ErrorDialect {
  if (!path.startsWith("/v1/")) return "problem";
  if (hasAnthropicVersion || /^\/v1\/(?:messages|complete)(?:\/|$)/.test(path)) return "anthropic";
  return OPENAI_PATH.test(path) ? "openai" : "problem";
}

const OPENAI_PATH =
  /^\/v1\/(?:chat|completions|responses|embeddings|models|images|audio|files|uploads|batches|moderations|fine_tuning|assistants|threads|vector_stores|realtime|rerank|videos|conversations|containers|evals)(?:\/|$)/;

let dateText = "";
let dateSecond = 0;

/** RFC 9110 section 6.6.1; formatted once a second. */
function httpDate(): string {
  const now = Date.now();
  const second = Math.floor(now / 1000);
  if (second !== dateSecond) {
    dateSecond = second;
    dateText = new Date(now).toUTCString();
  }
  return dateText;
}
