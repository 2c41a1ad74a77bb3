/**
 * Revocation by another process: the executable's own command line against its running gateway.
 *
 * Invariant: what was revoked gets nothing any more, on the next request and on what is open; nobody else notices.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Running, runBinary, startBinary } from "../support/binary.ts";
import { eventually, openRaw, type RawUpstream, raw, rawUpstream } from "../support/raw.ts";

const SSE =
  "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";
const SWITCHING =
  "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
/** The sweep comes every second. */
const SOON_MS = 3000;

interface Issued {
  readonly id: string;
  readonly token: string;
}

describe("A token that is revoked while the gateway runs", () => {
  let cwd = "";
  let gateway: Running;
  let upstream: RawUpstream;
  const writers = new Map<string, (bytes: string) => void>();

  beforeAll(async () => {
    upstream = rawUpstream((request, write) => {
      const path = request.line.split(" ")[1] ?? "";
      writers.set(path, write);
      if (path.startsWith("/sse")) write(SSE);
      else if (path.startsWith("/ws")) write(SWITCHING);
      else if (!path.startsWith("/hang")) write("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    });
    cwd = mkdtempSync(join(tmpdir(), "gatehouse-revocation-"));
    mkdirSync(join(cwd, "state"), { mode: 0o700 });
    writeFileSync(
      join(cwd, "gatehouse.yaml"),
      `version: 1
server: { listen: "127.0.0.1:0" }
strategies: { team: { use: bearer-sqlite } }
upstreams: { api: { url: "http://${upstream.address}" } }
routes: [{ match: { path: /** }, access: [team], upstream: api }]
`,
      { mode: 0o600 },
    );
    gateway = await startBinary(["serve", "-c", "gatehouse.yaml"], { cwd });
  });
  afterAll(async () => {
    await gateway?.stop(2000);
    upstream?.stop();
    rmSync(cwd, { recursive: true, force: true });
  });

  async function cli(...args: string[]): Promise<string> {
    const { code, stdout, stderr } = await runBinary(["token", ...args, "-c", "gatehouse.yaml"], {
      cwd,
    });
    if (code !== 0) throw new Error(`token ${args[0]}: ${stderr}`);
    return stdout;
  }

  async function create(name: string): Promise<Issued> {
    const issued: unknown = JSON.parse(await cli("create", "--name", name, "--json"));
    return issued as Issued;
  }

  const ask = (token: string, path: string, more = "") =>
    `GET ${path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer ${token}\r\n${more}\r\n`;
  const HANDSHAKE =
    "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

  async function status(token: string): Promise<number | undefined> {
    const answer = await raw(gateway.address, ask(token, "/x", "Connection: close\r\n"));
    return answer.statuses[0];
  }

  test("gets 401 on the very next request, its streams end, its WebSocket is closed with 1008, others live", async () => {
    const [doomed, other] = [await create("doomed"), await create("other")];
    expect(await status(doomed.token)).toBe(200);
    const open = async (token: string, path: string, more = "") => {
      const client = await openRaw(gateway.address);
      client.send(ask(token, path, more));
      await client.read({ until: (text) => text.includes("hello") || text.includes(" 101 ") });
      return client;
    };
    const stream = await open(doomed.token, "/sse/doomed");
    const spared = await open(other.token, "/sse/other");
    const socket = await open(doomed.token, "/ws/doomed", HANDSHAKE);
    const sparedSocket = await open(other.token, "/ws/other", HANDSHAKE);
    const kept = await openRaw(gateway.address);
    kept.send(ask(doomed.token, "/kept"));
    await kept.read({ until: (text) => text.endsWith("ok") });

    await cli("revoke", doomed.id);
    // On a connection that was open before, too.
    kept.send(ask(doomed.token, "/kept/again"));
    const again = await kept.read({ until: (text) => text.includes(" 401 ") });
    expect(again.statuses).toEqual([200, 401]);
    expect(await status(doomed.token)).toBe(401);
    expect(await status(other.token)).toBe(200);

    const cut = await stream.read({ timeoutMs: SOON_MS });
    expect(cut.closed).toBe(true);
    expect(cut.text).toEndWith("5\r\nhello\r\n");
    const closing = await socket.read({
      until: (text) => text.endsWith("\x88\x02\x03\xf0"),
      timeoutMs: SOON_MS,
    });
    expect(closing.text).toEndWith("\x88\x02\x03\xf0");
    socket.finish();
    expect((await socket.read()).closed).toBe(true);
    await eventually("the upstream's calls end", () => upstream.closedConnections >= 2);

    writers.get("/sse/other")?.("4\r\nlive\r\n");
    expect((await spared.read({ until: (text) => text.includes("live") })).closed).toBe(false);
    writers.get("/ws/other")?.("\x81\x02hi");
    const alive = await sparedSocket.read({ until: (text) => text.endsWith("\x81\x02hi") });
    expect(alive.closed).toBe(false);
    const ended = () =>
      gateway
        .stdout()
        .split("\n")
        .filter((line) => line.includes('"stream.ended"'));
    await eventually("it is logged", () => ended().length >= 2);
    expect(ended().length).toBe(2);
    for (const line of ended()) {
      expect(line).toContain('"why":"revoked"');
      expect(line).toContain(doomed.id);
      expect(line).not.toContain(doomed.token);
    }
    spared.kill();
    sparedSocket.kill();
  });

  test("is refused on the very next request while others keep the gateway busy", async () => {
    const busy = await create("busy");
    let isOver = false;
    const load = Array.from({ length: 16 }, async () => {
      while (!isOver) {
        const answer = await fetch(`${gateway.url}/load`, {
          headers: { authorization: `Bearer ${busy.token}` },
        });
        await answer.text();
        expect(answer.status).toBe(200);
      }
    });
    for (let round = 0; round < 8; round++) {
      const doomed = await create(`doomed-${round}`);
      const headers = { authorization: `Bearer ${doomed.token}` };
      const before = await fetch(`${gateway.url}/x`, { headers });
      await before.text();
      await cli("revoke", doomed.id);
      const after = await fetch(`${gateway.url}/x`, { headers });
      await after.text();
      expect([before.status, after.status]).toEqual([200, 401]);
    }
    isOver = true;
    await Promise.all(load);
  });

  test("in the middle of a frame closes its WebSocket without a frame of ours inside the message", async () => {
    const doomed = await create("in-a-frame");
    const client = await openRaw(gateway.address);
    client.send(ask(doomed.token, "/ws/frame", HANDSHAKE));
    await client.read({ until: (text) => text.endsWith("\r\n\r\n") });
    writers.get("/ws/frame")?.("\x82\x0512");
    await client.read({ until: (text) => text.endsWith("12") });
    await cli("revoke", doomed.id);
    const { text, closed } = await client.read({ timeoutMs: SOON_MS });
    expect(closed).toBe(true);
    expect(text).toEndWith("\x82\x0512");
  });

  test("ends its download although the client takes nothing of it", async () => {
    const doomed = await create("stalled");
    const client = await openRaw(gateway.address);
    client.send(ask(doomed.token, "/sse/stalled"));
    await client.read({ until: (text) => text.includes("hello") });
    client.pause();
    const before = upstream.closedConnections;
    const piece = `${(1_000_000).toString(16)}\r\n${"x".repeat(1_000_000)}\r\n`;
    for (let i = 0; i < 12; i++) writers.get("/sse/stalled")?.(piece);
    await cli("revoke", doomed.id);
    await eventually("the call ends", () => upstream.closedConnections > before, SOON_MS);
    client.kill();
  });
});
