/**
 * Body decoders: the same payload wherever the network cuts the bytes, and strict chunk syntax.
 *
 * Invariant: every encoding is fed whole, byte by byte and cut at every place, with the same outcome.
 */
import { describe, expect, test } from "bun:test";
import { type BodyDecoder, chunkedDecoder, lengthDecoder, untilCloseDecoder } from "./body.ts";

interface Read {
  payload: string;
  state: "more" | "done" | "bad";
  /** What was left for the next message. */
  rest: string;
}

function read(decoder: BodyDecoder, pieces: readonly string[]): Read {
  let payload = "";
  let state: Read["state"] = "more";
  let rest = "";
  for (const piece of pieces) {
    const bytes = Buffer.from(piece, "latin1");
    if (state !== "more") {
      rest += piece;
      continue;
    }
    const decoded = decoder.push(bytes, (part) => {
      payload += part.toString("latin1");
    });
    state = decoded.state;
    rest = piece.slice(decoded.used);
  }
  return { payload, state, rest };
}

/** All ways to hand over a text: whole, in single bytes, and in two pieces cut at every place. */
function ways(text: string): string[][] {
  const cuts = Array.from({ length: text.length - 1 }, (_, at) => [
    text.slice(0, at + 1),
    text.slice(at + 1),
  ]);
  return [[text], [...text], ...cuts];
}

function readEveryWay(make: () => BodyDecoder, text: string): Read {
  const [whole, ...others] = ways(text).map((pieces) => read(make(), pieces));
  for (const other of others) {
    expect({ ...other, rest: "" }).toEqual({ ...whole, rest: "" } as Read);
    if (whole?.state === "done") expect(other.rest).toBe(whole.rest);
  }
  return whole as Read;
}

describe("A chunked body", () => {
  test.each([
    ["one chunk", "5\r\nhello\r\n0\r\n\r\n", "hello"],
    ["several", "1\r\na\r\n2\r\nbc\r\n0\r\n\r\n", "abc"],
    ["none", "0\r\n\r\n", ""],
    [
      "hexadecimal sizes in both cases",
      `a\r\n${"x".repeat(10)}\r\nB\r\n${"y".repeat(11)}\r\n0\r\n\r\n`,
      "x".repeat(10) + "y".repeat(11),
    ],
    ["sizes with leading zeros", "0005\r\nhello\r\n000\r\n\r\n", "hello"],
    ["extensions", '5;a=b;c="d e"\r\nhello\r\n0;last\r\n\r\n', "hello"],
    ["payload that looks like chunks", "7\r\n0\r\n\r\n5\r\r\n0\r\n\r\n", "0\r\n\r\n5\r"],
    ["trailers", "1\r\na\r\n0\r\nX-Sum: 1\r\nY:\r\n\r\n", "a"],
  ])("with %s decodes, and leaves what follows", (_, text, payload) => {
    const next = "GET / HTTP/1.1\r\n";
    expect(readEveryWay(chunkedDecoder, text + next)).toEqual({
      payload,
      state: "done",
      rest: next,
    });
  });

  test.each([
    ["no size", "\r\nhello"],
    ["a blank before the size", " 5\r\nhello\r\n"],
    ["a sign", "+5\r\nhello\r\n"],
    ["0x", "0x5\r\nhello\r\n"],
    ["an underscore", "1_0\r\nhello\r\n"],
    ["a size over 48 bits", "1000000000000\r\n"],
    ["a bare LF after the size", "5\nhello\r\n"],
    ["a bare CR in an extension", "5;a\rb\r\nhello\r\n"],
    ["a LF in an extension", "5;a\nb\r\nhello\r\n"],
    ["NUL in an extension", "5;a\0\r\nhello\r\n"],
    ["more payload than announced", "5\r\nhello!\r\n"],
    ["less payload than announced", "5\r\nhell\r\n\r\n"],
    ["a bare LF after the payload", "5\r\nhello\n0\r\n\r\n"],
    ["a bare LF at the end", "0\r\n\n"],
    ["a trailer without colon", "0\r\ntrailer\r\n\r\n"],
    ["a folded trailer", "0\r\nA: b\r\n c\r\n\r\n"],
    ["NUL in a trailer", "0\r\nA: \0\r\n\r\n"],
    ["an endless size line", `5;${"x".repeat(2000)}\r\n`],
    ["endless trailers", `0\r\n${`A: ${"x".repeat(900)}\r\n`.repeat(10)}\r\n`],
  ])("with %s is bad", (_, text) => {
    expect(readEveryWay(chunkedDecoder, text).state).toBe("bad");
  });

  test("that stops before its end is never done, wherever it stops", () => {
    const whole = "3\r\nabc\r\n0\r\nA: b\r\n\r\n";
    for (let length = 1; length < whole.length; length++) {
      expect(read(chunkedDecoder(), [whole.slice(0, length)]).state).toBe("more");
    }
  });
});

describe("A body of known length", () => {
  test("ends with its last byte, and leaves what follows", () => {
    expect(readEveryWay(() => lengthDecoder(5), "helloNEXT")).toEqual({
      payload: "hello",
      state: "done",
      rest: "NEXT",
    });
    expect(read(lengthDecoder(6), ["hello"]).state).toBe("more");
  });
});

describe("A body without framing", () => {
  test("takes everything and never ends by itself", () => {
    expect(readEveryWay(untilCloseDecoder, "0\r\n\r\nall")).toMatchObject({
      payload: "0\r\n\r\nall",
      state: "more",
    });
    expect(untilCloseDecoder().isFramed).toBe(false);
  });
});
