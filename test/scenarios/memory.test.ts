/**
 * Memory of the executable under large bodies: 500 MB each way, and a side that stops reading.
 *
 * Invariant: what the gateway holds does not depend on the size of a body. Measured as resident memory of the process,
 * where /proc shows it; elsewhere this says so and is skipped.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Running, startBinary } from "../support/binary.ts";
import { OPS_ENV, simpleConfig } from "../support/gateway.ts";
import { eventually, openRaw, raw, target } from "../support/raw.ts";

const MB = 1_000_000;
const SIZE = 500 * MB;
const GROWTH_MAX = 60 * MB;
const canMeasure = existsSync("/proc/self/status");
if (!canMeasure) {
  process.stderr.write(
    "the memory scenarios are skipped: no /proc that shows a process's memory\n",
  );
}

/** One piece of every body, written again and again. */
const PIECE = Buffer.alloc(256 * 1024, "m");

/** Writes `left` bytes as fast as they are taken. */
interface Pump {
  left: number;
}
function pump(socket: Bun.Socket<Pump>): void {
  while (socket.data.left > 0) {
    const room = Math.min(PIECE.length, socket.data.left);
    const wrote = Math.max(0, socket.write(PIECE.subarray(0, room)));
    socket.data.left -= wrote;
    if (wrote < room) return;
  }
}

describe.skipIf(!canMeasure)("Memory of the executable", () => {
  let gateway: Running;
  let cwd = "";
  let swallowed = 0;
  let isStopped = false;
  const uploads = new Set<Bun.Socket<Pump>>();
  const upstream = Bun.listen<Pump>({
    hostname: "127.0.0.1",
    port: 0,
    socket: {
      open(socket) {
        socket.data = { left: 0 };
      },
      data(socket, bytes) {
        swallowed += bytes.length;
        if (bytes.subarray(0, 4).toString() === "GET ") {
          socket.data.left = SIZE;
          socket.write(`HTTP/1.1 200 OK\r\nContent-Length: ${SIZE}\r\n\r\n`);
          pump(socket);
        } else {
          uploads.add(socket);
          if (isStopped) socket.pause();
          if (swallowed >= SIZE) socket.write("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        }
      },
      drain: pump,
      close: (socket) => void uploads.delete(socket),
      error() {},
    },
  });

  beforeAll(async () => {
    cwd = mkdtempSync(join(tmpdir(), "gatehouse-memory-"));
    mkdirSync(join(cwd, "state"), { mode: 0o700 });
    const file = join(cwd, "gatehouse.yaml");
    const url = `http://127.0.0.1:${upstream.port}`;
    writeFileSync(file, simpleConfig(url, { upstream: "    max_body: none" }), { mode: 0o600 });
    gateway = await startBinary(["serve", "-c", file], { cwd, env: OPS_ENV });
    // What the first requests load is not what is measured.
    for (let i = 0; i < 50; i++) {
      await raw(gateway.address, "GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    }
  });
  afterAll(async () => {
    await gateway.kill();
    upstream.stop(true);
    rmSync(cwd, { recursive: true, force: true });
  });

  function resident(): number {
    const line = /^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${gateway.pid}/status`, "utf8"));
    return Number(line?.[1]) * 1024;
  }

  /** The highest resident memory until `isDone`, less what it is now. */
  async function growth(isDone: () => boolean, timeoutMs = 30_000): Promise<number> {
    const before = resident();
    let most = before;
    await eventually(
      "it is through",
      () => {
        most = Math.max(most, resident());
        return isDone();
      },
      timeoutMs,
    );
    return most - before;
  }

  const download = "GET /public/x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

  /** Sends a PUT of SIZE bytes; `text` is the answer so far. */
  async function upload(): Promise<{ text: () => string; left: () => number; kill: () => void }> {
    let text = "";
    const socket = await Bun.connect<Pump>({
      ...(target(gateway.address) as { hostname: string; port: number }),
      socket: {
        open(one) {
          one.data = { left: SIZE };
          one.write(`PUT /public/x HTTP/1.1\r\nHost: a\r\nContent-Length: ${SIZE}\r\n\r\n`);
          pump(one);
        },
        data(_, bytes) {
          text += bytes.toString("latin1");
        },
        drain: pump,
        error() {},
      },
    });
    return {
      text: () => text,
      left: () => socket.data.left,
      kill: () => void socket.terminate(),
    };
  }

  test("stays flat over a download of 500 MB", async () => {
    const client = await openRaw(gateway.address);
    client.send(download);
    const grown = await growth(() => client.received > SIZE);
    expect(grown).toBeLessThan(GROWTH_MAX);
    client.kill();
  }, 60_000);

  test("stays flat over an upload of 500 MB", async () => {
    swallowed = 0;
    const client = await upload();
    const grown = await growth(() => client.text().includes("\r\n\r\n"));
    expect(client.text()).toStartWith("HTTP/1.1 200 OK\r\n");
    expect(grown).toBeLessThan(GROWTH_MAX);
    client.kill();
  }, 60_000);

  test("stays flat while ten clients stop reading and the upstream goes on", async () => {
    const clients = await Promise.all(Array.from({ length: 10 }, () => openRaw(gateway.address)));
    for (const client of clients) {
      client.pause();
      client.send(download);
    }
    const beganMs = performance.now();
    expect(await growth(() => performance.now() - beganMs > 1500)).toBeLessThan(GROWTH_MAX);
    for (const client of clients) client.kill();
  }, 60_000);

  test("stays flat while the upstream stops reading and ten clients go on", async () => {
    isStopped = true;
    swallowed = 0;
    const clients = await Promise.all(Array.from({ length: 10 }, upload));
    const beganMs = performance.now();
    expect(await growth(() => performance.now() - beganMs > 1500)).toBeLessThan(GROWTH_MAX);
    // They were held back: not one of them could send all of it.
    expect(Math.min(...clients.map((client) => client.left()))).toBeGreaterThan(SIZE / 2);
    for (const client of clients) client.kill();
    await eventually("the upstream's calls end", () => {
      for (const socket of uploads) socket.resume();
      return uploads.size === 0;
    });
  }, 60_000);
});
