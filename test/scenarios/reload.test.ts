/**
 * A configuration that is read anew under a running gateway: what holds from when on, what lives on, and what stays when
 * the new one is wrong.
 *
 * Invariant: after each refusal the gateway is shown to work as it did, and the upstream to have seen nothing.
 */
import { describe, expect, test } from "bun:test";
import { chmodSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import {
  describeBoth,
  type GatewayUnderTest,
  OPS_ENV,
  OPS_TOKEN,
  scratch,
  simpleConfig,
} from "../support/gateway.ts";
import { newKey, signed } from "../support/nostr.ts";
import { eventually, openRaw, type RawConnection, raw, valuesOf } from "../support/raw.ts";
import { untilEnd } from "../support/upstreams.ts";

const { stops, upstreamOf } = untilEnd();

/** Answers at once; keeps `/held` waiting and streams `/s` until the test goes on. */
function slowUpstream() {
  const writers = new Map<string, (bytes: string) => void>();
  const upstream = upstreamOf((request, write) => {
    const path = request.line.split(" ")[1] ?? "";
    writers.set(path, write);
    if (path.startsWith("/public/s"))
      write(
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
      );
    else if (!path.includes("/held")) write("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
  });
  return { ...upstream, seen: upstream.seen, writers };
}

const get = (path: string, ...fields: string[]) =>
  `GET ${path} HTTP/1.1\r\nHost: a\r\n${fields.map((field) => `${field}\r\n`).join("")}\r\n`;
const bearer = (token: string) => `Authorization: Bearer ${token}`;
const chunk = (text: string) => `${text.length.toString(16)}\r\n${text}\r\n`;

/** One request on a connection that stays; its status. */
async function ask(connection: RawConnection, request: string): Promise<number | undefined> {
  const before = (await connection.read({ until: () => true })).statuses.length;
  connection.send(request);
  const { statuses } = await connection.read({
    until: (text) => (text.match(/HTTP\/1\.1 \d{3} /g)?.length ?? 0) > before,
  });
  return statuses[before];
}

async function statusOf(gateway: GatewayUnderTest, ...request: Parameters<typeof get>) {
  const [path, ...fields] = request;
  const answer = await raw(gateway.address, get(path, ...fields, "Connection: close"));
  return answer.statuses[0];
}

describeBoth("A reload", (start) => {
  test("holds from the next request on, also on a connection that is open", async () => {
    const upstream = upstreamOf();
    const before = simpleConfig(upstream.url);
    const after = before.replace(
      "path: /public/** }, access: public",
      "path: /public/** }, access: [ops]",
    );
    const gateway = await start({ config: before, env: OPS_ENV });
    const connection = await openRaw(gateway.address);
    expect(await ask(connection, get("/public/x"))).toBe(200);
    expect(await gateway.reload(after)).toBeNull();
    const seen = upstream.seen.length;
    expect(await ask(connection, get("/public/x"))).toBe(401);
    expect(await statusOf(gateway, "/public/x")).toBe(401);
    expect(upstream.seen.length).toBe(seen);
    expect(await gateway.reload(before)).toBeNull();
    expect(await ask(connection, get("/public/x"))).toBe(200);
    await eventually("it is logged", () => gateway.events("config.reloaded").length === 2);
    expect(gateway.events("config.reloaded")).toMatchObject([
      { changed: "routes" },
      { changed: "routes" },
    ]);
    connection.kill();
  });

  test.each([
    ["unknown keys", "routs: []", "unknown key"],
    [
      "a secret that is not there",
      'shared: { url: redis://127.0.0.1:1, password: "${env:NOT_THERE}" }',
      "NOT_THERE",
    ],
    ["no YAML", "routes: [", "gatehouse.yaml"],
    ["nothing at all", "", "empty"],
  ])("that is wrong changes nothing and says why: %s", async (_, text, said) => {
    const upstream = upstreamOf();
    const good = simpleConfig(upstream.url);
    const gateway = await start({ config: good, env: OPS_ENV });
    const refusal = await gateway.reload(text === "" ? "" : `${good}${text}\n`);
    expect(refusal).toContain(said);
    expect(await statusOf(gateway, "/x")).toBe(401);
    expect(upstream.seen.length).toBe(0);
    expect(await statusOf(gateway, "/x", bearer(OPS_TOKEN))).toBe(200);
    expect(await gateway.reload(good)).toBeNull();
  });

  test("that a strategy or an address stands in the way of changes nothing", async () => {
    const [upstream, other] = [upstreamOf(), upstreamOf()];
    const good = simpleConfig(upstream.url);
    const gateway = await start({ config: good, env: OPS_ENV });
    const broken = good.replace("env: OPS_TOKEN }", "env: OPS_TOKEN }\n  more: { use: ./x.ts }");
    writeFileSync(
      join(gateway.dir, "x.ts"),
      `import { definePlugin, z } from "gatehouse";
export default definePlugin({ name: "x", contract: 1, config: z.strictObject({}),
  init() { throw new Error("the store is not there"); } });`,
      { mode: 0o600 },
    );
    expect(await gateway.reload(broken)).toContain("the store is not there");
    const taken = good.replace(
      "127.0.0.1:0",
      `["127.0.0.1:0", "127.0.0.1:${other.port}", "unix:${gateway.dir}/new.sock"]`,
    );
    expect(await gateway.reload(taken)).toContain("another program is listening there");
    // What was bound on the way is not any more.
    expect(await Bun.file(join(gateway.dir, "new.sock")).exists()).toBe(false);
    const moved = good.replace("strategies:", "state_dir: ./elsewhere\nstrategies:");
    expect(await gateway.reload(moved)).toContain("state_dir");
    const refusals = () => gateway.events("config.reload_failed");
    await eventually("all are logged", () => refusals().length >= 2);
    expect(refusals()[0]?.error).toContain("the store is not there");
    expect(upstream.seen.length).toBe(0);
    expect(await statusOf(gateway, "/x", bearer(OPS_TOKEN))).toBe(200);
    expect(await gateway.reload(good)).toBeNull();
  });

  test("lets what is under way end as it began", async () => {
    const [first, second] = [slowUpstream(), upstreamOf()];
    const gateway = await start({ config: simpleConfig(first.url), env: OPS_ENV });
    const stream = await openRaw(gateway.address);
    stream.send(get("/public/s"));
    await stream.read({ until: (text) => text.includes("\r\n\r\n") });
    const held = await openRaw(gateway.address);
    held.send(get("/held", bearer(OPS_TOKEN)));
    await eventually("it waits", () => first.writers.has("/held"));

    expect(await gateway.reload(simpleConfig(second.url))).toBeNull();
    expect(await statusOf(gateway, "/new", bearer(OPS_TOKEN))).toBe(200);
    expect(second.seen.map(({ line }) => line)).toEqual(["GET /new HTTP/1.1"]);
    // Again, so that three configurations are alive.
    expect(await gateway.reload(simpleConfig(second.url))).toBeNull();

    first.writers.get("/public/s")?.(chunk("still here"));
    const read = await stream.read({ until: (text) => text.includes("still here") });
    expect(read.closed).toBe(false);
    first.writers.get("/held")?.("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate");
    const late = await held.read({ until: (text) => text.endsWith("late") });
    expect(late).toMatchObject({ statuses: [200], closed: false });
    expect(await ask(held, get("/next", bearer(OPS_TOKEN)))).toBe(200);
    expect(second.seen.at(-1)?.line).toBe("GET /next HTTP/1.1");
    first.writers.get("/public/s")?.("0\r\n\r\n");
    expect((await stream.read({ until: (text) => text.endsWith("0\r\n\r\n") })).statuses).toEqual([
      200,
    ]);
    stream.kill();
    held.kill();
  });

  test("ends the streams of who may not enter any more, and no others", async () => {
    const upstream = slowUpstream();
    const dir = scratch();
    const file = join(dir, "tokens");
    const old = `old-token-${"x".repeat(20)}`;
    const kept = `kept-token-${"x".repeat(20)}`;
    writeFileSync(file, `${old} ${kept}`, { mode: 0o600 });
    const config = (gone: string) => `version: 1
server: { listen: 127.0.0.1:0 }
strategies:
  ops: { use: static-env, env: OPS_TOKEN }
  filed: { use: static-env, file: ${file} }
${gone}upstreams: { api: { url: ${upstream.url} } }
routes:
  - { match: { path: /** }, access: [ops, filed${gone === "" ? "" : ", gone"}], upstream: api }
`;
    const goneToken = `gone-token-${"x".repeat(20)}`;
    const gateway = await start({
      config: config("  gone: { use: static-env, env: GONE_TOKEN }\n"),
      env: { ...OPS_ENV, GONE_TOKEN: goneToken },
    });
    const streamOf = async (token: string) => {
      const stream = await openRaw(gateway.address);
      stream.send(get(`/public/s/${token.slice(0, 4)}`, bearer(token)));
      await stream.read({ until: (text) => text.includes("\r\n\r\n") });
      return stream;
    };
    const ends = await Promise.all([old, goneToken].map(streamOf));
    const stays = await Promise.all([OPS_TOKEN, kept].map(streamOf));
    writeFileSync(file, `${kept} new-token-${"x".repeat(20)}`, { mode: 0o600 });
    expect(await gateway.reload(config(""))).toBeNull();
    expect(await statusOf(gateway, "/x", bearer(old))).toBe(401);
    expect(await statusOf(gateway, "/x", bearer(goneToken))).toBe(401);
    expect(await statusOf(gateway, "/x", bearer(kept))).toBe(200);
    for (const stream of ends) expect((await stream.read()).closed).toBe(true);
    await eventually("it is logged", () => gateway.events("stream.ended").length === 2);
    expect(gateway.events("stream.ended").map(({ strategy }) => strategy)).toEqual(
      expect.arrayContaining(["filed", "gone"]),
    );
    // Asked about again at least once since.
    upstream.writers.get("/public/s/kept")?.(chunk("on"));
    upstream.writers.get("/public/s/ops-")?.(chunk("on"));
    for (const stream of stays) {
      const { closed } = await stream.read({ until: (text) => text.includes("on\r\n") });
      expect(closed).toBe(false);
      stream.kill();
    }
  });

  test("opens and closes addresses, and leaves those alone that stay", async () => {
    const upstream = upstreamOf();
    const gateway = await start({ config: simpleConfig(upstream.url), env: OPS_ENV });
    const path = (name: string) => join(gateway.dir, `${name}.sock`);
    const listen = (...names: string[]) =>
      simpleConfig(upstream.url).replace(
        "127.0.0.1:0",
        `[${["127.0.0.1:0", ...names.map((name) => `unix:${path(name)}`)].join(", ")}]`,
      );
    const kept = await openRaw(gateway.address);
    expect(await ask(kept, get("/public/1"))).toBe(200);
    expect(await gateway.reload(listen("one"))).toBeNull();
    const one = await openRaw(`unix:${path("one")}`);
    expect(await ask(one, get("/public/2"))).toBe(200);
    expect(await gateway.reload(listen("two"))).toBeNull();
    // Nobody asks through an address that is closed, not even on a connection from before.
    expect((await one.read()).closed).toBe(true);
    expect(await Bun.file(path("one")).exists()).toBe(false);
    expect(
      (await raw(`unix:${path("two")}`, get("/public/3", "Connection: close"))).statuses,
    ).toEqual([200]);
    expect(await ask(kept, get("/public/4"))).toBe(200);
    await eventually("it is logged", () => gateway.events("config.reloaded").length === 2);
    const [first, second] = gateway.events("config.reloaded");
    expect(first).toMatchObject({ changed: "server.listen", added: `unix:${path("one")}` });
    expect(second).toMatchObject({ removed: `unix:${path("one")}` });
    kept.kill();
  });

  test("makes a socket anew whose file was removed", async () => {
    const upstream = upstreamOf();
    const dir = scratch();
    const path = join(dir, "gate.sock");
    const config = simpleConfig(upstream.url).replace("127.0.0.1:0", `unix:${path}`);
    const gateway = await start({ config, env: OPS_ENV });
    const before = await openRaw(`unix:${path}`);
    expect(await ask(before, get("/public/1"))).toBe(200);
    rmSync(path);
    expect(await gateway.reload(config)).toBeNull();
    const request = get("/public/2", "Connection: close");
    expect((await raw(`unix:${path}`, request)).statuses).toEqual([200]);
    // The next one leaves it alone.
    expect(await gateway.reload(config)).toBeNull();
    expect((await raw(`unix:${path}`, request)).statuses).toEqual([200]);
    before.kill();
  });

  test("changes whom it believes, also on open connections", async () => {
    const upstream = upstreamOf();
    const trusting = simpleConfig(upstream.url, { server: "  trusted_proxies: [127.0.0.1/32]" });
    const gateway = await start({ config: trusting, env: OPS_ENV });
    const connection = await openRaw(gateway.address);
    const request = get("/public/x", "X-Forwarded-For: 192.0.2.7", "X-Forwarded-Proto: https");
    const told = async () => {
      await ask(connection, request);
      return valuesOf(upstream.seen.at(-1), "x-forwarded-for");
    };
    expect(await told()).toEqual(["192.0.2.7, 127.0.0.1"]);
    expect(await gateway.reload(simpleConfig(upstream.url))).toBeNull();
    expect(await told()).toEqual(["127.0.0.1"]);
    expect(valuesOf(upstream.seen.at(-1), "x-forwarded-proto")).toEqual(["http"]);
    expect(await gateway.reload(trusting)).toBeNull();
    expect(await told()).toEqual(["192.0.2.7, 127.0.0.1"]);
    connection.kill();
  });

  test("reads secrets and plugin files again", async () => {
    const upstream = upstreamOf();
    const plugin = (word: string) => `import { definePlugin, z } from "gatehouse";
export default definePlugin({ name: "magic", contract: 1, config: z.strictObject({}),
  init: (_, host) => ({ authenticate: (request) => request.headers.get("x-magic") === "${word}"
    ? { outcome: "accept", identity: { id: "wizard" } } : { outcome: "absent" } }) });
`;
    const config = `version: 1
server: { listen: 127.0.0.1:0 }
strategies: { magic: { use: ./magic.ts } }
upstreams: { api: { url: ${upstream.url}, headers: { x-key: "\${file:key}" } } }
routes: [{ match: { path: /** }, access: [magic], upstream: api }]
`;
    const gateway = await start({ config, files: { "magic.ts": plugin("abra"), key: "first" } });
    expect(await statusOf(gateway, "/", "X-Magic: abra")).toBe(200);
    expect(valuesOf(upstream.seen.at(-1), "x-key")).toEqual(["first"]);
    writeFileSync(join(gateway.dir, "magic.ts"), plugin("cadabra"));
    writeFileSync(join(gateway.dir, "key"), "second");
    // What is written somewhere does not hold before it is asked for.
    expect(await statusOf(gateway, "/", "X-Magic: cadabra")).toBe(401);
    expect(await gateway.reload(config)).toBeNull();
    expect(await statusOf(gateway, "/", "X-Magic: abra")).toBe(401);
    expect(await statusOf(gateway, "/", "X-Magic: cadabra")).toBe(200);
    expect(valuesOf(upstream.seen.at(-1), "x-key")).toEqual(["second"]);
    chmodSync(join(gateway.dir, "magic.ts"), 0o666);
    expect(await gateway.reload(config)).toContain("chmod go-w");
    expect(await statusOf(gateway, "/", "X-Magic: cadabra")).toBe(200);
    expect(gateway.logs()).not.toMatch(/first|second/);
  });

  test("remembers which proofs were used", async () => {
    const upstream = upstreamOf();
    const key = newKey();
    const config = `version: 1
server: { listen: 127.0.0.1:0, public_url: http://gate.example }
strategies: { nostr: { use: nip98, users: [${key.pubkey}] } }
upstreams: { api: { url: ${upstream.url} } }
routes: [{ match: { path: /** }, access: [nostr], upstream: api }]
`;
    const gateway = await start({ config });
    const proof = `Authorization: ${signed(key, { url: "http://gate.example/x", method: "POST" })}`;
    const post = `POST /x HTTP/1.1\r\nHost: gate.example\r\n${proof}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n`;
    expect((await raw(gateway.address, post)).statuses).toEqual([200]);
    expect(await gateway.reload(config)).toBeNull();
    const again = await raw(gateway.address, post);
    expect(again.statuses).toEqual([401]);
    expect(again.text).toContain("replayed");
    expect(upstream.seen.length).toBe(1);
  });

  test("loses no request of those that come all the time, however often it is done", async () => {
    const upstream = upstreamOf();
    const gateway = await start({ config: simpleConfig(upstream.url), env: OPS_ENV });
    const statuses: (number | undefined)[] = [];
    let isOver = false;
    const some = (count: number) => eventually("they come", () => statuses.length >= count, 10_000);
    const client = async (isKept: boolean) => {
      let connection = await openRaw(gateway.address);
      while (!isOver) {
        statuses.push(await ask(connection, get("/x", bearer(OPS_TOKEN))));
        if (isKept) continue;
        connection.kill();
        connection = await openRaw(gateway.address);
      }
      connection.kill();
    };
    const clients = [true, true, false, false].map(client);
    for (let round = 0; round < 8; round++) {
      const extra = round % 2 === 0 ? { server: "  drain: 5s" } : {};
      await some(statuses.length + 10);
      expect(await gateway.reload(simpleConfig(upstream.url, extra))).toBeNull();
    }
    await some(statuses.length + 10);
    isOver = true;
    await Promise.all(clients);
    expect(statuses.filter((status) => status !== 200)).toEqual([]);
  });
});

describe("Addresses that overlap", () => {
  test("are refused with what to do", async () => {
    const { startInProcess } = await import("../support/gateway.ts");
    const upstream = upstreamOf();
    const free = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data() {} } });
    const { port } = free;
    free.stop(true);
    const config = (host: string) =>
      simpleConfig(upstream.url).replace("127.0.0.1:0", `${host}:${port}`);
    const gateway = await startInProcess({ config: config("127.0.0.1"), env: OPS_ENV });
    stops.push(() => gateway.stop());
    expect(await gateway.reload(config("0.0.0.0"))).toContain("cannot be bound while");
    expect(await statusOf(gateway, "/x", bearer(OPS_TOKEN))).toBe(200);
    rmSync(gateway.dir, { recursive: true, force: true });
  });
});
