/**
 * Puts the parts together: what a request asks, and what the operator is told.
 *
 * Invariant: a token is accepted only after its signature was checked with a key that the issuer publishes now, or
 * published when it could last be asked. Trouble with the issuer is thrown, never turned into an answer about a token.
 */
import {
  ABSENT,
  type AuthRequest,
  type Condition,
  type Host,
  type Identity,
  type Outcome,
  readCredential,
  type StrategyInstance,
  UNKNOWN,
} from "gatehouse";
import { jwtVerify } from "jose";
import { identify } from "./identity.ts";
import { openIssuer } from "./issuer.ts";
import type { JsonObject } from "./json.ts";
import { type KeyRing, openKeyRing } from "./key-ring.ts";
import { candidates, type VerificationKey } from "./key-set.ts";
import { audiencesOf, milliseconds, type Settings } from "./settings.ts";
import { isFrom, readToken, type UnverifiedToken } from "./token.ts";
import { digestOf, openVerified, type Verified, type VerifiedTokens } from "./verified.ts";
import {
  type Flaw,
  FORGED,
  flawOf,
  isFlaw,
  judgeHeader,
  judgeTimes,
  judgeUse,
  type KeyHint,
  NO_KEY,
  NO_SUBJECT,
  NOT_IN_GROUPS,
  type Rules,
  type Span,
} from "./verify.ts";

/**
 * By which rules an identity was proven. Beside the instances, because after a reload the next one is asked about what the
 * one before let in.
 */
const RULES_OF = new WeakMap<Identity, string>();

/** What the way of a request needs. */
interface Parts {
  readonly host: Host;
  readonly settings: Settings;
  readonly rules: Rules;
  /** Differs where other tokens are accepted, or another identity follows from them. */
  readonly rulesText: string;
  /** `null`: any. */
  readonly audiences: string[] | null;
  readonly ring: KeyRing;
  readonly verified: VerifiedTokens;
}

/** The keys are fetched in the background: the gateway starts although the issuer is down. */
export function createStrategy(settings: Settings, host: Host): StrategyInstance {
  const ending = new AbortController();
  const ring = openRing(settings, host, AbortSignal.any([ending.signal, host.signal]));
  const parts: Parts = {
    host,
    settings,
    rules: rulesOf(settings),
    rulesText: rulesTextOf(settings),
    audiences: audiencesOf(settings),
    ring,
    verified: openVerified(),
  };
  if (host.purpose === "serve") ring.start();
  return {
    authenticate: (request) => authenticate(parts, request),
    isCurrent: (identity) => isCurrent(parts, identity),
    // Its keys would be fetched anew, and the issuer may be down just now.
    isKeptOnReload: true,
    challenges: () => [{ scheme: "Bearer" }],
    credentialHeaders: ["authorization"],
    health: () => [...ring.health(), ...looseness(parts)],
    close() {
      ring.close();
      ending.abort();
    },
  };
}

function openRing(settings: Settings, host: Host, signal: AbortSignal): KeyRing {
  const { issuer, algorithms, jwks_url: jwksUrl } = settings;
  const timeoutMs = milliseconds(settings.timeout);
  return openKeyRing({
    fetchKeys: openIssuer({ issuer, jwksUrl, timeoutMs, host, signal }),
    algorithms,
    clock: host.clock,
    log: host.log,
    refreshMs: milliseconds(settings.refresh),
    refetchIntervalMs: milliseconds(settings.refetch_interval),
    keepMs: milliseconds(settings.keep_keys),
  });
}

function rulesOf(settings: Settings): Rules {
  const claims = Object.entries(settings.require_claims).map(
    ([path, wanted]) => [path, typeof wanted === "string" ? [wanted] : wanted] as const,
  );
  return {
    algorithms: settings.algorithms,
    isAccessTokenOnly: settings.token_type === "at+jwt",
    leewayMs: milliseconds(settings.leeway),
    claims,
  };
}

/** All settings but those that say how often and how long the issuer is asked. */
function rulesTextOf(settings: Settings): string {
  const { refresh, refetch_interval, keep_keys, timeout, ...rules } = settings;
  return JSON.stringify(rules);
}

function authenticate(parts: Parts, request: AuthRequest): Outcome | Promise<Outcome> {
  const credential = readCredential(request, {});
  switch (credential.found) {
    case "none":
      return ABSENT;
    case "malformed":
      return { outcome: "reject", reason: "malformed_credential" };
    case "ambiguous":
      return { outcome: "reject", reason: "ambiguous_credential" };
    case "one":
      return answer(parts, credential.value, request);
  }
}

function answer(parts: Parts, text: string, request: AuthRequest): Outcome | Promise<Outcome> {
  const digest = digestOf(text);
  return warm(parts, digest) ?? cold(parts, { text, digest }, request);
}

/** The answer to a token that was verified before, if it still is one. */
function warm({ host, ring, verified }: Parts, digest: string): Outcome | null {
  const held = verified.find(digest);
  if (held === undefined) return null;
  const nowMs = host.clock.nowMs();
  const holds = nowMs >= held.fromMs && nowMs < held.untilMs && ring.has(held.keyId);
  if (holds) return held.outcome;
  verified.drop(digest);
  return null;
}

interface Presented {
  readonly text: string;
  readonly digest: string;
}

/** Cheap questions first, the signature last. */
function cold(
  parts: Parts,
  { text, digest }: Presented,
  request: AuthRequest,
): Outcome | Promise<Outcome> {
  const token = readToken(text);
  if (token === null || !isFrom(token, parts.settings.issuer)) return UNKNOWN;
  const hint = judgeHeader(token, parts.rules);
  if (isFlaw(hint)) return refuse(parts, request, hint);
  const span = judgeTimes(token.claims, parts.host.clock.nowMs(), parts.rules);
  if (isFlaw(span)) return refuse(parts, request, span);
  return verify(parts, { token, digest, hint, span }, request);
}

/** A token that nothing stands against but that nobody has vouched for. */
interface Attempt {
  readonly token: UnverifiedToken;
  readonly digest: string;
  readonly hint: KeyHint;
  readonly span: Span;
}

async function verify(parts: Parts, attempt: Attempt, request: AuthRequest): Promise<Outcome> {
  const proven = await prove(parts, attempt);
  if (isFlaw(proven)) return refuse(parts, request, proven);
  const { claims, keyId } = proven;
  const misuse = judgeUse(claims, parts.rules);
  if (misuse !== null) return refuse(parts, request, misuse);
  const { fromMs, untilMs } = attempt.span;
  const found = identify(claims, parts.settings, { expiresAtMs: untilMs, keyId });
  if (found.kind === "no_subject") return refuse(parts, request, NO_SUBJECT);
  if (found.kind === "not_in_groups") return refuse(parts, request, NOT_IN_GROUPS, found.id);
  RULES_OF.set(found.identity, parts.rulesText);
  const outcome: Outcome = { outcome: "accept", identity: found.identity };
  const verified: Verified = { outcome, keyId, fromMs, untilMs };
  parts.verified.keep(attempt.digest, verified);
  return outcome;
}

/** What a signature has proven. */
interface Proven {
  readonly claims: JsonObject;
  readonly keyId: string;
}

/** Tries the keys that fit. A token that names none gets another try when there are other keys. */
async function prove(parts: Parts, { token, hint }: Attempt): Promise<Proven | Flaw> {
  const tried = new Set<string>();
  for (;;) {
    const keys = await parts.ring.find((set) => {
      const fitting = candidates(set, hint).filter(({ id }) => !tried.has(id));
      return fitting.length === 0 ? null : fitting;
    });
    if (keys === null) return tried.size === 0 ? NO_KEY : FORGED;
    for (const key of keys) {
      const proven = await proveWith(parts, { token, hint, key });
      if (!isFlaw(proven) || proven !== FORGED) return proven;
      tried.add(key.id);
    }
    if (hint.kid !== null) return FORGED;
  }
}

interface Trial {
  readonly token: UnverifiedToken;
  readonly hint: KeyHint;
  readonly key: VerificationKey;
}

async function proveWith(parts: Parts, { token, hint, key }: Trial): Promise<Proven | Flaw> {
  const { settings, audiences, host, rules } = parts;
  const cryptoKey = await key.cryptoKey(hint.alg);
  try {
    const { payload } = await jwtVerify(token.text, cryptoKey, {
      algorithms: [hint.alg],
      issuer: settings.issuer,
      requiredClaims: ["exp"],
      clockTolerance: rules.leewayMs / 1000,
      currentDate: new Date(host.clock.nowMs()),
      ...(audiences === null ? {} : { audience: audiences }),
    });
    return { claims: payload, keyId: key.id };
  } catch (error) {
    const flaw = flawOf(error);
    // Its own errors hold the claims, so they go no further.
    if (flaw === null) throw new Error("the signature could not be checked");
    return flaw;
  }
}

/** The client is told the reason, the operator why. @param credentialId subject of a token that was verified */
function refuse(
  { host }: Parts,
  { requestId }: AuthRequest,
  { reason, why }: Flaw,
  credentialId?: string,
): Outcome {
  host.log.info("oidc.refused", { why, request_id: requestId });
  return { outcome: "reject", reason, ...(credentialId === undefined ? {} : { credentialId }) };
}

/**
 * An issuer that cannot be asked ends no stream; one that has withdrawn the key does. So do other rules: whether the
 * token would do by them cannot be told any more.
 */
function isCurrent({ ring, host, rulesText }: Parts, identity: Identity): boolean {
  if (RULES_OF.get(identity) !== rulesText) return false;
  const { attributes, expiresAtMs } = identity;
  if (expiresAtMs !== undefined && host.clock.nowMs() >= expiresAtMs) return false;
  return !ring.isWithdrawn(attributes?.key ?? "");
}

function looseness({ audiences, settings }: Parts): readonly Condition[] {
  if (audiences !== null) return [];
  return [
    {
      code: "audience_any",
      severity: "warning",
      text: `Every token of ${settings.issuer} is accepted, also one made for another service; set \`audience\`.`,
    },
  ];
}
