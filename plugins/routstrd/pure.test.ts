/** The pure parts of routstrd: lists, ids, ownership, the index of keys. */
import { describe, expect, test } from "bun:test";
import { readClientList, readModels } from "./client-list.ts";
import { isOwnClient, shownId, storedId } from "./ownership.ts";
import { ClientIndex, publicId } from "./verify.ts";

describe("readClientList", () => {
  const read = (...items: unknown[]) => readClientList(JSON.stringify(items));

  test("what the daemon writes, with and without the optional fields", () => {
    const bare = { clientId: "a", name: "A", apiKey: "sk-a", createdAt: 1 };
    const { entries, skipped } = read(
      bare,
      { ...bare, apiKey: "sk-b", lastUsed: null, ownerNpub: "npub1X" },
      { ...bare, apiKey: "sk-c", lastUsed: 2, ownerNpub: null },
      { ...bare, apiKey: "sk-d", ownerNpub: "" },
    );
    expect(skipped).toBe(0);
    expect(entries).toEqual([
      { ...bare, lastUsed: undefined, ownerNpub: null },
      { ...bare, apiKey: "sk-b", lastUsed: null, ownerNpub: "npub1x" },
      { ...bare, apiKey: "sk-c", lastUsed: 2, ownerNpub: null },
      { ...bare, apiKey: "sk-d", lastUsed: undefined, ownerNpub: null },
    ]);
  });

  test.each([
    ["null", null],
    ["a text", "sk-a"],
    ["a list", ["a", "sk-a"]],
    ["no id", { apiKey: "sk-a" }],
    ["an empty id", { clientId: "", apiKey: "sk-a" }],
    ["a number as id", { clientId: 1, apiKey: "sk-a" }],
    ["no key", { clientId: "a" }],
    ["an empty key", { clientId: "a", apiKey: "" }],
    ["a list as key", { clientId: "a", apiKey: ["sk-a"] }],
    ["an owner that cannot be read", { clientId: "a", apiKey: "sk-a", ownerNpub: 7 }],
  ])("%s is left out, the others stay", (_, item) => {
    const good = { clientId: "good", apiKey: "sk-good" };
    const { state, entries, skipped } = read(item, good);
    expect({ state, skipped, ids: entries.map(({ clientId }) => clientId) }).toEqual({
      state: "ok",
      skipped: 1,
      ids: ["good"],
    });
  });

  test("other fields of wrong types are as if they were not there", () => {
    const odd = { clientId: "a", apiKey: "sk-a", name: {}, createdAt: "x", lastUsed: [] };
    expect(read(odd).entries).toEqual([
      {
        clientId: "a",
        name: "a",
        apiKey: "sk-a",
        createdAt: null,
        lastUsed: undefined,
        ownerNpub: null,
      },
    ]);
  });

  test("of two clients with one key the first counts", () => {
    const list = read({ clientId: "a", apiKey: "sk" }, { clientId: "b", apiKey: "sk" });
    expect(list.duplicates).toBe(1);
    expect(new ClientIndex(list.entries).find("sk")?.identity.id).toBe("a");
  });

  test("a value that is no text is unreadable, none is missing", () => {
    for (const value of [7, new Uint8Array([91, 93]), true]) {
      expect(readClientList(value).state).toBe("unreadable");
      expect(readModels(value)).toBeNull();
    }
    expect(readClientList(null).state).toBe("missing");
  });
});

describe("ids", () => {
  test.each([
    ["Laptop", "laptop-sssssss"],
    ["  My \t Big  Phone ", "-my-big-phone--sssssss"],
    ["a_b.c/d", "abcd-sssssss"],
    ["\u212aelvin", "kelvin-sssssss"],
    ["-", "--sssssss"],
    ["\u0416", null],
    ["", null],
  ])("%j is stored as %j", (id, stored) => {
    expect(storedId(id, "sssssss")).toBe(stored);
  });

  test("is shown without the member's suffix and no other", () => {
    expect(shownId("laptop-sssssss", "sssssss")).toBe("laptop");
    expect(shownId("laptop-ttttttt", "sssssss")).toBe("laptop-ttttttt");
    expect(shownId("laptopsssssss", "sssssss")).toBe("laptopsssssss");
  });

  test("that no header could carry are told apart by their hash", () => {
    const odd = ["", " ", "a b", "a\nb", "\u00e9", "x".repeat(201)].map(publicId);
    expect(new Set(odd).size).toBe(odd.length);
    for (const id of odd) expect(id).toMatch(/^sha256:[0-9a-f]{64}$/);
    expect(publicId("laptop-1")).toBe("laptop-1");
  });
});

describe("isOwnClient", () => {
  const A = `npub1${"a".repeat(51)}sssssss`;
  const B = `npub1${"c".repeat(51)}sssssss`;
  const own = (ownerNpub: string | null, members: string[] | null, clientId = "x-sssssss") =>
    isOwnClient({ clientId, ownerNpub }, A, members === null ? null : new Set(members));

  test("the stored owner decides, whatever the id ends with", () => {
    expect(own(A, null, "x")).toBe(true);
    expect(own(B, [A])).toBe(false);
  });

  test("without one, the end of the id of the only member who could be meant", () => {
    expect(own(null, [A, `npub1${"d".repeat(58)}`])).toBe(true);
    expect(own(null, [A, B])).toBe(false);
    expect(own(null, [B])).toBe(false);
    expect(own(null, null)).toBe(false);
    expect(own(null, [A], "xsssssss")).toBe(false);
    expect(own(null, [A], "x-ttttttt")).toBe(false);
  });
});
