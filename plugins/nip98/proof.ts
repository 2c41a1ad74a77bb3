/**
 * From the Authorization header to a signed event of NIP-98 (kind 27235), by its form alone. Pure.
 *
 * Invariant: what comes out has exactly the fields of NIP-01 with exactly their types, and its hex is lower case,
 * so that one proof in different clothes (hex case, base64 alphabet, spaces, order of keys) is one value.
 */
import type { RequestHeaders } from "gatehouse";
import { parseStrict } from "./strict-json.ts";

/** A signed event whose signature nobody has looked at yet. */
export interface Proof {
  /** 64 lower-case hex digits. */
  readonly id: string;
  /** 64 lower-case hex digits. */
  readonly pubkey: string;
  /** 128 lower-case hex digits. */
  readonly sig: string;
  readonly kind: number;
  /** Epoch seconds. */
  readonly createdAt: number;
  readonly tags: readonly (readonly string[])[];
  readonly content: string;
}

/** What the header holds. */
export type FoundProof =
  | { readonly found: "none" }
  | { readonly found: "ambiguous" }
  | { readonly found: "malformed" }
  | { readonly found: "one"; readonly proof: Proof };

/** NIP-98. */
export const KIND = 27_235;

/** Decoded. The longest URL that a listener takes, three times over. */
const MAX_EVENT_BYTES = 16 * 1024;
const MAX_BASE64_LENGTH = Math.ceil(MAX_EVENT_BYTES / 3) * 4;

const FIELDS = 7;
const NONE: FoundProof = Object.freeze({ found: "none" });
const AMBIGUOUS: FoundProof = Object.freeze({ found: "ambiguous" });
const MALFORMED: FoundProof = Object.freeze({ found: "malformed" });

const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/**
 * The proof in `Authorization: Nostr <base64>`; the scheme in any case, either base64 alphabet, padding optional.
 * Another scheme, or no header, is `none`. Several header lines, or a comma (which joins two), are `ambiguous`.
 */
export function findProof(headers: RequestHeaders): FoundProof {
  const lines = headers.all("authorization");
  const first = lines[0];
  if (first === undefined) return NONE;
  if (lines.length > 1) return AMBIGUOUS;
  const scheme = /^[ \t]*nostr(?=[ \t]|$)/i.exec(first);
  if (scheme === null) return NONE;
  // Before anything that takes time in proportion to the length.
  if (first.length > MAX_BASE64_LENGTH + 100) return MALFORMED;
  if (first.includes(",")) return AMBIGUOUS;
  // Blanks inside would be no base64. Cutting them off with an expression for each end takes the square of their number.
  const text = /^[ \t]*([^ \t]*)[ \t]*$/.exec(first.slice(scheme[0].length))?.[1];
  const proof = text === undefined ? null : readProof(text);
  return proof === null ? MALFORMED : { found: "one", proof };
}

function readProof(base64: string): Proof | null {
  const bytes = decodeBase64(base64);
  if (bytes === null || bytes.length > MAX_EVENT_BYTES) return null;
  let text: string;
  try {
    text = utf8.decode(bytes);
  } catch {
    return null;
  }
  return toProof(parseStrict(text));
}

/** `null` for anything that is not the one encoding of its bytes in one of both alphabets. */
function decodeBase64(text: string): Uint8Array | null {
  const form = /^([A-Za-z0-9+/]+|[A-Za-z0-9_-]+)(={0,2})$/.exec(text);
  const digits = form?.[1]?.replaceAll("+", "-").replaceAll("/", "_");
  const padding = form?.[2] ?? "";
  if (digits === undefined) return null;
  if (padding !== "" && (digits.length + padding.length) % 4 !== 0) return null;
  const bytes = Buffer.from(digits, "base64url");
  // Also refuses bits that do not count and a length that no encoder makes.
  return bytes.toString("base64url") === digits ? bytes : null;
}

function toProof(value: unknown): Proof | null {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return null;
  if (Object.keys(value).length !== FIELDS) return null;
  const { id, pubkey, sig, kind, created_at, tags, content } = value as Record<string, unknown>;
  if (!isHex(id, 64) || !isHex(pubkey, 64) || !isHex(sig, 128)) return null;
  if (kind !== KIND || !Number.isSafeInteger(created_at)) return null;
  if (!isTags(tags) || !isText(content)) return null;
  return {
    id: id.toLowerCase(),
    pubkey: pubkey.toLowerCase(),
    sig: sig.toLowerCase(),
    kind,
    createdAt: Number(created_at),
    tags,
    content,
  };
}

function isHex(value: unknown, length: number): value is string {
  return typeof value === "string" && value.length === length && /^[0-9a-fA-F]+$/.test(value);
}

/** Half a surrogate pair has no UTF-8: different texts would have the same hash. */
function isText(value: unknown): value is string {
  return typeof value === "string" && value.isWellFormed();
}

function isTags(value: unknown): value is readonly (readonly string[])[] {
  return Array.isArray(value) && value.every((tag) => Array.isArray(tag) && tag.every(isText));
}
