/** Patterns: the table says what people expect, the exhaustive comparison that `covers` is exact. */
import { describe, expect, test } from "bun:test";
import { hostCovers, patternCovers, patternProblem } from "./pattern-cover.ts";

describe("patternProblem", () => {
  test.each([
    ["/"],
    ["/**"],
    ["/v1"],
    ["/v1/"],
    ["/v1/*"],
    ["/v1/**"],
    ["/v1/**/end"],
    ["/*/models/*"],
    ["/v1/models:batch"],
    ["/a%2Fb/c%20d"],
    ["/.well-known/x"],
    ["/...three"],
  ])("%s is a pattern", (pattern) => {
    expect(patternProblem(pattern)).toBeNull();
  });

  test.each([
    ["v1", "starts with /"],
    ["/v1*", "whole segments"],
    ["/v1/***", "whole segments"],
    ["/**/a/**", "at most one **"],
    ["/a//b", "empty segment"],
    ["//", "empty segment"],
    ["/a/./b", ". or .."],
    ["/a/..", ". or .."],
    ["/a/%2e%2E/b", ". or .."],
    ["/a?b", "no query"],
    ["/a#b", "no query"],
    ["/a b", "no spaces"],
    ["/a\tb", "no spaces"],
    ["/a\u0001b", "no spaces"],
    ["/ä", "%XX"],
    ["/a\\b", "backslash"],
    ["/a%zz", "hexadecimal"],
    ["/a%", "hexadecimal"],
  ])("%s is no pattern because of %s", (pattern, reason) => {
    expect(patternProblem(pattern)).toContain(reason);
  });
});

describe("patternCovers", () => {
  test.each([
    ["/**", "/"],
    ["/**", "/v1/**"],
    ["/v1/**", "/v1"],
    ["/v1/**", "/v1/"],
    ["/v1/**", "/v1/x/y"],
    ["/v1/**", "/v1/*/y/**"],
    ["/*", "/v1"],
    ["/**/end", "/a/**/end"],
    ["/a/**/end", "/a/end"],
    ["/v1", "/v1"],
    ["/**/", "/v1/"],
  ])("%s covers %s", (wide, narrow) => {
    expect(patternCovers(wide, narrow)).toBe(true);
  });

  test.each([
    ["/*", "/"],
    ["/*", "/**"],
    ["/v1/*", "/v1/"],
    ["/v1/*", "/v1"],
    ["/v1", "/v1/"],
    ["/v1", "/*"],
    ["/v1/**", "/v10"],
    ["/v1/**", "/**"],
    ["/a/**/a", "/a"],
    ["/a/*/**", "/a/**"],
    ["/**/end", "/**"],
    ["/V1", "/v1"],
  ])("%s does not cover %s", (wide, narrow) => {
    expect(patternCovers(wide, narrow)).toBe(false);
  });

  test("it says the same as comparing all short paths, for all short patterns", () => {
    const patterns = combinations(["a", "b", "*", "**"], 3)
      .flatMap((pattern) => [pattern, `${pattern}/`])
      .concat("/")
      .filter((pattern) => patternProblem(pattern) === null);
    // `c` is in no pattern: it stands for every other segment.
    const paths = combinations(["a", "b", "c", ""], 6).filter((path) => !path.includes("///"));
    const matched = new Map(
      patterns.map((pattern) => {
        const form = reference(pattern);
        return [pattern, new Set(paths.filter((path) => form.test(path)))];
      }),
    );
    const wrong: string[] = [];
    for (const wide of patterns) {
      for (const narrow of patterns) {
        const isCovered = matched.get(narrow)!.isSubsetOf(matched.get(wide)!);
        if (patternCovers(wide, narrow) !== isCovered) wrong.push(`${wide} over ${narrow}`);
      }
    }
    expect(patterns.length).toBeGreaterThan(100);
    expect(wrong).toEqual([]);
  });
});

describe("hostCovers", () => {
  test.each([
    ["a.example.com", "a.example.com", true],
    ["*.example.com", "a.example.com", true],
    ["*.example.com", "b.a.example.com", true],
    ["*.example.com", "*.a.example.com", true],
    ["*.example.com", "*.example.com", true],
    ["*.example.com", "example.com", false],
    ["*.example.com", "badexample.com", false],
    ["a.example.com", "*.example.com", false],
    ["a.example.com", "b.example.com", false],
  ])("%s over %s is %p", (wide, narrow, expected) => {
    expect(hostCovers(wide, narrow)).toBe(expected);
  });
});

function combinations(segments: readonly string[], length: number): string[] {
  if (length === 0) return [];
  const shorter = ["", ...combinations(segments, length - 1)];
  return [...new Set(shorter.flatMap((head) => segments.map((one) => `${head}/${one}`)))];
}

/** The meaning of patterns, written a second time. */
function reference(pattern: string): RegExp {
  const parts = pattern.slice(1).split("/");
  const source = parts.map((one) =>
    one === "**" ? "(/[^/]*)*" : one === "*" ? "/[^/]+" : `/${one}`,
  );
  return new RegExp(`^(?=/)${source.join("")}$`);
}
