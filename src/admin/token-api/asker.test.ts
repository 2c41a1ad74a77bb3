/** Who owns what they make, and what they may make. */
import { describe, expect, test } from "bun:test";
import type { Identity } from "../../contract/outcome.ts";
import { Problem } from "../answers.ts";
import {
  type Asker,
  askerOf,
  mustBeAbleToMint,
  mustBeAdmin,
  mustOwn,
  type Rights,
} from "./asker.ts";

const strategies = { keeper: "keys", access: ["oidc", "other", "keys"] };

function ask(identity: Identity, strategy = "oidc"): Asker {
  return askerOf({ identity, strategy, refusal: null }, strategies);
}

function refusal(work: () => unknown): string {
  try {
    work();
  } catch (error) {
    if (error instanceof Problem) return error.reason;
    throw error;
  }
  return "allowed";
}

describe("the subject", () => {
  test.each([
    ["of the first strategy is the id", { id: "alice" }, "oidc", "alice"],
    ["of the first strategy is never its owner", { id: "a", owner: "bob" }, "oidc", "a"],
    ["of another strategy names it", { id: "alice" }, "other", "other:alice"],
    ["of a token is its owner", { id: "4fK2mPq8Zs1T", owner: "alice" }, "keys", "alice"],
    ["may hold anything", { id: "a/b %2F\n🦊" }, "oidc", "a/b %2F\n🦊"],
    ["may begin with its own strategy's name", { id: "oidc:alice" }, "oidc", "oidc:alice"],
  ])("%s", (_, identity, strategy, subject) => {
    expect(mustOwn(ask(identity, strategy))).toBe(subject);
  });

  test.each([
    ["an id of blanks", { id: " \t" }, "oidc", "subject_missing"],
    ["a token of nobody", { id: "4fK2mPq8Zs1T" }, "keys", "subject_missing"],
    ["an id that looks like another strategy's", { id: "other:bob" }, "oidc", "subject_ambiguous"],
  ])("%s owns nothing", (_, identity, strategy, reason) => {
    expect(refusal(() => mustOwn(ask(identity, strategy)))).toBe(reason);
  });

  test("two strategies never give the same subject to different people", () => {
    const owners = ["alice", "other:alice", "x"].flatMap((id) =>
      ["oidc", "other"].map((strategy) => {
        const { subject } = ask({ id }, strategy);
        return typeof subject === "string" ? subject : null;
      }),
    );
    const known = owners.filter((one) => one !== null);
    expect(new Set(known).size).toBe(known.length);
  });

  test("nobody is asked to log in, and a wrong credential is called that", () => {
    for (const why of ["no_credential", "token_expired", null]) {
      const nobody = { identity: null, strategy: null, refusal: why };
      expect(refusal(() => askerOf(nobody, strategies))).toBe("no_credential");
    }
  });
});

describe("rights", () => {
  const plain = ask({ id: "alice", scopes: ["openid", "read"] });
  const admin = ask({ id: "root", role: "admin" });
  const token = ask({ id: "t", owner: "alice", scopes: ["read"] }, "keys");
  const adminToken = ask({ id: "t", owner: "root", role: "admin" }, "keys");
  const rights = (scopes: readonly string[], role: Rights["role"] = "user"): Rights => ({
    role,
    scopes,
  });

  test.each<[string, Asker, Rights, string]>([
    ["a token without scopes", plain, rights([]), "allowed"],
    ["scopes that they have", plain, rights(["read"]), "allowed"],
    ["a scope that they lack", plain, rights(["read", "write"]), "rights_exceeded"],
    ["a scope in another case", plain, rights(["Read"]), "rights_exceeded"],
    ["the role admin", plain, rights([], "admin"), "rights_exceeded"],
    ["any scope, as an admin", admin, rights(["write"]), "allowed"],
    ["the role admin, as an admin", admin, rights([], "admin"), "allowed"],
    ["anything, with a token", token, rights([]), "token_cannot_mint"],
    ["anything, with an admin's token", adminToken, rights([]), "token_cannot_mint"],
  ])("to hand out %s", (_, asker, wanted, expected) => {
    expect(refusal(() => mustBeAbleToMint(asker, wanted))).toBe(expected);
  });

  test("an admin is whoever has that role, by whatever strategy", () => {
    expect(refusal(() => mustBeAdmin(plain))).toBe("insufficient_role");
    expect(refusal(() => mustBeAdmin(admin))).toBe("allowed");
    expect(refusal(() => mustBeAdmin(adminToken))).toBe("allowed");
  });
});
