/**
 * The executable as a process: exit codes, signals, streams, and the health check of what it was configured with.
 *
 * Invariant: only the executable is used, from outside.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { binaryPath, runBinary, startBinary } from "./support/binary.ts";

describe("the process", () => {
  let cwd = "";

  beforeAll(() => {
    cwd = mkdtempSync(join(tmpdir(), "gatehouse-process-"));
  });

  afterAll(() => rmSync(cwd, { recursive: true, force: true }));

  /** A config that listens at `listen`; returns its file name. */
  function config(name: string, listen: string): string {
    const file = `${name}.yaml`;
    const routes = "routes: [{ match: { path: /x }, access: public }]";
    writeFileSync(
      join(cwd, file),
      `version: 1\nserver: { listen: "${listen}" }\nstate_dir: ./state-${name}\n${routes}\n`,
      { mode: 0o600 },
    );
    return file;
  }

  test("a usage error is one line on standard error and exit code 2", async () => {
    const { code, stdout, stderr } = await runBinary(["serv"]);
    expect({ code, stdout }).toEqual({ code: 2, stdout: "" });
    expect(stderr).toBe(
      "error: unknown command 'serv', did you mean serve? see 'gatehouse help'\n",
    );
  });

  test("a config that is not there is exit code 78 and no stack", async () => {
    const { code, stderr } = await runBinary(["serve", "-c", "missing.yaml"], { cwd });
    expect(code).toBe(78);
    expect(stderr).toContain("missing.yaml");
    expect(stderr).not.toMatch(/^\s+at /m);
  });

  test("the executable does not name the directory it was built in", async () => {
    const bytes = Buffer.from(await Bun.file(await binaryPath()).arrayBuffer());
    expect(bytes.includes(join(import.meta.dir, "..", "node_modules"))).toBe(false);
    expect(bytes.includes(join(import.meta.dir, "..", "src"))).toBe(false);
  });

  test("a reader that goes away is no error", async () => {
    const script = '"$0" config schema | head -c 10; echo "${PIPESTATUS[0]}"';
    const child = Bun.spawn(["bash", "-c", script, await binaryPath()], {
      stdin: "ignore",
      stdout: "pipe",
      stderr: "pipe",
    });
    expect(await child.stdout.text()).toEndWith("0\n");
    expect(await child.stderr.text()).toBe("");
  });

  test("a new token that nobody reads is a failure that names it, so that it can be ended", async () => {
    const file = "lost.yaml";
    writeFileSync(
      join(cwd, file),
      `version: 1
state_dir: ./state-lost
strategies: { team: { use: bearer-sqlite } }
routes: [{ match: { path: /x }, access: [team] }]
`,
      { mode: 0o600 },
    );
    const script = '"$0" token create -c "$1" --name lost | true; echo "${PIPESTATUS[0]}"';
    const child = Bun.spawn(["bash", "-c", script, await binaryPath(), file], {
      cwd,
      stdin: "ignore",
      stdout: "pipe",
      stderr: "pipe",
    });
    expect(await child.stdout.text()).toBe("1\n");
    const said = await child.stderr.text();
    expect(said).toContain("token lost (id ");
    expect(said).toContain("was created in team, but it was not delivered");
    const [, id = ""] = /gatehouse token revoke (\w{12}),/.exec(said) ?? [];
    expect((await runBinary(["token", "revoke", "-c", file, id], { cwd })).code).toBe(0);
  });

  test("a configuration that is not there is named once", async () => {
    const { code, stderr } = await runBinary(["serve", "-c", "nope.yaml"], { cwd });
    expect(code).toBe(78);
    expect(stderr.match(/nope\.yaml/g)).toHaveLength(1);
  });

  test.each(["SIGTERM", "SIGINT"] as const)("%s ends serve with 0", async (signal) => {
    const gateway = await startBinary(["serve", "-c", config("stop", "127.0.0.1:0")], { cwd });
    gateway.signal(signal);
    const { code, stderr } = await gateway.ended;
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
  });

  test.each([
    ["SIGTERM", 143],
    ["SIGINT", 130],
  ] as const)(
    "a second %s ends serve at once with %i, although a request is open",
    async (signal, expected) => {
      const arrived = Promise.withResolvers<void>();
      await using upstream = Bun.serve({
        hostname: "127.0.0.1",
        port: 0,
        fetch: () => {
          arrived.resolve();
          return new Promise<Response>(() => {});
        },
      });
      const file = `twice-${signal}.yaml`;
      writeFileSync(
        join(cwd, file),
        `version: 1
server: { listen: "127.0.0.1:0" }
state_dir: ./state-twice
upstreams: { silent: { url: "http://127.0.0.1:${upstream.port}" } }
routes: [{ match: { path: /x }, access: public, upstream: silent }]
`,
      );
      const gateway = await startBinary(["serve", "-c", file], { cwd });
      const answer = fetch(`${gateway.url}/x`).catch(() => null);
      await arrived.promise;
      gateway.signal(signal);
      // A terminal and a process manager may deliver one request twice: that is not a second one yet.
      await Bun.sleep(20);
      gateway.signal(signal);
      const first = await Promise.race([gateway.ended, Bun.sleep(300).then(() => "draining")]);
      expect(first).toBe("draining");
      gateway.signal(signal);
      expect((await gateway.ended).code).toBe(expected);
      await Promise.all([answer, upstream.stop(true)]);
    },
  );

  test("healthcheck asks the configured address, and says so when nobody answers", async () => {
    const free = Bun.serve({ hostname: "127.0.0.1", port: 0, fetch: () => new Response() });
    const { port } = free;
    await free.stop(true);
    const file = config("tcp", `0.0.0.0:${port}`);
    const gateway = await startBinary(["serve", "-c", file], { cwd });
    const alive = await runBinary(["healthcheck", "-c", file, "--json"], {
      cwd,
      // A proxy in the environment is for others.
      env: { HTTP_PROXY: "http://127.0.0.1:1", http_proxy: "http://127.0.0.1:1" },
    });
    expect(alive.code).toBe(0);
    expect(JSON.parse(alive.stdout)).toMatchObject({
      alive: true,
      url: `http://127.0.0.1:${port}/healthz`,
    });
    await gateway.stop();
    const gone = await runBinary(["healthcheck", "-c", file], { cwd });
    expect(gone).toMatchObject({ code: 3, stdout: "" });
    expect(gone.stderr).toContain("ECONNREFUSED");
  });

  test("healthcheck reaches a unix socket, also when the file no longer passes every check", async () => {
    const socket = join(cwd, "gate.sock");
    const file = config("unix", `unix:${socket}`);
    const gateway = await startBinary(["serve", "-c", file], { cwd });
    expect(existsSync(socket)).toBe(true);
    const path = join(cwd, file);
    writeFileSync(path, readFileSync(path, "utf8").replace("public", "[nobody]"));
    const { code, stdout } = await runBinary(["healthcheck", "-c", file], { cwd });
    expect({ code, stdout }).toEqual({
      code: 0,
      stdout: expect.stringContaining(`alive: unix:${socket}/healthz`),
    });
    await gateway.stop();
  });
});
