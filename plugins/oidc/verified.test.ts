/** The memory of verified tokens: bounded, and what was used last stays. */
import { expect, test } from "bun:test";
import type { Outcome } from "../../src/contract/outcome.ts";
import { digestOf, openVerified, type Verified } from "./verified.ts";

const outcome: Outcome = { outcome: "accept", identity: { id: "alice" } };
const verified: Verified = { outcome, keyId: "key", fromMs: 0, untilMs: 1 };

test("the one that was not used for longest makes room", () => {
  const tokens = openVerified(4);
  for (const name of ["a", "b", "c", "d"]) tokens.keep(name, verified);
  expect(tokens.find("a")).toBe(verified);
  tokens.keep("e", verified);
  expect(tokens.find("b")).toBeUndefined();
  tokens.keep("a", { ...verified, keyId: "other" });
  tokens.keep("f", verified);
  expect(tokens.find("c")).toBeUndefined();
  expect(tokens.find("a")?.keyId).toBe("other");
  for (const name of ["d", "e", "f"]) expect(tokens.find(name)).toBe(verified);
  tokens.drop("d");
  expect(tokens.find("d")).toBeUndefined();
});

test("a token is named by its SHA-256", () => {
  expect(digestOf("abc")).toBe("ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=");
});
