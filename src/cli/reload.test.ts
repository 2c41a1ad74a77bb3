/**
 * `gatehouse reload` and SIGHUP on the executable: who is heard, what is said, with which exit code.
 */
import { afterAll, expect, test } from "bun:test";
import { existsSync, mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { binaryPath, type Running, runBinary, startBinary } from "../../test/support/binary.ts";
import { OPS_ENV, scratch, simpleConfig } from "../../test/support/gateway.ts";
import { eventually, openRaw, raw, rawUpstream } from "../../test/support/raw.ts";
import { TerminalProgram } from "../../test/support/terminal.ts";

const stops: (() => unknown)[] = [];
afterAll(() => {
  for (const stop of stops) void stop();
});

const GOOD = simpleConfig("http://127.0.0.1:9");
const CLOSED = GOOD.replace("access: public", "access: [ops]");
const get = (path: string) => `GET ${path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n`;

interface Place {
  readonly cwd: string;
  readonly file: string;
  readonly socket: string;
  write(config: string): void;
}

function place(config = GOOD): Place {
  const cwd = scratch();
  const file = join(cwd, "gatehouse.yaml");
  const write = (text: string): void => writeFileSync(file, text, { mode: 0o600 });
  write(config);
  return { cwd, file, write, socket: join(cwd, "state", "control.sock") };
}

async function serve({ cwd, file, socket }: Place): Promise<Running> {
  const running = await startBinary(["serve", "-c", file], { cwd, env: OPS_ENV });
  stops.push(() => running.kill());
  await eventually("it can be spoken to", () => existsSync(socket));
  return running;
}

const reload = ({ cwd, file }: Place, ...args: string[]) =>
  runBinary(["reload", "-c", file, ...args], { cwd });

/** The public route answers 502, since nothing is behind it; a guarded one 401. */
const statusOf = async (gateway: Running) =>
  (await raw(gateway.address, get("/public/x"))).statuses[0];

test("says what is served now and what has changed", async () => {
  const here = place();
  const gateway = await serve(here);
  expect(await statusOf(gateway)).toBe(502);
  here.write(CLOSED.replace("127.0.0.1:9", "127.0.0.1:10"));
  expect(await reload(here)).toEqual({
    code: 0,
    stdout: `reloaded: 2 routes, 1 strategy (ops), on ${gateway.address}\nchanged: upstreams.api, routes\n`,
    stderr: "",
  });
  expect(await statusOf(gateway)).toBe(401);
  const again = await reload(here, "--json");
  expect(JSON.parse(again.stdout)).toEqual({
    ok: true,
    summary: `2 routes, 1 strategy (ops), on ${gateway.address}`,
    changed: [],
    added: [],
    removed: [],
  });
  expect((await gateway.stop()).code).toBe(0);
});

test("ends with 78 and every problem when the file is wrong, and the gateway goes on", async () => {
  const here = place();
  const gateway = await serve(here);
  here.write(GOOD.replace("access: public", "acces: public").replace("url:", "urll:"));
  const { code, stdout, stderr } = await reload(here);
  expect({ code, stdout }).toEqual({ code: 78, stdout: "" });
  expect(stderr).toMatch(/gatehouse\.yaml:\d+:\d+: upstreams\.api\.urll: unknown key/);
  expect(stderr).toMatch(/gatehouse\.yaml:\d+:\d+: routes\[0\]\.acces: unknown key/);
  expect(stderr).toContain("The gateway goes on with the configuration that it had.");
  const inJson = await reload(here, "--json");
  expect(inJson.code).toBe(78);
  expect(JSON.parse(inJson.stdout)).toMatchObject({ ok: false, exit_code: 78, hint: null });
  here.write("routes: [");
  expect((await reload(here)).code).toBe(78);
  expect(await statusOf(gateway)).toBe(502);
});

test("without a gateway there is nothing to reload: 69 and what to do", async () => {
  const here = place();
  const { code, stderr } = await reload(here);
  expect(code).toBe(69);
  expect(stderr).toContain(`no gateway answers at ${here.socket} (ENOENT)`);
  expect(stderr).toContain("systemctl reload gatehouse");
});

test("the socket is for its user alone, is gone after a stop and in nobody's way after a kill", async () => {
  const here = place();
  const gateway = await serve(here);
  expect(statSync(here.socket).mode & 0o777).toBe(0o600);
  await gateway.kill();
  expect((await reload(here)).stderr).toContain("ECONNREFUSED");
  const next = await serve(here);
  await eventually("it took the place", () => statSync(here.socket).isSocket());
  expect((await reload(here)).code).toBe(0);
  await next.stop();
  expect(existsSync(here.socket)).toBe(false);
});

test("of two gateways on one state directory the first one is asked, and both serve", async () => {
  const here = place();
  const first = await serve(here);
  const second = await startBinary(["serve", "-c", here.file], { cwd: here.cwd, env: OPS_ENV });
  stops.push(() => second.kill());
  await eventually("it says so", () => second.stdout().includes("control.unavailable"));
  here.write(CLOSED);
  expect((await reload(here)).stdout).toContain(first.address);
  expect([await statusOf(first), await statusOf(second)]).toEqual([401, 502]);
  second.signal("SIGHUP");
  await eventually("it did", () => second.stdout().includes("config.reloaded"));
  expect(await statusOf(second)).toBe(401);
  await second.stop();
  // The second one has left the first one's socket alone.
  expect((await reload(here)).code).toBe(0);
});

test.each([
  ["something else", "status\n"],
  ["something longer", `reload${"x".repeat(100_000)}`],
  ["HTTP", "GET / HTTP/1.1\r\n\r\n"],
])("who asks for %s is not answered", async (_, bytes) => {
  const here = place();
  const gateway = await serve(here);
  const answer = await raw(`unix:${here.socket}`, bytes);
  expect(answer).toMatchObject({ text: "", closed: true });
  expect(gateway.stdout()).not.toContain("config.reload");
  const left = await openRaw(`unix:${here.socket}`);
  left.send("reload\n");
  left.kill();
  expect((await reload(here)).code).toBe(0);
});

test("a state directory that cannot be made, or is too deep for a socket, is no reason not to serve", async () => {
  const here = place(GOOD.replace("strategies:", "state_dir: /proc/no-such\nstrategies:"));
  const deep = place(GOOD.replace("strategies:", `state_dir: ./${"d".repeat(120)}\nstrategies:`));
  for (const one of [here, deep]) {
    const gateway = await startBinary(["serve", "-c", one.file], { cwd: one.cwd, env: OPS_ENV });
    stops.push(() => gateway.kill());
    await eventually("it says so", () => gateway.stdout().includes("control.unavailable"));
    one.write(readAs(one, "access: [ops]"));
    gateway.signal("SIGHUP");
    await eventually("it did", () => gateway.stdout().includes("config.reloaded"));
    expect(await statusOf(gateway)).toBe(401);
  }
  expect((await reload(deep)).stderr).toContain("is too long for a socket");
});

function readAs({ file }: Place, access: string): string {
  return readFileSync(file, "utf8").replace("access: public", access);
}

test("SIGHUP does the same; several at once leave what was written last", async () => {
  const here = place();
  const gateway = await serve(here);
  for (const config of [CLOSED, GOOD, CLOSED]) {
    here.write(config);
    gateway.signal("SIGHUP");
    gateway.signal("SIGHUP");
  }
  const done = () => gateway.stdout().split("config.reloaded").length - 1;
  await eventually("it did", () => done() >= 1);
  // In line behind them, so that they are over.
  expect((await reload(here)).code).toBe(0);
  expect(await statusOf(gateway)).toBe(401);
  expect((await gateway.stop()).code).toBe(0);
});

test("a terminal that is closed ends the gateway in order, as it did", async () => {
  const here = place();
  const env = { ...OPS_ENV, HOME: here.cwd };
  const program = new TerminalProgram([await binaryPath(), "serve", "-c", here.file], {
    cwd: here.cwd,
    env,
  });
  stops.push(() => program.kill());
  await program.waitFor("server.listening");
  process.kill(program.pid, "SIGHUP");
  await program.waitFor("config.reloaded");
  program.hangUp();
  expect(await program.ended).toBe(0);
  expect(existsSync(here.socket)).toBe(false);
});

test.each([
  ["a directory", (path: string) => mkdirSync(path)],
  ["a file", (path: string) => writeFileSync(path, "precious")],
])("with %s in the socket's place it ends in order and leaves that alone", async (_, put) => {
  const answers: ((bytes: string) => void)[] = [];
  const upstream = rawUpstream((_, write) => void answers.push(write));
  stops.push(() => upstream.stop());
  const here = place(simpleConfig(`http://${upstream.address}`, { server: "  drain: 20s" }));
  const gateway = await serve(here);
  rmSync(here.socket);
  put(here.socket);
  const held = await openRaw(gateway.address);
  held.send(get("/public/held"));
  await eventually("it is under way", () => answers.length === 1);
  gateway.signal("SIGTERM");
  await eventually("it drains", () => gateway.stdout().includes("server.draining"));
  answers[0]?.("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
  expect((await held.read()).statuses).toEqual([200]);
  expect(await gateway.ended).toMatchObject({ code: 0, stderr: "" });
  expect(existsSync(here.socket)).toBe(true);
});

test("a stop in the middle of a reload closes what that had started, and whoever asked is told", async () => {
  const here = place();
  const plugin = (name: string, init: string) =>
    writeFileSync(
      join(here.cwd, `${name}.ts`),
      `import { definePlugin, z } from "gatehouse";
const absent = () => ({ outcome: "absent" });
export default definePlugin({ name: "${name}", contract: 1, config: z.strictObject({}), init: ${init} });`,
      { mode: 0o600 },
    );
  const close = (name: string) =>
    `({ authenticate: absent, close: () => host.log.warn("${name}.closed") })`;
  plugin("first", `(_, host) => ${close("first")}`);
  plugin("slow", `(_, host) => { host.log.warn("slow.begun"); return new Promise(() => {}); }`);
  const gateway = await serve(here);
  here.write(
    GOOD.replace("OPS_TOKEN }", "OPS_TOKEN }\n  a: { use: ./first.ts }\n  b: { use: ./slow.ts }"),
  );
  const asked = reload(here);
  await eventually("it starts", () => gateway.stdout().includes("slow.begun"));
  gateway.signal("SIGTERM");
  expect((await gateway.ended).code).toBe(0);
  expect(gateway.stdout()).toContain("first.closed");
  expect((await asked).stderr).toContain("the gateway is stopping");
});

test("a gateway that is stopping takes no new configuration", async () => {
  const upstream = rawUpstream(() => {});
  stops.push(() => upstream.stop());
  const here = place(simpleConfig(`http://${upstream.address}`, { server: "  drain: 20s" }));
  const gateway = await serve(here);
  const held = await openRaw(gateway.address);
  held.send(get("/public/held"));
  await eventually("it is under way", () => upstream.seen.length === 1);
  gateway.signal("SIGTERM");
  await eventually("it drains", () => gateway.stdout().includes("server.draining"));
  expect((await reload(here)).code).toBe(69);
  gateway.signal("SIGHUP");
  await eventually("it is refused", () => gateway.stdout().includes("config.reload_failed"));
  held.kill();
  expect((await gateway.ended).code).toBe(0);
});

test("what the log says and how much of it changes with the rest", async () => {
  const here = place(`${GOOD}logging: { access: false }\n`);
  mkdirSync(join(here.cwd, "state"), { mode: 0o700, recursive: true });
  const gateway = await serve(here);
  await statusOf(gateway);
  expect(gateway.stdout()).not.toContain("http.access");
  here.write(GOOD);
  expect((await reload(here)).code).toBe(0);
  await statusOf(gateway);
  await eventually("it is logged", () => gateway.stdout().includes("http.access"));
});
