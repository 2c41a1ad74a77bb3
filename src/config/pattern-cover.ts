/**
 * Path and host patterns as languages: which texts are patterns, and when one pattern matches everything that
 * another does.
 *
 * Invariant: `covers` is exact for the matching of router.ts: `*` is one non-empty segment, `**` any number of
 * segments including none, so `/v1/**` is also for `/v1`. It never says yes for a path that the first does not match.
 */

/** Why a text is no path pattern, or null. */
export function patternProblem(text: string): string | null {
  if (!text.startsWith("/")) return "expected a path that starts with /";
  if (/[?#]/.test(text)) return "a path pattern has no query or fragment (? or #)";
  if (/[\0-\x20\x7f]/.test(text))
    return "a path pattern has no spaces or control characters: write %20";
  if (/[^\x21-\x7e]/.test(text))
    return "expected ASCII: write other characters as %XX, as on the wire";
  if (text.includes("\\")) return "a path pattern has no backslash";
  if (/%(?![0-9A-Fa-f]{2})/.test(text)) return "expected two hexadecimal digits after %";
  if (text.includes("//")) return "a path pattern has no empty segment (//)";
  const segments = segmentsOf(text);
  if (segments.some((segment) => /^(?:\.|%2e){1,2}$/i.test(segment))) {
    return "a path pattern has no . or .. segment: paths are matched after they are resolved";
  }
  if (segments.some((segment) => segment.includes("*") && !/^\*{1,2}$/.test(segment))) {
    return "* and ** stand for whole segments: /v1/* or /v1/**, not /v1*";
  }
  return segments.filter((segment) => segment === "**").length > 1
    ? "a path pattern has at most one **"
    : null;
}

/** Whether every path that `narrow` matches is matched by `wide`. Both must be valid patterns. */
export function patternCovers(wide: string, narrow: string): boolean {
  const [wideHead, wideTail] = halves(wide);
  const [head, tail] = halves(narrow);
  if (tail === null) {
    if (wideTail === null) return head.length === wideHead.length && areCovered(wideHead, head);
    // The fixed ends of `wide` may not overlap on the segments of `narrow`.
    return (
      head.length >= wideHead.length + wideTail.length &&
      areCovered(wideHead, head) &&
      areCovered(wideTail.toReversed(), head.toReversed())
    );
  }
  // What `**` of `narrow` stands for is arbitrary, and no segment pattern accepts an arbitrary segment (`*` refuses
  // an empty one), so the fixed ends of `wide` must lie within the fixed ends of `narrow`.
  return (
    wideTail !== null &&
    wideHead.length <= head.length &&
    wideTail.length <= tail.length &&
    areCovered(wideHead, head) &&
    areCovered(wideTail.toReversed(), tail.toReversed())
  );
}

/** Whether every host that `narrow` matches is matched by `wide`: `*.example.com` is for any number of labels. */
export function hostCovers(wide: string, narrow: string): boolean {
  if (wide === narrow) return true;
  if (!wide.startsWith("*.")) return false;
  const suffix = wide.slice(1);
  return narrow.length > suffix.length && narrow.endsWith(suffix);
}

/** Segments before and after `**`; the second is null when there is no `**`. */
function halves(pattern: string): [readonly string[], readonly string[] | null] {
  const segments = segmentsOf(pattern);
  const depth = segments.indexOf("**");
  return depth === -1 ? [segments, null] : [segments.slice(0, depth), segments.slice(depth + 1)];
}

function areCovered(wide: readonly string[], narrow: readonly string[]): boolean {
  return wide.every((segment, index) => {
    const other = narrow[index];
    return segment === "*" ? other !== undefined && other !== "" : segment === other;
  });
}

function segmentsOf(pattern: string): string[] {
  return pattern.slice(1).split("/");
}
