/**
 * What one strategy says about one request, and who was proven.
 *
 * Invariant: an outcome is a value. The fifth possibility, a fault (store down, bug), is a throw and fails
 * closed with 503; it is never turned into "ask the next strategy".
 */

/** What an identity may do on the routes that ask for a role. */
export type Role = "admin" | "user";

/** Who was proven. Everything here may appear in logs and in headers to the upstream; nothing is a secret. */
export interface Identity {
  /** Stable and unique within its strategy: a token id, a public key, an issuer's subject. */
  readonly id: string;
  /** Defaults to `user`. */
  readonly role?: Role;
  /** Human-readable label, for instance the token's name. */
  readonly name?: string;
  /** Who the credential belongs to, when that is not the id itself. */
  readonly owner?: string;
  /** Scopes in the sense of RFC 6749 section 3.3. Empty when absent. */
  readonly scopes?: readonly string[];
  /** Further facts for headers and policies; string values only. */
  readonly attributes?: Readonly<Record<string, string>>;
  /** Epoch milliseconds after which the proof is void; open streams end then. Absent: no end. */
  readonly expiresAtMs?: number;
}

/** Why a strategy refuses a credential of its own kind. Closed and stable: documented in docs/reasons.md. */
export type RejectReason =
  | "invalid_token"
  | "malformed_credential"
  | "ambiguous_credential"
  | "token_revoked"
  | "token_expired"
  | "token_not_yet_valid"
  | "signature_invalid"
  | "replayed"
  | "stale_proof"
  | "wrong_audience"
  | "not_registered";

/** Every {@link RejectReason}; the loader and the meta-test of reasons read it. */
export const REJECT_REASONS: readonly RejectReason[] = [
  "invalid_token",
  "malformed_credential",
  "ambiguous_credential",
  "token_revoked",
  "token_expired",
  "token_not_yet_valid",
  "signature_invalid",
  "replayed",
  "stale_proof",
  "wrong_audience",
  "not_registered",
];

/**
 * - `absent`: my kind of credential is not there; the next strategy is asked.
 * - `unknown`: it is there but not mine (an opaque bearer token that I do not hold); the next is asked,
 *   and if nobody accepts, the answer is 401 `invalid_token`.
 * - `accept`: proven.
 * - `reject`: mine and bad (expired, revoked, forged, replayed); the walk stops.
 *   `credentialId` is the public id of the refused credential for the log, never the credential.
 */
export type Outcome =
  | { readonly outcome: "absent" }
  | { readonly outcome: "unknown" }
  | { readonly outcome: "accept"; readonly identity: Identity }
  | {
      readonly outcome: "reject";
      readonly reason: RejectReason;
      readonly credentialId?: string;
    };

const SETTLED = new WeakSet<Identity>();

/**
 * An acceptance that may be given again and again, frozen with its identity: what follows from the identity alone is
 * then worked out once. For a credential that is the same for many requests; changes nothing else.
 */
export function accept(identity: Identity): Outcome {
  if (identity.scopes !== undefined) Object.freeze(identity.scopes);
  if (identity.attributes !== undefined) Object.freeze(identity.attributes);
  SETTLED.add(Object.freeze(identity));
  return Object.freeze({ outcome: "accept", identity });
}

/** Whether an identity came from {@link accept} and can never change. */
export function isSettled(identity: Identity): boolean {
  return SETTLED.has(identity);
}

/** Shared instances, so that the hot path allocates nothing for the two commonest answers. */
export const ABSENT: Outcome = Object.freeze({ outcome: "absent" });
/** @see ABSENT */
export const UNKNOWN: Outcome = Object.freeze({ outcome: "unknown" });
