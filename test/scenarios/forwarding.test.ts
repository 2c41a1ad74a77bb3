/**
 * Whole-program scenarios of plain forwarding: heads, bodies, framing, limits, connections that live on.
 *
 * Invariant: what is compared is bytes on the wire, of what the client sent and the upstream saw, and the other way.
 */
import { afterAll, describe, expect, test } from "bun:test";
import { createHash, randomBytes } from "node:crypto";
import { gzipSync } from "node:zlib";
import {
  describeBoth,
  type GatewayUnderTest,
  OPS_ENV,
  OPS_TOKEN,
  type StartGateway,
  simpleConfig,
} from "../support/gateway.ts";
import {
  eventually,
  openRaw,
  type RawUpstream,
  raw,
  rawUpstream,
  valuesOf,
} from "../support/raw.ts";

const upstreams: { stop(): unknown }[] = [];
afterAll(() => {
  for (const one of upstreams) void one.stop();
});

function upstreamOf(respond?: Parameters<typeof rawUpstream>[0]): RawUpstream {
  const upstream = rawUpstream(respond);
  upstreams.push(upstream);
  return upstream;
}

type Extra = Parameters<typeof simpleConfig>[1];

function gatewayTo(start: StartGateway, address: string, extra?: Extra): Promise<GatewayUnderTest> {
  return start({ config: simpleConfig(`http://${address}`, extra), env: OPS_ENV });
}

const sha256 = (bytes: Uint8Array | ArrayBuffer) =>
  createHash("sha256").update(new Uint8Array(bytes)).digest("hex");
const get = (path: string, more = "") => `GET ${path} HTTP/1.1\r\nHost: a.example\r\n${more}\r\n`;
const CLOSE = "Connection: close\r\n";
const bodyOf = (text: string) => text.slice(text.indexOf("\r\n\r\n") + 4);
const headOf = (text: string) => text.slice(0, text.indexOf("\r\n\r\n") + 2);
const blob = randomBytes(6_000_000);

/** The blob as a stream whose length nobody knows. */
function inPieces(): ReadableStream<Uint8Array> {
  let at = 0;
  return new ReadableStream({
    pull(controller) {
      controller.enqueue(blob.subarray(at, at + 70_001));
      at += 70_001;
      if (at >= blob.length) controller.close();
    },
  });
}

describeBoth("Forwarding of bodies", (start) => {
  /** Says how the body was framed and what it was; GET gives the blob, framed as asked for. */
  function hashingUpstream() {
    const server = Bun.serve({
      hostname: "127.0.0.1",
      port: 0,
      maxRequestBodySize: 1e9,
      async fetch(request) {
        if (request.method === "GET") {
          const isChunked = request.url.endsWith("chunked");
          return isChunked ? new Response(inPieces()) : new Response(blob);
        }
        const digest = sha256(await request.arrayBuffer());
        return Response.json({
          length: request.headers.get("content-length"),
          encoding: request.headers.get("transfer-encoding"),
          digest,
        });
      },
    });
    upstreams.push({ stop: () => server.stop(true) });
    return `127.0.0.1:${server.port}`;
  }

  test("an upload of known length arrives whole and with its Content-Length", async () => {
    const gateway = await gatewayTo(start, hashingUpstream());
    const response = await fetch(`${gateway.url}/public/up`, { method: "PUT", body: blob });
    expect(await response.json()).toEqual({
      length: String(blob.length),
      encoding: null,
      digest: sha256(blob),
    });
  });

  test("an upload of unknown length arrives whole and chunked, without an invented length", async () => {
    const gateway = await gatewayTo(start, hashingUpstream());
    const response = await fetch(`${gateway.url}/public/up`, {
      method: "POST",
      body: inPieces(),
    });
    expect(await response.json()).toEqual({
      length: null,
      encoding: "chunked",
      digest: sha256(blob),
    });
  });

  test("a download keeps its Content-Length, and one without stays without, byte for byte", async () => {
    const gateway = await gatewayTo(start, hashingUpstream());
    const known = await fetch(`${gateway.url}/public/known`);
    expect(known.headers.get("content-length")).toBe(String(blob.length));
    expect(sha256(await known.arrayBuffer())).toBe(sha256(blob));
    const unknown = await fetch(`${gateway.url}/public/chunked`);
    expect(unknown.headers.get("content-length")).toBeNull();
    expect(sha256(await unknown.arrayBuffer())).toBe(sha256(blob));
  });

  test("a compressed answer passes as it is, with its encoding and length", async () => {
    const packed = gzipSync(Buffer.from("squeeze ".repeat(500)));
    const upstream = upstreamOf((_, write) => {
      write(
        `HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: ${packed.length}\r\n\r\n`,
      );
      write(packed);
    });
    const gateway = await gatewayTo(start, upstream.address);
    const { text } = await raw(gateway.address, get("/public/z", CLOSE));
    expect(headOf(text)).toContain("Content-Encoding: gzip\r\n");
    expect(headOf(text)).toContain(`Content-Length: ${packed.length}\r\n`);
    expect(bodyOf(text)).toBe(packed.toString("latin1"));
  });

  test("an empty POST keeps its Content-Length: 0, and a chunked empty one stays chunked", async () => {
    const upstream = upstreamOf();
    const gateway = await gatewayTo(start, upstream.address);
    const post = "POST /public/p HTTP/1.1\r\nHost: a\r\nConnection: close\r\n";
    await raw(gateway.address, `${post}Content-Length: 0\r\n\r\n`);
    expect(valuesOf(upstream.seen[0], "content-length")).toEqual(["0"]);
    expect(valuesOf(upstream.seen[0], "transfer-encoding")).toEqual([]);
    await raw(gateway.address, `${post}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n`);
    await eventually("the last chunk arrives", () => upstream.seen[1]?.body === "0\r\n\r\n");
    expect(valuesOf(upstream.seen[1], "content-length")).toEqual([]);
  });

  test("a chunked body is framed anew: extensions and trailers end at the gateway", async () => {
    const upstream = upstreamOf();
    const gateway = await gatewayTo(start, upstream.address);
    const head =
      "POST /public/p HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n";
    await raw(gateway.address, `${head}3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nX-Trailer: 1\r\n\r\n`);
    await eventually(
      "the body arrives",
      () => upstream.seen[0]?.body.endsWith("0\r\n\r\n") === true,
    );
    expect(upstream.seen[0]?.body).toBe("3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n");
  });
});

describeBoth("Forwarding of heads", (start) => {
  test("the upstream sees the client's lines and ours, and nothing invented", async () => {
    const upstream = upstreamOf();
    const gateway = await gatewayTo(start, upstream.address);
    await raw(
      gateway.address,
      get("/public/a?q=1%2B2", `${CLOSE}X-One: 1\r\nx-two: a\r\nX-Two:  b \r\nCookie: c=d\r\n`),
    );
    expect(upstream.seen[0]?.line).toBe("GET /public/a?q=1%2B2 HTTP/1.1");
    const names = upstream.seen[0]?.fields.map(([name]) => name);
    expect(names).toEqual([
      "host",
      "x-one",
      "x-two",
      "x-two",
      "cookie",
      "x-forwarded-for",
      "x-forwarded-proto",
      "x-forwarded-host",
      "x-request-id",
    ]);
    expect(valuesOf(upstream.seen[0], "x-two")).toEqual(["a", "b"]);
  });

  test("an answer's lines reach the client in order, every Set-Cookie among them, with the request id alone added", async () => {
    const lines =
      "Server: up/1\r\nSet-Cookie: a=1; Path=/\r\nX-Y: z\r\nSet-Cookie: b=2, c\r\nSet-Cookie: d=3\r\n";
    const upstream = upstreamOf((_, write) =>
      write(`HTTP/1.1 200 Fine Thanks\r\n${lines}Content-Length: 2\r\n\r\nhi`),
    );
    const gateway = await gatewayTo(start, upstream.address);
    const { text } = await raw(gateway.address, get("/public/c"), {
      until: (got) => got.endsWith("hi"),
    });
    const head = headOf(text).replace(/X-Request-Id: [^\r]+\r\n/, "");
    expect(head).toBe(`HTTP/1.1 200 Fine Thanks\r\n${lines}Content-Length: 2\r\n`);
  });

  test("redirects, ranges and unusual statuses pass on untouched", async () => {
    const upstream = upstreamOf((request, write) => {
      if (request.line.includes("/redirect")) {
        write(
          "HTTP/1.1 307 Temporary\r\nLocation: //else.example/%2e?x\r\nContent-Length: 0\r\n\r\n",
        );
      } else if (request.line.includes("/teapot")) {
        write("HTTP/1.1 418 I'm a teapot\r\nContent-Length: 0\r\n\r\n");
      } else {
        write(
          "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 2-4/9\r\nContent-Length: 3\r\n\r\ncde",
        );
      }
    });
    const gateway = await gatewayTo(start, upstream.address);
    const redirect = await raw(gateway.address, get("/public/redirect", CLOSE));
    expect(redirect.text).toStartWith(
      "HTTP/1.1 307 Temporary\r\nLocation: //else.example/%2e?x\r\n",
    );
    expect(upstream.seen.length).toBe(1);
    expect((await raw(gateway.address, get("/public/teapot", CLOSE))).statuses).toEqual([418]);
    const range = await raw(gateway.address, get("/public/r", `${CLOSE}Range: bytes=2-4\r\n`));
    expect(valuesOf(upstream.seen[2], "range")).toEqual(["bytes=2-4"]);
    expect(range.text).toContain("Content-Range: bytes 2-4/9\r\n");
    expect(bodyOf(range.text)).toBe("cde");
  });

  test("HEAD, 204 and 304 have no body, keep what they say about one, and the connection lives on", async () => {
    const upstream = upstreamOf((request, write) => {
      if (request.line.startsWith("HEAD"))
        write("HTTP/1.1 200 OK\r\nContent-Length: 12345\r\n\r\n");
      else if (request.line.includes("/304")) {
        write('HTTP/1.1 304 Not Modified\r\nETag: "x"\r\nContent-Length: 77\r\n\r\n');
      } else if (request.line.includes("/204")) write("HTTP/1.1 204 No Content\r\n\r\n");
      else write("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlast");
    });
    const gateway = await gatewayTo(start, upstream.address);
    const head = "HEAD /public/h HTTP/1.1\r\nHost: a\r\n\r\n";
    const { text, statuses } = await raw(
      gateway.address,
      head + get("/public/304") + get("/public/204") + get("/public/x"),
      { until: (got) => got.endsWith("last") },
    );
    expect(statuses).toEqual([200, 304, 204, 200]);
    const parts = text.split("\r\n\r\n");
    expect(parts[0]).toContain("Content-Length: 12345");
    expect(parts[1]).toContain("Content-Length: 77");
    expect(parts[2]).toStartWith("HTTP/1.1 204");
    expect(parts[2]).not.toContain("Content-Length");
    expect(parts[4]).toBe("last");
    expect(upstream.connections).toBe(1);
  });

  test("HEAD to the gateway's own answers sends the length and no body", async () => {
    const upstream = upstreamOf();
    const gateway = await gatewayTo(start, upstream.address);
    const heads = ["/healthz", "/secret"].map((path) => `HEAD ${path} HTTP/1.1\r\nHost: a\r\n\r\n`);
    const { text, statuses } = await raw(gateway.address, heads.join("") + get("/healthz", CLOSE));
    expect(statuses).toEqual([200, 401, 200]);
    const parts = text.split("\r\n\r\n");
    expect(parts[0]).toContain("Content-Length: 3");
    expect(parts[1]).toStartWith("HTTP/1.1 401");
    expect(parts[2]).toStartWith("HTTP/1.1 200");
    expect(parts[3]).toBe("ok\n");
    expect(upstream.seen).toEqual([]);
  });

  test("an HTTP/1.0 client gets a body that ends with the connection when its length is unknown", async () => {
    const upstream = upstreamOf((_, write) => {
      write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n");
      write("1\r\nc\r\n0\r\n\r\n");
    });
    const gateway = await gatewayTo(start, upstream.address);
    const { text, closed } = await raw(gateway.address, "GET /public/o HTTP/1.0\r\n\r\n");
    expect(closed).toBe(true);
    expect(headOf(text)).not.toContain("Transfer-Encoding");
    expect(headOf(text)).toContain("Connection: close\r\n");
    expect(bodyOf(text)).toBe("abc");
  });
});

describeBoth("Limits of a request", (start) => {
  const routes = "  - { match: { path: /small/** }, access: public, upstream: api, max_body: 10B }";

  test("a body over its route's limit is 413 and never reaches the upstream when its length is known", async () => {
    const upstream = upstreamOf();
    const gateway = await gatewayTo(start, upstream.address, { routes });
    const put = (path: string) => `PUT ${path} HTTP/1.1\r\nHost: a\r\n${CLOSE}`;
    const over = await raw(
      gateway.address,
      `${put("/small/x")}Content-Length: 11\r\n\r\n12345678901`,
    );
    expect(over.statuses).toEqual([413]);
    expect(over.text).toContain("X-Gatehouse-Reason: body_too_large\r\n");
    const chunked = `${put("/small/x")}Transfer-Encoding: chunked\r\n\r\n`;
    const whole = await raw(gateway.address, `${chunked}b\r\n12345678901\r\n0\r\n\r\n`);
    expect(whole.statuses).toEqual([413]);
    const many = await raw(gateway.address, `${chunked}6\r\n123456\r\n6\r\n123456\r\n`);
    expect(many.statuses).toEqual([413]);
    expect(upstream.seen).toEqual([]);
    const exact = await raw(
      gateway.address,
      `${put("/small/x")}Content-Length: 10\r\n\r\n1234567890`,
    );
    expect(exact.statuses).toEqual([200]);
    const other = await raw(
      gateway.address,
      `${put("/public/x")}Content-Length: 11\r\n\r\n12345678901`,
    );
    expect(other.statuses).toEqual([200]);
  });

  test("a chunked body that grows over the limit is 413, and the upstream's call is broken off", async () => {
    const upstream = upstreamOf(() => {});
    const gateway = await gatewayTo(start, upstream.address, { routes });
    const client = await openRaw(gateway.address);
    client.send(
      "POST /small/x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n1234\r\n",
    );
    await eventually(
      "the first chunk arrives",
      () => upstream.seen[0]?.body.includes("1234") === true,
    );
    client.send("8\r\n12345678\r\n");
    const answer = await client.read();
    expect(answer.statuses).toEqual([413]);
    expect(answer.closed).toBe(true);
    await eventually("the upstream's connection ends", () => upstream.closedConnections === 1);
    expect(upstream.seen[0]?.body).not.toContain("12345678");
  });

  test("a client that sends a large refused body to its end still reads the 413", async () => {
    const upstream = upstreamOf();
    const gateway = await gatewayTo(start, upstream.address, { routes });
    const client = await openRaw(gateway.address);
    client.send(`POST /small/x HTTP/1.1\r\nHost: a\r\nContent-Length: ${blob.length}\r\n\r\n`);
    client.send(blob);
    const answer = await client.read();
    expect(answer.statuses).toEqual([413]);
    expect(answer.text).toContain("Connection: close\r\n");
    expect(upstream.seen).toEqual([]);
  });

  test("a head over the limit is 431, an endless target 414, and too many lines 431", async () => {
    const upstream = upstreamOf();
    const server = "  limits: { head: 2KiB }";
    const gateway = await gatewayTo(start, upstream.address, { server });
    const large = await raw(gateway.address, get("/public/x", `X-L: ${"l".repeat(3000)}\r\n`));
    expect(large.statuses).toEqual([431]);
    const long = await raw(gateway.address, get(`/public/${"l".repeat(3000)}`));
    expect(long.statuses).toEqual([414]);
    const lines = Array.from({ length: 201 }, (_, i) => `a${i}:\r\n`).join("");
    expect((await raw(gateway.address, get("/public/x", lines))).statuses).toEqual([431]);
    expect(upstream.seen).toEqual([]);
  });

  test("100 Continue is sent once the body is wanted, and not to a refused request", async () => {
    const upstream = upstreamOf(() => {});
    const gateway = await gatewayTo(start, upstream.address);
    const client = await openRaw(gateway.address);
    client.send(
      "POST /public/x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n",
    );
    const interim = await client.read({ until: (text) => text.endsWith("\r\n\r\n") });
    expect(interim.text).toBe("HTTP/1.1 100 Continue\r\n\r\n");
    expect(valuesOf(upstream.seen[0], "expect")).toEqual([]);
    upstream.respond = () => {};
    client.send("hello");
    await eventually("the body arrives", () => upstream.seen[0]?.body === "hello");
    client.kill();
    const refused = await raw(
      gateway.address,
      "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n",
    );
    // Closed: whether the body or the next request would come now, nobody can tell.
    expect(refused.statuses).toEqual([401]);
    expect(refused.closed).toBe(true);
  });
});

describeBoth("Connections that live on", (start) => {
  test("1,000 requests one after the other use one connection on each side", async () => {
    const upstream = upstreamOf();
    const gateway = await gatewayTo(start, upstream.address);
    const client = await openRaw(gateway.address);
    const token = `Authorization: Bearer ${OPS_TOKEN}\r\n`;
    let expected = 0;
    for (let i = 0; i < 1000; i++) {
      client.send(i % 2 === 0 ? get(`/g/${i}`, token) : post(`/public/p/${i}`, "x".repeat(i % 7)));
      expected += 1;
      const answer = await client.read({
        until: (text) => text.split("\r\n\r\nok").length - 1 === expected,
      });
      if (answer.closed) throw new Error(`closed after ${i} requests`);
    }
    expect(upstream.seen.length).toBe(1000);
    expect(upstream.connections).toBe(1);
  });

  const post = (path: string, body: string) =>
    `POST ${path} HTTP/1.1\r\nHost: a\r\nContent-Length: ${body.length}\r\n\r\n${body}`;

  test("pipelined requests are answered in order, bodies and refusals among them", async () => {
    const upstream = upstreamOf((request, write) => {
      const path = request.line.split(" ")[1] ?? "";
      write(`HTTP/1.1 200 OK\r\nContent-Length: ${path.length}\r\n\r\n${path}`);
    });
    const gateway = await gatewayTo(start, upstream.address);
    const { text, statuses } = await raw(
      gateway.address,
      [
        get("/public/1"),
        post("/public/2", "GET /public/smuggled HTTP/1.1\r\n\r\n"),
        get("/secret"),
        post("/secret", "body of a refused request"),
        get("/public/3"),
        get("/public/4", CLOSE),
      ].join(""),
    );
    expect(statuses).toEqual([200, 200, 401, 401, 200, 200]);
    expect([...text.matchAll(/\/public\/\w/g)].map(String)).toEqual(
      [1, 2, 3, 4].map((n) => `/public/${n}`),
    );
    expect(upstream.seen.length).toBe(4);
  });

  test("a client that pipelines and reads nothing is not served ahead of what it takes", async () => {
    const piece = Buffer.alloc(200_000, "p");
    const upstream = upstreamOf((_, write) => {
      write(`HTTP/1.1 200 OK\r\nContent-Length: ${piece.length}\r\n\r\n`);
      write(piece);
    });
    const gateway = await gatewayTo(start, upstream.address);
    const client = await openRaw(gateway.address);
    client.pause();
    client.send(get("/public/x").repeat(500));
    let seen = -1;
    let quietSince = performance.now();
    await eventually("no more requests are taken", () => {
      if (upstream.seen.length !== seen) quietSince = performance.now();
      seen = upstream.seen.length;
      return performance.now() - quietSince > 400;
    });
    // Kernel buffers of both sides hold some megabytes; 100 MB they do not.
    expect(seen).toBeLessThan(150);
    client.resume();
    await eventually("all of them come", () => client.received > 500 * piece.length, 20_000);
    expect(upstream.seen.length).toBe(500);
  });
});

describe("Answers that come early", () => {
  describeBoth("A 413 of the upstream in the middle of an upload", (start) => {
    test("reaches the client, and neither connection is used again", async () => {
      const upstream = upstreamOf((_, write) =>
        write("HTTP/1.1 413 Too Much\r\nContent-Length: 4\r\n\r\nstop"),
      );
      const gateway = await gatewayTo(start, upstream.address);
      const client = await openRaw(gateway.address);
      client.send("POST /public/x HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nstart");
      const answer = await client.read();
      expect(answer.statuses).toEqual([413]);
      expect(bodyOf(answer.text)).toBe("stop");
      expect(answer.text).toContain("Connection: close\r\n");
      expect(answer.closed).toBe(true);
      await eventually("the upstream's connection ends", () => upstream.closedConnections === 1);
      const next = await raw(gateway.address, get("/public/y", CLOSE));
      expect(next.statuses).toEqual([413]);
      expect(upstream.connections).toBe(2);
    });

    test("lets a small rest be read away, so that the client's connection lives on", async () => {
      const upstream = upstreamOf((_, write) =>
        write("HTTP/1.1 403 No\r\nContent-Length: 4\r\n\r\nstop"),
      );
      const gateway = await gatewayTo(start, upstream.address);
      const client = await openRaw(gateway.address);
      client.send("POST /public/x HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n12345");
      await client.read({ until: (text) => text.endsWith("stop") });
      client.send(`67890${get("/public/y", CLOSE)}`);
      expect((await client.read()).statuses).toEqual([403, 403]);
    });
  });
});
