/**
 * What people write about members, checked: public keys in either form, names, roles.
 *
 * Invariant: a key is always 64 lower-case hex digits inside; a name can be printed on a terminal, in a log line
 * and in a header without changing how the rest of it reads. No message repeats what was given, because it may be
 * a secret key pasted in the wrong place.
 */
import { MemberError, type Role } from "gatehouse";
import { decode, npubEncode } from "nostr-tools/nip19";

const MAX_NAME = 64;
/** An npub has 63 characters. */
const MAX_KEY_LENGTH = 100;

/** Control characters, line separators and everything that turns the direction of writing. */
const UNPRINTABLE =
  /[\u0000-\u001f\u007f-\u009f\u2028\u2029\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/;

/** The public key in `npub1…` or 64 hex digits, any case, trimmed. @throws MemberError `invalid` */
export function publicKey(text: string): string {
  const key = readPublicKey(text);
  if (key !== null) return key;
  const isSecret = /^\s*nsec1/i.test(text.slice(0, MAX_KEY_LENGTH));
  throw new MemberError(
    "invalid",
    isSecret
      ? "that is a secret key (nsec1…); give the public one (npub1…), and treat the secret one as known to others"
      : "expected a public key: npub1… or 64 hex digits",
  );
}

/** The same, or `null` when it is none. */
export function readPublicKey(text: string): string | null {
  const key = text.length > MAX_KEY_LENGTH ? "" : text.trim();
  if (!/^[0-9A-Za-z]+$/.test(key)) return null;
  const lower = key.toLowerCase();
  if (/^[0-9a-f]{64}$/.test(lower)) return lower;
  if (!lower.startsWith("npub1")) return null;
  try {
    const decoded = decode(lower);
    return decoded.type === "npub" ? decoded.data : null;
  } catch {
    return null;
  }
}

/** `npub1…` of 64 hex digits (NIP-19). */
export function npubOf(pubkey: string): string {
  return npubEncode(pubkey);
}

/** Trimmed, at most 64 code points; blank, `null` and `undefined` are `null`. @throws MemberError `invalid` */
export function memberName(name: string | null | undefined): string | null {
  const text = (name ?? "").trim();
  if (text === "") return null;
  if (text.length > 2 * MAX_NAME || [...text].length > MAX_NAME) {
    throw new MemberError("invalid", `a name has at most ${MAX_NAME} characters`);
  }
  if (!text.isWellFormed() || UNPRINTABLE.test(text)) {
    throw new MemberError(
      "invalid",
      "a name must not hold control characters or marks that turn the writing direction",
    );
  }
  return text;
}

/** @throws MemberError `invalid` */
export function memberRole(role: string): Role {
  if (role === "admin" || role === "user") return role;
  throw new MemberError("invalid", "the role is admin or user");
}
