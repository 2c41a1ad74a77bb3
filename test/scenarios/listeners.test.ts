/**
 * Whole-program scenarios of where Gatehouse listens and whom it calls: TCP and unix sockets.
 */
import { expect, test } from "bun:test";
import { existsSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describeBoth, scratch } from "../support/gateway.ts";
import { config, get } from "../support/listen-config.ts";
import { eventually, OK_RESPONSE, openRaw, raw } from "../support/raw.ts";
import { untilEnd } from "../support/upstreams.ts";

const { stops, upstreamOf } = untilEnd();

describeBoth("Listeners", (start) => {
  test("several of them, TCP and unix sockets, serve the same routes, and the port 0 is told", async () => {
    const upstream = upstreamOf();
    const socket = join(scratch(), "gate.sock");
    const listen = ["127.0.0.1:0", "127.0.0.1:0", `unix:${socket}`];
    const gateway = await start({
      config: config(listen, `http://${upstream.address}`),
      listeners: 3,
    });
    expect(gateway.addresses.length).toBe(3);
    expect(new Set(gateway.addresses).size).toBe(3);
    expect(gateway.addresses[2]).toBe(`unix:${socket}`);
    for (const address of gateway.addresses) {
      expect((await raw(address, get())).statuses).toEqual([200]);
    }
    expect(upstream.seen.length).toBe(3);
    // The group may connect, others may not.
    expect(statSync(socket).mode & 0o777).toBe(0o660);
  });

  test("a socket file that a killed process left behind is taken over", async () => {
    const upstream = upstreamOf();
    const socket = join(scratch(), "stale.sock");
    const left = Bun.spawn(
      [
        process.execPath,
        "-e",
        `Bun.listen({unix: ${JSON.stringify(socket)}, socket: {data() {}}})`,
      ],
      { stdin: "ignore", stdout: "ignore", stderr: "ignore" },
    );
    await eventually("the other process listens", () => existsSync(socket));
    left.kill("SIGKILL");
    await left.exited;
    expect(existsSync(socket)).toBe(true);
    const gateway = await start({
      config: config([`unix:${socket}`], `http://${upstream.address}`),
    });
    expect((await raw(`unix:${socket}`, get())).statuses).toEqual([200]);
    await gateway.stop();
  });

  test("a socket on which somebody listens is not taken, and stays his", async () => {
    const upstream = upstreamOf();
    const socket = join(scratch(), "live.sock");
    const other = Bun.listen({
      unix: socket,
      socket: { open: (one) => void one.end("still here"), data() {} },
    });
    stops.push(() => other.stop(true));
    const starting = start({ config: config([`unix:${socket}`], `http://${upstream.address}`) });
    expect(starting).rejects.toThrow(/another program is listening there/);
    await starting.catch(() => {});
    expect((await raw(`unix:${socket}`, "")).text).toBe("still here");
  });

  test("a file that is no socket is not removed for one", async () => {
    const file = join(scratch(), "precious");
    writeFileSync(file, "keep me");
    const starting = start({ config: config([`unix:${file}`], "http://127.0.0.1:1") });
    expect(starting).rejects.toThrow(/precious/);
    await starting.catch(() => {});
    expect(readFileSync(file, "utf8")).toBe("keep me");
  });

  test("one that cannot be bound leaves none of the others open", async () => {
    const taken = upstreamOf();
    const socket = join(scratch(), "first.sock");
    const listen = [`unix:${socket}`, taken.address];
    const starting = start({ config: config(listen, "http://127.0.0.1:1"), listeners: 2 });
    expect(starting).rejects.toThrow(/another program is listening there/);
    await starting.catch(() => {});
    expect(existsSync(socket)).toBe(false);
  });

  test.skipIf(!existsSync("/proc/net/tcp"))(
    "lets the kernel ask whether a silent client and its upstream are still there",
    async () => {
      const upstream = upstreamOf(() => {});
      const gateway = await start({
        config: config(["127.0.0.1:0"], `http://${upstream.address}`),
      });
      const client = await openRaw(gateway.address);
      client.send(get());
      await eventually("the upstream is asked", () => upstream.seen.length === 1);
      const hex = (address: string) =>
        `:${Number(address.split(":")[1]).toString(16).toUpperCase().padStart(4, "0")}`;
      // Columns: number, local, remote, state (01 is established), queues, timer (02 is keep-alive).
      const probed = readFileSync("/proc/net/tcp", "utf8")
        .split("\n")
        .map((line) => line.trim().split(/\s+/))
        .filter(([, , , state, , timer]) => state === "01" && timer?.startsWith("02"));
      expect(probed.some(([, local]) => local?.endsWith(hex(gateway.address)))).toBe(true);
      expect(probed.some(([, , remote]) => remote?.endsWith(hex(upstream.address)))).toBe(true);
      client.kill();
    },
  );

  test("an upstream on a unix socket is called like any other", async () => {
    const socket = join(scratch(), "app.sock");
    let head = "";
    const app = Bun.listen({
      unix: socket,
      socket: {
        data(one, bytes) {
          head += bytes.toString("latin1");
          one.write(OK_RESPONSE);
        },
      },
    });
    stops.push(() => app.stop(true));
    const gateway = await start({ config: config(["127.0.0.1:0"], `unix:${socket}`) });
    expect((await raw(gateway.address, get())).statuses).toEqual([200]);
    expect(head).toStartWith("GET /public/x HTTP/1.1\r\nHost: ");
    app.stop(true);
    rmSync(socket, { force: true });
    expect((await raw(gateway.address, get())).statuses).toEqual([502]);
  });
});
