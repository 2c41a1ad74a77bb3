/**
 * Whose client is whose, and how its id is stored and shown.
 *
 * Invariant: a client with an owner belongs to that npub and to nobody else. The end of the id decides only for
 * clients from before owners were stored, and only while one registered member alone could be meant: seven
 * characters can be ground out in hours.
 */
import type { ClientEntry } from "./client-list.ts";

/** How many characters of an npub are in the id of a client. */
const SUFFIX_LENGTH = 7;

/** What the stored ids of a member's clients end with, after a `-`. */
export function suffixOf(npub: string): string {
  return npub.slice(-SUFFIX_LENGTH);
}

/** @param members registered npubs in lower case; null when they are not known */
export function isOwnClient(
  { clientId, ownerNpub }: Pick<ClientEntry, "clientId" | "ownerNpub">,
  npub: string,
  members: ReadonlySet<string> | null,
): boolean {
  if (ownerNpub !== null) return ownerNpub === npub;
  const suffix = suffixOf(npub);
  if (members === null || !members.has(npub) || !clientId.endsWith(`-${suffix}`)) return false;
  let count = 0;
  for (const member of members) if (member.endsWith(suffix)) count += 1;
  return count === 1;
}

/** The id under which the daemon keeps a member's client; null when nothing of `id` can be used. */
export function storedId(id: string, suffix: string): string | null {
  const sanitised = id
    .toLowerCase()
    .replaceAll(/\s+/g, "-")
    .replaceAll(/[^a-z0-9-]/g, "");
  return sanitised === "" ? null : `${sanitised}-${suffix}`;
}

/** The id as its member knows it. */
export function shownId(stored: string, suffix: string): string {
  return stored.endsWith(`-${suffix}`) ? stored.slice(0, -suffix.length - 1) : stored;
}
