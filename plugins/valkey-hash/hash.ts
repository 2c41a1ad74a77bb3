/**
 * The keyed hashes of tokens.
 *
 * Invariant: under which name a token lies in Valkey is BLAKE3 in keyed mode with the salt as key (its specification,
 * section 2.3), as rusty-valkey-forward-auth has it. The salt never goes there.
 */
import { randomBytes } from "node:crypto";
import { blake3 } from "@noble/hashes/blake3.js";

/** 64 lower-case hex digits. */
export type Hash = string;

/** Gives the hash of a token. */
export type Hasher = (token: string) => Hash;

/** @param salt 64 hex digits */
export function keyedHasher(salt: string): Hasher {
  // A plain array: of a Buffer the library would take a slice that is no copy, and wipe the key after its first use.
  const key = new Uint8Array(Buffer.from(salt, "hex"));
  if (key.length !== 32) throw new TypeError("a salt has 32 bytes");
  return (token) => Buffer.from(blake3(Buffer.from(token, "utf8"), { key })).toString("hex");
}

/** Whether a text could be a hash. */
export function isHash(text: string): boolean {
  return /^[0-9a-f]{64}$/.test(text);
}

/**
 * A hash for finding a token in this process's own memory: SHA-256 of a key, which is drawn now and never leaves, and the
 * token behind it. The platform computes it in a tenth of the time of the other. Nobody sees a result, so nothing
 * can be appended to one, which is what HMAC would prevent for twice the time.
 */
export function memoryHasher(): (token: string) => string {
  const key = randomBytes(32).toString("base64url");
  const digest = Buffer.alloc(32);
  return (token) => {
    Bun.SHA256.hash(key + token, digest);
    return digest.toString("latin1");
  };
}
