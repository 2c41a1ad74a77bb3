/** Where endpoints are, from patterns. */
import { describe, expect, test } from "bun:test";
import { basesOf, isReached, pathWithin } from "./mount.ts";
import { ENDPOINT } from "./token-api/surface.ts";

describe("bases", () => {
  test.each([
    [["/api/**"], ["/api"]],
    [["/gate/api/**"], ["/gate/api"]],
    [["/**"], [""]],
    [["/api/me/tokens", "/api/me/tokens/**"], ["/api"]],
    [["/api/me/**"], ["/api"]],
    [["/api/users/**"], ["/api"]],
    [["/api/users/*/tokens/*"], ["/api"]],
    [["/api/users/alice/tokens"], ["/api"]],
    [["/api/tokens/*/rotate"], ["/api"]],
    [["/me/tokens"], [""]],
    [
      ["/a/**", "/a/longer/**"],
      ["/a/longer", "/a"],
    ],
  ])("of %j are %j", (patterns, bases) => {
    expect(basesOf(patterns, ENDPOINT)).toEqual(bases);
  });

  test("a path below one is an endpoint's from there on, and another path is none's", () => {
    expect(pathWithin("/api/me/tokens", ["/api"])).toBe("/me/tokens");
    expect(pathWithin("/api/me/users/bob/tokens", ["/api"])).toBe("/me/users/bob/tokens");
    expect(pathWithin("/me/tokens", [""])).toBe("/me/tokens");
    expect(pathWithin("/apiary/me/tokens", ["/api"])).toBeNull();
    expect(pathWithin("/api", ["/api"])).toBeNull();
  });

  test("an endpoint is reached when a pattern takes every path of it", () => {
    expect(isReached("/api/users/{sub}/tokens/{id}", ["/api/**"])).toBe(true);
    expect(isReached("/api/users/{sub}/tokens/{id}", ["/api/me/**"])).toBe(false);
    expect(isReached("/api/users/{sub}/tokens", ["/api/users/alice/tokens"])).toBe(false);
    expect(isReached("/api/me/tokens", ["/api/me/tokens"])).toBe(true);
  });
});
