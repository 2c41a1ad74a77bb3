/**
 * The executable under a service manager: what it says, when, and what it keeps from its children.
 */
import { afterAll, describe, expect, test } from "bun:test";
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type Running, runBinary, startBinary } from "../../test/support/binary.ts";
import { OPS_ENV, scratch, simpleConfig } from "../../test/support/gateway.ts";
import { NO_NOTIFY_SOCKETS, notifySocket } from "../../test/support/notify-socket.ts";
import { eventually, openRaw, raw, rawUpstream } from "../../test/support/raw.ts";

if (NO_NOTIFY_SOCKETS !== null) process.stderr.write(`serve: skipped, ${NO_NOTIFY_SOCKETS}\n`);

const stops: (() => unknown)[] = [];
afterAll(() => {
  for (const stop of stops) void stop();
});

/** Ten milliseconds, so that pings come every five. */
const FAST_WATCHDOG = { WATCHDOG_USEC: "10000" };
const isReady = (message: string) => message.startsWith("READY=1\n");
const pings = (messages: readonly string[]) =>
  messages.filter((message) => message === "WATCHDOG=1").length;

function laid(text: string): { cwd: string; file: string } {
  const cwd = scratch();
  mkdirSync(join(cwd, "state"), { mode: 0o700 });
  const file = join(cwd, "gatehouse.yaml");
  writeFileSync(file, text, { mode: 0o600 });
  return { cwd, file };
}

async function serve(
  text: string,
  env: Record<string, string>,
  laidOut = laid(text),
): Promise<Running> {
  const { cwd, file } = laidOut;
  const running = await startBinary(["serve", "-c", file], { cwd, env: { ...OPS_ENV, ...env } });
  stops.push(() => running.kill());
  return running;
}

const get = (path: string) => `GET ${path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n`;

describe.skipIf(NO_NOTIFY_SOCKETS !== null)("serve under a service manager", () => {
  test.each(["path", "abstract"] as const)(
    "says ready when it accepts, feeds the watchdog, says stopping and ends with 0 (%s)",
    async (kind) => {
      const socket = notifySocket(kind);
      let answer: (() => void) | null = null;
      const upstream = rawUpstream((_, write) => {
        answer = () => write("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone");
      });
      stops.push(() => upstream.stop());
      const config = simpleConfig(`http://${upstream.address}`, { server: "  drain: 20s" });
      const gateway = await serve(config, { NOTIFY_SOCKET: socket.address, ...FAST_WATCHDOG });
      const ready = await socket.heard(isReady);
      expect(ready).toBe(
        `READY=1\nMAINPID=${gateway.pid}\nSTATUS=2 routes, 1 strategy (ops), on ${gateway.address}`,
      );
      // It is the first word, and what it says is true.
      expect(socket.messages()[0]).toBe(ready);
      expect((await raw(gateway.address, get("/healthz"))).statuses).toEqual([200]);
      await eventually("it is fed", () => pings(socket.messages()) >= 3);

      const slow = await openRaw(gateway.address);
      slow.send(get("/public/slow"));
      await eventually("a request is under way", () => answer !== null);
      gateway.signal("SIGTERM");
      expect(await socket.heard((message) => message.startsWith("STOPPING=1\n"))).toBe(
        "STOPPING=1\nSTATUS=finishing what is open, at most 20 s",
      );
      // The listener is gone, but a drain is no reason to be killed.
      const fed = pings(socket.messages());
      await eventually("it is fed while it drains", () => pings(socket.messages()) > fed + 1);
      (answer as (() => void) | null)?.();
      expect((await slow.read()).text).toEndWith("done");
      expect(await gateway.ended).toMatchObject({ code: 0, stderr: "" });
      expect(socket.messages().filter(isReady).length).toBe(1);
    },
  );

  test("says nothing when it cannot start", async () => {
    const socket = notifySocket();
    const { cwd, file } = laid("version: 1\nrouts: []\n");
    const env = { NOTIFY_SOCKET: socket.address, ...FAST_WATCHDOG };
    expect((await runBinary(["serve", "-c", file], { cwd, env })).code).toBe(78);
    const upstream = rawUpstream();
    stops.push(() => upstream.stop());
    const taken = laid(simpleConfig("http://127.0.0.1:9").replace("127.0.0.1:0", upstream.address));
    const { code } = await runBinary(["serve", "-c", taken.file], {
      cwd: taken.cwd,
      env: { ...OPS_ENV, ...env },
    });
    expect(code).toBe(1);
    expect(socket.messages()).toEqual([]);
  });

  test("says that it reloads and what came of it, and watches what is served then", async () => {
    const socket = notifySocket();
    const place = laid("");
    const at = (name: string) =>
      simpleConfig("http://127.0.0.1:9").replace("127.0.0.1:0", `unix:${join(place.cwd, name)}`);
    writeFileSync(place.file, at("one.sock"));
    const env = { NOTIFY_SOCKET: socket.address, ...FAST_WATCHDOG };
    const gateway = await serve("", env, place);
    await socket.heard(isReady);
    const words = () => socket.messages().filter((message) => message !== "WATCHDOG=1");
    const monotonicUsec = () => Number(readFileSync("/proc/uptime", "utf8").split(" ")[0]) * 1e6;
    const earliest = monotonicUsec() - 10_000;

    writeFileSync(place.file, at("two.sock"));
    gateway.signal("SIGHUP");
    await eventually("it is over", () => words().length === 3);
    const usec = /^RELOADING=1\nMONOTONIC_USEC=(\d+)$/.exec(words()[1] ?? "")?.[1];
    expect(Number(usec)).toBeWithin(earliest, monotonicUsec() + 10_000);
    expect(words()[2]).toStartWith(`READY=1\nMAINPID=${gateway.pid}\nSTATUS=2 routes, `);
    expect(words()[2]).toEndWith(`unix:${join(place.cwd, "two.sock")}`);
    const fed = pings(socket.messages());
    await eventually("it is fed", () => pings(socket.messages()) > fed + 3);
    expect(gateway.stdout()).not.toContain("watchdog_silent");

    writeFileSync(place.file, "version: 1\nrouts: []\n");
    gateway.signal("SIGHUP");
    await eventually("it is over", () => words().length === 5);
    expect(words()[3]).toStartWith("RELOADING=1\n");
    expect(words()[4]).toContain("STATUS=reload refused (see the log), still 2 routes, ");
    await gateway.stop();
  });

  test("says nothing of a reload once it stops", async () => {
    const socket = notifySocket();
    const upstream = rawUpstream(() => {});
    stops.push(() => upstream.stop());
    const config = simpleConfig(`http://${upstream.address}`, { server: "  drain: 20s" });
    const gateway = await serve(config, { NOTIFY_SOCKET: socket.address });
    const held = await openRaw(gateway.address);
    held.send("GET /public/held HTTP/1.1\r\nHost: a\r\n\r\n");
    await eventually("it is under way", () => upstream.seen.length === 1);
    gateway.signal("SIGTERM");
    await socket.heard((message) => message.startsWith("STOPPING=1\n"));
    gateway.signal("SIGHUP");
    await eventually("it is refused", () => gateway.stdout().includes("config.reload_failed"));
    held.kill();
    await gateway.ended;
    expect(socket.messages().at(-1)).toStartWith("STOPPING=1\n");
  });

  test("keeps the watchdog waiting when its socket file is gone, and says why", async () => {
    const socket = notifySocket();
    const place = laid("");
    const path = join(place.cwd, "g.sock");
    const config = simpleConfig("http://127.0.0.1:9").replace("127.0.0.1:0", `unix:${path}`);
    writeFileSync(place.file, config);
    const env = { NOTIFY_SOCKET: socket.address, ...FAST_WATCHDOG };
    const gateway = await serve(config, env, place);
    await eventually("it is fed", () => pings(socket.messages()) >= 2);
    rmSync(path);
    const silences = () => gateway.stdout().split("service.watchdog_silent").length - 1;
    await eventually("it noticed", () => silences() >= 2);
    const fed = pings(socket.messages());
    await eventually("it stays silent", () => silences() >= 6);
    expect(pings(socket.messages())).toBe(fed);
    expect(gateway.stdout()).toContain(`"reason":"unix:${path}: ENOENT"`);
    await gateway.stop();
  });

  test("does not let a crowd of clients get it restarted", async () => {
    const socket = notifySocket();
    const limits = "  limits: { connections: 2 }";
    const gateway = await serve(simpleConfig("http://127.0.0.1:9", { server: limits }), {
      NOTIFY_SOCKET: socket.address,
      ...FAST_WATCHDOG,
    });
    await socket.heard(isReady);
    // Whoever is one too many may be gone before it knows that it was there.
    const coming = Array.from({ length: 6 }, () => openRaw(gateway.address));
    const crowd = (await Promise.allSettled(coming)).flatMap((one) =>
      one.status === "fulfilled" ? [one.value] : [],
    );
    expect(crowd.length).toBeGreaterThanOrEqual(2);
    const fed = pings(socket.messages());
    await eventually("it is fed all the same", () => pings(socket.messages()) > fed + 4);
    expect(gateway.stdout()).not.toContain("watchdog_silent");
    for (const one of crowd) one.kill();
    await gateway.stop();
  });

  test("keeps what it was given from its children", async () => {
    const socket = notifySocket();
    const place = laid("");
    const plugin = `import { definePlugin, z } from "gatehouse";
import { execFileSync } from "node:child_process";
import { writeFileSync } from "node:fs";
writeFileSync(new URL("top.txt", import.meta.url), execFileSync("env"));
export default definePlugin({
  name: "looker", contract: 1, config: z.strictObject({}),
  async init() {
    writeFileSync(new URL("init.txt", import.meta.url), execFileSync("env"));
    return { authenticate: () => ({ outcome: "absent" }) };
  },
});
`;
    writeFileSync(join(place.cwd, "looker.ts"), plugin, { mode: 0o600 });
    const config = `version: 1
server: { listen: 127.0.0.1:0 }
strategies: { look: { use: ./looker.ts } }
routes: [{ match: { path: /x }, access: [look] }]
`;
    writeFileSync(place.file, config);
    const env = { NOTIFY_SOCKET: socket.address, WATCHDOG_USEC: "10000", MARK: "seen" };
    const gateway = await serve(config, env, place);
    await socket.heard(isReady);
    for (const name of ["top.txt", "init.txt"]) {
      const seen = readFileSync(join(place.cwd, name), "utf8");
      expect(seen).toContain("MARK=seen");
      expect(seen).not.toMatch(/NOTIFY_SOCKET|WATCHDOG/);
    }
    await gateway.stop();
  });

  test.each([
    ["is deaf", "/nonexistent/notify"],
    ["is of a kind it does not know", "vsock:2:1234"],
  ])("serves all the same when the manager %s", async (_, address) => {
    const gateway = await serve(simpleConfig("http://127.0.0.1:9"), {
      NOTIFY_SOCKET: address,
      ...FAST_WATCHDOG,
    });
    expect((await raw(gateway.address, get("/healthz"))).statuses).toEqual([200]);
    expect(gateway.stdout().includes("service.not_notified")).toBe(address.startsWith("vsock"));
    expect((await gateway.stop()).code).toBe(0);
  });
});
