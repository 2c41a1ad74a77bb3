/**
 * The handshake's form, and where between WebSocket frames one of ours may stand.
 *
 * Invariant: frames are followed alike however the network cuts them.
 */
import { describe, expect, test } from "bun:test";
import { FrameBoundary, isWebSocketHandshake } from "./upgrade.ts";
import { parseRequestHead } from "./wire/head.ts";

/** A frame with a payload of this length, as a server or (masked) a client sends it. */
function frame(length: number, options: { mask?: boolean; opcode?: number; fin?: boolean } = {}) {
  const { mask = false, opcode = 2, fin = true } = options;
  const bit = mask ? 0x80 : 0;
  const first = (fin ? 0x80 : 0) | opcode;
  const size =
    length < 126
      ? [bit | length]
      : length < 65_536
        ? [bit | 126, length >> 8, length & 0xff]
        : [
            bit | 127,
            0,
            0,
            0,
            0,
            (length >> 24) & 0xff,
            (length >> 16) & 0xff,
            (length >> 8) & 0xff,
            length & 0xff,
          ];
  // A payload of bytes that would be headers of endless frames if they were taken for one.
  return Buffer.concat([
    Buffer.from([first, ...size]),
    Buffer.alloc((mask ? 4 : 0) + length, 0xff),
  ]);
}

describe("The boundary between frames", () => {
  test.each([0, 1, 125, 126, 127, 65_535, 65_536, 70_000])(
    "is found after a payload of %i bytes, masked or not",
    (length) => {
      for (const mask of [false, true]) {
        const boundary = new FrameBoundary();
        const bytes = frame(length, { mask });
        boundary.see(bytes.subarray(0, bytes.length - 1));
        expect(boundary.isBetweenFrames).toBe(false);
        boundary.see(bytes.subarray(bytes.length - 1));
        expect(boundary.isBetweenFrames).toBe(true);
      }
    },
  );

  test("is the same wherever the bytes are cut", () => {
    const frames = [
      frame(3, { opcode: 1, fin: false }),
      frame(0, { opcode: 9 }),
      frame(200, { opcode: 0, mask: true }),
      frame(5),
    ];
    const all = Buffer.concat(frames);
    const ends = new Set<number>();
    let end = 0;
    for (const one of frames) {
      end += one.length;
      ends.add(end);
    }
    const byByte = new FrameBoundary();
    for (let at = 0; at < all.length; at++) {
      byByte.see(all.subarray(at, at + 1));
      expect(byByte.isBetweenFrames).toBe(ends.has(at + 1));
      const inTwo = new FrameBoundary();
      inTwo.see(all.subarray(0, at));
      inTwo.see(all.subarray(at));
      expect(inTwo.isBetweenFrames).toBe(true);
    }
  });

  test("is there before the first frame, and an empty piece changes nothing", () => {
    const boundary = new FrameBoundary();
    boundary.see(new Uint8Array());
    expect(boundary.isBetweenFrames).toBe(true);
  });
});

describe("A WebSocket handshake", () => {
  const lines: Readonly<Record<string, string>> = {
    Host: "a",
    Connection: "keep-alive, Upgrade",
    Upgrade: "WebSocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
  };
  function isHandshake(changes: Record<string, string | null>, start = "GET / HTTP/1.1"): boolean {
    const text = Object.entries({ ...lines, ...changes })
      .filter(([, value]) => value !== null)
      .map(([name, value]) => `\r\n${name}: ${value}`)
      .join("");
    const head = parseRequestHead(start + text);
    if (typeof head === "string") throw new Error(head);
    return isWebSocketHandshake(head);
  }

  test("with everything that RFC 6455 asks for is one", () => {
    expect(isHandshake({})).toBe(true);
  });

  test.each([
    ["without Upgrade", { Upgrade: null }],
    ["to another protocol", { Upgrade: "h2c" }],
    ["to a choice of protocols", { Upgrade: "websocket, h2c" }],
    ["whose Connection does not say so", { Connection: "keep-alive" }],
    ["of another version", { "Sec-WebSocket-Version": "8" }],
    ["without key", { "Sec-WebSocket-Key": null }],
    ["with a key that is none", { "Sec-WebSocket-Key": "short" }],
    ["with a second key", { "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==" }],
    ["with a body", { "Content-Length": "5" }],
  ])("%s is none", (_, changes) => {
    expect(isHandshake(changes)).toBe(false);
  });

  test.each(["POST / HTTP/1.1", "GET / HTTP/1.0"])("by %s is none", (start) => {
    expect(isHandshake({}, start)).toBe(false);
  });
});
