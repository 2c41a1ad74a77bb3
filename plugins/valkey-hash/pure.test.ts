/** The parts without a connection: hashes, forms, settings, entries, drafts. */
import { describe, expect, test } from "bun:test";
import { checkedDraft, checkedForeign, checkedGrace } from "./draft.ts";
import { FIELDS, readEntry, toFields } from "./entry.ts";
import { tokenForm } from "./form.ts";
import { keyedHasher } from "./hash.ts";
import { settingsSchema } from "./settings.ts";

const SALT = "ab".repeat(32);
const URL_OK = "redis://127.0.0.1:6379";

/** Every issue of a config as `path: message`. */
function problems(config: Record<string, unknown>): string[] {
  const { error } = settingsSchema().safeParse({ url: URL_OK, salt: SALT, ...config });
  return error?.issues.map(({ path, message }) => `${path.join(".")}: ${message}`) ?? [];
}

describe("hashes", () => {
  // Of rusty-valkey-forward-auth: key 32 zero bytes.
  test("the published vector holds, also when the hasher is used again", () => {
    const hasher = keyedHasher("00".repeat(32));
    for (let round = 0; round < 3; round += 1) {
      expect(hasher("example-token")).toBe(
        "2d00e35e3e78f77fa4eb0454a48fb41e45963e0f9b5a335be231a2b582790189",
      );
    }
    const other = keyedHasher(SALT);
    const first = other("abc");
    expect([other("abc"), other("abc")]).toEqual([first, first]);
    expect(hasher("abc")).not.toBe(first);
  });
});

describe("forms", () => {
  test("a plain token is 32 letters and digits without a checksum", () => {
    const form = tokenForm("plain", "gate");
    expect(form.issue("")).toMatch(/^[0-9A-Za-z]{32}$/);
    expect(form.read("anything")).toBe("other");
    expect(form.newId()).toBeNull();
  });

  test("a checked token names its id, and every change of a character is noticed or another token", () => {
    const form = tokenForm("checked", "gate");
    const token = form.issue("0123456789Az");
    expect(token).toMatch(/^gate_0123456789Az_[0-9A-Za-z]{39}$/);
    expect(form.read(token)).toBe("own");
    for (let place = 0; place < token.length; place += 1) {
      const swapped = token[place] === "x" ? "y" : "x";
      expect(form.read(token.slice(0, place) + swapped + token.slice(place + 1))).not.toBe("own");
    }
    expect(form.read(token.slice(0, -1))).toBe("broken");
    expect(tokenForm("checked", "other").read(token)).toBe("other");
  });
});

describe("settings", () => {
  test("the smallest config is fine", () => {
    expect(problems({})).toEqual([]);
    expect(problems({ url: "rediss://[::1]:7000/3" })).toEqual([]);
  });

  test.each([
    ["an empty salt", { salt: "" }, "salt"],
    ["a blank salt", { salt: " ".repeat(64) }, "salt"],
    ["a short salt", { salt: "ab" }, "salt"],
    [
      "the public default salt",
      { salt: "3794447850d23a5db972dbe556437ec2edfe4294687843d7f0587bd9535beecf" },
      "salt",
    ],
    ["the same salt twice", { previous_salt: SALT.toUpperCase() }, "previous_salt"],
    ["a password in the address", { url: "redis://:canary-pw@localhost:6379" }, "url"],
    ["a user in the address", { url: "redis://canary-pw@localhost" }, "url"],
    ["another scheme", { url: "http://localhost" }, "url"],
    ["a query", { url: "redis://localhost?x=canary-pw" }, "url"],
    ["two ways", { cluster: { nodes: ["a:1"] } }, "url"],
    ["no way", { url: undefined }, "url"],
    ["a node without a port", { url: undefined, cluster: { nodes: ["a"] } }, "cluster.nodes.0"],
    ["a user without a password", { username: "gate" }, "username"],
    ["a deadline of nothing", { command_timeout: "0s" }, "command_timeout"],
    ["a blank prefix", { prefix: "" }, "prefix"],
    ["Authorization as header", { header: "Authorization" }, "header"],
  ])("%s is refused by its name and not repeated", (_, config, path) => {
    const found = problems(config);
    expect(found.map((text) => text.split(":")[0])).toContain(path);
    expect(found.join()).not.toContain("canary-pw");
  });
});

describe("entries", () => {
  const at = { ttlMs: -1, nowMs: 0 };
  const values = (fields: Readonly<Record<string, string>>) =>
    FIELDS.map((field) => fields[field] ?? null);

  test("what the original writes is enough, up to nanoseconds", () => {
    const read = readEntry(
      "aa",
      values({ sub: "bob", created_at: "2025-01-01T00:00:00.123456789Z", description: "" }),
      at,
    );
    expect(read).toMatchObject({
      kind: "entry",
      entry: { id: "aa", sub: "bob", name: "", createdAtMs: 1_735_689_600_123, role: "user" },
    });
  });

  test("what is written is what is read", () => {
    const entry = {
      hash: "aa",
      id: "0123456789Az",
      sub: "bob",
      createdAtMs: 1000,
      name: "ci",
      role: "admin",
      scopes: ["a", "b"],
      expiresAtMs: 8.64e15,
      notBeforeMs: 2000,
      createdBy: "cli",
      foreign: true,
      generation: 2,
      previous: "bb",
      next: null,
      state: "new",
      goneAtMs: null,
    } as const;
    const pairs = toFields(entry);
    const fields = Object.fromEntries(
      pairs.flatMap((text, index) => (index % 2 === 0 ? [[text, pairs[index + 1] ?? ""]] : [])),
    );
    expect(readEntry("aa", values(fields), at)).toEqual({ kind: "entry", entry });
  });

  test("a state of another version is that of a current token", () => {
    for (const state of ["", "x"]) {
      expect(readEntry("aa", values({ sub: "bob", state }), at)).toMatchObject({
        entry: { state: "current" },
      });
    }
  });

  test.each([
    ["no subject", { created_at: "2025-01-01T00:00:00Z" }],
    ["an empty subject", { sub: "", created_at: "2025-01-01T00:00:00Z" }],
    ["an expiry that is none", { sub: "bob", expires_at: "soon" }],
    ["an expiry in seconds", { sub: "bob", expires_at: "1767225600" }],
    ["a not-before that is none", { sub: "bob", not_before: "2025-99-99T00:00:00Z" }],
  ])("%s is no token", (_, fields) => {
    expect(readEntry("aa", values(fields), at).kind).toBe("broken");
  });
});

describe("drafts", () => {
  test("a name is measured in bytes, as the original's description is", () => {
    expect(checkedDraft({ name: "é".repeat(128) }, 0).name).toHaveLength(128);
    expect(() => checkedDraft({ name: "é".repeat(129) }, 0)).toThrow("256 bytes");
    expect(() => checkedDraft({ name: "a".repeat(257) }, 0)).toThrow("256 characters");
  });

  test.each([
    ["an empty name", { name: "" }],
    ["a line break", { name: "a\nb" }],
    ["a turned direction", { name: "a\u202eb" }],
    ["half a character", { name: "\ud800" }],
    ["a space at the end", { name: "a " }],
    ["a token", { name: `gate_0123456789Az_${"x".repeat(39)}` }],
    ["a subject with a line break", { name: "a", owner: "bob\nX-Role: admin" }],
    ["a subject with NUL", { name: "a", owner: "bob\0" }],
    ["an expiry in the past", { name: "a", expiresAtMs: 10 }],
    ["an expiry before the beginning", { name: "a", expiresAtMs: 20, notBeforeMs: 20 }],
    ["a scope with a space", { name: "a", scopes: ["a b"] }],
  ])("%s is refused", (_, draft) => {
    expect(() => checkedDraft(draft, 10)).toThrow();
  });

  test("a subject may hold a slash, a percent sign and an emoji", () => {
    expect(checkedDraft({ name: "a", owner: "a/b%2F🦊" }, 0).owner).toBe("a/b%2F🦊");
  });

  test("imported tokens and graces have bounds", () => {
    expect(() => checkedForeign("short")).toThrow("guessed");
    expect(() => checkedForeign(`sk-${"x".repeat(20)},`)).toThrow("commas");
    expect(() => checkedGrace(-1)).toThrow();
    expect(() => checkedGrace(0.5)).toThrow();
  });
});
