/** What may be written about a token. */
import { describe, expect, test } from "bun:test";
import { TokenError } from "gatehouse";
import { checkedDraft, checkedForeign, checkedGrace, checkedReason } from "./draft.ts";
import { tokenForm } from "./token.ts";

const NOW = 1_767_225_600_000;
const TOKEN = tokenForm("gate").issue("0123456789Az");

function complaint(work: () => unknown): string {
  try {
    work();
  } catch (error) {
    if (error instanceof TokenError && error.code === "invalid") return error.message;
    throw error;
  }
  throw new Error("it was accepted");
}

describe("texts", () => {
  test.each([
    ["one character", "a"],
    ["256 characters", "a".repeat(256)],
    ["256 characters of four bytes", "😀".repeat(256)],
    ["any script", "Пётр 李雷 محمد"],
    ["a family of joined signs", "👩‍👩‍👧"],
  ])("a name may be %s", (_, name) => {
    expect(checkedDraft({ name, owner: name }, NOW)).toMatchObject({ name, owner: name });
  });

  test.each([
    ["empty", ""],
    ["257 characters long", "a".repeat(257)],
    ["a line break", "a\nb"],
    ["a NUL", "a\0b"],
    ["an escape sequence", "a\u001b[31mb"],
    ["DEL", "a\u007fb"],
    ["a C1 control", "a\u009bb"],
    ["a line separator", "a\u2028b"],
    ["a right-to-left override", "a\u202eb"],
    ["a bidirectional isolate", "a\u2066b"],
    ["a left-to-right mark", "a\u200eb"],
    ["an Arabic letter mark", "a\u061cb"],
    ["half a surrogate pair", "a\ud800b"],
    ["a space in front", " a"],
    ["only a space", " "],
    ["a token", TOKEN],
    ["a text that holds a token", `my ${TOKEN} here`],
  ])("a text that is %s is refused everywhere and not repeated", (_, text) => {
    const said = [
      complaint(() => checkedDraft({ name: text }, NOW)),
      complaint(() => checkedDraft({ name: "n", owner: text }, NOW)),
      complaint(() => checkedDraft({ name: "n", createdBy: text }, NOW)),
    ];
    if (text.trim().length > 3) expect(said.join()).not.toContain(text);
    const isFineReason = text === "" || text.length === 257;
    if (!isFineReason) expect(complaint(() => checkedReason(text))).toContain("the reason");
  });
});

describe("scopes and roles", () => {
  test("scopes are the characters of RFC 6749 section 3.3, each kept once", () => {
    const scopes = ["!", "#x[]~", "models:read", "models:read"];
    expect(checkedDraft({ name: "n", scopes }, NOW).scopes).toEqual(["!", "#x[]~", "models:read"]);
  });

  test.each(["", " ", "a b", 'a"b', "a\\b", "a\u007f", "é", "a\n", "x".repeat(129)])(
    "the scope %p is refused",
    (scope) => {
      expect(complaint(() => checkedDraft({ name: "n", scopes: [scope] }, NOW))).toContain("scope");
    },
  );

  test("more than 64 scopes are refused", () => {
    const scopes = Array.from({ length: 65 }, (_, index) => `s${index}`);
    expect(complaint(() => checkedDraft({ name: "n", scopes }, NOW))).toContain("64");
    expect(checkedDraft({ name: "n", scopes: scopes.slice(1) }, NOW).scopes).toHaveLength(64);
  });

  test("the role is user unless it is said to be admin", () => {
    expect(checkedDraft({ name: "n" }, NOW).role).toBe("user");
    expect(checkedDraft({ name: "n", role: "admin" }, NOW).role).toBe("admin");
    const odd: unknown = { name: "n", role: "root" };
    expect(complaint(() => checkedDraft(odd as { name: string }, NOW))).toContain("role");
  });
});

describe("times", () => {
  test.each([
    [-1, false],
    [0, false],
    [1, true],
  ])("an expiry %d ms from now is accepted: %p", (offset, isFine) => {
    const draft = { name: "n", expiresAtMs: NOW + offset };
    if (isFine) expect(checkedDraft(draft, NOW).expiresAtMs).toBe(NOW + offset);
    else expect(complaint(() => checkedDraft(draft, NOW))).toContain("in the past");
  });

  test.each([Number.NaN, Number.POSITIVE_INFINITY, 1.5, -1, 8.64e15 + 1])(
    "%p is no time",
    (time) => {
      complaint(() => checkedDraft({ name: "n", expiresAtMs: time }, NOW));
      complaint(() => checkedDraft({ name: "n", notBeforeMs: time }, NOW));
    },
  );

  test.each([0, 1])("a token that expires %d ms before it begins is refused", (offset) => {
    const draft = { name: "n", expiresAtMs: NOW + 10, notBeforeMs: NOW + 10 + offset };
    expect(complaint(() => checkedDraft(draft, NOW))).toContain("before it becomes valid");
    expect(checkedDraft({ ...draft, notBeforeMs: NOW + 9 }, NOW).notBeforeMs).toBe(NOW + 9);
  });

  test.each([-1, 0.5, Number.NaN, 3.2e11])("%p ms is no grace time", (graceMs) => {
    complaint(() => checkedGrace(graceMs));
  });
});

describe("foreign tokens", () => {
  test.each([
    ["of 15 characters", "x".repeat(15)],
    ["of 4097 characters", "x".repeat(4097)],
    ["with a comma", "xxxxxxxx,xxxxxxxx"],
    ["with a space", "xxxxxxxx xxxxxxxx"],
    ["with a tab", "xxxxxxxx\txxxxxxxx"],
    ["with a line break", "xxxxxxxxxxxxxxxx\n"],
    ["with a letter that is not ASCII", "xxxxxxxxxxxxxxxé"],
    ["with DEL", "xxxxxxxxxxxxxxx\u007f"],
  ])("a token %s is refused and not repeated", (_, token) => {
    expect(complaint(() => checkedForeign(token))).not.toContain("xxxxxxx");
  });

  test.each(["x".repeat(16), "x".repeat(4096), "sk-proj-0!#$%&'*+./:;<=>?@[]^_`{|}~"])(
    "visible ASCII of 16 to 4096 characters is accepted",
    (token) => {
      expect(checkedForeign(token)).toBe(token);
    },
  );
});
