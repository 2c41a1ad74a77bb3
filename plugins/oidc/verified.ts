/**
 * Tokens that were verified, so that the next request with the same one costs microseconds.
 *
 * Invariant: what is kept was accepted once and says until when and by which key; whoever finds it asks whether both
 * still hold. Tokens are named by their SHA-256. Bounded: what was not used for longest makes room.
 */
import type { Outcome } from "gatehouse";
import type { Span } from "./verify.ts";

/** About 20 MB at worst. */
const MAX_VERIFIED = 10_000;

/** An accepted token. */
export interface Verified extends Span {
  readonly outcome: Outcome;
  readonly keyId: string;
}

/** What is kept. */
export interface VerifiedTokens {
  find(digest: string): Verified | undefined;
  keep(digest: string, verified: Verified): void;
  drop(digest: string): void;
}

/** Nothing is kept at first. @param max default 10,000 */
export function openVerified(max = MAX_VERIFIED): VerifiedTokens {
  const byDigest = new Map<string, Verified>();
  return {
    find(digest) {
      const found = byDigest.get(digest);
      // A map is in the order of insertion. While there is room nobody has to know who was used last.
      if (found !== undefined && byDigest.size > max / 2) {
        byDigest.delete(digest);
        byDigest.set(digest, found);
      }
      return found;
    },
    keep(digest, verified) {
      byDigest.delete(digest);
      const [oldest] = byDigest.size >= max ? byDigest.keys() : [];
      if (oldest !== undefined) byDigest.delete(oldest);
      byDigest.set(digest, verified);
    },
    drop: (digest) => void byDigest.delete(digest),
  };
}

/** The name of a token here. */
export function digestOf(token: string): string {
  return Bun.CryptoHasher.hash("sha256", token, "base64");
}
