/**
 * The readings of a request path (design section 5).
 *
 * Invariant: a decision is only taken on a path whose every reading leads to the same route. A backend may decode
 * once or twice, drop `;` parameters, take a backslash for a slash, merge slashes, ignore case, or cut at an
 * encoded `?` or `#`; each of those is listed here, and router.ts refuses a path when one of them disagrees.
 */

/** A path without anything to argue about; the common case leaves here without further work. */
const PLAIN = /^(?:\/[A-Za-z0-9_~!$&'()*+,=:@-][A-Za-z0-9._~!$&'()*+,=:@-]*)+\/?$|^\/$/;
const BAD_ESCAPE = /%(?![0-9A-Fa-f]{2})/;
const CONTROL = /[\0-\x1f\x7f]/;
/** UTF-8 that spells a character in more bytes than it needs: only used to hide one. */
const OVERLONG = /[\xc0\xc1]|\xe0[\x80-\x9f]|\xf0[\x80-\x8f]/;
const NON_ASCII = /[\x80-\xff]/;

/** The two canonical forms of a path, or `null` when it cannot be read safely at all. */
export interface CanonicalPath {
  /** Dot segments resolved, empty segments merged. */
  readonly merged: string;
  /** Dot segments resolved, empty segments kept. */
  readonly kept: string;
}

/**
 * Canonical forms of a raw path (no query). `null`: a bad escape, or a control byte or an overlong character
 * under one or two decodings.
 */
export function canonicalPath(raw: string): CanonicalPath | null {
  if (PLAIN.test(raw)) return { merged: raw, kept: raw };
  if (BAD_ESCAPE.test(raw)) return null;
  const once = decode(raw);
  const twice = decode(once);
  for (const text of [raw, once, twice]) {
    if (CONTROL.test(text) || OVERLONG.test(text)) return null;
  }
  const kept = resolveDots(raw);
  return { merged: resolveDots(mergeSlashes(raw)), kept };
}

/**
 * Every other path that a backend may see in `path`, without `path` itself. Empty for ordinary paths.
 * @param path one of the forms of {@link canonicalPath}
 */
export function otherReadings(path: string): readonly string[] {
  if (PLAIN.test(path)) return [];
  const readings = new Set<string>();
  let text = path;
  for (let depth = 0; depth < 3; depth++) {
    for (const variant of variants(text, depth)) {
      readings.add(resolveDots(mergeSlashes(variant)));
    }
    const decoded = decode(text);
    if (decoded === text) break;
    text = decoded;
  }
  readings.delete(path);
  return [...readings];
}

function variants(text: string, depth: number): string[] {
  const found = [text];
  if (text.includes(";")) found.push(...found.map((one) => one.replace(/;[^/\\]*/g, "")));
  if (text.includes("\\")) found.push(...found.map((one) => one.replaceAll("\\", "/")));
  // A separator that only appears by decoding can end the path for whoever parses again.
  if (depth > 0 && /[?#]/.test(text)) found.push(...found.map((one) => one.replace(/[?#].*$/, "")));
  if (NON_ASCII.test(text)) found.push(compatible(text));
  return found;
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
  const folded = path.toLowerCase().replace(/(?:[. ]|%20|%2e)+(?=\/|$)/g, "");
  return folded.length > 1 && folded.endsWith("/") ? folded.slice(0, -1) : folded;
}

/** Whether folding changes anything about a path. */
export function needsFold(path: string): boolean {
  return /[A-Z]|[. ](?:\/|$)|%2[0e]|.\/$/i.test(path) && foldPath(path) !== path;
}
