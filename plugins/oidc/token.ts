/**
 * A credential as a JWT: taken apart, not believed.
 *
 * Invariant: nothing here says that a token is genuine. One spelling a token: base64url that another text would
 * decode to as well is none.
 */
import { type JsonObject, own, readObject } from "./json.ts";

/** A signed token in three parts whose header and claims are JSON objects. */
export interface UnverifiedToken {
  /** As it was presented: a credential. */
  readonly text: string;
  readonly header: JsonObject;
  readonly claims: JsonObject;
  /** A name stands twice in an object of the header or the claims. */
  readonly isAmbiguous: boolean;
}

/** Takes a credential apart; `null` when it is no such token (opaque, encrypted, cut). */
export function readToken(text: string): UnverifiedToken | null {
  const parts = text.split(".");
  if (parts.length !== 3) return null;
  const [header, claims] = parts.slice(0, 2).map(readPart);
  const signature = decode(parts[2] ?? "");
  if (header === undefined || claims === undefined || signature === null) return null;
  if (header.kind === "none" || claims.kind === "none") return null;
  const isAmbiguous = header.kind === "ambiguous" || claims.kind === "ambiguous";
  return { text, header: header.value, claims: claims.value, isAmbiguous };
}

/** Whether it says of itself that it comes from there. */
export function isFrom(token: UnverifiedToken, issuer: string): boolean {
  return own(token.claims, "iss") === issuer;
}

function readPart(part: string) {
  const bytes = decode(part);
  return bytes === null ? undefined : readObject(bytes);
}

/** `null` when it is not base64url in its one right spelling. An empty text is no bytes. */
function decode(part: string): Uint8Array | null {
  const bytes = Buffer.from(part, "base64url");
  return bytes.toString("base64url") === part ? bytes : null;
}
