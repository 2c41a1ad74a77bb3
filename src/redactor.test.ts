/** What is taken out of messages that plugins wrote. */
import { describe, expect, test } from "bun:test";
import { redactor } from "./redactor.ts";

describe("redactor", () => {
  test.each([
    ["a value that is one reference", "${env:A}", "hush", "no hush here", "no [redacted] here"],
    [
      "the part of a text that is secret",
      "redis://u:${env:A}@h",
      "redis://u:hush@h",
      "hush?",
      "[redacted]?",
    ],
    ["a text as a whole", "Bearer ${env:A}", "Bearer hush", "Bearer hush!", "[redacted]!"],
    ["what is between two references", "${env:A}:${env:B}", "x1:y2", "got x1:y2", "got [redacted]"],
    ["each time it occurs", "${env:A}", "hush", "hush hush", "[redacted] [redacted]"],
    [
      "a text with an escape as a whole",
      "$${x} ${env:A}",
      "${x} hush",
      "<${x} hush>",
      "<[redacted]>",
    ],
  ])("takes out %s", (_, raw, resolved, message, expected) => {
    expect(redactor({ a: [raw] }, { a: [resolved] })(message)).toBe(expected);
  });

  test("leaves settings without a reference readable", () => {
    const settings = { url: "http://db", n: 3, list: ["x"], none: null };
    expect(redactor(settings, settings)("http://db x 3 null")).toBe("http://db x 3 null");
  });

  test("a secret that is part of another does not leave a rest", () => {
    const redact = redactor({ a: "${env:A}", b: "${env:B}" }, { a: "hush", b: "hush-hush" });
    expect(redact("hush-hush")).toBe("[redacted]");
  });

  test("settings that lost their shape on the way are no error", () => {
    expect(redactor({ a: { b: "${env:A}" } }, { a: null })("text")).toBe("text");
  });
});
