/** The pure half of static-env. */
import { describe, expect, test } from "bun:test";
import { findToken, MIN_TOKEN_LENGTH, parseTokens } from "./verify.ts";

const A = "a".repeat(MIN_TOKEN_LENGTH);
const B = "b".repeat(48);
const C = "sk-C0/+=.~_-!x".padEnd(20, "c");

describe("parseTokens", () => {
  test.each([
    ["one token", A, 1],
    ["one token with a line break at its end", `${A}\n`, 1],
    ["one token with a byte order mark before it", `\ufeff${A}`, 1],
    ["tokens on lines of their own", `${A}\n${B}\r\n${C}\n`, 3],
    ["tokens between commas", `${A},${B}, ${C}`, 3],
    ["tokens between blanks and tabs", `  ${A} \t ${B}  `, 2],
  ])("%s gives that many digests", (_, text, count) => {
    const digests = parseTokens(text, "here");
    expect(digests.length).toBe(count);
    for (const digest of digests) expect(digest.length).toBe(32);
  });

  test.each([
    ["empty text", ""],
    ["blank text", " \t\r\n "],
    ["commas alone", ",,, ,"],
  ])("%s is refused with the place and advice", (_, text) => {
    expect(() => parseTokens(text, "token file /x")).toThrow(
      "token file /x is empty or blank; make one with: openssl rand -hex 24",
    );
  });

  test("a token one character too short is refused without being quoted", () => {
    const short = "s".repeat(MIN_TOKEN_LENGTH - 1);
    const parse = (): unknown => parseTokens(`${B} ${short}`, "environment variable T");
    expect(parse).toThrow(
      "token 2 of 2 in environment variable T is shorter than 16 characters; make one with: openssl rand -hex 24",
    );
    expect(parse).not.toThrow(short);
  });

  test("a token with an invisible or non-ASCII character is refused without being quoted", () => {
    for (const bad of [`${B}\u00e9`, `${B}\0`, `${B}\u007f`, `${B}\u200b`]) {
      const parse = (): unknown => parseTokens(bad, "here");
      expect(parse).toThrow("the token in here has characters that are not visible ASCII");
      expect(parse).not.toThrow(B);
    }
  });

  test("a token longer than any request can present is refused", () => {
    expect(parseTokens("x".repeat(8192), "here").length).toBe(1);
    expect(() => parseTokens("x".repeat(8193), "here")).toThrow("is longer than 8192 characters");
  });

  test("a token that is there twice is refused", () => {
    expect(() => parseTokens(`${A} ${B} ${A}`, "here")).toThrow(
      "token 3 of 3 in here is there twice; remove one",
    );
  });
});

describe("findToken", () => {
  const digests = parseTokens(`${A} ${B} ${C}`, "here");

  test("a known token is found at its position", () => {
    expect([A, B, C].map((token) => findToken(digests, token))).toEqual([0, 1, 2]);
  });

  test.each([
    ["empty", ""],
    ["a prefix", A.slice(1)],
    ["longer by one", `${A}a`],
    ["in another case", A.toUpperCase()],
    ["with a blank", ` ${A}`],
    ["the digest of a token", digests[0]?.toString("hex") ?? ""],
  ])("a credential that is %s is none of them", (_, presented) => {
    expect(findToken(digests, presented)).toBe(-1);
  });
});
