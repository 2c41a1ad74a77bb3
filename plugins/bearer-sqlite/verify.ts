/**
 * From a stored token and the hash of what was presented to an outcome. Pure: no database, no clock.
 *
 * Invariant: the secret is compared first, in constant time; whoever does not have it learns nothing about the
 * token. Times are half open: a token holds from `notBeforeMs` on and until just before `expiresAtMs`.
 */
import { timingSafeEqual } from "node:crypto";
import { accept, type Identity, type Outcome, type RejectReason, type Role } from "gatehouse";

/** What decides about a token. Times are epoch milliseconds, `null` when not set. */
export interface StoredToken {
  readonly id: string;
  readonly name: string;
  readonly owner: string | null;
  readonly role: Role;
  /** Joined with single spaces; empty when there are none. */
  readonly scopes: string;
  readonly expiresAtMs: number | null;
  readonly notBeforeMs: number | null;
  readonly revokedAtMs: number | null;
  /** Keyed hash of the current secret; `null` while an imported token has not been rotated. */
  readonly digest: Uint8Array | null;
  /** Keyed hash of the secret before the last rotation, if it was of our own form. */
  readonly previousDigest: Uint8Array | null;
  readonly graceUntilMs: number | null;
  /** Until when an imported token works; `null` while it is the current secret. */
  readonly foreignUntilMs: number | null;
  /** How many times it was rotated. */
  readonly rotations: number;
}

/** Which secret of a token was presented, and until when that one works (`null`: no end of its own). */
interface Presented {
  readonly rotation: number;
  readonly untilMs: number | null;
}

/** Judges a token of our own form, found by its id. */
export function judgeOwn(token: StoredToken, digest: Uint8Array, nowMs: number): Outcome {
  // Both comparisons always run, so that the time does not tell which secret was close.
  const isCurrent = isEqual(token.digest, digest);
  const isPrevious = isEqual(token.previousDigest, digest);
  if (isCurrent) return judge(token, { rotation: token.rotations, untilMs: null }, nowMs);
  if (!isPrevious) return rejected(token, "invalid_token");
  return judge(token, { rotation: token.rotations - 1, untilMs: token.graceUntilMs ?? 0 }, nowMs);
}

/** Judges an imported token, found by the keyed hash of the whole of it. */
export function judgeForeign(token: StoredToken, nowMs: number): Outcome {
  const untilMs = token.foreignUntilMs;
  return judge(token, { rotation: untilMs === null ? token.rotations : 0, untilMs }, nowMs);
}

/** Whether a token by itself (apart from the secret) is good now; the reason when it is not. */
export function standing(
  token: Pick<StoredToken, "revokedAtMs" | "expiresAtMs" | "notBeforeMs">,
  nowMs: number,
): RejectReason | null {
  if (token.revokedAtMs !== null) return "token_revoked";
  if (token.expiresAtMs !== null && nowMs >= token.expiresAtMs) return "token_expired";
  if (token.notBeforeMs !== null && nowMs < token.notBeforeMs) return "token_not_yet_valid";
  return null;
}

/**
 * Whether an identity that was accepted earlier would be accepted now. A stream that was opened with a secret
 * which a rotation has ended must end, so the identity remembers how many rotations it has seen.
 */
export function isStillGood(token: StoredToken, identity: Identity, nowMs: number): boolean {
  if (standing(token, nowMs) !== null) return false;
  const missed = token.rotations - Number(identity.attributes?.rotation ?? Number.NaN);
  if (missed === 0) return true;
  return missed === 1 && token.graceUntilMs !== null && nowMs < token.graceUntilMs;
}

function judge(token: StoredToken, presented: Presented, nowMs: number): Outcome {
  if (presented.untilMs !== null && nowMs >= presented.untilMs) {
    return rejected(token, "invalid_token");
  }
  const reason = standing(token, nowMs);
  if (reason !== null) return rejected(token, reason);
  return acceptance(token, presented);
}

/** Answers that were given, as long as the row is kept in memory. */
const given = new WeakMap<
  StoredToken,
  { readonly presented: Presented; readonly outcome: Outcome }
>();

function acceptance(token: StoredToken, presented: Presented): Outcome {
  const before = given.get(token);
  const isSame =
    before?.presented.rotation === presented.rotation &&
    before.presented.untilMs === presented.untilMs;
  if (before !== undefined && isSame) return before.outcome;
  const expiresAtMs = earlier(token.expiresAtMs, presented.untilMs);
  const outcome = accept({
    id: token.id,
    role: token.role,
    scopes: token.scopes === "" ? [] : token.scopes.split(" "),
    attributes: { rotation: String(presented.rotation) },
    ...(token.name === "" ? {} : { name: token.name }),
    ...(token.owner === null ? {} : { owner: token.owner }),
    ...(expiresAtMs === null ? {} : { expiresAtMs }),
  });
  given.set(token, { presented, outcome });
  return outcome;
}

function rejected(token: StoredToken, reason: RejectReason): Outcome {
  return { outcome: "reject", reason, credentialId: token.id };
}

function earlier(a: number | null, b: number | null): number | null {
  if (a === null || b === null) return a ?? b;
  return Math.min(a, b);
}

function isEqual(stored: Uint8Array | null, presented: Uint8Array): boolean {
  return stored !== null && timingSafeEqual(stored, presented);
}
