/**
 * How bearer-like credentials are read from a request (RFC 6750 section 2.1, plus `x-api-key` as Anthropic's
 * clients send it), in one place for every strategy.
 *
 * Invariant: at most one credential is ever taken from a request. Two candidates are never chosen between.
 */
import type { AuthRequest } from "./request.ts";

/** What was found. `value` is the credential: do not log it. */
export type FoundCredential =
  | { readonly found: "none" }
  | { readonly found: "one"; readonly value: string }
  | { readonly found: "malformed" }
  | { readonly found: "ambiguous" };

/** Where to look. */
export interface CredentialSources {
  /** Also read this header when Authorization is absent or empty, e.g. `x-api-key`. */
  readonly header?: string;
  /** Accept `Basic` with the token as password (git-like tools). Default false. */
  readonly basic?: boolean;
  /** Read Authorization. False where it belongs to the upstream; then only `header` is read. Default true. */
  readonly authorization?: boolean;
}

const NONE: FoundCredential = Object.freeze({ found: "none" });
const MALFORMED: FoundCredential = Object.freeze({ found: "malformed" });
const AMBIGUOUS: FoundCredential = Object.freeze({ found: "ambiguous" });

/** Longest credential looked at, in characters: far above any key, far below a nuisance. */
const MAX_CREDENTIAL_LENGTH = 8192;

/**
 * The bearer credential of a request.
 *
 * A non-empty Authorization decides alone: with another scheme the answer is `none`, whatever `x-api-key` says.
 * Two lines of one header, or a comma (which joins two), are `ambiguous`. An empty, blank or over-long
 * credential is `malformed`.
 */
export function readCredential(request: AuthRequest, sources: CredentialSources): FoundCredential {
  const lines = sources.authorization === false ? [] : request.headers.all("authorization");
  if (lines.length > 1) return AMBIGUOUS;
  const authorization = trimBlanks(lines[0] ?? "");
  if (authorization !== "") return fromAuthorization(authorization, sources.basic === true);
  if (sources.header === undefined) return NONE;
  const keys = request.headers.all(sources.header);
  if (keys.length > 1) return AMBIGUOUS;
  const key = trimBlanks(keys[0] ?? "");
  return key === "" ? NONE : checked(key);
}

/**
 * Blanks and tabs only (RFC 9110 section 5.5): `trim` would also take away the no-break space, which is byte 0xA0
 * in a header and makes the credential another one.
 */
function trimBlanks(text: string): string {
  let start = 0;
  let end = text.length;
  while (start < end && isBlank(text.charCodeAt(start))) start += 1;
  while (end > start && isBlank(text.charCodeAt(end - 1))) end -= 1;
  return start === 0 && end === text.length ? text : text.slice(start, end);
}

function isBlank(code: number): boolean {
  return code === 0x20 || code === 0x09;
}

const BLANK = /[ \t]/;

/** As nearly everybody writes it. What follows reads it no differently, but in three times the time. */
const BEARER = "Bearer ";

function fromAuthorization(value: string, basic: boolean): FoundCredential {
  if (value.startsWith(BEARER)) return checked(trimBlanks(value.slice(BEARER.length)));
  const end = value.search(BLANK);
  const scheme = (end === -1 ? value : value.slice(0, end)).toLowerCase();
  const rest = end === -1 ? "" : trimBlanks(value.slice(end));
  if (scheme === "bearer") return rest === "" ? MALFORMED : checked(rest);
  if (scheme === "basic" && basic) return fromBasic(rest);
  return NONE;
}

/** RFC 7617: the password is everything after the first colon; the user name is not looked at. */
function fromBasic(encoded: string): FoundCredential {
  if (!/^[A-Za-z0-9+/]+={0,2}$/.test(encoded) || encoded.length % 4 !== 0) return MALFORMED;
  const text = Buffer.from(encoded, "base64").toString("utf8");
  const colon = text.indexOf(":");
  const password = colon === -1 ? "" : text.slice(colon + 1);
  return password === "" ? MALFORMED : checked(password);
}

function checked(value: string): FoundCredential {
  if (value.length <= MAX_CREDENTIAL_LENGTH && /^[\x21-\x2b\x2d-\x7e]+$/.test(value)) {
    return { found: "one", value };
  }
  return value.includes(",") ? AMBIGUOUS : MALFORMED;
}
