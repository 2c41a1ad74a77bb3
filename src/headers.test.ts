/** What identity headers say: every value on its own line, and no two values alike. */
import { expect, test } from "bun:test";
import { headerText, identityFields } from "./headers.ts";

test("no two values look alike, and none is changed on its way or leaves its line", () => {
  const values = [
    ...[
      "",
      " ",
      "  ",
      "%20",
      "a",
      " a",
      "a ",
      "  a",
      "%20a",
      "%2520a",
      "a  b",
      "a%20b",
      "a\tb",
      "\ta",
    ],
    ...[
      "a\r\nx: y",
      "a\0",
      "\u00a0a",
      "\ufeffa",
      "\u00e9",
      "e\u0301",
      "\u2028",
      "\ud83e\udd8a",
      "\x7f",
    ],
    "x".repeat(8192),
  ];
  const texts = values.map(headerText);
  expect(new Set(texts).size).toBe(values.length);
  texts.forEach((text, index) => {
    // What a peer leaves of it (RFC 9110 section 5.5) is what was written, and can be read back.
    expect(text).toMatch(/^[\x20-\x7e]*$/);
    expect(text.trim()).toBe(text);
    expect(decodeURIComponent(text)).toBe(values[index] ?? "");
  });
});

test("whoever has a name with a blank before it is not taken for somebody else", () => {
  const route = { identityHeaders: { identity: "x-id", owner: "x-owner" }, attributeHeaders: [] };
  expect(identityFields(route, "keys", { id: " root", owner: "alice " })).toBe(
    "x-id: %20root\r\nx-owner: alice%20\r\n",
  );
});
