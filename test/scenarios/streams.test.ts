/**
 * Whole-program scenarios of streams: events as they come, silence, deadlines that are asked for, back-pressure.
 *
 * Invariant: nothing here waits for a fixed time but where time is what is tested, and then the configured times are
 * short.
 */
import { expect, test } from "bun:test";
import {
  describeBoth,
  type GatewayUnderTest,
  OPS_ENV,
  type StartGateway,
  simpleConfig,
} from "../support/gateway.ts";
import { eventually, openRaw, type RawUpstream, raw } from "../support/raw.ts";
import { untilEnd } from "../support/upstreams.ts";

const { stops, upstreamOf } = untilEnd();

type Write = (bytes: string | Uint8Array) => void;

/** An upstream that opens a stream and gives the test its pen. */
function pen(head: string): { upstream: RawUpstream; write: () => Write } {
  let held: Write | null = null;
  const upstream = upstreamOf((_, write) => {
    write(head);
    held = write;
  });
  return {
    upstream,
    write: () => {
      if (held === null) throw new Error("nobody has asked yet");
      return held;
    },
  };
}

const SSE =
  "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\nTransfer-Encoding: chunked\r\n\r\n";
const chunk = (text: string | Uint8Array) =>
  Buffer.concat([
    Buffer.from(`${Buffer.byteLength(text).toString(16)}\r\n`),
    Buffer.from(text as string),
    Buffer.from("\r\n"),
  ]);
const get = (path = "/public/s", more = "") => `GET ${path} HTTP/1.1\r\nHost: a\r\n${more}\r\n`;

function gatewayTo(
  start: StartGateway,
  address: string,
  extra: Parameters<typeof simpleConfig>[1] = {},
): Promise<GatewayUnderTest> {
  return start({ config: simpleConfig(`http://${address}`, extra), env: OPS_ENV });
}

async function quiet(ms: number): Promise<void> {
  const sinceMs = performance.now();
  await eventually("time passes", () => performance.now() - sinceMs > ms);
}

describeBoth("An event stream", (start) => {
  test("passes each piece as it comes, byte for byte, before the next one exists", async () => {
    const { upstream, write } = pen(SSE);
    const gateway = await gatewayTo(start, upstream.address);
    const client = await openRaw(gateway.address);
    client.send(get());
    const head = await client.read({ until: (text) => text.endsWith("\r\n\r\n") });
    expect(head.text).toContain("Content-Type: text/event-stream\r\nCache-Control: no-cache\r\n");
    let text = head.text;
    // Line ends of every kind, a character in two pieces, a comment, an empty line, NUL.
    const pieces = ["data: a\n\n", "\r", "\n:\r\n", "é", "€", "\0", "data: [DONE]\n\n"]
      .map((piece) => Buffer.from(piece))
      .flatMap((piece) =>
        piece.length === 3 ? [piece.subarray(0, 1), piece.subarray(1)] : [piece],
      );
    for (const piece of pieces) {
      write()(chunk(piece));
      text += chunk(piece).toString("latin1");
      const got = await client.read({ until: (now) => now.length >= text.length });
      expect(got.text).toBe(text);
    }
    write()("0\r\n\r\n");
    const whole = await client.read({ until: (now) => now.endsWith("\r\n0\r\n\r\n") });
    expect(whole.text).toBe(`${text}0\r\n\r\n`);
    expect(whole.closed).toBe(false);
  });

  test("without framing (NDJSON from a simple server) passes line by line too", async () => {
    const { upstream, write } = pen(
      "HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\n\r\n",
    );
    const gateway = await gatewayTo(start, upstream.address);
    const client = await openRaw(gateway.address);
    client.send(get());
    for (const line of ['{"a":1}\n', '{"b":2}\n']) {
      await eventually("the upstream is asked", () => upstream.seen.length === 1);
      write()(line);
      await client.read({ until: (text) => text.includes(line) });
    }
    const { text } = await client.read({ until: (now) => now.includes('{"b":2}') });
    expect(text).toEndWith('8\r\n{"a":1}\n\r\n8\r\n{"b":2}\n\r\n');
  });

  test("is not cut for silence, whatever the other deadlines are", async () => {
    const server = `  limits: { head_timeout: 200ms, keep_alive: 200ms, body_timeout: 200ms, send_timeout: 200ms }`;
    const { upstream, write } = pen(SSE);
    const gateway = await gatewayTo(start, upstream.address, {
      server,
      upstream: "    timeouts: { connect: 200ms, response: 200ms }",
    });
    const client = await openRaw(gateway.address);
    client.send(get());
    await client.read({ until: (text) => text.endsWith("\r\n\r\n") });
    await quiet(1200);
    write()(chunk("late"));
    const { text, closed } = await client.read({ until: (now) => now.includes("late") });
    expect(text).toEndWith("4\r\nlate\r\n");
    expect(closed).toBe(false);
  });

  test("is cut, visibly, after the upstream's idle deadline when there is one", async () => {
    const { upstream, write } = pen(SSE);
    const gateway = await gatewayTo(start, upstream.address, {
      upstream: "    timeouts: { idle: 300ms }",
    });
    const client = await openRaw(gateway.address);
    client.send(get());
    await eventually("the upstream is asked", () => upstream.seen.length === 1);
    write()(chunk("one"));
    const { text, closed } = await client.read();
    expect(closed).toBe(true);
    expect(text).toEndWith("3\r\none\r\n");
    await eventually("the upstream's call ends", () => upstream.closedConnections === 1);
  });

  test("whose client leaves ends at the upstream at once", async () => {
    const { upstream, write } = pen(SSE);
    const gateway = await gatewayTo(start, upstream.address);
    for (const how of ["kill", "finish"] as const) {
      const client = await openRaw(gateway.address);
      client.send(get());
      await client.read({ until: (text) => text.endsWith("\r\n\r\n") });
      write()(chunk("one"));
      await client.read({ until: (text) => text.includes("one") });
      const before = upstream.closedConnections;
      client[how]();
      await eventually("the call ends", () => upstream.closedConnections === before + 1, 1000);
    }
  });

  test("goes both ways at once: an answer that begins before the request's end", async () => {
    const upstream = upstreamOf((request, write) => {
      write(SSE);
      let sent = 0;
      void eventually("all has come back", () => {
        const fresh = request.body.slice(sent);
        sent += fresh.length;
        if (fresh !== "") write(chunk(fresh));
        if (request.body.length < 9) return false;
        write("0\r\n\r\n");
        return true;
      });
    });
    const gateway = await gatewayTo(start, upstream.address);
    const client = await openRaw(gateway.address);
    client.send("POST /public/echo HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n");
    for (const piece of ["one", "two", "six"]) {
      client.send(piece);
      await client.read({ until: (text) => text.includes(`3\r\n${piece}\r\n`) });
    }
    const { text } = await client.read({ until: (now) => now.endsWith("0\r\n\r\n") });
    expect(text).toEndWith("3\r\none\r\n3\r\ntwo\r\n3\r\nsix\r\n0\r\n\r\n");
  });
});

describeBoth("Deadlines for clients", (start) => {
  const tight = (limits: string) => ({ server: `  limits: { ${limits} }` });

  test("a request head that drips is 408 and closed", async () => {
    const upstream = upstreamOf();
    const gateway = await gatewayTo(start, upstream.address, tight("head_timeout: 300ms"));
    const client = await openRaw(gateway.address);
    client.send("GET /public/x HTTP/1.1\r\nHost: ");
    const drip = setInterval(() => client.send("a"), 100);
    const answer = await client.read();
    clearInterval(drip);
    expect(answer.statuses).toEqual([408]);
    expect(answer.text).toContain("X-Gatehouse-Reason: request_timeout\r\n");
    expect(answer.closed).toBe(true);
    expect(upstream.seen).toEqual([]);
  });

  test.each([
    ["empty lines", ["\r\n"]],
    ["empty lines in halves", ["\r", "\n"]],
  ])("%s before a request do not put off its deadline", async (_, pieces) => {
    const upstream = upstreamOf();
    const gateway = await gatewayTo(start, upstream.address, tight("head_timeout: 300ms"));
    const client = await openRaw(gateway.address);
    let sent = 0;
    const drip = setInterval(() => client.send(pieces[sent++ % pieces.length] ?? ""), 100);
    const answer = await client.read();
    clearInterval(drip);
    expect(answer.closed).toBe(true);
    expect(upstream.seen).toEqual([]);
  });

  test("a request body that stops is 408, and the upstream's call is broken off", async () => {
    const upstream = upstreamOf(() => {});
    const gateway = await gatewayTo(start, upstream.address, tight("body_timeout: 300ms"));
    const client = await openRaw(gateway.address);
    client.send("POST /public/x HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nabc");
    const answer = await client.read();
    expect(answer.statuses).toEqual([408]);
    expect(answer.text).toContain("X-Gatehouse-Reason: body_timeout\r\n");
    await eventually("the call ends", () => upstream.closedConnections === 1);
  });

  test("a request body that drips below the least rate is 408 too", async () => {
    const upstream = upstreamOf(() => {});
    const limits = tight("body_timeout: 500ms, body_min_rate: 1KB");
    const gateway = await gatewayTo(start, upstream.address, limits);
    const client = await openRaw(gateway.address);
    client.send("POST /public/x HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n");
    const drip = setInterval(() => client.send("x"), 50);
    const answer = await client.read();
    clearInterval(drip);
    expect(answer.statuses).toEqual([408]);
  });

  test("a body that pauses because the upstream is slow is the upstream's matter, not the client's", async () => {
    let open: (() => void) | null = null;
    const size = 40_000_000;
    let got = 0;
    const listener = Bun.listen({
      hostname: "127.0.0.1",
      port: 0,
      socket: {
        open(socket) {
          socket.pause();
          open = () => socket.resume();
        },
        data(socket, bytes) {
          got += bytes.length;
          if (got > size) socket.write("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        },
      },
    });
    stops.push(() => listener.stop(true));
    const limits = tight("body_timeout: 200ms");
    const gateway = await gatewayTo(start, `127.0.0.1:${listener.port}`, limits);
    const client = await openRaw(gateway.address);
    client.send(`PUT /public/x HTTP/1.1\r\nHost: a\r\nContent-Length: ${size}\r\n\r\n`);
    client.send(Buffer.alloc(size));
    await eventually("the upstream is called", () => open !== null);
    await quiet(900);
    (open as (() => void) | null)?.();
    const answer = await client.read({ until: (text) => text.includes("\r\n\r\n") });
    expect(answer.statuses).toEqual([200]);
  });

  test("a client that takes nothing of its answer is closed, and the upstream's call ends", async () => {
    const upstream = upstreamOf((_, write) => {
      write("HTTP/1.1 200 OK\r\nContent-Length: 90000000\r\n\r\n");
      write(Buffer.alloc(30_000_000));
    });
    const gateway = await gatewayTo(start, upstream.address, tight("send_timeout: 400ms"));
    const client = await openRaw(gateway.address);
    client.pause();
    client.send(get());
    await eventually("the upstream's call ends", () => upstream.closedConnections === 1);
    await eventually("it is logged as cut", () =>
      gateway.events("http.access").some((event) => event.complete === false),
    );
    client.kill();
  });

  test("a client that takes its answer slowly but steadily is not closed", async () => {
    const size = 12_000_000;
    const upstream = upstreamOf((_, write) => {
      write(`HTTP/1.1 200 OK\r\nContent-Length: ${size}\r\n\r\n`);
      write(Buffer.alloc(size));
    });
    const gateway = await gatewayTo(start, upstream.address, tight("send_timeout: 500ms"));
    const client = await openRaw(gateway.address);
    client.send(get());
    let pausedAt = 0;
    await eventually(
      "all of it comes",
      () => {
        if (client.received - pausedAt > 500_000) {
          pausedAt = client.received;
          client.pause();
          setTimeout(() => client.resume(), 60);
        }
        return client.received > size;
      },
      10_000,
    );
  });

  test("an idle connection is closed after keep_alive, without a word", async () => {
    const upstream = upstreamOf();
    const gateway = await gatewayTo(start, upstream.address, tight("keep_alive: 300ms"));
    const { statuses, closed } = await raw(gateway.address, get());
    expect(statuses).toEqual([200]);
    expect(closed).toBe(true);
  });

  test("connections over the limit are closed, and those below it go on", async () => {
    const upstream = upstreamOf();
    const gateway = await gatewayTo(start, upstream.address, tight("connections: 2"));
    const first = await openRaw(gateway.address);
    const second = await openRaw(gateway.address);
    for (const client of [first, second]) {
      client.send(get());
      await client.read({ until: (text) => text.endsWith("ok") });
    }
    // Closed before or just after the connection stands.
    const turnedAway = () =>
      raw(gateway.address, get()).then(
        ({ text }) => text,
        () => "",
      );
    for (let i = 0; i < 20; i++) expect(await turnedAway()).toBe("");
    first.send(get());
    const again = await first.read({ until: (text) => text.split("\r\n\r\nok").length === 3 });
    expect(again.statuses).toEqual([200, 200]);
    second.kill();
    const third = get("/public/x", "Connection: close\r\n");
    const statuses = async () =>
      raw(gateway.address, third).then(
        (answer) => answer.statuses[0],
        () => undefined,
      );
    let status = await statuses();
    while (status === undefined) status = await statuses();
    expect(status).toBe(200);
  });
});

describeBoth("Back-pressure", (start) => {
  test("a client that stops reading stops the upstream, and gets everything when it goes on", async () => {
    const size = 60_000_000;
    let sent = 0;
    const piece = Buffer.alloc(100_000, "b");
    const listener = Bun.listen({
      hostname: "127.0.0.1",
      port: 0,
      socket: {
        data(socket) {
          socket.write(`HTTP/1.1 200 OK\r\nContent-Length: ${size}\r\n\r\n`);
          pump(socket);
        },
        drain: (socket) => pump(socket),
        error() {},
      },
    });
    function pump(socket: Bun.Socket): void {
      while (sent < size) {
        const room = Math.min(piece.length, size - sent);
        const wrote = Math.max(0, socket.write(piece.subarray(0, room)));
        sent += wrote;
        if (wrote < room) return;
      }
    }
    stops.push(() => listener.stop(true));
    const gateway = await gatewayTo(start, `127.0.0.1:${listener.port}`);
    const client = await openRaw(gateway.address);
    client.pause();
    client.send(get());
    let last = -1;
    let sinceMs = performance.now();
    await eventually("the upstream stops", () => {
      if (sent !== last) sinceMs = performance.now();
      last = sent;
      return performance.now() - sinceMs > 300;
    });
    expect(sent).toBeLessThan(30_000_000);
    client.resume();
    await eventually("everything comes", () => client.received > size, 10_000);
  });
});

describeBoth("2,000 open streams", (start) => {
  test("do not keep a short request waiting, and each still gets its event", async () => {
    const writers: Write[] = [];
    const upstream = upstreamOf((request, write) => {
      if (request.line.includes("/short")) {
        write("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        return;
      }
      write(SSE);
      writers.push(write);
    });
    const gateway = await gatewayTo(start, upstream.address);
    const clients = [];
    for (let i = 0; i < 2000; i += 100) {
      const some = await Promise.all(Array.from({ length: 100 }, () => openRaw(gateway.address)));
      for (const client of some) client.send(get());
      await eventually("they are open", () => writers.length === i + 100, 10_000);
      clients.push(...some);
    }
    const beganMs = performance.now();
    const short = await raw(gateway.address, get("/public/short", "Connection: close\r\n"));
    expect(short.statuses).toEqual([200]);
    expect(performance.now() - beganMs).toBeLessThan(2000);
    for (const write of writers) write(chunk("data: hello\n\n"));
    const got = await Promise.all(
      clients.map((client) => client.read({ until: (text) => text.includes("hello") })),
    );
    expect(got.filter(({ text }) => text.endsWith("d\r\ndata: hello\n\n\r\n")).length).toBe(2000);
    for (const client of clients) client.kill();
    await eventually("the calls end", () => upstream.closedConnections >= 2000, 10_000);
  }, 60_000);
});
