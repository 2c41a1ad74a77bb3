/**
 * The readings of a request path (design section 5).
 *
 * Invariant: a decision is only taken on a path whose every reading leads to the same route. A backend may decode
 * once or more, drop `;` parameters, take a backslash for a slash, merge slashes, ignore case, normalise Unicode,
 * or cut at an encoded `?` or `#`, in any order; router.ts refuses a path when one of those readings disagrees.
 */

/** A path without anything to argue about; the common case leaves here without further work. */
const PLAIN = /^(?:\/[A-Za-z0-9_~!$&'()*+,=:@-][A-Za-z0-9._~!$&'()*+,=:@-]*)+\/?$|^\/$/;
const BAD_ESCAPE = /%(?![0-9A-Fa-f]{2})/;
const CONTROL = /[\0-\x1f\x7f]/;
/** UTF-8 that spells a character in more bytes than it needs: only used to hide one. */
const OVERLONG = /[\xc0\xc1]|\xe0[\x80-\x9f]|\xf0[\x80-\x8f]/;
const NON_ASCII = /[\x80-\xff]/;
/** IIS reads `%u002e` as a dot, also behind a decoding of `%25`. */
const UNICODE_ESCAPE = /%u[0-9A-Fa-f]{4}/;
/** A segment of dots and blanks that is neither `.` nor `..`. */
const DOTS_ALONE = /\/(?!\.{1,2}(?:\/|$))[. ]+(?=\/|$)/;
const DOTS_ALONE_ALL = new RegExp(DOTS_ALONE, "g");
/** White space for those who split the request line as latin1 text (Python's http.server): the path ends there. */
const LATIN1_BLANK = /[\x85\xa0]/;
/** A path that still has something to decode after this many times is no path. */
const MAX_DECODINGS = 4;
/** Nothing that a client has a use for comes near this many readings, or this many characters in all of them. */
const MAX_READINGS = 100;
const MAX_READING_CHARACTERS = 262_144;

/** The two canonical forms of a path, or `null` when it cannot be read safely at all. */
export interface CanonicalPath {
  /** Dot segments resolved, empty segments merged. */
  readonly merged: string;
  /** Dot segments resolved, empty segments kept. */
  readonly kept: string;
  /** Both are the raw path, and {@link readingsOf} has no other one. */
  readonly isPlain: boolean;
}

/**
 * Canonical forms of a raw path (no query). `null`: a bad escape, or a control byte, an overlong character or a
 * `%uXXXX` under any number of decodings.
 */
export function canonicalPath(raw: string): CanonicalPath | null {
  if (PLAIN.test(raw)) return { merged: raw, kept: raw, isPlain: true };
  if (BAD_ESCAPE.test(raw)) return null;
  let text = raw;
  for (let decodings = 0; ; decodings++) {
    if (CONTROL.test(text) || OVERLONG.test(text) || UNICODE_ESCAPE.test(text)) return null;
    const decoded = decode(text);
    if (decoded === text) break;
    if (decodings === MAX_DECODINGS) return null;
    text = decoded;
  }
  const kept = resolveDots(raw);
  return { merged: resolveDots(mergeSlashes(raw)), kept, isPlain: false };
}

/** A path on its way through a backend. */
interface Reading {
  readonly text: string;
  /** It was percent-decoded at least once. */
  readonly isDecoded: boolean;
  /** Characters instead of bytes: Unicode was normalised. */
  readonly isUnicode: boolean;
}

/**
 * Every path that a backend may see in `path`, which comes first. One alone for ordinary paths; `null` when
 * there are too many to look at. The steps are taken in every order, because backends do not agree on one: to
 * drop parameters and then decode is another reading than the reverse.
 * @param path one of the forms of {@link canonicalPath}
 */
export function readingsOf(path: string): readonly string[] | null {
  if (PLAIN.test(path)) return [path];
  const readings: Reading[] = [{ text: path, isDecoded: false, isUnicode: false }];
  const max = Math.min(MAX_READINGS, MAX_READING_CHARACTERS / path.length);
  const seen = new Set<string>();
  for (const reading of readings) {
    for (const next of stepsFrom(reading)) {
      const key = `${next.isDecoded}${next.isUnicode}${next.text}`;
      if (next.text === reading.text || seen.has(key)) continue;
      seen.add(key);
      readings.push(next);
      if (readings.length > max) return null;
    }
  }
  return [...new Set(readings.map(({ text }) => text))];
}

/** What one more step of a backend makes of a reading; some of it may be the same text. */
function stepsFrom(reading: Reading): Reading[] {
  const { text, isDecoded, isUnicode } = reading;
  const steps = rewritten(text).map((next) => ({ ...reading, text: next }));
  if (text.includes("%")) steps.push({ ...reading, text: decode(text), isDecoded: true });
  if (!isUnicode && NON_ASCII.test(text)) {
    steps.push({ ...reading, text: compatible(text), isUnicode: true });
  }
  // A separator that only appears on the way can end the path for whoever parses again.
  const ends = [text.search(/[?#]/)];
  if (!isDecoded && !isUnicode) ends.push(text.search(LATIN1_BLANK));
  for (const end of ends) if (end > 0) steps.push({ ...reading, text: text.slice(0, end) });
  return steps;
}

function rewritten(text: string): string[] {
  const found = [resolveDots(text), mergeSlashes(text)];
  if (text.includes(";")) found.push(text.replace(/;[^/\\]*/g, ""));
  if (text.includes("\\")) found.push(text.replaceAll("\\", "/"));
  // Windows drops blanks at the end of a segment and may then find dots.
  if (text.includes(" ")) found.push(eachEnd(text, (segment) => cutEnd(segment, [" "])));
  // And dots, so that of a segment of nothing else nothing is left; the dots after it then take away another one.
  if (DOTS_ALONE.test(text)) found.push(text.replaceAll(DOTS_ALONE_ALL, "/"));
  // As a reference to be resolved, `//host/path` is the path of another host (RFC 3986 section 4.2).
  if (text.startsWith("//")) found.push(text.replace(/^\/\/[^/]*/, ""));
  return found.map((one) => (one.startsWith("/") ? one : `/${one}`));
}

/** Full-width dots and slashes become ASCII under Unicode compatibility normalisation. */
function compatible(text: string): string {
  return Buffer.from(text, "latin1").toString("utf8").normalize("NFKC");
}

/** Percent-decodes once, byte for byte; what is no escape stays. */
function decode(text: string): string {
  if (!text.includes("%")) return text;
  return text.replace(/%([0-9A-Fa-f]{2})/g, (_, hex: string) =>
    String.fromCharCode(Number.parseInt(hex, 16)),
  );
}

function mergeSlashes(text: string): string {
  return text.includes("//") ? text.replace(/\/{2,}/g, "/") : text;
}

/** RFC 3986 section 5.2.4, with `%2e` read as a dot because it is one (section 6.2.2.2). */
function resolveDots(text: string): string {
  if (!/\/(?:\.|%2e)/i.test(text)) return text.startsWith("/") ? text : `/${text}`;
  const out: string[] = [];
  const segments = text.split("/").slice(1);
  segments.forEach((segment, index) => {
    const dots = segment.replace(/%2e/gi, ".");
    const isLast = index === segments.length - 1;
    if (dots === "..") out.pop();
    else if (dots !== ".") out.push(segment);
    if (isLast && (dots === "." || dots === "..")) out.push("");
  });
  return `/${out.join("/")}`;
}

/**
 * A path as a backend sees it that ignores case, trailing slashes, and trailing dots and spaces of segments
 * (Express, IIS, file systems). Compared with patterns folded in the same way.
 */
export function foldPath(path: string): string {
  const folded = mergeSlashes(eachEnd(path.toLowerCase(), (segment) => cutEnd(segment, IGNORED)));
  return folded.length > 1 && folded.endsWith("/") ? folded.slice(0, -1) : folded;
}

/** What file systems and frameworks leave away at the end of a name. */
const IGNORED = [".", " ", "%20", "%2e"];

function eachEnd(path: string, cut: (segment: string) => string): string {
  return path.split("/").map(cut).join("/");
}

/** Without any of `ends` at its end. A regular expression would look at a row of blanks once for each of them. */
function cutEnd(segment: string, ends: readonly string[]): string {
  let length = segment.length;
  for (;;) {
    const end = ends.find((one) => segment.endsWith(one, length));
    if (end === undefined) return length === segment.length ? segment : segment.slice(0, length);
    length -= end.length;
  }
}

/** Whether folding changes anything about a path. */
export function needsFold(path: string): boolean {
  return /[A-Z]|[. ](?:\/|$)|%2[0eE]|.\/$/.test(path) && foldPath(path) !== path;
}
