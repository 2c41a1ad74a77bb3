/**
 * Strict parsing of HTTP/1.x heads (RFC 9112), for requests from clients and responses from upstreams.
 *
 * Invariant: what this file lets through has one reading only. Anything that two implementations could read
 * differently (both lengths, odd Transfer-Encoding, folded lines, bare CR or LF, blanks before a colon, two Host
 * lines) is a fault and the connection ends with it; nothing is repaired.
 */
import { allValues, type Fields, firstValue, lowerCase } from "./fields.ts";

/** How the bytes after a head are delimited. `length: null` for `chunked` and `until_close`. */
export type Framing =
  | { readonly kind: "none" }
  | { readonly kind: "length"; readonly length: number }
  | { readonly kind: "chunked" }
  | { readonly kind: "until_close" };

const NO_BODY: Framing = Object.freeze({ kind: "none" });
const CHUNKED: Framing = Object.freeze({ kind: "chunked" });
const UNTIL_CLOSE: Framing = Object.freeze({ kind: "until_close" });

/** A request head that has passed every check. */
export interface RequestHead {
  readonly method: string;
  /** Path and query as sent (origin form), starting with `/`; an absolute-form target is reduced to it. */
  readonly target: string;
  /** 0 for HTTP/1.0, 1 for HTTP/1.1. */
  readonly minor: 0 | 1;
  /** The one authority, lower case, with its port if it was sent; empty for HTTP/1.0 without Host. */
  readonly authority: string;
  readonly fields: Fields;
  readonly framing: Framing;
  /** The client waits for `100 Continue` before it sends the body. */
  readonly expectsContinue: boolean;
  /** False after `Connection: close`, or HTTP/1.0 without `keep-alive`. */
  readonly keepAlive: boolean;
}

export interface ResponseHead {
  readonly status: number;
  readonly reason: string;
  readonly minor: 0 | 1;
  readonly fields: Fields;
  readonly keepAlive: boolean;
}

/** Why a head was refused; gateway.ts gives each a status. */
export type HeadFault =
  | "bad_request"
  | "unsupported_transfer_encoding"
  | "unsupported_method"
  | "unsupported_version"
  | "expectation_failed";

const TOKEN = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/;
const METHOD = /^[A-Z][A-Z-]{0,31}$/;
/**
 * A control byte other than HTAB, a bare CR or a bare LF, anywhere in a head. Saying the last two with the bytes beside
 * them (`\r[^\n]|[^\r]\n`) takes three times as long, because then every byte may begin a match.
 */
const FORBIDDEN = /[\0-\x08\x0b\x0c\x0e-\x1f\x7f]|\r(?!\n)|(?<!\r)\n/;
const AUTHORITY =
  /^(?:[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9.])?|\[[0-9A-Fa-f:.]+\])(?::\d{1,5})?$/;
const DIGITS = /^\d{1,15}$/;

/** A header name as it was written, and its lower case. */
interface Name {
  readonly raw: string;
  readonly lower: string;
}

/**
 * Names seen lately, each at a place that follows from its length and three of its letters, so that the commonest work
 * of a parser is one comparison. Clients choose the names: the table never grows, and what shares a place with another
 * one takes it.
 */
const KNOWN_NAMES = 1024;
const knownNames = new Array<Name | undefined>(KNOWN_NAMES).fill(undefined);

/** The name at `text[at..colon]`; `null` when it is none. */
function nameAt(text: string, at: number, colon: number): Name | null {
  const length = colon - at;
  const middle = text.charCodeAt(at + (length >> 1));
  const mixed = (text.charCodeAt(at) * 31 + text.charCodeAt(colon - 1)) * 31 + middle * 7 + length;
  const place = mixed & (KNOWN_NAMES - 1);
  const known = knownNames[place];
  if (known?.raw.length === length && text.startsWith(known.raw, at)) return known;
  const raw = text.slice(at, colon);
  if (!TOKEN.test(raw)) return null;
  const name = { raw, lower: raw.toLowerCase() };
  if (length <= 64) knownNames[place] = name;
  return name;
}

/**
 * Parses the lines from `start` to the end of `text`; `null` when one of them is not a field line.
 * @param text without anything {@link FORBIDDEN}, so that each LF ends a line and has its CR
 */
function parseFields(text: string, start: number): Fields | null {
  const lower: string[] = [];
  const raw: string[] = [];
  const values: string[] = [];
  let at = start;
  while (at < text.length) {
    const newline = text.indexOf("\n", at);
    const end = newline === -1 ? text.length : newline - 1;
    const colon = text.indexOf(":", at);
    if (colon === -1 || colon >= end) return null;
    const name = nameAt(text, at, colon);
    if (name === null) return null;
    lower.push(name.lower);
    raw.push(name.raw);
    values.push(trimBlanks(text, colon + 1, end));
    at = end + 2;
  }
  return { lower, raw, values };
}

/** Optional white space is SP and HTAB only (RFC 9110 section 5.6.3); `String.trim` would eat more. */
function trimBlanks(text: string, from: number, to: number): string {
  let start = from;
  let end = to;
  while (start < end && isBlank(text.charCodeAt(start))) start++;
  while (end > start && isBlank(text.charCodeAt(end - 1))) end--;
  return text.slice(start, end);
}

function isBlank(code: number): boolean {
  return code === 0x20 || code === 0x09;
}

/** Most header lines in one head; more are refused like a head that is too large. */
export const MAX_FIELDS = 200;

/**
 * Parses a request head.
 *
 * @param text the head as latin1, without the empty line that ends it
 * @returns the head, or why it is refused
 */
export function parseRequestHead(text: string): RequestHead | HeadFault {
  if (FORBIDDEN.test(text)) return "bad_request";
  const newline = text.indexOf("\r\n");
  const line = readLine(text, newline === -1 ? text.length : newline);
  if (line === null) return "bad_request";
  const { method, target, version } = line;
  if (version !== "HTTP/1.1" && version !== "HTTP/1.0") {
    return version.startsWith("HTTP/") ? "unsupported_version" : "bad_request";
  }
  if (!METHOD.test(method)) return TOKEN.test(method) ? "unsupported_method" : "bad_request";
  const fields = parseFields(text, newline === -1 ? text.length : newline + 2);
  if (fields === null) return "bad_request";
  return assembleRequest(method, target, version === "HTTP/1.1" ? 1 : 0, fields);
}

/** Three words with one space between them (RFC 9112 section 3). */
function readLine(text: string, end: number) {
  const first = text.indexOf(" ");
  const second = text.indexOf(" ", first + 1);
  const third = text.indexOf(" ", second + 1);
  const isThree = first > 0 && second > first + 1 && second < end - 1;
  if (!isThree || (third !== -1 && third < end)) return null;
  return {
    method: text.slice(0, first),
    target: text.slice(first + 1, second),
    version: text.slice(second + 1, end),
  };
}

function assembleRequest(
  method: string,
  target: string,
  minor: 0 | 1,
  fields: Fields,
): RequestHead | HeadFault {
  // CONNECT asks for a tunnel and TRACE echoes credentials: neither has business at a gate.
  if (method === "CONNECT" || method === "TRACE") return "unsupported_method";
  const framing = requestFraming(fields, minor);
  if (typeof framing === "string") return framing;
  const authority = requestAuthority(fields, minor);
  if (authority === null) return "bad_request";
  const origin = originForm(target, authority);
  if (origin === null) return "bad_request";
  const expect = firstValue(fields, "expect");
  const expectsContinue = expect !== undefined && minor === 1;
  if (expectsContinue && expect?.toLowerCase() !== "100-continue") return "expectation_failed";
  return {
    method,
    target: origin,
    minor,
    authority,
    fields,
    framing,
    expectsContinue,
    keepAlive: persists(fields, minor),
  };
}

/** Whether a method, a path with query and an authority could come in by a request head of their own. */
export function isRequestLine(method: string, target: string, authority: string): boolean {
  if (!METHOD.test(method) || method === "CONNECT" || method === "TRACE") return false;
  if (!AUTHORITY.test(authority) || FORBIDDEN.test(target)) return false;
  return target.startsWith("/") && !/[#\s]/.test(target);
}

/** RFC 9112 section 3.2: exactly one valid Host in HTTP/1.1; HTTP/1.0 may leave it out. */
function requestAuthority(fields: Fields, minor: 0 | 1): string | null {
  const hosts = allValues(fields, "host");
  if (hosts.length === 0) return minor === 0 ? "" : null;
  const host = hosts[0];
  if (hosts.length > 1 || host === undefined || !AUTHORITY.test(host)) return null;
  return lowerCase(host);
}

/** The path and query of a target; `null` for other forms and for an absolute form that names another host. */
function originForm(target: string, authority: string): string | null {
  // A tab is not forbidden, because field values may hold one; a target with one has two ends.
  if (target.includes("#") || target.includes("\t")) return null;
  if (target.startsWith("/")) return target;
  const absolute = /^https?:\/\/([^/?]+)(.*)$/i.exec(target);
  if (absolute === null || absolute[1]?.toLowerCase() !== authority) return null;
  const rest = absolute[2] ?? "";
  return rest.startsWith("/") ? rest : `/${rest}`;
}

/** RFC 9112 section 6.3 for requests, without its leniency. */
function requestFraming(fields: Fields, minor: 0 | 1): Framing | HeadFault {
  const encodings = allValues(fields, "transfer-encoding");
  const lengths = allValues(fields, "content-length");
  if (encodings.length > 0) {
    if (lengths.length > 0 || minor === 0 || encodings.length > 1) return "bad_request";
    if (encodings[0]?.toLowerCase() === "chunked") return CHUNKED;
    return TOKEN.test(encodings[0] ?? "") ? "unsupported_transfer_encoding" : "bad_request";
  }
  if (lengths.length === 0) return NO_BODY;
  const length = singleLength(lengths);
  return length === null ? "bad_request" : { kind: "length", length };
}

function singleLength(lengths: readonly string[]): number | null {
  const text = lengths[0];
  return lengths.length === 1 && text !== undefined && DIGITS.test(text) ? Number(text) : null;
}

function persists(fields: Fields, minor: 0 | 1): boolean {
  const connection = firstValue(fields, "connection");
  if (connection === undefined) return minor === 1;
  const all = allValues(fields, "connection").join(",").toLowerCase();
  if (/(?:^|,)[ \t]*close[ \t]*(?:,|$)/.test(all)) return false;
  return minor === 1 || /(?:^|,)[ \t]*keep-alive[ \t]*(?:,|$)/.test(all);
}

/** Parses a response head, `null` when it is broken. @param text as in {@link parseRequestHead} */
export function parseResponseHead(text: string): ResponseHead | null {
  if (FORBIDDEN.test(text)) return null;
  const lineEnd = text.indexOf("\r\n");
  const line = lineEnd === -1 ? text : text.slice(0, lineEnd);
  const match = /^HTTP\/1\.([01]) ([1-9]\d{2})(?: (.*))?$/.exec(line);
  if (match === null) return null;
  const fields = parseFields(text, lineEnd === -1 ? text.length : lineEnd + 2);
  if (fields === null) return null;
  const minor = match[1] === "1" ? 1 : 0;
  return {
    status: Number(match[2]),
    reason: match[3] ?? "",
    minor,
    fields,
    keepAlive: persists(fields, minor),
  };
}

/**
 * RFC 9112 section 6.3 for responses; `null` when the framing is contradictory or unknown, which ends as 502.
 * @param method of the request that this answers
 */
export function responseFraming(head: ResponseHead, method: string): Framing | null {
  const encodings = allValues(head.fields, "transfer-encoding");
  const lengths = allValues(head.fields, "content-length");
  const length = lengths.length === 0 ? null : singleLength(lengths);
  if (lengths.length > 0 && (length === null || encodings.length > 0)) return null;
  if (method === "HEAD" || head.status === 204 || head.status === 304 || head.status < 200) {
    return NO_BODY;
  }
  if (encodings.length > 0) {
    const known = encodings.length === 1 && encodings[0]?.toLowerCase() === "chunked";
    return known && head.minor === 1 ? CHUNKED : null;
  }
  return length === null ? UNTIL_CLOSE : { kind: "length", length };
}
