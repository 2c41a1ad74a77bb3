/**
 * The executable under the socket filter of its unit. It lists no network addresses and asks no netlink socket, on
 * any way that a start or a request takes: the first unit that was tried on a real machine died of that.
 */
import { afterAll, describe, expect, test } from "bun:test";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { binaryPath } from "./support/binary.ts";
import { OPS_ENV, OPS_TOKEN, scratch, simpleConfig } from "./support/gateway.ts";
import { rawUpstream } from "./support/raw.ts";

const LAUNCHER = join(import.meta.dir, "support/without-netlink.ts");

/** Whether filters work here: a program under one must not get a netlink socket. */
function whyNot(): string | null {
  if (process.platform !== "linux") return "only Linux has such filters";
  const { exitCode } = Bun.spawnSync([process.execPath, LAUNCHER, "/bin/true"]);
  return exitCode === 0 ? null : `a filter could not be set (${exitCode})`;
}

const problem = whyNot();
if (problem !== null) process.stderr.write(`sandbox: skipped, ${problem}\n`);

const stops: (() => unknown)[] = [];
afterAll(() => {
  for (const stop of stops) void stop();
});

async function start(config: string): Promise<{ url: string; stop(): Promise<number> }> {
  const dir = scratch();
  mkdirSync(join(dir, "state"), { mode: 0o700 });
  const file = join(dir, "gatehouse.yaml");
  writeFileSync(file, config, { mode: 0o600 });
  const child = Bun.spawn([process.execPath, LAUNCHER, await binaryPath(), "serve", "-c", file], {
    cwd: dir,
    env: { ...OPS_ENV },
    stdout: "pipe",
    stderr: "pipe",
  });
  stops.push(() => child.kill("SIGKILL"));
  let said = "";
  for await (const chunk of child.stdout) {
    said += Buffer.from(chunk).toString();
    if (said.includes("server.listening")) break;
  }
  const address = /"address":"([^"]+)"/.exec(said)?.[1];
  if (address === undefined) throw new Error(`not listening: ${said}${await child.stderr.text()}`);
  return {
    url: `http://${address.replace("0.0.0.0", "127.0.0.1")}`,
    stop() {
      child.kill("SIGTERM");
      return child.exited;
    },
  };
}

describe.skipIf(problem !== null)("Without netlink sockets the executable", () => {
  test("does not get one, so that this tests something", () => {
    const script = "require('node:os').networkInterfaces()";
    const run = (...command: string[]) =>
      Bun.spawnSync([...command, process.execPath, "-e", script], { stderr: "pipe" });
    expect(run().exitCode).toBe(0);
    const filtered = run(process.execPath, LAUNCHER);
    expect(filtered.stderr.toString()).toContain("getifaddrs");
  });

  test("reads a configuration whose addresses it would compare with this machine's", async () => {
    const dir = scratch();
    const config = simpleConfig("http://192.0.2.1:8008").replace("127.0.0.1:0", "0.0.0.0:8008");
    writeFileSync(join(dir, "gatehouse.yaml"), config, { mode: 0o600 });
    const command = [process.execPath, LAUNCHER, await binaryPath(), "config", "validate"];
    const { exitCode, stderr } = Bun.spawnSync(command, { cwd: dir, env: { ...OPS_ENV } });
    expect({ exitCode, said: stderr.toString() }).toEqual({ exitCode: 0, said: "" });
  });

  test.each(["127.0.0.1:0", "0.0.0.0:0"])(
    "serves on %s, and reaches upstreams by name",
    async (listen) => {
      const upstream = rawUpstream();
      stops.push(() => upstream.stop());
      const port = upstream.address.split(":")[1];
      const config = simpleConfig(`http://localhost:${port}`).replace("127.0.0.1:0", listen);
      const gateway = await start(config);
      const answer = await fetch(`${gateway.url}/x`, {
        headers: { authorization: `Bearer ${OPS_TOKEN}` },
      });
      expect([answer.status, await answer.text()]).toEqual([200, "ok"]);
      expect((await fetch(`${gateway.url}/x`)).status).toBe(401);
      expect(await gateway.stop()).toBe(0);
    },
  );
});
