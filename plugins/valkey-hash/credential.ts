/**
 * Reads the token of a request: as everywhere (`readCredential`), and Basic as rusty-valkey-forward-auth reads it.
 *
 * Invariant: at most one token is ever taken from a request.
 */
import { type AuthRequest, type FoundCredential, readCredential } from "gatehouse";

/** Where to look. */
export interface Sources {
  /** Also this header, lower case, when there is no Authorization. */
  readonly header?: string;
  readonly basic: boolean;
}

const MALFORMED: FoundCredential = Object.freeze({ found: "malformed" });
const STRICT = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** The token that the request carries. */
export function readToken(request: AuthRequest, sources: Sources): FoundCredential {
  if (sources.basic) {
    const lines = request.headers.all("authorization");
    const encoded = /^[ \t]*basic(?:[ \t]+(.*))?$/i.exec(lines[0] ?? "");
    if (lines.length === 1 && encoded !== null) return fromBasic(beforeBlanks(encoded[1] ?? ""));
  }
  return readCredential(request, sources.header === undefined ? {} : { header: sources.header });
}

/** An expression that looks for blanks at the end would look at each row of them once for each blank. */
function beforeBlanks(text: string): string {
  let end = text.length;
  while (text[end - 1] === " " || text[end - 1] === "\t") end -= 1;
  return text.slice(0, end);
}

/**
 * The password if it is not blank, else the user; without a colon the whole. The password may hold further colons
 * (RFC 7617 section 2).
 */
function fromBasic(encoded: string): FoundCredential {
  if (encoded.includes(",")) return { found: "ambiguous" };
  const text = decoded(encoded)?.trim();
  if (text === undefined) return MALFORMED;
  const colon = text.indexOf(":");
  const password = text.slice(colon + 1);
  const token = colon === -1 || password.trim() !== "" ? password : text.slice(0, colon);
  // A comma or a control character in it cannot be told from two joined headers elsewhere, so it is no token here.
  if (!/^[\x21-\x2b\x2d-\x7e]{1,8192}$/.test(token)) return MALFORMED;
  return { found: "one", value: token };
}

/** Standard base64 with its padding, and UTF-8; undefined when it is not. */
function decoded(encoded: string): string | undefined {
  const bytes = Buffer.from(encoded, "base64");
  // Node's decoder skips what it does not know; the way back shows whether it did.
  if (encoded === "" || bytes.toString("base64") !== encoded) return undefined;
  try {
    return STRICT.decode(bytes);
  } catch {
    return undefined;
  }
}
