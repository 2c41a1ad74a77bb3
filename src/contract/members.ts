/**
 * The optional member-keeping side of a strategy: who is registered by public key. What the command line calls, so
 * that it works on any strategy that knows members.
 *
 * Invariant: the last admin cannot be removed or demoted; whoever was removed is refused on the very next request.
 */
import type { Role } from "./outcome.ts";

/** A registered key. Times are epoch milliseconds. */
export interface MemberRecord {
  /** 64 lower-case hex digits. */
  readonly pubkey: string;
  readonly npub: string;
  readonly name: string | null;
  readonly role: Role;
  readonly createdAtMs: number;
  /** Public key of the admin who added it, `null` when nobody did (config, command line, first of all). */
  readonly createdBy: string | null;
  /** `api`, `cli` or `config`. */
  readonly source: string;
}

/** A mistake of the caller. */
export class MemberError extends Error {
  readonly code: "invalid" | "not_found" | "conflict" | "last_admin";
  constructor(code: MemberError["code"], message: string) {
    super(message);
    this.name = "MemberError";
    this.code = code;
  }
}

/** What a new member is made from. */
export interface MemberDraft {
  /** npub1… or 64 hex digits, any case. */
  readonly key: string;
  readonly role?: Role;
  /** At most 64 characters; blank means none. */
  readonly name?: string | null;
  readonly createdBy?: string | null;
  readonly source: string;
}

/** Implemented by a strategy instance that keeps members. Every call may throw {@link MemberError}. */
export interface MemberStore {
  /** Oldest first, then by npub. */
  list(): readonly MemberRecord[];
  get(key: string): MemberRecord | null;
  /** `conflict` when the key is registered already. */
  add(draft: MemberDraft): MemberRecord;
  /** Changes role, name or both; `null` clears the name. */
  update(
    key: string,
    change: { readonly role?: Role; readonly name?: string | null },
  ): MemberRecord;
  /** Whether there was one. */
  remove(key: string): boolean;
}
