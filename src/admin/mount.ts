/**
 * Where endpoints are: a route's patterns say under which paths they are reached, and what of a path is theirs.
 *
 * Invariant: pure. What an endpoint is called begins where the pattern says and nowhere else, so that a route for some
 * endpoints does not open the way to others by a longer path.
 */
import { patternCovers } from "../config/pattern-cover.ts";

/**
 * The paths below which the endpoints of a route lie, longest first, without a slash at the end: what comes before
 * the first wildcard, and before `known`, which matches the beginning of an endpoint at the end of a path.
 * `/api/**` and `/api/me/tokens` both give `/api`.
 */
export function basesOf(patterns: readonly string[], known: RegExp): readonly string[] {
  const bases = patterns.map((pattern) => {
    const segments = pattern.split("/");
    const wild = segments.findIndex((segment) => segment.includes("*"));
    const literal = (wild === -1 ? segments : segments.slice(0, wild)).join("/");
    return literal.replace(/\/$/, "").replace(known, "");
  });
  return [...new Set(bases)].sort((a, b) => b.length - a.length);
}

/** What of a path is the endpoint's, with its slash; `null` when it lies below none of the bases. */
export function pathWithin(path: string, bases: readonly string[]): string | null {
  const base = bases.find((one) => path.startsWith(`${one}/`));
  return base === undefined ? null : path.slice(base.length);
}

/** Whether requests for an endpoint such as `/api/users/{sub}/tokens` reach a route with these patterns. */
export function isReached(path: string, patterns: readonly string[]): boolean {
  const pattern = path.replace(/\{\w+\}/g, "*");
  return patterns.some((wide) => patternCovers(wide, pattern));
}
