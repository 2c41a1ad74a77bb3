/**
 * Heads: what one reading allows, and that everything else is refused with its reason.
 *
 * Invariant: a head is accepted or refused as a whole; every case is named.
 */
import { describe, expect, test } from "bun:test";
import {
  type Framing,
  parseRequestHead,
  parseResponseHead,
  type RequestHead,
  responseFraming,
} from "./head.ts";

function accepted(text: string): RequestHead {
  const head = parseRequestHead(text);
  if (typeof head === "string") throw new Error(`refused: ${head}`);
  return head;
}

const GET = "GET / HTTP/1.1\r\nHost: a";

describe("A request head", () => {
  test("keeps its lines in order, spelling included, and trims blanks only", () => {
    const { fields } = accepted(`${GET}\r\nX-A: \t b c\t \r\nx-a:\r\nX-\`|~: \xa0é\xa0`);
    expect(fields.raw).toEqual(["Host", "X-A", "x-a", "X-`|~"]);
    expect(fields.lower).toEqual(["host", "x-a", "x-a", "x-`|~"]);
    expect(fields.values).toEqual(["a", "b c", "", "\xa0é\xa0"]);
  });

  test.each([
    ["no framing", "", { kind: "none" }],
    ["a length", "\r\nContent-Length: 12", { kind: "length", length: 12 }],
    ["a length of zero", "\r\nContent-Length: 0", { kind: "length", length: 0 }],
    ["leading zeros", "\r\nContent-Length: 0012", { kind: "length", length: 12 }],
    ["chunked, in any case", "\r\nTransfer-Encoding: ChunKed", { kind: "chunked" }],
  ] as [string, string, Framing][])("with %s is framed so", (_, lines, framing) => {
    expect(accepted(GET + lines).framing).toEqual(framing);
  });

  test.each([
    ["1.1 stays", "GET / HTTP/1.1\r\nHost: a", true],
    ["1.1 with close does not", `${GET}\r\nConnection: keep-alive, Close`, false],
    [
      "1.1 with close in a second line does not",
      `${GET}\r\nConnection: x\r\nConnection: close`,
      false,
    ],
    ["1.1 with a word that contains close stays", `${GET}\r\nConnection: closed`, true],
    ["1.0 does not", "GET / HTTP/1.0", false],
    ["1.0 with keep-alive stays", "GET / HTTP/1.0\r\nConnection: Keep-Alive", true],
  ])("of HTTP/%s", (_, text, keepAlive) => {
    expect(accepted(text).keepAlive).toBe(keepAlive);
  });

  test.each([
    ["/a?b#c", null],
    ["/a%2Fb;x=1?q=%zz", "/a%2Fb;x=1?q=%zz"],
    ["//two//slashes", "//two//slashes"],
    ["http://a", "/"],
    ["HTTP://A?x", "/?x"],
    ["https://a/p?x", "/p?x"],
    ["http://b/p", null],
    ["http://user@a/p", null],
    ["*", null],
    ["a", null],
  ])("to %s asks for %p", (target, expected) => {
    const head = parseRequestHead(`GET ${target} HTTP/1.1\r\nHost: a`);
    expect(typeof head === "string" ? null : head.target).toBe(expected);
  });

  test.each([
    ["bad_request", "GET  / HTTP/1.1\r\nHost: a"],
    ["bad_request", "GET /"],
    ["bad_request", "GET / HTTP/1.1"],
    ["bad_request", `${GET}\r\nHost: a`],
    ["bad_request", "GET / HTTP/1.1\r\nHost: a b"],
    ["bad_request", "GET / HTTP/1.1\r\nHost: a:123456"],
    ["bad_request", `${GET}\r\n folded: x`],
    ["bad_request", `${GET}\r\nA : b`],
    ["bad_request", `${GET}\r\n: b`],
    ["bad_request", `${GET}\r\nA b`],
    ["bad_request", `${GET}\r\nA: b\0`],
    ["bad_request", `${GET}\r\nA: b\x7f`],
    ["bad_request", `${GET}\nA: b`],
    ["bad_request", `${GET}\r\nA: b\rc`],
    ["bad_request", `${GET}\r\nContent-Length: 1\r\nContent-Length: 1`],
    ["bad_request", `${GET}\r\nContent-Length: +1`],
    ["bad_request", `${GET}\r\nContent-Length: 1, 1`],
    ["bad_request", `${GET}\r\nContent-Length: 1234567890123456`],
    ["bad_request", `${GET}\r\nContent-Length: 1\r\nTransfer-Encoding: chunked`],
    ["bad_request", `${GET}\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked`],
    ["bad_request", `${GET}\r\nTransfer-Encoding:`],
    ["bad_request", "POST / HTTP/1.0\r\nTransfer-Encoding: chunked"],
    ["unsupported_transfer_encoding", `${GET}\r\nTransfer-Encoding: gzip`],
    ["unsupported_method", "get / HTTP/1.1\r\nHost: a"],
    ["unsupported_method", "TRACE / HTTP/1.1\r\nHost: a"],
    ["unsupported_method", "CONNECT a:1 HTTP/1.1\r\nHost: a:1"],
    ["unsupported_version", "GET / HTTP/2.0\r\nHost: a"],
    ["expectation_failed", `${GET}\r\nExpect: the-unexpected`],
  ] as const)("is refused with %s: %j", (fault, text) => {
    expect(parseRequestHead(text)).toBe(fault);
  });

  test("is refused wherever a CR or a LF is not half of a line's end", () => {
    const parts = ["", "\r", "\n", "\r\n", "A:b"];
    const ends = parts.flatMap((a) => parts.flatMap((b) => parts.map((c) => a + b + c)));
    const bare = ends.filter((end) => /[\r\n]/.test(end.replaceAll("\r\n", "")));
    expect(bare.length).toBeGreaterThan(50);
    for (const end of bare) {
      for (const text of [GET + end, end + GET, `${GET}\r\nA: b${end}c`]) {
        expect([text, parseRequestHead(text)]).toEqual([text, "bad_request"]);
      }
    }
  });

  test("may have every byte in a value but control bytes, of which only TAB", () => {
    for (let code = 0; code < 256; code += 1) {
      const head = parseRequestHead(`${GET}\r\nA: b${String.fromCharCode(code)}c`);
      const isControl = (code < 0x20 && code !== 0x09) || code === 0x7f;
      expect([code, typeof head]).toEqual([code, isControl ? "string" : "object"]);
    }
  });
});

describe("A response head", () => {
  const OK = "HTTP/1.1 200 OK";
  const framingOf = (text: string, method = "GET") => {
    const head = parseResponseHead(text);
    return head === null ? "broken" : responseFraming(head, method);
  };

  test.each([
    ["HTTP/1.1 200", 200, ""],
    ["HTTP/1.1 200 ", 200, ""],
    ["HTTP/1.0 404 Not  Found \xe9", 404, "Not  Found \xe9"],
  ])("%j has its status and phrase", (text, status, reason) => {
    expect(parseResponseHead(text)).toMatchObject({ status, reason });
  });

  test.each([
    "HTTP/1.1 20 OK",
    "HTTP/1.1 2000 OK",
    "HTTP/1.1 099 OK",
    "HTTP/2 200 OK",
    "HTTP/1.1  200 OK",
    "ICY 200 OK",
    "HTTP/1.1 200 O\0K",
    `${OK}\r\nA b`,
    `${OK}\r\nA: b\r\n c`,
  ])("%j is broken", (text) => {
    expect(parseResponseHead(text)).toBeNull();
  });

  test.each([
    ["a length", `${OK}\r\nContent-Length: 3`, "GET", { kind: "length", length: 3 }],
    ["chunked", `${OK}\r\nTransfer-Encoding: chunked`, "GET", { kind: "chunked" }],
    ["nothing", OK, "GET", { kind: "until_close" }],
    ["a length, to HEAD", `${OK}\r\nContent-Length: 3`, "HEAD", { kind: "none" }],
    ["chunked, to HEAD", `${OK}\r\nTransfer-Encoding: chunked`, "HEAD", { kind: "none" }],
    ["304 and a length", "HTTP/1.1 304 N\r\nContent-Length: 3", "GET", { kind: "none" }],
    ["204", "HTTP/1.1 204 N", "GET", { kind: "none" }],
    ["both", `${OK}\r\nContent-Length: 3\r\nTransfer-Encoding: chunked`, "GET", null],
    ["both, to HEAD", `${OK}\r\nContent-Length: 3\r\nTransfer-Encoding: chunked`, "HEAD", null],
    ["two lengths", `${OK}\r\nContent-Length: 3\r\nContent-Length: 3`, "GET", null],
    ["an unknown encoding", `${OK}\r\nTransfer-Encoding: gzip`, "GET", null],
    ["chunked in 1.0", "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked", "GET", null],
  ])("with %s is framed so", (_, text, method, framing) => {
    expect(framingOf(text, method)).toEqual(framing as Framing | null);
  });
});
