/**
 * Reloads when things are in the way: files that are no files, sockets that others took, strategies that answer never,
 * requests that take long.
 *
 * Invariant: after each of them the gateway is shown to serve, and what belongs to others to be there still.
 */
import { heapStats } from "bun:jsc";
import { expect, test } from "bun:test";
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import {
  describeBoth,
  type GatewayUnderTest,
  OPS_ENV,
  OPS_TOKEN,
  simpleConfig,
  startInProcess,
} from "../support/gateway.ts";
import { eventually, openRaw, raw } from "../support/raw.ts";
import { untilEnd } from "../support/upstreams.ts";

const { stops, upstreamOf } = untilEnd();

const bearer = `Authorization: Bearer ${OPS_TOKEN}`;
const get = (...fields: string[]) =>
  `GET /x HTTP/1.1\r\nHost: a\r\n${fields.map((field) => `${field}\r\n`).join("")}\r\n`;
const OK = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
const upload = (path: string, bytes: number) =>
  `POST /public/${path} HTTP/1.1\r\nHost: a\r\nContent-Length: ${bytes}\r\n\r\n`;

async function isServing(gateway: GatewayUnderTest): Promise<void> {
  const answer = await raw(gateway.address, get(bearer, "Connection: close"));
  expect(answer.statuses).toEqual([200]);
}

/** A strategy of its own whose instance has these members beside `authenticate`. */
const plugin = (name: string, members: string) => `import { definePlugin, z } from "gatehouse";
export default definePlugin({ name: "${name}", contract: 1, config: z.strictObject({ word: z.string().optional() }),
  init: (settings, host) => ({
    authenticate: (request) => request.headers.get("x-magic") === "abra"
      ? { outcome: "accept", identity: { id: "wizard" } } : { outcome: "absent" },
    ${members} }) });
`;

describeBoth("A reload", (start) => {
  test.each([
    ["a secret", "upstream", (pipe: string) => `    headers: { x-key: "\${file:${pipe}}" }`],
    ["a certificate", "server", (pipe: string) => `  tls: { cert: ${pipe}, key: ${pipe} }`],
    ["an authority", "upstream", (pipe: string) => `    ca: ${pipe}`],
  ])("waits for nobody when %s is a pipe that nobody writes to", async (_, place, text) => {
    const upstream = upstreamOf();
    const gateway = await start({ config: simpleConfig(upstream.url), env: OPS_ENV });
    const pipe = join(gateway.dir, "pipe");
    expect(Bun.spawnSync(["mkfifo", "-m", "600", pipe]).exitCode).toBe(0);
    const wrong = simpleConfig(upstream.url, { [place]: text(pipe) });
    expect(await gateway.reload(wrong)).toContain("not a regular file");
    await isServing(gateway);
  });

  test.each([
    ["a directory", (path: string) => mkdirSync(path)],
    ["a file", (path: string) => writeFileSync(path, "precious")],
    [
      "somebody else's socket",
      (path: string) => {
        const other = Bun.listen({ unix: `${path}.other`, socket: { data() {} } });
        renameSync(`${path}.other`, path);
        stops.push(() => other.stop(true));
      },
    ],
    ["nothing", () => {}],
  ])("closes an address whose socket has given way to %s", async (what, put) => {
    const upstream = upstreamOf();
    const good = simpleConfig(upstream.url);
    const gateway = await start({ config: good, env: OPS_ENV });
    const path = join(gateway.dir, "a.sock");
    expect(
      await gateway.reload(good.replace("127.0.0.1:0", `["127.0.0.1:0", "unix:${path}"]`)),
    ).toBeNull();
    rmSync(path);
    put(path);
    expect(await gateway.reload(good)).toBeNull();
    expect(existsSync(path)).toBe(what !== "nothing");
    if (what === "a file") expect(readFileSync(path, "utf8")).toBe("precious");
    if (what === "somebody else's socket") {
      const other = await openRaw(`unix:${path}`);
      other.kill();
    }
    await isServing(gateway);
    expect(await gateway.reload(good)).toBeNull();
  });

  test("says so when an address that is new is its own in other words", async () => {
    const upstream = upstreamOf();
    const good = simpleConfig(upstream.url);
    const gateway = await start({ config: good, env: OPS_ENV });
    const port = gateway.address.split(":")[1];
    const said = await gateway.reload(good.replace("127.0.0.1:0", `localhost:${port}`));
    expect(said).toContain(`by this gateway itself, which listens on ${gateway.address}`);
    const unix = (path: string) =>
      good.replace("127.0.0.1:0", `["127.0.0.1:0", "unix:${gateway.dir}/${path}"]`);
    expect(await gateway.reload(unix("a.sock"))).toBeNull();
    expect(await gateway.reload(unix("./a.sock"))).toContain("by this gateway itself");
    await isServing(gateway);
    const other = good.replace("127.0.0.1:0", `127.0.0.1:${upstreamOf().port}`);
    expect(await gateway.reload(other)).toContain("another program");
  });

  test("holds an upload that is under way to the limits that it began with", async () => {
    const answers: ((bytes: string) => void)[] = [];
    const upstream = upstreamOf((_, write) => void answers.push(write));
    const limits = (timeout: string) =>
      simpleConfig(upstream.url, { server: `  limits: { body_timeout: ${timeout} }` });
    const gateway = await start({ config: limits("60s"), env: OPS_ENV });
    const early = await openRaw(gateway.address);
    early.send(`${upload("early", 10)}12345`);
    await eventually("it is under way", () => upstream.seen.length === 1);
    expect(await gateway.reload(limits("1s"))).toBeNull();
    const late = await openRaw(gateway.address);
    late.send(`${upload("late", 1_000_000)}12345`);
    // It began later, so that by then the time of the first one would be over as well.
    expect((await late.read()).statuses).toEqual([408]);
    early.send("67890");
    answers[0]?.(OK);
    const { statuses } = await early.read({ until: (text) => text.includes("\r\n\r\n") });
    expect(statuses).toEqual([200]);
    early.kill();
  });

  test("ends the streams of a strategy that is gone, also when it never answers", async () => {
    const upstream = upstreamOf((_, write) =>
      write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
    );
    const config = (use: string) =>
      simpleConfig(upstream.url)
        .replace("OPS_TOKEN }", `OPS_TOKEN }\n  magic: { use: ${use} }`)
        .replace("access: [ops]", "access: [ops, magic]");
    const asks = `isCurrent: () => { host.log.warn("asked"); return new Promise(() => {}); },`;
    const files = { "a.ts": plugin("a", asks), "b.ts": plugin("b", "") };
    const gateway = await start({ config: config("./a.ts"), env: OPS_ENV, files });
    const open = async (field: string) => {
      const stream = await openRaw(gateway.address);
      stream.send(get(field));
      await stream.read({ until: (text) => text.includes("\r\n\r\n") });
      return stream;
    };
    const [ends, stays] = [await open("X-Magic: abra"), await open(bearer)];
    await eventually("it is asked", () => gateway.events("asked").length > 0);
    expect(await gateway.reload(config("./b.ts"))).toBeNull();
    expect((await ends.read()).closed).toBe(true);
    expect((await stays.read({ until: () => true })).closed).toBe(false);
    stays.kill();
  });

  test("closes what no request uses, although an older configuration still has one", async () => {
    const answers: ((bytes: string) => void)[] = [];
    const upstream = upstreamOf((_, write) => void answers.push(write));
    const config = (word: string) =>
      simpleConfig(upstream.url).replace(
        "OPS_TOKEN }",
        `OPS_TOKEN }\n  it: { use: ./it.ts, word: ${word} }`,
      );
    const files = { "it.ts": plugin("it", `close: () => host.log.warn("gone", settings),`) };
    const gateway = await start({ config: config("first"), env: OPS_ENV, files });
    const held = await openRaw(gateway.address);
    held.send(get(bearer));
    await eventually("it is under way", () => upstream.seen.length === 1);
    for (const word of ["second", "third", "last"]) {
      expect(await gateway.reload(config(word))).toBeNull();
    }
    const gone = () => gateway.events("gone").map(({ word }) => word);
    await eventually("they are closed", () => gone().length === 2);
    expect(gone().toSorted()).toEqual(["second", "third"]);
    answers[0]?.(OK);
    await held.read({ until: (text) => text.includes("\r\n\r\n") });
    await eventually("it is, too", () => gone().includes("first"));
    held.kill();
  });
});

test("Reloads leave nothing of the configurations that are over", async () => {
  const upstream = upstreamOf();
  const gateway = await startInProcess({ config: simpleConfig(upstream.url), env: OPS_ENV });
  stops.push(() => gateway.stop());
  // Each configuration has lists of trusted proxies, and nothing else has these.
  const configurations = () => {
    Bun.gc(true);
    return heapStats().objectTypeCounts.BlockList ?? 0;
  };
  expect(await gateway.reload(simpleConfig(upstream.url))).toBeNull();
  const before = configurations();
  expect(before).toBeGreaterThan(0);
  for (let round = 0; round < 40; round++) {
    expect(await gateway.reload(simpleConfig(upstream.url))).toBeNull();
  }
  await eventually("they are gone", () => configurations() < before + 10);
  await isServing(gateway);
});
