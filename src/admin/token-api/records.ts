/**
 * Tokens as the API shows them.
 *
 * Invariant: no field holds a secret; the one answer that does is `issuedJson`.
 */
import type { IssuedToken, TokenRecord } from "../../contract/tokens.ts";
import type { IssuedJson, TokenJson } from "./schemas.ts";

/** `state` is judged at `nowMs`. */
export function tokenJson(record: TokenRecord, nowMs: number): TokenJson {
  return {
    id: record.id,
    description: record.name === "" ? null : record.name,
    name: record.name,
    sub: record.owner,
    role: record.role,
    scopes: [...record.scopes],
    state: stateOf(record, nowMs),
    created_at: new Date(record.createdAtMs).toISOString(),
    created_by: record.createdBy,
    expires_at: timeOrNull(record.expiresAtMs),
    not_before: timeOrNull(record.notBeforeMs),
    last_used_at: timeOrNull(record.lastUsedAtMs),
    grace_until: timeOrNull(record.graceUntilMs),
    revoked_at: timeOrNull(record.revokedAtMs),
    foreign: record.foreign,
  };
}

/** With the secret. */
export function issuedJson({ token, record }: IssuedToken, nowMs: number): IssuedJson {
  return { token, ...tokenJson(record, nowMs) };
}

function stateOf(record: TokenRecord, nowMs: number): TokenJson["state"] {
  if (record.revokedAtMs !== null) return "revoked";
  if (record.expiresAtMs !== null && nowMs >= record.expiresAtMs) return "expired";
  if (record.notBeforeMs !== null && nowMs < record.notBeforeMs) return "not_yet_valid";
  return "active";
}

function timeOrNull(ms: number | null): string | null {
  return ms === null ? null : new Date(ms).toISOString();
}
