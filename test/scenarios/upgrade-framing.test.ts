/**
 * Upgrades over raw sockets (RFC 6455 section 4.1, RFC 9931): a tunnel begins with the upstream's 101 and with
 * nothing else, and what a client sends ahead of it is neither passed on early nor taken for a request.
 *
 * Invariant: every refusal asserts that the upstream saw nothing of what was hidden behind the handshake.
 */
import { afterAll, beforeAll, beforeEach, expect, test } from "bun:test";
import { describeBoth, type GatewayUnderTest, OPS_ENV, simpleConfig } from "../support/gateway.ts";
import {
  eventually,
  OK_RESPONSE,
  openRaw,
  type RawUpstream,
  raw,
  rawUpstream,
} from "../support/raw.ts";

describeBoth("upgrade framing", (start) => {
  let upstream: RawUpstream;
  let gateway: GatewayUnderTest;
  beforeAll(async () => {
    upstream = rawUpstream();
    gateway = await start({ config: simpleConfig(`http://${upstream.address}`), env: OPS_ENV });
  });
  beforeEach(() => {
    upstream.respond = (_, write) => write(OK_RESPONSE);
    upstream.seen.length = 0;
  });
  afterAll(async () => {
    upstream.stop();
    await gateway.stop();
  });

  const linesSeen = () => upstream.seen.map(({ line }) => line);
  const handshake = (path: string) =>
    `GET ${path} HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n` +
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
  const hidden = "GET /private/hidden HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

  test("bytes sent ahead wait for the 101 and then go into the tunnel", async () => {
    let say: (bytes: string) => void = () => {};
    upstream.respond = (_, write) => {
      say = write;
    };
    const connection = await openRaw(gateway.address);
    connection.send(handshake("/public/ws") + hidden);
    await eventually("the handshake arrives", () => upstream.seen.length === 1);
    connection.send(hidden);
    await connection.read({ until: () => false, timeoutMs: 100 });
    expect(upstream.seen.length).toBe(1);
    say("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
    await eventually("the tunnel carries them", () => upstream.seen.length === 3);
    connection.kill();
  });

  test("when the upstream says 200 there is no tunnel, and what was sent ahead is no request", async () => {
    // RFC 9931: it was meant for a tunnel, so it may hold whatever an attacker had the client send.
    const answer = await raw(gateway.address, handshake("/public/ws") + hidden);
    expect(answer.statuses).toEqual([200]);
    expect(answer.closed).toBe(true);
    expect(linesSeen()).toEqual(["GET /public/ws HTTP/1.1"]);
  });

  test("without a credential the upstream sees nothing at all", async () => {
    const answer = await raw(gateway.address, handshake("/private/ws") + hidden);
    expect(answer.statuses).toEqual([401]);
    expect(answer.closed).toBe(true);
    expect(upstream.seen).toEqual([]);
  });

  test.each([
    ["POST", handshake("/public/ws").replace("GET", "POST")],
    ["HTTP/1.0", handshake("/public/ws").replace("HTTP/1.1", "HTTP/1.0")],
    ["h2c", handshake("/public/ws").replace("websocket", "h2c")],
    ["a body", handshake("/public/ws").replace("\r\n\r\n", "\r\nContent-Length: 1\r\n\r\nx")],
  ])("%s opens no tunnel: the request goes on as a plain one", async (_, bytes) => {
    const connection = await openRaw(gateway.address);
    connection.send(bytes);
    const answer = await connection.read({ until: (text) => text.endsWith("ok") });
    expect(answer.statuses).toEqual([200]);
    expect(upstream.seen[0]?.head).not.toMatch(/\r\n(?:upgrade|connection):/i);
    connection.kill();
  });

  test("a 101 that nobody asked for is 502", async () => {
    upstream.respond = (_, write) =>
      write("HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\n\r\n");
    const answer = await raw(
      gateway.address,
      "GET /public/x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    );
    expect(answer.statuses).toEqual([502]);
    expect(answer.text).toContain("X-Gatehouse-Reason: upstream_broken");
  });
});
