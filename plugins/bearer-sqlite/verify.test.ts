/** When a stored token is good: secrets and times at their very edges. */
import { describe, expect, test } from "bun:test";
import type { Outcome } from "gatehouse";
import { isStillGood, judgeForeign, judgeOwn, type StoredToken } from "./verify.ts";

const NOW = 1_767_225_600_000;
const digest = (fill: number) => new Uint8Array(32).fill(fill);

const TOKEN: StoredToken = {
  id: "0123456789Az",
  name: "ci",
  owner: null,
  role: "user",
  scopes: "",
  expiresAtMs: null,
  notBeforeMs: null,
  revokedAtMs: null,
  digest: digest(1),
  previousDigest: null,
  graceUntilMs: null,
  foreignUntilMs: null,
  rotations: 0,
};
const ROTATED = { ...TOKEN, previousDigest: digest(2), graceUntilMs: NOW, rotations: 1 };
const IMPORTED = { ...TOKEN, digest: null };

function short(outcome: Outcome): string {
  return outcome.outcome === "reject" ? outcome.reason : outcome.outcome;
}

describe("the times of a token", () => {
  test.each([
    [-1, "accept"],
    [0, "token_expired"],
    [1, "token_expired"],
  ])("at its expiry %d ms the answer is %s", (offset, expected) => {
    const token = { ...TOKEN, expiresAtMs: NOW };
    expect(short(judgeOwn(token, digest(1), NOW + offset))).toBe(expected);
    expect(short(judgeForeign({ ...IMPORTED, expiresAtMs: NOW }, NOW + offset))).toBe(expected);
  });

  test.each([
    [-1, "token_not_yet_valid"],
    [0, "accept"],
    [1, "accept"],
  ])("at its not-before time %d ms the answer is %s", (offset, expected) => {
    const token = { ...TOKEN, notBeforeMs: NOW };
    expect(short(judgeOwn(token, digest(1), NOW + offset))).toBe(expected);
  });

  test.each([
    [-1, "accept"],
    [0, "invalid_token"],
    [1, "invalid_token"],
  ])(
    "at the end of the grace time %d ms the answer to the old secret is %s",
    (offset, expected) => {
      expect(short(judgeOwn(ROTATED, digest(2), NOW + offset))).toBe(expected);
      expect(short(judgeOwn(ROTATED, digest(1), NOW + offset))).toBe("accept");
      const imported = { ...TOKEN, foreignUntilMs: NOW, rotations: 1 };
      expect(short(judgeForeign(imported, NOW + offset))).toBe(expected);
    },
  );
});

describe("judging", () => {
  test("a wrong secret learns nothing of the state of the token but its public id is named", () => {
    const dead = { ...TOKEN, revokedAtMs: NOW - 5, expiresAtMs: NOW - 5 };
    expect(judgeOwn(dead, digest(9), NOW)).toEqual({
      outcome: "reject",
      reason: "invalid_token",
      credentialId: TOKEN.id,
    });
  });

  test("revocation is named before expiry", () => {
    const dead = { ...TOKEN, revokedAtMs: NOW - 5, expiresAtMs: NOW - 5 };
    expect(short(judgeOwn(dead, digest(1), NOW))).toBe("token_revoked");
  });

  test("an imported token that was not rotated has no secret of our own form", () => {
    expect(short(judgeOwn(IMPORTED, digest(1), NOW))).toBe("invalid_token");
  });

  test("the identity is complete", () => {
    const token = { ...TOKEN, owner: "alice", role: "admin" as const, scopes: "a b" };
    expect(judgeOwn({ ...token, expiresAtMs: NOW + 9 }, digest(1), NOW)).toEqual({
      outcome: "accept",
      identity: {
        id: TOKEN.id,
        name: "ci",
        owner: "alice",
        role: "admin",
        scopes: ["a", "b"],
        attributes: { rotation: "0" },
        expiresAtMs: NOW + 9,
      },
    });
  });

  test.each([
    [NOW - 1, null],
    [NOW - 1, NOW + 50],
    [NOW - 2, NOW - 1],
  ])(
    "an identity proven with the old secret ends with the grace time or the token",
    (grace, expiry) => {
      const token = { ...ROTATED, graceUntilMs: NOW - 1, expiresAtMs: expiry };
      const outcome = judgeOwn({ ...token, graceUntilMs: grace }, digest(2), NOW - 10);
      expect(outcome).toMatchObject({ identity: { expiresAtMs: grace } });
    },
  );

  test("a digest of another length is a fault, not an answer", () => {
    expect(() => judgeOwn({ ...TOKEN, digest: new Uint8Array(3) }, digest(1), NOW)).toThrow();
  });
});

describe("open streams", () => {
  const identity = (rotation: number) => ({
    id: TOKEN.id,
    attributes: { rotation: String(rotation) },
  });

  test("an identity stays good while its token is", () => {
    expect(isStillGood(TOKEN, identity(0), NOW)).toBe(true);
    expect(isStillGood({ ...TOKEN, revokedAtMs: NOW }, identity(0), NOW)).toBe(false);
    expect(isStillGood({ ...TOKEN, expiresAtMs: NOW }, identity(0), NOW)).toBe(false);
    expect(isStillGood({ ...TOKEN, notBeforeMs: NOW + 1 }, identity(0), NOW)).toBe(false);
  });

  test("after a rotation it stays good as long as the old secret does", () => {
    expect(isStillGood(ROTATED, identity(1), NOW)).toBe(true);
    expect(isStillGood(ROTATED, identity(0), NOW - 1)).toBe(true);
    expect(isStillGood(ROTATED, identity(0), NOW)).toBe(false);
    expect(isStillGood({ ...ROTATED, graceUntilMs: null }, identity(0), NOW - 1)).toBe(false);
    expect(isStillGood({ ...ROTATED, rotations: 2 }, identity(0), NOW - 1)).toBe(false);
  });

  test("an identity that is not ours is not good", () => {
    expect(isStillGood(TOKEN, { id: TOKEN.id }, NOW)).toBe(false);
    expect(isStillGood(TOKEN, identity(5), NOW)).toBe(false);
  });
});
