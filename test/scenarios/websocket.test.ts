/**
 * Whole-program scenarios of the WebSocket relay (RFC 6455): with a real client and server, and frame by frame.
 *
 * Invariant: nobody without a credential makes the upstream see anything, and no byte before a close is lost.
 */
import { expect, test } from "bun:test";
import {
  describeBoth,
  type GatewayUnderTest,
  OPS_ENV,
  OPS_TOKEN,
  type StartGateway,
  simpleConfig,
} from "../support/gateway.ts";
import { eventually, openRaw, type RawUpstream, raw, target, valuesOf } from "../support/raw.ts";
import { untilEnd } from "../support/upstreams.ts";

const { stops, upstreamOf } = untilEnd();

/** What a real server heard. */
interface Heard {
  readonly closes: { code: number; reason: string }[];
  readonly pings: string[];
  readonly sockets: Bun.ServerWebSocket<undefined>[];
}

/** Echoes messages; `close CODE` makes it close. Takes the subprotocol `b` where it is offered. */
function echoServer(): Heard & { address: string } {
  const heard: Heard = { closes: [], pings: [], sockets: [] };
  const server = Bun.serve({
    hostname: "127.0.0.1",
    port: 0,
    fetch(request, running) {
      const offered = request.headers.get("sec-websocket-protocol")?.split(", ") ?? [];
      const headers = offered.includes("b") ? { "sec-websocket-protocol": "b" } : {};
      if (running.upgrade(request, { headers })) return undefined;
      return new Response("no upgrade", { status: 426 });
    },
    websocket: {
      maxPayloadLength: 64 << 20,
      backpressureLimit: 64 << 20,
      open: (socket) => void heard.sockets.push(socket),
      message(socket, message) {
        const order = typeof message === "string" ? /^close (\d+)/.exec(message)?.[1] : undefined;
        if (order !== undefined) socket.close(Number(order), "as you wish");
        else socket.send(message);
      },
      ping: (_, data) => void heard.pings.push(data.toString()),
      close: (_, code, reason) => void heard.closes.push({ code, reason }),
    },
  });
  stops.push(() => server.stop(true));
  return { ...heard, address: `127.0.0.1:${server.port}` };
}

function gatewayTo(start: StartGateway, address: string, upstream = ""): Promise<GatewayUnderTest> {
  return start({ config: simpleConfig(`http://${address}`, { upstream }), env: OPS_ENV });
}

/** A browser-like client that keeps what it hears. */
function client(gateway: GatewayUnderTest, protocols: string[] = []) {
  const socket = new WebSocket(`ws://${gateway.address}/ws`, {
    headers: { authorization: `Bearer ${OPS_TOKEN}` },
    protocols,
  });
  socket.binaryType = "arraybuffer";
  const heard = { messages: [] as (string | ArrayBuffer)[], close: null as CloseEvent | null };
  socket.onmessage = (event: MessageEvent<string | ArrayBuffer>) =>
    void heard.messages.push(event.data);
  socket.onclose = (event) => {
    heard.close = event;
  };
  const opened = new Promise<void>((resolve, reject) => {
    socket.onopen = () => resolve();
    socket.onerror = () => reject(new Error("no WebSocket"));
  });
  return { socket, heard, opened };
}

const KEY = "dGhlIHNhbXBsZSBub25jZQ==";
const handshake = (path = "/public/ws", more = "") =>
  `GET ${path} HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ${KEY}\r\n${more}\r\n`;
const SWITCHING =
  "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/** A frame whose payload is text of at most 125 bytes; masked with zeros as a client must. */
const frame = (opcode: number, text: string, { fin = true, mask = false } = {}) =>
  String.fromCharCode((fin ? 0x80 : 0) | opcode, (mask ? 0x80 : 0) | text.length) +
  (mask ? "\0\0\0\0" : "") +
  text;
const afterHead = (text: string) => text.slice(text.indexOf("\r\n\r\n") + 4);

describeBoth("A WebSocket through the gateway", (start) => {
  test("carries text, binary, pings, the subprotocol and close codes from the client", async () => {
    const server = echoServer();
    const gateway = await gatewayTo(start, server.address);
    const { socket, heard, opened } = client(gateway, ["a", "b"]);
    await opened;
    expect(socket.protocol).toBe("b");
    socket.send("grüße");
    socket.send(new Uint8Array([0, 255, 128]));
    socket.ping("are you there");
    await eventually("both come back", () => heard.messages.length === 2);
    expect(heard.messages[0]).toBe("grüße");
    expect([...new Uint8Array(heard.messages[1] as ArrayBuffer)]).toEqual([0, 255, 128]);
    await eventually("the ping arrives", () => server.pings.length === 1);
    expect(server.pings).toEqual(["are you there"]);
    socket.close(4321, "client is done");
    await eventually("the close arrives", () => server.closes.length === 1);
    expect(server.closes[0]).toEqual({ code: 4321, reason: "client is done" });
    await eventually("it is logged", () =>
      gateway.events("http.access").some((event) => event.status === 101),
    );
  });

  test("carries the close code of the upstream", async () => {
    const gateway = await gatewayTo(start, echoServer().address);
    const { socket, heard, opened } = client(gateway);
    await opened;
    socket.send("close 4567");
    await eventually("the close arrives", () => heard.close !== null);
    expect(heard.close?.code).toBe(4567);
    expect(heard.close?.reason).toBe("as you wish");
  });

  test("carries large messages both ways", async () => {
    const gateway = await gatewayTo(start, echoServer().address);
    const { socket, heard, opened } = client(gateway);
    await opened;
    const large = crypto.getRandomValues(new Uint8Array(60_000));
    const all = new Uint8Array(6_000_000).map((_, i) => large[i % large.length] ?? 0);
    socket.send(all);
    await eventually("it comes back", () => heard.messages.length === 1);
    expect(Buffer.from(heard.messages[0] as ArrayBuffer).equals(all)).toBe(true);
    socket.close();
  });

  test("passes frames as they are: fragments, pings in between, and the half-close after a close", async () => {
    const upstream = upstreamOf((_, write) => write(SWITCHING + frame(1, "hello")));
    let push: ((bytes: string) => void) | null = null;
    upstream.respond = (_, write) => {
      push = write;
      write(SWITCHING + frame(1, "hello"));
    };
    const gateway = await gatewayTo(start, upstream.address);
    const socket = await openRaw(gateway.address);
    socket.send(handshake());
    await socket.read({ until: (text) => text.endsWith("hello") });
    const fragments = [
      frame(1, "frag", { fin: false }),
      frame(9, "ping"),
      frame(0, "ment", { fin: true }),
      frame(8, "\x03\xe8"),
    ];
    for (const one of fragments) {
      (push as ((bytes: string) => void) | null)?.(one);
      await socket.read({ until: (text) => text.endsWith(one) });
    }
    const { text } = await socket.read({ until: () => true });
    expect(afterHead(text)).toBe(frame(1, "hello") + fragments.join(""));
    socket.send(frame(8, "\x03\xe8", { mask: true }));
    socket.finish();
    await eventually("the upstream's side ends", () => upstream.closedConnections === 1);
  });

  test("loses nothing of 10 MB before a close to a client that reads slowly", async () => {
    const payload = Buffer.alloc(10_000_000);
    for (let i = 0; i < payload.length; i += 4) payload.writeUInt32BE(i, i);
    const head = Buffer.from([0x82, 127, 0, 0, 0, 0, 0, 0, 0, 0]);
    head.writeUInt32BE(payload.length, 6);
    const close = Buffer.from(frame(8, "\x03\xe8"), "latin1");
    const address = sendsAndCloses(Buffer.concat([Buffer.from(SWITCHING), head, payload, close]));
    const gateway = await gatewayTo(start, address);
    const got = await readInSips(gateway.address, handshake());
    const frames = got.subarray(got.indexOf("\r\n\r\n") + 4);
    expect(frames.length).toBe(head.length + payload.length + close.length);
    expect(frames.equals(Buffer.concat([head, payload, close]))).toBe(true);
  });
});

/** An upstream that sends these bytes on every connection and closes it after the last one. */
function sendsAndCloses(bytes: Buffer): string {
  const listener = Bun.listen<{ left: Buffer }>({
    hostname: "127.0.0.1",
    port: 0,
    socket: {
      data(socket) {
        socket.data = { left: bytes };
        push(socket);
      },
      drain: push,
      error() {},
    },
  });
  function push(socket: Bun.Socket<{ left: Buffer }>): void {
    socket.data.left = socket.data.left.subarray(Math.max(0, socket.write(socket.data.left)));
    if (socket.data.left.length === 0) socket.end();
  }
  stops.push(() => listener.stop(true));
  return `127.0.0.1:${listener.port}`;
}

/** Everything that comes until the close, read with a pause after every piece. */
function readInSips(address: string, request: string): Promise<Buffer> {
  const pieces: Buffer[] = [];
  return new Promise((resolve, reject) => {
    Bun.connect({
      ...target(address),
      socket: {
        open: (socket) => void socket.write(request),
        data(socket, bytes) {
          pieces.push(bytes);
          socket.pause();
          setTimeout(() => socket.resume(), 3);
        },
        close: () => resolve(Buffer.concat(pieces)),
        error() {},
      },
    } as Bun.TCPSocketConnectOptions).catch(reject);
  });
}

describeBoth("A WebSocket handshake", (start) => {
  test("without a credential is 401 before the upstream sees anything", async () => {
    const upstream = upstreamOf();
    const gateway = await gatewayTo(start, upstream.address);
    const { statuses, text } = await raw(gateway.address, handshake("/ws"));
    expect(statuses).toEqual([401]);
    expect(text).toContain("WWW-Authenticate: Bearer");
    expect(upstream.connections).toBe(0);
  });

  test("that the upstream refuses passes the refusal on, and frames sent ahead are never a request", async () => {
    const upstream = upstreamOf((_, write) =>
      write("HTTP/1.1 403 Forbidden\r\nX-Why: origin\r\nContent-Length: 6\r\n\r\nnot me"),
    );
    const gateway = await gatewayTo(start, upstream.address);
    const ahead = "GET /public/smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    const { statuses, text, closed } = await raw(gateway.address, handshake() + ahead);
    expect(statuses).toEqual([403]);
    expect(text).toContain("X-Why: origin\r\n");
    expect(afterHead(text)).toBe("not me");
    expect(closed).toBe(true);
    expect(upstream.seen.length).toBe(1);
  });

  test("passes the handshake's fields as they are, and frames sent ahead only after the 101", async () => {
    let say: ((bytes: string) => void) | null = null;
    const upstream = upstreamOf((_, write) => {
      say = write;
    });
    const gateway = await gatewayTo(start, upstream.address);
    const socket = await openRaw(gateway.address);
    const more = "Sec-WebSocket-Protocol: a, b\r\nSec-WebSocket-Extensions: permessage-deflate\r\n";
    socket.send(handshake("/public/ws?x=1", more) + frame(1, "early", { mask: true }));
    await eventually("the handshake arrives", () => upstream.seen.length === 1);
    const seen = upstream.seen[0];
    expect(seen?.line).toBe("GET /public/ws?x=1 HTTP/1.1");
    expect(valuesOf(seen, "connection")).toEqual(["Upgrade"]);
    expect(valuesOf(seen, "upgrade")).toEqual(["websocket"]);
    expect(valuesOf(seen, "sec-websocket-key")).toEqual([KEY]);
    expect(valuesOf(seen, "sec-websocket-protocol")).toEqual(["a, b"]);
    expect(valuesOf(seen, "sec-websocket-extensions")).toEqual(["permessage-deflate"]);
    expect(upstream.seen.length).toBe(1);
    (say as ((bytes: string) => void) | null)?.(SWITCHING);
    const { text } = await socket.read({ until: (now) => now.includes("\r\n\r\n") });
    expect(text).toStartWith("HTTP/1.1 101 Switching Protocols\r\n");
    expect(text).toContain("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n");
    expect(text.match(/^Upgrade: websocket\r$/gm)).toHaveLength(1);
    expect(text.match(/^Connection: Upgrade\r$/gm)).toHaveLength(1);
    socket.kill();
  });

  test.each(["h2c", "websocket, h2c", "TLS/1.0"])(
    "to %s is no handshake: it goes on as a plain request",
    async (name) => {
      const upstream = upstreamOf();
      const gateway = await gatewayTo(start, upstream.address);
      const request = `GET /public/x HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: ${name}\r\nHTTP2-Settings: AAMAAABk\r\n\r\n`;
      const { statuses } = await raw(gateway.address, request, {
        until: (text) => text.endsWith("ok"),
      });
      expect(statuses).toEqual([200]);
      expect(valuesOf(upstream.seen[0], "upgrade")).toEqual([]);
      expect(valuesOf(upstream.seen[0], "http2-settings")).toEqual([]);
      expect(valuesOf(upstream.seen[0], "connection")).toEqual([]);
    },
  );

  test("to an upstream that is down is 502", async () => {
    const upstream = upstreamOf();
    upstream.stop();
    const gateway = await gatewayTo(start, upstream.address);
    expect((await raw(gateway.address, handshake())).statuses).toEqual([502]);
  });
});

describeBoth("The end of a tunnel", (start) => {
  async function tunnel(upstream: RawUpstream, more = "") {
    const gateway = await gatewayTo(start, upstream.address, more);
    const socket = await openRaw(gateway.address);
    socket.send(handshake());
    await socket.read({ until: (text) => text.includes("\r\n\r\n") });
    return { gateway, socket };
  }

  test("comes to the upstream when the client is gone", async () => {
    const upstream = upstreamOf((_, write) => write(SWITCHING));
    const { socket } = await tunnel(upstream);
    socket.kill();
    await eventually("the upstream's side ends", () => upstream.closedConnections === 1, 1000);
  });

  test("comes to the client when the upstream is gone", async () => {
    const upstream = upstreamOf((_, write, close) => {
      write(SWITCHING + frame(1, "bye"));
      close();
    });
    const { socket } = await tunnel(upstream);
    const { text, closed } = await socket.read();
    expect(closed).toBe(true);
    expect(afterHead(text)).toBe(frame(1, "bye"));
  });

  test("comes with 1001 after the idle deadline, when there is one", async () => {
    const upstream = upstreamOf((_, write) => write(SWITCHING));
    const { socket } = await tunnel(upstream, "    timeouts: { idle: 500ms }");
    const { text, closed } = await socket.read();
    expect(closed).toBe(true);
    expect(afterHead(text)).toBe(frame(8, "\x03\xe9"));
  });
});

describeBoth("A WebSocket client that reads nothing", (start) => {
  test("stops the upstream, and gets everything when it reads again", async () => {
    const size = 60_000_000;
    const piece = Buffer.alloc(100_000);
    let sent = 0;
    const pump = (socket: Bun.Socket) => {
      while (sent < size) {
        const room = Math.min(piece.length, size - sent);
        const wrote = Math.max(0, socket.write(piece.subarray(0, room)));
        sent += wrote;
        if (wrote < room) return;
      }
    };
    const listener = Bun.listen({
      hostname: "127.0.0.1",
      port: 0,
      socket: {
        data(socket) {
          socket.write(SWITCHING);
          pump(socket);
        },
        drain: pump,
        error() {},
      },
    });
    stops.push(() => listener.stop(true));
    const gateway = await gatewayTo(start, `127.0.0.1:${listener.port}`);
    const socket = await openRaw(gateway.address);
    socket.pause();
    socket.send(handshake());
    let last = -1;
    let sinceMs = performance.now();
    await eventually("the upstream stops", () => {
      if (sent !== last) sinceMs = performance.now();
      last = sent;
      return performance.now() - sinceMs > 300;
    });
    expect(sent).toBeLessThan(30_000_000);
    socket.resume();
    await eventually("everything comes", () => socket.received > size, 10_000);
    socket.kill();
  });
});
