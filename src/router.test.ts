import { expect, test } from "bun:test";
import { foldPath } from "./path.ts";
import { pathMatcher } from "./router.ts";

/** What a pattern means, said in one expression; for long paths it would be too slow. */
function meaning(pattern: string): RegExp {
  const source = pattern.split("/").slice(1);
  const parts = source.map((one) => ({ "**": "(?:/.*)?", "*": "/[^/]+" })[one] ?? `/${one}`);
  return new RegExp(`^${parts.join("")}$`);
}

/** All texts of `count` of `parts`, each behind a slash. */
function* sequences(parts: readonly string[], count: number): Generator<string> {
  if (count === 0) yield "";
  else
    for (const rest of sequences(parts, count - 1))
      for (const part of parts) yield `/${part}${rest}`;
}

test("patterns mean the same however many ** they have", () => {
  const paths = [1, 2, 3, 4, 5].flatMap((count) => [...sequences(["a", "b", ""], count)]);
  const patterns = [1, 2, 3, 4].flatMap((count) => [...sequences(["a", "b", "*", "**"], count)]);
  for (const pattern of patterns) {
    const [matches, form] = [pathMatcher(pattern), meaning(pattern)];
    const wrong = paths.filter((path) => matches(path) !== form.test(path));
    expect({ pattern, wrong }).toEqual({ pattern, wrong: [] });
  }
});

test("a long path is judged by a pattern with several ** in the time of one look", () => {
  const matches = pathMatcher("/**/a/**/b/**/c/**/d/**/e");
  // An expression would try each way to share out the segments; the test would not end.
  expect(matches("/a/b/c/d".repeat(1500))).toBe(false);
  expect(matches(`${"/a/b/c/d".repeat(1500)}/e`)).toBe(true);
});

test.each([
  ["/a. ./b", "/a/b"],
  ["/A%20%2E/b%2e", "/a/b"],
  ["/a .b/c", "/a .b/c"],
  ["/. /", "/"],
  ["/a//b/", "/a/b"],
  [`/a${" .%20".repeat(5000)}x`, `/a${" .%20".repeat(5000)}x`],
])("names without what some leave away at their end (%#)", (path, folded) => {
  expect(foldPath(path)).toBe(folded);
});
