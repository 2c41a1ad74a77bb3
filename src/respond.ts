/**
 * Our own answers: a reason becomes status, headers and a body in the dialect of the route.
 *
 * Invariant: a refusal always names its public reason and the request id, and never a credential, an internal host
 * name or a stack. The header `x-gatehouse-reason` tells ours from the upstream's, which never carries it.
 */
import type { ErrorDialect } from "./config/model.ts";
import type { Challenge } from "./contract/plugin.ts";
import { errorBody } from "./dialects.ts";
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
  /** All challenges on one line (RFC 9110 section 11.6.1 allows it), for a reader that keeps one line. */
  readonly hasOneChallengeLine?: boolean;
  /** The connection cannot be used again. */
  readonly close?: boolean;
}

const encoder = new TextEncoder();

/** The reply to a refused request. */
export function refuse(refusal: Refusal): Reply {
  const known = REASONS[refusal.reason];
  const entry = refusal.status === undefined ? known : { ...known, status: refusal.status };
  const body = encoder.encode(
    `${JSON.stringify(errorBody(refusal.dialect, entry, refusal.requestId))}\n`,
  );
  const type = refusal.dialect === "problem" ? "application/problem+json" : "application/json";
  let fields = `${dateField()}Content-Type: ${type}\r\nCache-Control: no-store\r\n`;
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

/** RFC 9110 section 11.6.1: one line a scheme, unless the reader keeps only one. */
function challengeFields(entry: ReasonEntry, refusal: Refusal): string {
  if (entry.status !== 401 && entry.bearerError === undefined) return "";
  // RFC 9110 section 15.5.2: a 401 has at least one challenge, also where no strategy of the route offers any.
  const isBare = entry.status === 401 && refusal.challenges.length === 0;
  const offered = isBare ? [{ scheme: "Gatehouse" }] : refusal.challenges;
  const texts = offered.map((challenge) => challengeText(challenge, entry, refusal));
  const lines = refusal.hasOneChallengeLine && texts.length > 0 ? [texts.join(", ")] : texts;
  return lines.map((line) => `WWW-Authenticate: ${line}\r\n`).join("");
}

/** RFC 6750 section 3: no error code when no credential came. */
function challengeText(
  { scheme, parameters: own = {} }: Challenge,
  { bearerError }: ReasonEntry,
  { scopes = [] }: Refusal,
): string {
  const parameters = [`realm="gatehouse"`];
  for (const [name, value] of Object.entries(own)) parameters.push(`${name}=${quoted(value)}`);
  if (scheme.toLowerCase() === "bearer" && bearerError !== undefined) {
    parameters.push(`error="${bearerError}"`);
    if (scopes.length > 0) parameters.push(`scope=${quoted(scopes.join(" "))}`);
  }
  return `${scheme} ${parameters.join(", ")}`;
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
    fields: dateField() + type + fields,
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

let dateLine = "";
let dateSecond = 0;

/** RFC 9110 section 6.6.1; formatted once a second. */
function dateField(): string {
  const now = Date.now();
  const second = Math.floor(now / 1000);
  if (second !== dateSecond) {
    dateSecond = second;
    dateLine = `Date: ${new Date(now).toUTCString()}\r\n`;
  }
  return dateLine;
}
