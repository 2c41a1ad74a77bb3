/**
 * Bytes through nginx, Caddy and HAProxy that ask the gateway: paths that can be read in two ways, odd request lines,
 * bodies, streams and WebSockets.
 *
 * Invariant: what reached the application is what the gateway would have forwarded itself, and no reading of the path
 * that went on leads to what only an admin may see; the readings here share no code with src/path.ts.
 */
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "bun:test";
import type { GatewayUnderTest } from "../support/gateway.ts";
import { type ProxyName, proxyMissing, stopProxies } from "../support/proxies.ts";
import {
  type Asked,
  BOSS,
  bearer,
  type Chain,
  type Direct,
  expectNoMore,
  OPS,
  startAsked,
  startChain,
  startDirect,
  through,
} from "../support/proxy-suite.ts";
import { eventually, OK_RESPONSE, openRaw, raw, valuesOf } from "../support/raw.ts";

const PROXIES: readonly ProxyName[] = ["nginx", "caddy", "haproxy"];

/** A small generator with a seed (Numerical Recipes), so that a failure can be repeated. */
function dice(seed: number): (sides: number) => number {
  let state = seed;
  return (sides) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((state / 2 ** 32) * sides);
  };
}

const SEGMENTS = [
  ...["public", "admin", "ADMIN", "v1", "x", "", ".", "..", "%2e%2e", "%2E.", "..;", ".;a"],
  ...["..%2f", "%2fadmin", "..%5c", "..\\", "\\", "a%2f..", "%252e%252e", "%00", "%0a", "%zz"],
  ...[
    "..%20",
    "admin.",
    "%61dmin",
    "\xef\xbc\x8e\xef\xbc\x8e",
    "%c0%ae%c0%ae",
    "a?b",
    "?/../",
    "#",
  ],
];

function randomTarget(roll: (sides: number) => number): string {
  const count = 1 + roll(5);
  const parts = Array.from({ length: count }, () => SEGMENTS[roll(SEGMENTS.length)] ?? "");
  const lead = ["/public", "/public", "/admin", "", "/", "http://app.example.com"][roll(6)] ?? "";
  return `${lead}/${parts.join("/")}`;
}

/** Every path that some backend may take a target for. */
function readings(target: string): string[] {
  const path = target.replace(/^https?:\/\/[^/?#]*/i, "").replace(/[?#].*$/s, "");
  const found = new Set([path]);
  for (const one of found) {
    if (found.size > 500) break;
    const steps = [
      one.replaceAll("\\", "/"),
      one.replace(/\/{2,}/g, "/"),
      one.replace(/;[^/]*/g, ""),
      one.replace(/%([0-9a-f]{2})/gi, (_, hex: string) =>
        String.fromCharCode(Number.parseInt(hex, 16)),
      ),
      resolved(one),
      one.toLowerCase(),
    ];
    for (const step of steps) found.add(step);
  }
  return [...found];
}

function resolved(path: string): string {
  const out: string[] = [];
  for (const segment of path.split("/").slice(1)) {
    if (segment === "..") out.pop();
    else if (segment !== ".") out.push(segment);
  }
  return `/${out.join("/")}`;
}

const isForAdmins = (target: string): boolean =>
  readings(target).some((path) => /^\/+admin(?:[/.]|$)/.test(path));

let gateway: GatewayUnderTest;
let direct: Direct;

afterAll(stopProxies);
beforeAll(async () => {
  [gateway, direct] = await Promise.all([startAsked(), startDirect()]);
});
afterAll(async () => {
  await gateway.stop();
  await direct.stop();
});

function suite(front: ProxyName): void {
  let chain: Chain;

  beforeAll(async () => {
    chain = await startChain(front, gateway);
  });
  beforeEach(() => {
    chain.upstream.seen.length = 0;
    chain.upstream.respond = (_, write) => write(OK_RESPONSE);
  });
  afterAll(() => chain.stop());

  test("paths that can be read in two ways", async () => {
    const tricks = [
      ...["/public/..%2fadmin", "/public/..%2Fadmin/x", "/public/%2e%2e/admin", "/public/../admin"],
      ...[
        "//admin",
        "/public//../admin",
        "/public/..;/admin",
        "/public/;/../admin",
        "/public;/../admin",
      ],
      ...[
        "/public/%2e%2e%2fadmin",
        "/public/%252e%252e/admin",
        "/public/..%5cadmin",
        "/public\\..\\admin",
      ],
      ...[
        "/admin/../public/x",
        "/admin//../public/x",
        "/admin%2f..%2fpublic",
        "/%61dmin",
        "/Admin/x",
      ],
      ...[
        "/public/%00/../admin",
        "/public/x#/../../admin",
        "/public/x%23/../../admin",
        "/public/%zz",
      ],
      ...["/./admin", "/public/.%2e/admin", "http://app.example.com/public/../admin", "*", "admin"],
      ...[
        "//app.example.com/admin",
        "/public/x?/../../admin",
        "/public/a%20b",
        "/public/vendor%2Fmodel",
      ],
    ];
    let reached = 0;
    for (const target of tricks) {
      for (const lines of ["", bearer(OPS)]) {
        const asked: Asked = { target, lines };
        const sent = await expectNoMore(chain, direct, asked);
        if (sent === null) continue;
        reached += 1;
        expect([target, sent, isForAdmins(sent)]).toEqual([target, sent, false]);
      }
    }
    // The last three have one meaning, and pass.
    expect(reached).toBeGreaterThanOrEqual(6);
  });

  test("paths made by chance", async () => {
    const roll = dice(20_261_121);
    let reached = 0;
    for (let count = 0; count < 600; count++) {
      const asked: Asked = { target: randomTarget(roll), lines: roll(2) === 0 ? "" : bearer(OPS) };
      const sent = await expectNoMore(chain, direct, asked);
      if (sent === null) continue;
      reached += 1;
      expect([asked.target, sent, isForAdmins(sent)]).toEqual([asked.target, sent, false]);
    }
    expect(reached).toBeGreaterThan(20);
  });

  test("very many at once: every question is answered by the gateway, none by the application", async () => {
    const statuses = new Map<string, number>();
    const client = async (): Promise<void> => {
      const wire = await openRaw(chain.address);
      for (let count = 0; count < 100; count++) {
        const lines = count % 2 === 0 ? "" : bearer(OPS);
        wire.send(`GET /v1/x HTTP/1.1\r\nHost: app.example.com\r\n${lines}\r\n`);
        const isWhole = (text: string) =>
          /(?:ok|\}\n?)$/.test(text) && text.split("HTTP/1.1 ").length > count + 1;
        const { statuses: got } = await wire.read({ until: isWhole });
        const key = `${lines === "" ? "nobody" : "ops"} ${got[count]}`;
        statuses.set(key, (statuses.get(key) ?? 0) + 1);
      }
      wire.kill();
    };
    await Promise.all(Array.from({ length: 64 }, client));
    expect(Object.fromEntries(statuses)).toEqual({ "nobody 401": 3200, "ops 200": 3200 });
    expect(chain.upstream.seen.filter(({ line }) => line !== "GET /v1/x HTTP/1.1")).toEqual([]);
    expect(chain.upstream.seen.filter(({ head }) => head.includes(OPS))).toEqual([]);
  });

  test("odd request lines and heads", async () => {
    const host = "Host: app.example.com\r\n";
    const heads = [
      `TRACE /v1/x HTTP/1.1\r\n${host}${bearer(OPS)}`,
      `CONNECT app.example.com:80 HTTP/1.1\r\n${host}${bearer(OPS)}`,
      `get /public/x HTTP/1.1\r\n${host}`,
      `G\u00c4T /public/x HTTP/1.1\r\n${host}`,
      `GET /public/x HTTP/1.1\r\nHost: internal.example.com\r\n${host}`,
      `GET /public/x HTTP/1.1\r\n`,
      `GET  /v1/x HTTP/1.1\r\n${host}`,
      `GET /public/x\t/admin HTTP/1.1\r\n${host}`,
      `POST /v1/x HTTP/1.1\r\n${host}Transfer-Encoding: chunked\r\nContent-Length: 3\r\n`,
      `GET /v1/x HTTP/1.1\r\n${host}X-Forwarded-Uri : /public/x\r\n`,
      `GET /v1/x HTTP/1.1\r\n${host}X-Forwarded-Uri: /v1\r\n /public/x\r\n`,
      `OPTIONS * HTTP/1.1\r\n${host}${bearer(BOSS)}`,
    ];
    for (const head of heads) {
      chain.upstream.seen.length = 0;
      await raw(chain.address, `${head}Connection: close\r\n\r\n0\r\n\r\n`);
      expect([head, chain.upstream.seen.map(({ line }) => line)]).toEqual([head, []]);
    }
  });

  test("HTTP/1.0 without a Host is asked about under the name of the site", async () => {
    const head = `GET /public/old HTTP/1.0\r\n\r\n`;
    const { statuses } = await raw(chain.address, head);
    const [seen] = chain.upstream.seen;
    if (seen !== undefined) expect(seen.line).toStartWith("GET /public/old ");
    expect([200, 400, 403, undefined]).toContain(statuses[0]);
    chain.upstream.seen.length = 0;
    await raw(chain.address, `GET /v1/old HTTP/1.0\r\n\r\n`);
    expect(chain.upstream.seen).toHaveLength(0);
  });

  /** Answers once the body is whole: 3 MB are more than any proxy holds in a buffer. */
  const BODY = "0123456789abcdef".repeat(190_000);

  test.each([
    ["with its length", `Content-Length: ${BODY.length}\r\n`, BODY],
    [
      "in chunks",
      "Transfer-Encoding: chunked\r\n",
      `${BODY.length.toString(16)}\r\n${BODY}\r\n0\r\n\r\n`,
    ],
  ])("a body %s reaches the application whole, and only with a token", async (_, framing, body) => {
    let whole = "";
    chain.upstream.respond = (request, write) => {
      const look = (): void => {
        const isChunked = valuesOf(request, "transfer-encoding").length > 0;
        whole = isChunked ? unchunked(request.body) : request.body;
        const isDone = isChunked ? request.body.endsWith("0\r\n\r\n") : whole.length >= BODY.length;
        if (isDone) write(OK_RESPONSE);
        else setTimeout(look, 2);
      };
      look();
    };
    const head = (lines: string) =>
      `POST /v1/upload HTTP/1.1\r\nHost: app.example.com\r\n${lines}${framing}Connection: close\r\n\r\n`;
    const good = await raw(chain.address, head(bearer(OPS)) + body, { timeoutMs: 10_000 });
    expect(good.statuses.at(-1)).toBe(200);
    expect(whole.length).toBe(BODY.length);
    expect(whole === BODY).toBe(true);
    chain.upstream.seen.length = 0;
    const until = (text: string) => text.includes("\r\n\r\n");
    const denied = await raw(chain.address, head("") + body, { until });
    expect([denied.statuses[0], chain.upstream.seen.length]).toEqual([401, 0]);
  });

  test("an answer streams: its first part is read before the second is written", async () => {
    let more: (text: string) => void = () => {};
    chain.upstream.respond = (_, write) => {
      write("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n");
      write("Transfer-Encoding: chunked\r\n\r\n7\r\ndata: 1\r\n");
      more = write;
    };
    const client = await openRaw(chain.address);
    const head = `GET /v1/stream HTTP/1.1\r\nHost: app.example.com\r\n${bearer(OPS)}\r\n`;
    client.send(head);
    const first = await client.read({ until: (text) => text.includes("data: 1") });
    expect(first.text).toContain("data: 1");
    more("7\r\ndata: 2\r\n0\r\n\r\n");
    const rest = await client.read({ until: (text) => text.includes("data: 2") });
    expect(rest.text).toContain("data: 2");
    client.kill();
  });

  test("WebSockets pass with a token, and only with one", async () => {
    const heard: string[] = [];
    const server = Bun.serve({
      hostname: "127.0.0.1",
      port: 0,
      fetch(request, running) {
        heard.push(
          `${request.headers.get("x-gatehouse-identity")} ${request.headers.get("upgrade")}`,
        );
        return running.upgrade(request) ? undefined : new Response("plain", { status: 200 });
      },
      websocket: { message: (socket, message) => void socket.send(`echo ${message}`) },
    });
    const tunnel = await startChain(front, gateway, { application: `127.0.0.1:${server.port}` });
    const url = `ws://${tunnel.address}/ws`;
    const socket = new WebSocket(url, { headers: { authorization: `Bearer ${OPS}` } } as never);
    const echo = Promise.withResolvers<string>();
    socket.onopen = () => socket.send("hello");
    socket.onmessage = ({ data }) => echo.resolve(String(data));
    socket.onerror = () => echo.reject(new Error("no socket"));
    expect(await echo.promise).toBe("echo hello");
    socket.close();
    expect(heard).toEqual(["ops websocket"]);
    const handshake = (lines: string, protocol = "websocket") =>
      raw(
        tunnel.address,
        `GET /ws HTTP/1.1\r\nHost: app.example.com\r\n${lines}Connection: Upgrade\r\nUpgrade: ${protocol}\r\n` +
          "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        { until: (text) => text.includes("\r\n\r\n") },
      );
    expect((await handshake("")).statuses).toEqual([401]);
    expect(heard).toHaveLength(1);
    // Another protocol would be a tunnel that nobody looks into.
    expect((await handshake(`${bearer(OPS)}HTTP2-Settings: AAMAAABk\r\n`, "h2c")).statuses).toEqual(
      [200],
    );
    expect(heard.at(-1)).toBe("ops null");
    await tunnel.stop();
    await server.stop(true);
  });

  test("the log of the proxy has nothing to complain about", async () => {
    await through(chain, { target: "/public/x" });
    await eventually("an answer", () => chain.upstream.seen.length > 0);
    const lines = chain
      .log()
      .split("\n")
      .filter((line) => /emerg|alert|could not build|deprecat|Lua/i.test(line));
    expect(lines).toEqual([]);
  });
}

/** The content of chunks. */
function unchunked(text: string): string {
  let rest = text;
  let whole = "";
  for (;;) {
    const end = rest.indexOf("\r\n");
    const size = Number.parseInt(rest.slice(0, end), 16);
    if (end === -1 || !(size > 0) || rest.length < end + 2 + size) return whole;
    whole += rest.slice(end + 2, end + 2 + size);
    rest = rest.slice(end + 4 + size);
  }
}

for (const front of PROXIES) {
  const absent = proxyMissing(front);
  if (absent === null) describe(`through ${front}`, () => suite(front));
  else describe.skip(`through ${front} (${absent})`, () => suite(front));
}
