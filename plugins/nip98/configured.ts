/**
 * Makes the members that the configuration lists be there, and those that it listed earlier be gone.
 *
 * Invariant: nothing is written when nothing has to change, so a read-only file that is right is no error; the last
 * admin is kept, whatever the configuration says, and that is logged.
 */
import type { Clock, Log, MemberRecord } from "gatehouse";
import { npubOf, publicKey } from "./member-input.ts";
import type { AdminSeen } from "./members.ts";
import type { MembersPlace } from "./places.ts";

/** As the config has them: npub or hex. */
export interface ConfiguredMembers {
  readonly admins: readonly string[];
  readonly users: readonly string[];
}

/** What this needs. */
export interface ConfiguredParts {
  readonly place: MembersPlace;
  readonly seen: AdminSeen;
  readonly clock: Clock;
  readonly log: Log;
  /** A command may run without the service's environment: it adds what is listed and removes nobody. */
  readonly purpose: "serve" | "command";
}

/** @throws MemberError for a key that is none, or what the place throws */
export function ensureConfigured(configured: ConfiguredMembers, parts: ConfiguredParts): void {
  const { place, seen } = parts;
  const admins = new Set(configured.admins.map(publicKey));
  const users = new Set(configured.users.map(publicKey));
  const wanted = (): readonly Change[] =>
    changes(admins, users, place.table.list()).filter(
      ({ kind }) => kind !== "remove" || parts.purpose === "serve",
    );
  const isSettled = place.read(() => wanted().length === 0);
  if (!isSettled) {
    place.write(() => {
      // Additions come first, so that they count when it is asked who the last admin is.
      for (const change of wanted()) apply(change, parts);
    });
  }
  if (place.read(() => place.table.countAdmins()) > 0) seen.note();
}

type Change =
  | { readonly kind: "add"; readonly pubkey: string; readonly role: "admin" | "user" }
  | { readonly kind: "promote" | "remove"; readonly member: MemberRecord };

function changes(
  admins: ReadonlySet<string>,
  users: ReadonlySet<string>,
  list: readonly MemberRecord[],
): readonly Change[] {
  const present = new Map(list.map((member) => [member.pubkey, member]));
  const found: Change[] = [];
  for (const pubkey of admins) {
    const member = present.get(pubkey);
    if (member === undefined) found.push({ kind: "add", pubkey, role: "admin" });
    else if (member.role === "user") found.push({ kind: "promote", member });
  }
  for (const pubkey of users) {
    if (!present.has(pubkey)) found.push({ kind: "add", pubkey, role: "user" });
  }
  // Newest first: should one have to stay, it is the oldest.
  for (const member of list.toReversed()) {
    const isListed = admins.has(member.pubkey) || users.has(member.pubkey);
    if (member.source === "config" && !isListed) found.push({ kind: "remove", member });
  }
  return found;
}

function apply(change: Change, parts: ConfiguredParts): void {
  const { place, log } = parts;
  if (change.kind === "add") {
    const { pubkey, role } = change;
    const npub = npubOf(pubkey);
    const createdAtMs = parts.clock.nowMs();
    const source = place.configSource;
    place.table.insert({ pubkey, npub, name: null, role, createdAtMs, createdBy: null, source });
    log.info("member.added", { npub, role, source: "config" });
    return;
  }
  const { pubkey, npub, role } = change.member;
  if (change.kind === "promote") {
    // routstrd-auth does not promote a user whom its environment lists; a drop-in must not either.
    if (place.configSource === "env") log.warn("member.not_promoted", { npub });
    else place.table.setRole(pubkey, "admin");
    return;
  }
  if (role === "admin" && place.table.countAdmins() === 1) {
    log.warn("member.last_admin_kept", { npub });
    return;
  }
  place.table.remove(pubkey);
  log.warn("member.removed", { npub, role, source: "config" });
}
