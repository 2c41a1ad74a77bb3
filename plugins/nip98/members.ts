/**
 * Who is registered: the member-keeping side of the strategy, over either place.
 *
 * Invariant: every change is checked and made in one transaction, so of two processes one sees what the other did:
 * the last admin stays, one key is one member, and the first admin is added once, ever.
 */
import type { Database } from "bun:sqlite";
import {
  type Clock,
  type MemberDraft,
  MemberError,
  type MemberRecord,
  type MemberStore,
  type Role,
} from "gatehouse";
import { memberName, memberRole, npubOf, publicKey } from "./member-input.ts";
import type { Member } from "./members-table.ts";
import type { MembersPlace } from "./places.ts";

/** The store of the contract, and what the strategy and its surface need besides. */
export interface Members extends MemberStore {
  /** On the way of a request; `pubkey` is 64 lower-case hex digits. */
  find(pubkey: string): Member | null | Promise<Member | null>;
  isEmpty(): boolean;
  /** Whether there is an admin or has ever been one. */
  hasHadAdmin(): boolean;
  /** Adds the first admin, `null` when there is or was one by now. @throws MemberError */
  addFirst(draft: MemberDraft): MemberRecord | null;
  /** Idempotent. */
  close(): void;
}

/** Remembers, beside the members, that there has been an admin. */
export interface AdminSeen {
  has(): boolean;
  note(): void;
  /** Idempotent. */
  close(): void;
}

/** In the state database, also when members live elsewhere. */
export function openAdminSeen(database: Database, strategy: string, clock: Clock): AdminSeen {
  const get = database.prepare<{ seen_at: number }, [string]>(
    "SELECT seen_at FROM nip98_admin_seen WHERE strategy = ?",
  );
  const put = database.prepare<null, [string, number]>(
    "INSERT OR IGNORE INTO nip98_admin_seen (strategy, seen_at) VALUES (?, ?)",
  );
  // Once true it stays true, so it is asked for until then and never again.
  let isSeen = false;
  return {
    has() {
      isSeen ||= get.get(strategy) !== null;
      return isSeen;
    },
    note() {
      if (isSeen) return;
      put.run(strategy, clock.nowMs());
      isSeen = true;
    },
    close() {
      get.finalize();
      put.finalize();
    },
  };
}

/** @throws what the place throws */
export function openMembers(place: MembersPlace, seen: AdminSeen, clock: Clock): Members {
  const { table } = place;

  function insert(draft: MemberDraft, role: Role): MemberRecord {
    const pubkey = publicKey(draft.key);
    const name = memberName(draft.name);
    if (table.record(pubkey) !== null) {
      throw new MemberError("conflict", `${npubOf(pubkey)} is registered already`);
    }
    const { createdBy = null } = draft;
    const source = spelled(draft.source, place.configSource);
    const member = { pubkey, npub: npubOf(pubkey), name, role, createdBy, source };
    table.insert({ ...member, createdAtMs: clock.nowMs() });
    // Before the commit: should that fail, the door is closed and nobody is in, which the command line can mend.
    if (role === "admin") seen.note();
    return required(table.record(pubkey));
  }

  function hasHadAdmin(): boolean {
    if (seen.has()) return true;
    if (table.countAdmins() === 0) return false;
    seen.note();
    return true;
  }

  function keepsAnAdmin(current: MemberRecord): void {
    if (current.role === "admin" && table.countAdmins() === 1) {
      throw new MemberError("last_admin", "the last admin can be neither removed nor demoted");
    }
  }

  return {
    find: (pubkey) => place.find(pubkey),
    isEmpty: () => place.read(() => table.count() === 0),
    hasHadAdmin: () => place.read(hasHadAdmin),
    list: () => place.read(() => table.list()),
    get: (key) => place.read(() => table.record(publicKey(key))),
    add: (draft) => place.write(() => insert(draft, memberRole(draft.role ?? "user"))),
    addFirst: (draft) => place.write(() => (hasHadAdmin() ? null : insert(draft, "admin"))),
    update(key, change) {
      const pubkey = publicKey(key);
      const name = change.name === undefined ? undefined : memberName(change.name);
      const role = change.role === undefined ? undefined : memberRole(change.role);
      return place.write(() => {
        const current = table.record(pubkey);
        if (current === null) {
          throw new MemberError("not_found", `${npubOf(pubkey)} is not registered`);
        }
        if (role === "user") keepsAnAdmin(current);
        if (role === "admin") seen.note();
        if (role !== undefined) table.setRole(pubkey, role);
        if (name !== undefined) table.setName(pubkey, name);
        return required(table.record(pubkey));
      });
    },
    remove(key) {
      const pubkey = publicKey(key);
      return place.write(() => {
        const current = table.record(pubkey);
        if (current === null) return false;
        keepsAnAdmin(current);
        return table.remove(pubkey);
      });
    },
    close() {
      seen.close();
      place.close();
    },
  };
}

/** routstrd's table knows two words: `env`, and `api` for everything that somebody did. */
function spelled(source: string, configSource: MembersPlace["configSource"]): string {
  if (configSource === "config") return source;
  return source === "config" ? configSource : "api";
}

function required(record: MemberRecord | null): MemberRecord {
  if (record === null) throw new Error("the member that was just written is not there");
  return record;
}
