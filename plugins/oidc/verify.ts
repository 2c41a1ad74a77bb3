/**
 * What can be said about a token of our issuer before its signature is looked at, and what the signature check of
 * `jose` says.
 *
 * Invariant: everything here refuses; nothing here accepts. What an attacker writes into a header chooses nothing:
 * keys that a token brings or points to are not looked at, and an algorithm is only compared with the list.
 */
import type { RejectReason } from "gatehouse";
import { claimAt, isOneOf } from "./claims.ts";
import { type JsonObject, own } from "./json.ts";
import type { Algorithm } from "./settings.ts";
import type { UnverifiedToken } from "./token.ts";

/** Why a token is refused: for the client by `reason`, for the operator's log by `why`. Neither repeats the token. */
export interface Flaw {
  readonly reason: RejectReason;
  /** Stable snake_case, documented in docs/oidc.md. */
  readonly why: string;
}

/** What is asked of every token. */
export interface Rules {
  readonly algorithms: readonly Algorithm[];
  readonly isAccessTokenOnly: boolean;
  readonly leewayMs: number;
  readonly claims: readonly (readonly [path: string, wanted: readonly string[]])[];
}

/** When a token holds, in epoch milliseconds: from the first until just before the second. */
export interface Span {
  readonly fromMs: number;
  readonly untilMs: number;
}

/** What of a header chooses the key. */
export interface KeyHint {
  readonly alg: Algorithm;
  readonly kid: string | null;
}

/** Latest time that a date can be, in seconds. */
const MAX_SECONDS = 8_640_000_000_000;

const TYPES: ReadonlySet<string> = new Set(["jwt", "at+jwt"]);

const flaw = (why: string, reason: RejectReason = "invalid_token"): Flaw => ({ reason, why });

/** A flaw, or what of the header is used. */
export function judgeHeader(token: UnverifiedToken, rules: Rules): Flaw | KeyHint {
  const { header } = token;
  if (token.isAmbiguous) return flaw("name_twice");
  const alg = own(header, "alg");
  const known = rules.algorithms.find((name) => name === alg);
  if (known === undefined) return flaw("algorithm_not_accepted");
  // Extensions that must be understood (RFC 7515 section 4.1.11) would change what the rest means; b64 does anyway.
  if (Object.hasOwn(header, "crit") || Object.hasOwn(header, "b64")) return flaw("critical_header");
  if (!isAcceptedType(own(header, "typ"), rules)) return flaw("wrong_type");
  const kid = own(header, "kid");
  if (kid !== undefined && typeof kid !== "string") return flaw("malformed_key_id");
  return { alg: known, kid: kid ?? null };
}

/** RFC 8725 section 3.11: a token made for something else says so here, if its issuer is a careful one. */
function isAcceptedType(typ: unknown, { isAccessTokenOnly }: Rules): boolean {
  if (typ === undefined) return !isAccessTokenOnly;
  if (typeof typ !== "string") return false;
  const type = typ.toLowerCase().replace(/^application\//, "");
  return isAccessTokenOnly ? type === "at+jwt" : TYPES.has(type);
}

/** A flaw, or when the token holds. Asked before the signature: a token that is over needs no key to be refused. */
export function judgeTimes(claims: JsonObject, nowMs: number, { leewayMs }: Rules): Flaw | Span {
  const exp = own(claims, "exp");
  const nbf = own(claims, "nbf");
  if (exp === undefined) return flaw("no_expiry");
  if (!isDate(exp) || (nbf !== undefined && !isDate(nbf))) return flaw("malformed_time");
  const untilMs = Math.floor(exp * 1000) + leewayMs;
  const fromMs = nbf === undefined ? Number.NEGATIVE_INFINITY : Math.ceil(nbf * 1000) - leewayMs;
  if (nowMs >= untilMs) return flaw("expired", "token_expired");
  if (nowMs < fromMs) return flaw("not_yet_valid", "token_not_yet_valid");
  return { fromMs, untilMs };
}

function isDate(value: unknown): value is number {
  return typeof value === "number" && value >= 0 && value <= MAX_SECONDS;
}

/** What verified claims say about what the token is for; `null` when nothing is wrong. */
export function judgeUse(claims: JsonObject, rules: Rules): Flaw | null {
  // Bound to a key or a certificate (RFC 9449, RFC 8705) that a bearer does not show.
  if (Object.hasOwn(claims, "cnf")) return flaw("bound_token");
  // A message about an event (RFC 8417), such as a logout.
  if (Object.hasOwn(claims, "events")) return flaw("event_token");
  const isMissing = ([path, wanted]: (typeof rules.claims)[number]): boolean =>
    !isOneOf(claimAt(claims, path), wanted);
  return rules.claims.some(isMissing) ? flaw("claim_missing") : null;
}

/** No key of the issuer could have signed it. */
export const NO_KEY: Flaw = flaw("unknown_key");
/** The key that it names did not. */
export const FORGED: Flaw = flaw("signature_wrong", "signature_invalid");
/** A token of nobody. */
export const NO_SUBJECT: Flaw = flaw("no_subject");
/** A good token of somebody who may not come in here. */
export const NOT_IN_GROUPS: Flaw = flaw("not_in_groups", "not_registered");

/** The flaw behind an error of `jose`; `null` when it is not about the token. */
export function flawOf(error: unknown): Flaw | null {
  if (!(error instanceof Error) || !("code" in error)) return null;
  switch (error.code) {
    case "ERR_JWS_SIGNATURE_VERIFICATION_FAILED":
      return FORGED;
    case "ERR_JWT_EXPIRED":
      return flaw("expired", "token_expired");
    case "ERR_JWT_CLAIM_VALIDATION_FAILED":
      return claimFlaw("claim" in error ? error.claim : null);
    case "ERR_JWS_INVALID":
    case "ERR_JWT_INVALID":
    case "ERR_JOSE_ALG_NOT_ALLOWED":
      return flaw("malformed");
    default:
      return null;
  }
}

function claimFlaw(claim: unknown): Flaw {
  if (claim === "aud") return flaw("wrong_audience", "wrong_audience");
  if (claim === "nbf") return flaw("not_yet_valid", "token_not_yet_valid");
  return flaw(claim === "iat" ? "malformed_time" : "malformed");
}

/** Whether a judgement is a refusal. */
export function isFlaw(judged: object): judged is Flaw {
  return "why" in judged;
}
