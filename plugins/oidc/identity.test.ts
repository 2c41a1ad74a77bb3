/** From claims to an identity: paths, names, groups, roles, and values that must not become anything. */
import { describe, expect, test } from "bun:test";
import type { Identity } from "../../src/contract/outcome.ts";
import { identityFields } from "../../src/headers.ts";
import { claimAt, isOneOf, textsOf } from "./claims.ts";
import { identify } from "./identity.ts";
import plugin from "./index.ts";

const ISSUER = "https://id.example.com";
const PROOF = { expiresAtMs: 1_800_000_000_000, keyId: "key" };

function found(claims: Record<string, unknown>, config: Record<string, unknown> = {}) {
  const settings = plugin.config.parse({ issuer: ISSUER, audience: "api", ...config });
  return identify(claims, settings, PROOF);
}

function identity(claims: Record<string, unknown>, config: Record<string, unknown> = {}): Identity {
  const result = found({ sub: "alice", ...claims }, config);
  if (result.kind !== "identity") throw new Error(result.kind);
  return result.identity;
}

describe("paths", () => {
  const claims = {
    sub: "x",
    "https://example.com/roles": ["url"],
    "a.b": "literal",
    a: { b: "nested", c: { "d.e": "deep" } },
    resource_access: { "my.app": { roles: ["r"] }, my: { app: { other: 1 } } },
    list: [{ a: 1 }],
    nothing: null,
  };
  test.each<[string, unknown]>([
    ["sub", "x"],
    ["https://example.com/roles", ["url"]],
    ["a.b", "literal"],
    ["a.c.d.e", "deep"],
    ["resource_access.my.app.roles", ["r"]],
    ["nothing", null],
    ["missing", undefined],
    ["a.missing", undefined],
    ["sub.length", undefined],
    ["list.0", undefined],
    ["list.length", undefined],
    ["__proto__", undefined],
    ["constructor.name", undefined],
    ["a.__proto__", undefined],
    [".", undefined],
    ["a.", undefined],
    [".a", undefined],
  ])("%s", (path, expected) => {
    expect(claimAt(claims, path)).toEqual(expected);
  });

  test("a name that JSON.parse makes a member of its own is found as one", () => {
    const claims = JSON.parse('{"__proto__":{"roles":["a"]}}');
    expect(claimAt(claims, "__proto__.roles")).toEqual(["a"]);
    expect(claimAt(claims, "roles")).toBeUndefined();
  });
});

describe("subject", () => {
  test.each<[unknown, string]>([
    ["alice", "alice"],
    [42, "42"],
    [0, "0"],
    [-1, "-1"],
    ["0", "0"],
    ["auth0|65f/a%b", "auth0|65f/a%b"],
    ["наталья 🦊", "наталья 🦊"],
    ["a\r\nX-Gatehouse-Role: admin", "a\r\nX-Gatehouse-Role: admin"],
    ["x".repeat(1024), "x".repeat(1024)],
  ])("%j is somebody", (sub, id) => {
    expect(identity({ sub }).id).toBe(id);
  });

  test.each<[unknown]>([
    [undefined],
    [null],
    [""],
    [" \t\r\n "],
    ["\u00a0"],
    // Not to be taken for alice.
    ["  alice\t"],
    ["alice "],
    ["alice\u00a0"],
    ["\ufeffalice"],
    [true],
    [["alice"]],
    [{ id: "alice" }],
    [1.5],
    [2 ** 53],
    [Number.POSITIVE_INFINITY],
    ["x".repeat(1025)],
    ["half \ud83e a pair"],
  ])("%j is nobody", (sub) => {
    expect(found({ sub })).toEqual({ kind: "no_subject" });
  });

  test("at a path, or under a name with dots", () => {
    expect(identity({ user: { id: 7 } }, { subject_claim: "user.id" }).id).toBe("7");
    const name = "https://example.com/id";
    expect(identity({ [name]: "bob" }, { subject_claim: name }).id).toBe("bob");
    expect(found({ sub: "alice" }, { subject_claim: "oid" }).kind).toBe("no_subject");
  });

  test("whatever it holds, it stays in its own header, and no two subjects look alike there", () => {
    const subjects = [
      "a/b",
      "a%2Fb",
      "a%b",
      "a\nb",
      "a\r\nX: y",
      "a b",
      "a%20b",
      "ä",
      "🦊",
      "a\u0000b",
      "a\u2028b",
    ];
    const route = { identityHeaders: { identity: "X-User" }, attributeHeaders: [] };
    const lines = subjects.map((sub) => identityFields(route as never, "login", identity({ sub })));
    for (const line of lines) expect(line).toMatch(/^X-User: [\x20-\x7e]+\r\n$/);
    expect(new Set(lines).size).toBe(subjects.length);
  });
});

test("the name is the one that was asked for, or the first that there is", () => {
  const claims = { preferred_username: " al ", name: "Alice A.", email: "a@example.com" };
  expect(identity(claims).name).toBe("al");
  expect(identity({ ...claims, preferred_username: "" }).name).toBe("Alice A.");
  expect(identity({ email: "a@example.com" }).name).toBe("a@example.com");
  expect(identity({ nick: "Ali", ...claims }, { name_claim: "nick" }).name).toBe("Ali");
  expect(identity(claims, { name_claim: "nick" }).name).toBeUndefined();
  expect(identity({ name: ["Alice"] })).not.toHaveProperty("name");
});

test("an address that the issuer calls unproven is not passed on, also not as a name", () => {
  for (const email_verified of [false, "false"]) {
    const said = identity({ email: "boss@example.com", email_verified });
    expect(said.attributes).not.toHaveProperty("email");
    expect(said).not.toHaveProperty("name");
  }
  for (const email_verified of [true, undefined]) {
    expect(identity({ email: "a@example.com", email_verified }).attributes?.email).toBe(
      "a@example.com",
    );
  }
});

describe("groups", () => {
  test.each<[string, unknown, Record<string, unknown>, string]>([
    ["a list", ["a", "b"], {}, "a,b"],
    ["a list with others in it", ["a", 1, null, ["b"], { c: 1 }, "", " ", "d"], {}, "a,d"],
    ["one text", "a b", {}, "a b"],
    ["one text, split", " a  b\tc ", { groups_split: true }, "a,b,c"],
    ["a list is not split", ["a b"], { groups_split: true }, "a b"],
    ["a number", 7, {}, ""],
    ["nothing", undefined, {}, ""],
    ["a map", { admins: true }, {}, ""],
    ["names with the sign between names", ["x,admins", "a"], {}, "a"],
  ])("%s", (_, groups, config, expected) => {
    expect(identity({ groups }, config).attributes?.groups).toBe(expected);
  });

  test("at a path, as Keycloak has them", () => {
    const claims = { realm_access: { roles: ["offline_access", "ops"] } };
    const config = { groups_claim: "realm_access.roles", admin_group: "ops" };
    expect(identity(claims, config)).toMatchObject({
      role: "admin",
      attributes: { groups: "offline_access,ops" },
    });
  });

  test("whoever is in the admin group is admin; exactly, unless case is said not to count", () => {
    const role = (groups: unknown, config: Record<string, unknown> = {}) =>
      identity({ groups }, { admin_group: "Admins", ...config }).role;
    expect(role(["Admins"])).toBe("admin");
    for (const groups of [
      ["admins"],
      ["Admins "],
      ["/Admins"],
      ["NotAdmins"],
      "x Admins",
      [["Admins"]],
      undefined,
    ]) {
      expect(role(groups)).toBe("user");
    }
    const loose = { admin_group_case_sensitive: false };
    expect(role(["aDMINS"], loose)).toBe("admin");
    expect(role(["admınS"], loose)).toBe("user");
    // The Kelvin sign, whose lower case is k.
    expect(role(["tan\u212a"], { admin_group: "tank", ...loose })).toBe("user");
    expect(role("x Admins", { groups_split: true })).toBe("admin");
    expect(identity({ groups: ["admin", "", "undefined"] }).role).toBe("user");
  });

  test("allow_groups lets only members in, an admin as well only then", () => {
    const config = { allow_groups: ["staff", "ops"], admin_group: "root" };
    expect(identity({ groups: ["x", "ops"] }, config).id).toBe("alice");
    for (const groups of [["root"], ["Staff"], [], undefined, "staff ops", ["staff,ops"]]) {
      expect(found({ sub: "alice", groups }, config)).toEqual({
        kind: "not_in_groups",
        id: "alice",
      });
    }
  });
});

test.each<[string, Record<string, unknown>, string[]]>([
  ["a text", { scope: "read write  read" }, ["read", "write"]],
  ["a list", { scp: ["read", "write"] }, ["read", "write"]],
  ["a text in scp, as Entra has it", { scp: "read write" }, ["read", "write"]],
  ["scope counts before scp", { scope: "read", scp: ["write"] }, ["read"]],
  ["an entry of a list is not two", { scp: ["read admin", "x"] }, ["x"]],
  ["signs that no scope has", { scp: ['a"b', "a\\b", "ä", "a\nb", "ok"] }, ["ok"]],
  ["none", {}, []],
  ["another type", { scope: 7 }, []],
])("scopes: %s", (_, claims, expected) => {
  expect(identity(claims).scopes).toEqual(expected);
});

test("facts for headers: issuer, key, client", () => {
  expect(identity({ client_id: "web", azp: "x" }).attributes).toEqual({
    issuer: ISSUER,
    key: "key",
    groups: "",
    client_id: "web",
  });
  expect(identity({ azp: "cli" }).attributes?.client_id).toBe("cli");
  expect(identity({}).expiresAtMs).toBe(PROOF.expiresAtMs);
});

test("texts are texts, and nothing is one of the wanted by accident", () => {
  expect(textsOf("a b", false)).toEqual(["a b"]);
  expect(textsOf(undefined, true)).toEqual([]);
  expect(isOneOf(undefined, ["undefined"])).toBe(false);
  expect(isOneOf(null, ["null"])).toBe(false);
  expect(isOneOf({}, ["[object Object]"])).toBe(false);
  expect(isOneOf({}, ["\0"])).toBe(false);
  expect(isOneOf(["x", ["a"]], ["a"])).toBe(false);
});
