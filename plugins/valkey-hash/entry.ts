/**
 * One token as it lies in Valkey, and what it comes to. Pure: no connection, no clock.
 *
 * Invariant: the first three fields are those of rusty-valkey-forward-auth and mean the same to it; it ignores the
 * others. What cannot be read fails closed. Times are half open: a token holds from `notBeforeMs` on and until just
 * before `expiresAtMs`.
 */
import {
  accept,
  type Identity,
  type Outcome,
  type RejectReason,
  type Role,
  type TokenRecord,
} from "gatehouse";
import type { Hash } from "./hash.ts";

/** In the order in which they are asked for. */
export const FIELDS = [
  "sub",
  "created_at",
  "description",
  "id",
  "role",
  "scopes",
  "expires_at",
  "not_before",
  "created_by",
  "foreign",
  "generation",
  "previous",
  "next",
  "state",
] as const;

/** Subject of tokens that belong to nobody. The original cannot keep a token without one. */
export const NOBODY = "gatehouse:nobody";

/** One token. Times are epoch milliseconds, `null` when not set. */
export interface Entry {
  readonly hash: Hash;
  readonly id: string;
  readonly sub: string;
  readonly createdAtMs: number;
  readonly name: string;
  readonly role: Role;
  readonly scopes: readonly string[];
  readonly expiresAtMs: number | null;
  readonly notBeforeMs: number | null;
  readonly createdBy: string | null;
  readonly foreign: boolean;
  /** How many times it was rotated. */
  readonly generation: number;
  /** The entry of the secret before, if it may still be there. */
  readonly previous: Hash | null;
  /** The entry of the secret that follows, or would if its rotation had come to its end. */
  readonly next: Hash | null;
  /**
   * `new` while the rotation that makes it is not over: nobody has its secret yet. `old` after the one that ended it. Of
   * the entries of an id at most one is neither, and only that one can be rotated.
   */
  readonly state: "current" | "new" | "old";
  /** When Valkey will drop the key. */
  readonly goneAtMs: number | null;
}

/** What the fields of a key come to. `broken` is there but is no token. */
export type ReadEntry =
  | { readonly kind: "entry"; readonly entry: Entry }
  | { readonly kind: "none" }
  | { readonly kind: "broken" };

type Field = (typeof FIELDS)[number];

/** @param ttlMs as PTTL says: -1 without an end, -2 when there is no such key */
export function readEntry(
  hash: Hash,
  values: readonly (string | null)[],
  { ttlMs, nowMs }: { readonly ttlMs: number; readonly nowMs: number },
): ReadEntry {
  if (ttlMs === -2) return { kind: "none" };
  const of = (field: Field): string | null => values[FIELDS.indexOf(field)] ?? null;
  const sub = of("sub");
  const expiresAtMs = timeOf(of("expires_at"));
  const notBeforeMs = timeOf(of("not_before"));
  if (sub === null || sub === "" || Number.isNaN(expiresAtMs) || Number.isNaN(notBeforeMs)) {
    return { kind: "broken" };
  }
  const entry: Entry = {
    hash,
    sub,
    expiresAtMs,
    notBeforeMs,
    id: of("id") ?? hash,
    createdAtMs: Date.parse(of("created_at") ?? "") || 0,
    name: of("description") ?? "",
    role: of("role") === "admin" ? "admin" : "user",
    scopes: (of("scopes") ?? "").split(" ").filter((scope) => scope !== ""),
    createdBy: of("created_by"),
    foreign: of("foreign") === "1",
    generation: Number(of("generation") ?? 0) || 0,
    previous: of("previous"),
    next: of("next"),
    state: stateOf(of("state")),
    goneAtMs: ttlMs < 0 ? null : nowMs + ttlMs,
  };
  return { kind: "entry", entry };
}

function stateOf(text: string | null): Entry["state"] {
  return text === "new" || text === "old" ? text : "current";
}

/** NaN when there is something that is no time: a token must not become everlasting by a typing error. */
function timeOf(text: string | null): number | null {
  if (text === null || text === "") return null;
  // Years after 9999 have a sign and six digits.
  return /^(?:\d{4}|\+\d{6})-\d\d-\d\dT/.test(text) ? Date.parse(text) : Number.NaN;
}

/** Field and value in turn, for HSET. */
export function toFields(entry: Entry): string[] {
  const isoOrNull = (ms: number | null): string | null =>
    ms === null ? null : new Date(ms).toISOString();
  const values: Record<Field, string | null> = {
    sub: entry.sub,
    created_at: new Date(entry.createdAtMs).toISOString(),
    description: entry.name,
    id: entry.id === entry.hash ? null : entry.id,
    role: entry.role === "user" ? null : entry.role,
    scopes: entry.scopes.length === 0 ? null : entry.scopes.join(" "),
    expires_at: isoOrNull(entry.expiresAtMs),
    not_before: isoOrNull(entry.notBeforeMs),
    created_by: entry.createdBy,
    foreign: entry.foreign ? "1" : null,
    generation: entry.generation === 0 ? null : String(entry.generation),
    previous: entry.previous,
    next: entry.next,
    state: entry.state === "current" ? null : entry.state,
  };
  return FIELDS.flatMap((field) => {
    const value = values[field];
    return value === null ? [] : [field, value];
  });
}

/** Why a token does not hold now; `null` when it does. */
export function standing(
  entry: Pick<Entry, "expiresAtMs" | "notBeforeMs" | "goneAtMs" | "next">,
  nowMs: number,
): RejectReason | null {
  if (entry.expiresAtMs !== null && nowMs >= entry.expiresAtMs) return "token_expired";
  if (entry.goneAtMs !== null && nowMs >= entry.goneAtMs) {
    return entry.next === null ? "token_expired" : "invalid_token";
  }
  if (entry.notBeforeMs !== null && nowMs < entry.notBeforeMs) return "token_not_yet_valid";
  return null;
}

/** The answer about a token at a time when nothing stands against it. */
export function accepted(entry: Entry): Outcome {
  const { id, role, scopes, sub, name, hash } = entry;
  const expiresAtMs = earlier(entry.expiresAtMs, entry.goneAtMs);
  const identity: Identity = {
    id: /^[\x21-\x7e]{1,200}$/.test(id) ? id : hash,
    role,
    scopes,
    attributes: { token_hash: hash },
    ...(sub === NOBODY ? {} : { owner: sub }),
    ...(name === "" ? {} : { name }),
    ...(expiresAtMs === null ? {} : { expiresAtMs }),
  };
  return accept(identity);
}

/** Beside the entry itself: when it was last used and how long the secret before still works. */
export interface Surroundings {
  readonly lastUsedAtMs: number | null;
  readonly graceUntilMs: number | null;
}

/** The token as it may be shown. */
export function toRecord(entry: Entry, { lastUsedAtMs, graceUntilMs }: Surroundings): TokenRecord {
  return {
    id: entry.id,
    name: entry.name,
    owner: entry.sub === NOBODY ? null : entry.sub,
    role: entry.role,
    scopes: entry.scopes,
    createdAtMs: entry.createdAtMs,
    createdBy: entry.createdBy,
    expiresAtMs: entry.expiresAtMs,
    notBeforeMs: entry.notBeforeMs,
    lastUsedAtMs,
    revokedAtMs: null,
    revokedReason: null,
    graceUntilMs,
    foreign: entry.foreign,
  };
}

function earlier(a: number | null, b: number | null): number | null {
  if (a === null || b === null) return a ?? b;
  return Math.min(a, b);
}
