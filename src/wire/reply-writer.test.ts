/**
 * Writing replies: the framing of every kind of body, and that a body which breaks off never looks whole.
 *
 * Invariant: bytes are compared as a real socket delivers them.
 */
import { afterAll, describe, expect, test } from "bun:test";
import { type BodySink, type BodySource, bytesSource } from "./body.ts";
import type { Reply } from "./exchange.ts";
import { type ReplyContext, ReplyWriter } from "./reply-writer.ts";
import { NOBODY, Outgoing, type OwnedSocket, ownedSocketHandlers } from "./socket.ts";

let received = "";
const ended = { resolve: () => {} };
const listener = Bun.listen({
  hostname: "127.0.0.1",
  port: 0,
  socket: {
    data(_, bytes) {
      received += bytes.toString("latin1");
    },
    close: () => ended.resolve(),
    error() {},
  },
});
afterAll(() => listener.stop(true));

/** What a writer did with a reply: the bytes that came out and how it ended. */
async function written(
  reply: Partial<Reply>,
  context: Partial<ReplyContext> = {},
  drive: (writer: ReplyWriter) => void = () => {},
) {
  received = "";
  const isOver = new Promise<void>((resolve) => {
    ended.resolve = resolve;
  });
  const socket: OwnedSocket = await Bun.connect({
    hostname: "127.0.0.1",
    port: listener.port,
    socket: ownedSocketHandlers,
    data: NOBODY,
  });
  const endings: boolean[] = [];
  const writer = new ReplyWriter(new Outgoing(socket), (complete) => endings.push(complete));
  writer.send(
    { status: 200, reason: "OK", fields: "", body: null, ...reply },
    { method: "GET", minor: 1, keepAlive: true, ...context },
  );
  drive(writer);
  socket.end();
  await isOver;
  return { text: received, endings, keepAlive: writer.keepAlive, bodyBytes: writer.bodyBytes };
}

/** A source that gives these pieces at once and then ends or fails. */
function pieces(parts: readonly string[], options: { length?: number; fails?: boolean } = {}) {
  const calls: string[] = [];
  const source: BodySource = {
    length: options.length ?? null,
    pipe(sink: BodySink) {
      for (const part of parts) sink.write(Buffer.from(part, "latin1"));
      if (options.fails === true) sink.fail("peer_closed");
      else sink.end();
    },
    resume: () => void calls.push("resume"),
    cancel: () => void calls.push("cancel"),
  };
  return { source, calls };
}

const HELLO = new TextEncoder().encode("hello");

describe("A reply", () => {
  test.each([
    ["bytes have a length", { body: HELLO }, {}, "Content-Length: 5\r\n\r\nhello"],
    ["no body has the length 0", { body: null }, {}, "Content-Length: 0\r\n\r\n"],
    ["204 says nothing", { status: 204, body: null }, {}, "\r\n"],
    ["204 drops a body", { status: 204, body: HELLO }, {}, "\r\n"],
    [
      "304 keeps its own length only",
      { status: 304, fields: "Content-Length: 9\r\n" },
      {},
      "Content-Length: 9\r\n\r\n",
    ],
    [
      "HEAD has the length without the body",
      { body: HELLO },
      { method: "HEAD" },
      "Content-Length: 5\r\n\r\n",
    ],
    [
      "HEAD keeps an upstream's length",
      { fields: "Content-Length: 7\r\n" },
      { method: "HEAD" },
      "Content-Length: 7\r\n\r\n",
    ],
    ["closing says so", { close: true }, {}, "Content-Length: 0\r\nConnection: close\r\n\r\n"],
    [
      "HTTP/1.0 that stays says so",
      {},
      { minor: 0 },
      "Content-Length: 0\r\nConnection: keep-alive\r\n\r\n",
    ],
  ] as [string, Partial<Reply>, Partial<ReplyContext>, string][])(
    "of %s",
    async (_, reply, context, tail) => {
      const { text, endings } = await written(reply, context);
      expect(text).toBe(`HTTP/1.1 ${reply.status ?? 200} OK\r\n${tail}`);
      expect(endings).toEqual([true]);
    },
  );

  test("that streams a known length keeps it, byte for byte", async () => {
    const { source } = pieces(["he", "", "llo"], { length: 5 });
    const { text, endings, bodyBytes } = await written({ body: source });
    expect(text).toEndWith("Content-Length: 5\r\n\r\nhello");
    expect({ endings, bodyBytes }).toEqual({ endings: [true], bodyBytes: 5 });
  });

  test("that streams an unknown length is chunked, piece by piece, empty ones left out", async () => {
    const large = "x".repeat(20_000);
    const { source } = pieces(["he", "", large], {});
    const { text } = await written({ body: source });
    expect(text).toEndWith(
      `Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n4e20\r\n${large}\r\n0\r\n\r\n`,
    );
  });

  test("that streams an unknown length to HTTP/1.0 ends with the connection", async () => {
    const { source } = pieces(["hello"]);
    const { text, keepAlive } = await written({ body: source }, { minor: 0 });
    expect(text).toEndWith("Connection: close\r\n\r\nhello");
    expect(keepAlive).toBe(false);
  });

  test("to HEAD whose body is a stream takes nothing of it", async () => {
    const { source, calls } = pieces(["hello"]);
    const { text, endings } = await written({ body: source }, { method: "HEAD" });
    expect(text).toBe("HTTP/1.1 200 OK\r\n\r\n");
    expect(calls).toEqual(["cancel"]);
    expect(endings).toEqual([true]);
  });

  test.each([
    ["breaks off", ["he"], { length: 5, fails: true }],
    ["ends too early", ["he"], { length: 5 }],
    ["is longer than announced", ["hello", "!"], { length: 5 }],
    ["breaks off while chunked", ["he"], { fails: true }],
  ] as [string, string[], { length?: number; fails?: boolean }][])(
    "whose body %s is not complete, and has no clean end",
    async (_, parts, options) => {
      const { source } = pieces(parts, options);
      const { text, endings } = await written({ body: source });
      expect(endings).toEqual([false]);
      expect(text).not.toContain("0\r\n\r\n");
      expect(text).not.toContain("!");
    },
  );

  test("that is aborted cancels its source, once, and writes nothing more", async () => {
    const calls: string[] = [];
    let sink: BodySink | null = null;
    const source: BodySource = {
      length: null,
      pipe(to) {
        sink = to;
        to.write(HELLO);
      },
      resume() {},
      cancel: () => void calls.push("cancel"),
    };
    const { text, endings } = await written({ body: source }, {}, (writer) => {
      writer.abort();
      writer.abort();
      sink?.write(HELLO);
      sink?.end();
    });
    expect(calls).toEqual(["cancel"]);
    expect(endings).toEqual([false]);
    expect(text).toEndWith("5\r\nhello\r\n");
  });

  test("of bytes as a source has their length", async () => {
    const { text } = await written({ body: bytesSource(HELLO) });
    expect(text).toEndWith("Content-Length: 5\r\n\r\nhello");
  });
});
