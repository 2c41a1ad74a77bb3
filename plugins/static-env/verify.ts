/**
 * The pure half of static-env: from text to tokens, and from a presented credential to a position.
 *
 * Invariant: a token is kept as its SHA-256 only, and every one is compared on every request, so the time taken
 * says neither which one matched nor how much of one was right.
 */
import { hash, timingSafeEqual } from "node:crypto";

/** SHA-256 of each accepted token, in the order in which they were written. */
export type TokenDigests = readonly Buffer[];

/** Shorter ones can be guessed or come from a placeholder. */
export const MIN_TOKEN_LENGTH = 16;
/** The longest credential that Gatehouse reads from a request. */
const MAX_TOKEN_LENGTH = 8192;

const ADVICE = "make one with: openssl rand -hex 24";

/**
 * The tokens in `text`, which are separated by white space or commas.
 * @param source how messages name the place, e.g. `environment variable GATE_TOKEN`; no message holds a token
 * @throws Error when there is none, or one is too short, too long, not visible ASCII or there twice
 */
export function parseTokens(text: string, source: string): TokenDigests {
  const tokens = text.split(/[\s,]+/).filter((token) => token !== "");
  if (tokens.length === 0) throw new Error(`${source} is empty or blank; ${ADVICE}`);
  for (const [index, token] of tokens.entries()) {
    const problem = problemOf(token, tokens.indexOf(token) !== index);
    if (problem === null) continue;
    const which = tokens.length === 1 ? "the token" : `token ${index + 1} of ${tokens.length}`;
    throw new Error(`${which} in ${source} ${problem}`);
  }
  return tokens.map(digestOf);
}

function problemOf(token: string, isRepeated: boolean): string | null {
  if (!/^[\x21-\x7e]+$/.test(token)) return `has characters that are not visible ASCII; ${ADVICE}`;
  if (token.length < MIN_TOKEN_LENGTH) {
    return `is shorter than ${MIN_TOKEN_LENGTH} characters; ${ADVICE}`;
  }
  if (token.length > MAX_TOKEN_LENGTH) return `is longer than ${MAX_TOKEN_LENGTH} characters`;
  return isRepeated ? "is there twice; remove one" : null;
}

/** Position of the token that `presented` is, from 0; -1 when it is none of them. */
export function findToken(digests: TokenDigests, presented: string): number {
  const digest = digestOf(presented);
  let position = -1;
  for (const [index, known] of digests.entries()) {
    // No break: see the invariant above.
    if (timingSafeEqual(known, digest)) position = index;
  }
  return position;
}

function digestOf(token: string): Buffer {
  return hash("sha256", token, "buffer");
}
