/** Which request a proof is for: time, method, URL, payload tag, replay key. */
import { describe, expect, test } from "bun:test";
import { newKey, nostrHeader, signEvent } from "../../test/support/nostr.ts";
import { authRequest } from "../../test/support/request.ts";
import { findProof, type Proof } from "./proof.ts";
import { isSameUrl, mismatch, payloadTag, replayKey } from "./verify.ts";

const NOW_MS = 1_767_225_600_000;
const URL = "https://api.example.com/v1/models?limit=1";
const KEY = newKey();

function proofWith(tags: string[][], createdAt = NOW_MS / 1000): Proof {
  const event = signEvent(KEY, { tags, clock: { nowMs: () => createdAt * 1000 } });
  const found = findProof(authRequest({ headers: { authorization: nostrHeader(event) } }).headers);
  if (found.found !== "one") throw new Error("no proof");
  return found.proof;
}

const time = { nowMs: NOW_MS, maxAgeMs: 60_000 };
const request = { method: "GET", urls: ["https://other.example.com/", URL] };
const RIGHT = [
  ["u", URL],
  ["method", "GET"],
];

describe("time", () => {
  test.each([
    [-61, "stale_proof"],
    [-60, null],
    [-59, null],
    [0, null],
    [59, null],
    [60, null],
    [61, "stale_proof"],
    [-1e9, "stale_proof"],
    [1e9, "stale_proof"],
  ] as const)("signed %d s from now the answer is %p", (offset, expected) => {
    expect(mismatch(proofWith(RIGHT, NOW_MS / 1000 + offset), request, time)).toBe(expected);
  });

  test.each([
    [0, 60, null],
    [999, 60, null],
    [0, -61, "stale_proof"],
    [999, -60, null],
  ] as const)("whole seconds count: %d ms later, %d s", (laterMs, offset, expected) => {
    const later = { ...time, nowMs: NOW_MS + laterMs };
    expect(mismatch(proofWith(RIGHT, NOW_MS / 1000 + offset), request, later)).toBe(expected);
  });
});

describe("method", () => {
  test.each(["GET", "get", "Get"])("%s is the method whatever its case", (method) => {
    expect(
      mismatch(
        proofWith([
          ["u", URL],
          ["method", method],
        ]),
        request,
        time,
      ),
    ).toBeNull();
  });

  test.each<[string, string[][]]>([
    ["another one", [["method", "POST"]]],
    ["none", []],
    ["one without a value", [["method"]]],
    ["an empty one", [["method", ""]]],
    ["one with a blank", [["method", "GET "]]],
    [
      "the right one twice",
      [
        ["method", "GET"],
        ["method", "GET"],
      ],
    ],
    [
      "a right and a wrong one",
      [
        ["method", "GET"],
        ["method", "POST"],
      ],
    ],
    ["one in upper case", [["METHOD", "GET"]]],
  ])("%s is refused", (_, tags) => {
    expect(mismatch(proofWith([["u", URL], ...tags]), request, time)).toBe("wrong_audience");
  });
});

describe("url", () => {
  test.each<[string, string[][]]>([
    ["none", []],
    ["one without a value", [["u"]]],
    [
      "the right one twice",
      [
        ["u", URL],
        ["u", URL],
      ],
    ],
    [
      "a wrong and a right one",
      [
        ["u", "https://evil.example/"],
        ["u", URL],
      ],
    ],
    ["under an old name", [["url", URL]]],
  ])("%s is refused", (_, tags) => {
    const proof = proofWith([["method", "GET"], ...tags]);
    expect(mismatch(proof, request, time)).toBe("wrong_audience");
  });

  test("further elements of the tag do not matter", () => {
    const proof = proofWith([
      ["u", URL, "x"],
      ["method", "GET", "y"],
    ]);
    expect(mismatch(proof, request, time)).toBeNull();
  });

  test.each([
    URL,
    "HTTPS://API.EXAMPLE.COM/v1/models?limit=1",
    "https://api.example.com:443/v1/models?limit=1",
    "https://api.example.com:/v1/models?limit=1",
  ])("%s is the same place", (url) => expect(isSameUrl(url, URL)).toBe(true));

  test.each([
    "http://api.example.com/v1/models?limit=1",
    "https://api.example.com:8443/v1/models?limit=1",
    "https://api.example.com:80/v1/models?limit=1",
    "https://api.example.com./v1/models?limit=1",
    "https://api.example.com.evil.example/v1/models?limit=1",
    "https://api.example.com@evil.example/v1/models?limit=1",
    "https://user@api.example.com/v1/models?limit=1",
    "https://api.example.com/v1/models",
    "https://api.example.com/v1/models?limit=1&",
    "https://api.example.com/v1/models?limit=2",
    "https://api.example.com/v1/models?LIMIT=1",
    "https://api.example.com/V1/models?limit=1",
    "https://api.example.com/v1/models/?limit=1",
    "https://api.example.com//v1/models?limit=1",
    "https://api.example.com/v1/./models?limit=1",
    "https://api.example.com/v1/%6dodels?limit=1",
    "https://api.example.com/v1/models?limit=1#x",
    "https://api.example.com/v1/models?limit=1#",
    "https:api.example.com/v1/models?limit=1",
    "https:///api.example.com/v1/models?limit=1",
    "https:\\\\api.example.com/v1/models?limit=1",
    "//api.example.com/v1/models?limit=1",
    "/v1/models?limit=1",
    "ftp://api.example.com/v1/models?limit=1",
    ` ${URL}`,
    `${URL} `,
    `${URL}\n`,
    "https://api.example.com\t/v1/models?limit=1",
    "",
  ])("%p is another one", (url) => expect(isSameUrl(url, URL)).toBe(false));

  test.each([
    ["http://[::1]:8080/a", "http://[::1]:8080/a", true],
    ["http://[::1]:80/a", "http://[::1]/a", true],
    ["http://[::1]/a", "http://[::2]/a", false],
    ["https://h", "https://h/", false],
    ["https://h?x", "https://h?x", true],
    ["https://h/a%2Fb", "https://h/a/b", false],
    ["https://h/a%2Fb", "https://h/a%2fb", false],
    ["https://h/%C3%A9", "https://h/é", false],
  ])("%s and %s: %p", (signed, own, expected) => expect(isSameUrl(signed, own)).toBe(expected));
});

describe("payload tag", () => {
  const hash = "ab".repeat(32);
  test.each<[string, string[][], string]>([
    ["none", [], "none"],
    ["one", [["payload", hash]], "hash"],
    ["one in upper case", [["payload", hash.toUpperCase()]], "hash"],
    [
      "two equal ones",
      [
        ["payload", hash],
        ["payload", hash],
      ],
      "broken",
    ],
    ["one without a value", [["payload"]], "broken"],
    ["a short one", [["payload", hash.slice(2)]], "broken"],
    ["a long one", [["payload", `${hash}00`]], "broken"],
    ["base64", [["payload", Buffer.from(hash, "hex").toString("base64")]], "broken"],
    ["one with a line break", [["payload", `${hash}\n`]], "broken"],
  ])("%s", (_, tags, kind) => expect(payloadTag(proofWith(tags)).kind).toBe(kind as "none"));
});

test("the replay key begins with the time, which the id covers, and depends on id and signature alone", () => {
  const proof = proofWith(RIGHT);
  const key = replayKey(proof);
  expect(key).toMatch(new RegExp(`^${proof.createdAt}\\.[A-Za-z0-9_-]{43}$`));
  expect(replayKey({ ...proof, content: "x", tags: [], pubkey: "0".repeat(64) })).toBe(key);
  const flip = (hex: string) => (hex.startsWith("0") ? "1" : "0") + hex.slice(1);
  expect(replayKey({ ...proof, id: flip(proof.id) })).not.toBe(key);
  expect(replayKey({ ...proof, sig: flip(proof.sig) })).not.toBe(key);
});
