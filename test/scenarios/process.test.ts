/**
 * The executable's life as a process that serves: the orderly end with work under way, and starts that fail.
 *
 * Invariant: a start that fails says why in one line, has the right exit code and leaves nothing listening; an end
 * that was asked for lets finish what is under way and is 0.
 */
import { describe, expect, test } from "bun:test";
import { chmodSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type Running, runBinary, startBinary } from "../support/binary.ts";
import { OPS_ENV, scratch, simpleConfig } from "../support/gateway.ts";
import { eventually, openRaw, raw } from "../support/raw.ts";
import { untilEnd } from "../support/upstreams.ts";

const { upstreamOf } = untilEnd();

/** A directory with a config in it. */
function laid(text: string): { cwd: string; file: string } {
  const cwd = scratch();
  mkdirSync(join(cwd, "state"), { mode: 0o700 });
  const file = join(cwd, "gatehouse.yaml");
  writeFileSync(file, text, { mode: 0o600 });
  return { cwd, file };
}

async function serve(text: string): Promise<Running> {
  const { cwd, file } = laid(text);
  return startBinary(["serve", "-c", file], { cwd, env: OPS_ENV });
}

const get = (path = "/public/x") => `GET ${path} HTTP/1.1\r\nHost: a\r\n\r\n`;
const SSE =
  "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n\n\n\r\n";
const HANDSHAKE =
  "GET /public/ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
const SWITCHING =
  "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

describe("A drain", () => {
  test.each(["SIGTERM", "SIGINT"] as const)(
    "on %s finishes an open request and a stream, takes nothing new, and ends with 0",
    async (signal) => {
      let answer: (() => void) | null = null;
      let finish: (() => void) | null = null;
      const upstream = upstreamOf((request, write) => {
        if (request.line.includes("/slow")) {
          answer = () => write("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone");
        } else if (request.line.includes("/sse")) {
          write(SSE);
          finish = () => write("3\r\nend\r\n0\r\n\r\n");
        } else write("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
      });
      const gateway = await serve(
        simpleConfig(`http://${upstream.address}`, { server: "  drain: 20s" }),
      );
      const idle = await openRaw(gateway.address);
      idle.send(get());
      await idle.read({ until: (text) => text.endsWith("ok") });
      const slow = await openRaw(gateway.address);
      slow.send(get("/public/slow"));
      const stream = await openRaw(gateway.address);
      stream.send(get("/public/sse"));
      await stream.read({ until: (text) => text.includes("\n\n\r\n") });
      await eventually("the slow request is under way", () => answer !== null);
      gateway.signal(signal);
      // The idle one is closed at once; the port is free for the next process.
      expect((await idle.read()).closed).toBe(true);
      await eventually("the drain is logged", () => gateway.stdout().includes("server.draining"));
      expect(raw(gateway.address, get())).rejects.toThrow();
      (answer as (() => void) | null)?.();
      const answered = await slow.read();
      expect(answered.text).toContain("Connection: close\r\n");
      expect(answered.text).toEndWith("done");
      (finish as (() => void) | null)?.();
      expect((await stream.read()).text).toEndWith("3\r\nend\r\n0\r\n\r\n");
      const { code, stderr, stdout } = await gateway.ended;
      expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
      expect(stdout.trimEnd().split("\n").at(-1)).toContain("server.stopped");
    },
  );

  test("that reaches its deadline cuts streams visibly, closes WebSockets with 1001, and still ends with 0", async () => {
    const upstream = upstreamOf((request, write) =>
      write(request.line.includes("/ws") ? SWITCHING : SSE),
    );
    const gateway = await serve(
      simpleConfig(`http://${upstream.address}`, { server: "  drain: 300ms" }),
    );
    const stream = await openRaw(gateway.address);
    stream.send(get("/public/sse"));
    await stream.read({ until: (text) => text.includes("\n\n\r\n") });
    const socket = await openRaw(gateway.address);
    socket.send(HANDSHAKE);
    await socket.read({ until: (text) => text.endsWith("\r\n\r\n") });
    gateway.signal("SIGTERM");
    const cut = await stream.read();
    expect(cut.closed).toBe(true);
    expect(cut.text).toEndWith("2\r\n\n\n\r\n");
    const closing = await socket.read({ until: (text) => text.endsWith("\x03\xe9") });
    expect(closing.text).toEndWith("\x88\x02\x03\xe9");
    socket.kill();
    expect((await gateway.ended).code).toBe(0);
    await eventually("the upstream's calls end", () => upstream.closedConnections === 2);
  });

  test("does not wait for a client that never takes its close frame", async () => {
    const upstream = upstreamOf((_, write) => write(SWITCHING));
    const gateway = await serve(
      simpleConfig(`http://${upstream.address}`, { server: "  drain: 100ms" }),
    );
    const socket = await openRaw(gateway.address);
    socket.send(HANDSHAKE);
    await socket.read({ until: (text) => text.endsWith("\r\n\r\n") });
    socket.pause();
    const beganMs = performance.now();
    gateway.signal("SIGTERM");
    expect((await gateway.ended).code).toBe(0);
    expect(performance.now() - beganMs).toBeLessThan(5000);
  });
});

describe("A start that fails", () => {
  /** Runs serve to its end: the code, and the lines on standard error. */
  async function failing(text: string, prepare?: (cwd: string) => void, more: string[] = []) {
    const { cwd, file } = laid(text);
    prepare?.(cwd);
    const { code, stdout, stderr } = await runBinary(["serve", "-c", file, ...more], {
      cwd,
      env: OPS_ENV,
    });
    expect(stdout).not.toContain("server.listening");
    expect(stderr).not.toMatch(/^\s+at /m);
    return { code, lines: stderr.trimEnd().split("\n") };
  }

  const listening = (listen: string, strategies = "") => `version: 1
server: { listen: ${JSON.stringify(listen)} }
${strategies}
routes: [{ match: { path: /x }, access: public }]
`;

  test("because the port is taken says so in a line, with 1", async () => {
    const taken = upstreamOf();
    const { code, lines } = await failing(listening(taken.address));
    expect(code).toBe(1);
    expect(lines[0]).toBe(
      `error: cannot listen on ${taken.address}: another program is listening there`,
    );
    expect(lines.length).toBe(2);
    expect(lines[1]).toStartWith("hint: ");
  });

  test("because a socket's directory is not there says so in a line, with 1", async () => {
    const { code, lines } = await failing(listening("unix:/nonexistent/gate.sock"));
    expect(code).toBe(1);
    expect(lines[0]).toMatch(/^error: cannot listen on unix:\/nonexistent\/gate\.sock: /);
  });

  test.skipIf(process.getuid?.() === 0)(
    "because a socket's directory is not ours to write says so in a line, with 77",
    async () => {
      const closed = scratch();
      chmodSync(closed, 0o500);
      const { code, lines } = await failing(listening(`unix:${join(closed, "gate.sock")}`));
      chmodSync(closed, 0o700);
      expect(code).toBe(77);
      expect(lines[0]).toContain("not permitted");
    },
  );

  test("because of the config names every place, with 78", async () => {
    const { code, lines } = await failing(
      "version: 1\nserver: { lisen: x }\nroutes: [{ match: { path: /x }, acess: public }]\n",
    );
    expect(code).toBe(78);
    expect(lines.join("\n")).toContain("lisen");
    expect(lines.join("\n")).toContain("acess");
  });

  const SQLITE = "strategies: { team: { use: bearer-sqlite } }";
  const database = (text: string) => text.replace("access: public }]", "access: [team] }]");

  test("because the database is none is a line that names it, and the database is left as it was", async () => {
    const noise = "this is no database at all ".repeat(200);
    let path = "";
    const { code, lines } = await failing(database(listening("127.0.0.1:0", SQLITE)), (cwd) => {
      path = join(cwd, "state", "gatehouse.db");
      writeFileSync(path, noise, { mode: 0o600 });
    });
    expect(code).toBeGreaterThan(0);
    expect(lines[0]).toStartWith("error: ");
    expect(lines.length).toBeLessThanOrEqual(2);
    expect(await Bun.file(path).text()).toBe(noise);
  });

  test.skipIf(process.getuid?.() === 0)(
    "because the state directory cannot be read is a line, with 77 or 78",
    async () => {
      let state = "";
      const { code, lines } = await failing(database(listening("127.0.0.1:0", SQLITE)), (cwd) => {
        state = join(cwd, "state");
        chmodSync(state, 0o000);
      });
      chmodSync(state, 0o700);
      expect([77, 78]).toContain(code);
      expect(lines.length).toBeLessThanOrEqual(3);
    },
  );
});

describe("--listen", () => {
  test("replaces what the file says", async () => {
    const taken = upstreamOf();
    const { cwd, file } = laid(simpleConfig(`http://${taken.address}`));
    writeFileSync(file, (await Bun.file(file).text()).replace("127.0.0.1:0", taken.address));
    const gateway = await startBinary(["serve", "-c", file, "--listen", "127.0.0.1:0"], {
      cwd,
      env: OPS_ENV,
    });
    const { statuses } = await raw(gateway.address, get(), {
      until: (text) => text.endsWith("ok"),
    });
    expect(statuses).toEqual([200]);
    expect((await gateway.stop()).code).toBe(0);
  });

  test("takes a unix socket, whose file is gone after the end", async () => {
    const upstream = upstreamOf();
    const { cwd, file } = laid(simpleConfig(`http://${upstream.address}`));
    const path = join(cwd, "g.sock");
    const gateway = await startBinary(["serve", "-c", file, "--listen", `unix:${path}`], {
      cwd,
      env: OPS_ENV,
    });
    expect(gateway.address).toBe(`unix:${path}`);
    const { statuses } = await raw(gateway.address, get(), {
      until: (text) => text.endsWith("ok"),
    });
    expect(statuses).toEqual([200]);
    expect((await gateway.stop()).code).toBe(0);
    expect(await Bun.file(path).exists()).toBe(false);
  });
});
