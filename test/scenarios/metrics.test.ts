/**
 * The numbers for Prometheus: that they move with what happens, that they are read by whom the route says and nobody
 * else, that clients cannot make them more, and that a reload does not lose them.
 *
 * Invariant: every text that is read goes through the strict reader, whatever the test is about.
 */
import { afterAll, describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { type Exposition, readExposition } from "../support/exposition.ts";
import {
  describeBoth,
  type GatewayUnderTest,
  OPS_ENV,
  OPS_TOKEN,
  type StartGateway,
  startInProcess,
} from "../support/gateway.ts";
import { OK_RESPONSE, openRaw, type RawUpstream, raw, rawUpstream } from "../support/raw.ts";

const REQUESTS = "gatehouse_http_requests_total";
const DECISIONS = "gatehouse_auth_decisions_total";
const DURATIONS = "gatehouse_http_request_duration_seconds";
const STREAMS = "gatehouse_streams_in_flight";
const RELOADED = "gatehouse_config_last_reload_successful";
const RELOADED_AT = "gatehouse_config_last_reload_success_timestamp_seconds";

const FAULTY = `import { definePlugin, z } from "gatehouse";
export default definePlugin({
  name: "faulty",
  contract: 1,
  config: z.strictObject({}),
  init: () => ({ authenticate() { throw new Error("the store is away"); } }),
});
`;

const METRICS_ROUTE = "  - { match: { path: /metrics }, access: [ops], surface: metrics }\n";

const CONFIG = (upstream: string, first = METRICS_ROUTE) => `version: 1
server: { listen: 127.0.0.1:0 }
logging: { access: false }
strategies:
  ops: { use: static-env, env: OPS_TOKEN }
  faulty: { use: ./faulty.ts }
upstreams:
  api: { url: "http://${upstream}" }
  gone: { url: "http://127.0.0.1:1" }
routes:
${first}  - { match: { path: /public/** }, access: public, upstream: api }
  - { match: { path: /gone/** }, access: public, upstream: gone }
  - { match: { path: /faulty/** }, access: [faulty], upstream: api }
  - { match: { path: /admin/** }, access: [ops], require: { scopes: [all] }, upstream: api }
  - { match: { path: /v1/** }, access: [ops], upstream: api }
`;

const bearer = `Authorization: Bearer ${OPS_TOKEN}\r\n`;
const request = (method: string, path: string, fields = "", host = "a") =>
  `${method} ${path} HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n${fields}\r\n`;

/** Streams `/…/stream` and relays `/…/socket` until the client leaves; all else is answered at once. */
function respondingUpstream(): RawUpstream {
  const upstream = rawUpstream(({ line }, write) => {
    const [method, path = ""] = line.split(" ");
    if (path.endsWith("/stream")) {
      write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
    } else if (path.endsWith("/socket")) {
      write(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
      );
    } else write(method === "HEAD" ? OK_RESPONSE.slice(0, -2) : OK_RESPONSE);
  });
  upstreams.push(upstream);
  return upstream;
}

const upstreams: RawUpstream[] = [];
afterAll(() => {
  for (const upstream of upstreams) upstream.stop();
});

async function startWith(start: StartGateway, first?: string) {
  const upstream = respondingUpstream();
  const gateway = await start({
    config: CONFIG(upstream.address, first),
    env: OPS_ENV,
    files: { "faulty.ts": FAULTY },
  });
  return { upstream, gateway };
}

async function scrape({ address }: GatewayUnderTest): Promise<Exposition> {
  const { text, statuses } = await raw(address, request("GET", "/metrics", bearer));
  expect(statuses).toEqual([200]);
  return readExposition(text.slice(text.indexOf("\r\n\r\n") + 4));
}

/** An answer is counted when it has been sent, which may be a moment after it was read. */
async function scrapeUntil(
  gateway: GatewayUnderTest,
  holds: (read: Exposition) => boolean,
): Promise<Exposition> {
  const end = performance.now() + 5000;
  for (;;) {
    const read = await scrape(gateway);
    if (holds(read)) return read;
    if (performance.now() > end) throw new Error(`never: ${JSON.stringify(read.samples)}`);
  }
}

async function statusOf(gateway: GatewayUnderTest, bytes: string): Promise<number | undefined> {
  return (await raw(gateway.address, bytes)).statuses[0];
}

describeBoth("Metrics", (start) => {
  test("are read with a credential only, whole with GET and without a body with HEAD", async () => {
    const { gateway, upstream } = await startWith(start);
    const get = await raw(gateway.address, request("GET", "/metrics", bearer));
    expect(get.statuses).toEqual([200]);
    expect(get.text).toMatch(/^content-type: text\/plain; version=0\.0\.4; charset=utf-8\r$/im);
    expect(get.text).toMatch(/^cache-control: no-store\r$/im);
    const head = await raw(gateway.address, request("HEAD", "/metrics", bearer));
    expect(head.statuses).toEqual([200]);
    expect(head.text).toMatch(/^content-length: [1-9]\d{2,}\r$/im);
    expect(head.text).toEndWith("\r\n\r\n");
    for (const fields of ["", bearer.replace(OPS_TOKEN, "wrong-token-0123456789-abcdefghij")]) {
      const refused = await raw(gateway.address, request("GET", "/metrics", fields));
      expect(refused.statuses).toEqual([401]);
      expect(refused.text).not.toContain("gatehouse_");
    }
    for (const method of ["POST", "DELETE", "OPTIONS", "BREW"]) {
      const refused = await raw(gateway.address, request(method, "/metrics", bearer));
      expect(refused.statuses).toEqual([405]);
      expect(refused.text).toMatch(/^allow: GET, HEAD\r$/im);
      expect(refused.text).not.toContain("gatehouse_http");
    }
    expect(upstream.seen).toEqual([]);
  });

  test("are open where the route says so, and nowhere without a route", async () => {
    const open = await startWith(start, METRICS_ROUTE.replace("[ops]", "public"));
    expect(await statusOf(open.gateway, request("GET", "/metrics"))).toBe(200);
    const none = await startWith(start, "");
    expect(await statusOf(none.gateway, request("GET", "/metrics", bearer))).toBe(404);
    expect(none.upstream.seen).toEqual([]);
  });

  test("are not for a proxy to fetch elsewhere: its question about them is denied", async () => {
    const check = "  - { match: { path: /auth }, check: nginx }\n";
    const upstream = respondingUpstream();
    const config = CONFIG(upstream.address, check + METRICS_ROUTE);
    const gateway = await start({
      config: config.replace(
        "listen: 127.0.0.1:0",
        "listen: 127.0.0.1:0, trusted_proxies: [127.0.0.1/32]",
      ),
      env: OPS_ENV,
      files: { "faulty.ts": FAULTY },
    });
    const original = "X-Original-URL: http://a/metrics\r\nX-Original-Method: GET\r\n";
    const asked = await raw(gateway.address, request("GET", "/auth", original + bearer));
    expect(asked.statuses).toEqual([403]);
    expect(asked.text).not.toContain("gatehouse_");
    const read = await scrapeUntil(gateway, (one) => one.sum(REQUESTS, { code: "403" }) === 1);
    expect(read.sum(DECISIONS, { route: "1", strategy: "ops", reason: "no_upstream" })).toBe(1);
    expect(upstream.seen).toEqual([]);
  });

  test("count what was allowed, challenged, denied, faulted and unreadable, each where it belongs", async () => {
    const { gateway } = await startWith(start);
    const asked = [
      [request("GET", "/v1/x", bearer), 200],
      [request("GET", "/v1/x", bearer), 200],
      [request("POST", "/v1/x"), 401],
      [request("GET", "/admin/x", bearer), 403],
      [request("GET", "/faulty/x"), 503],
      [request("GET", "/gone/x"), 502],
      [request("PUT", "/public/x"), 200],
      [request("GET", "/nowhere"), 404],
      ["GET /x HTTP/1.1\r\nHost: a\r\nbroken\r\n\r\n", 400],
    ] as const;
    for (const [bytes, status] of asked) expect(await statusOf(gateway, bytes)).toBe(status);
    const read = await scrapeUntil(gateway, (one) => one.sum(REQUESTS, { route: "none" }) === 1);
    const requests = (route: string, method: string, code: string) =>
      read.sum(REQUESTS, { route, method, code });
    expect(requests("5", "GET", "200")).toBe(2);
    expect(requests("5", "POST", "401")).toBe(1);
    expect(requests("4", "GET", "403")).toBe(1);
    expect(requests("3", "GET", "503")).toBe(1);
    expect(requests("2", "GET", "502")).toBe(1);
    expect(requests("1", "PUT", "200")).toBe(1);
    expect(requests("none", "GET", "404")).toBe(1);
    const decided = (route: string, strategy: string, decision: string, reason: string) =>
      read.sum(DECISIONS, { route, strategy, decision, reason });
    expect(decided("5", "ops", "allow", "none")).toBe(2);
    expect(decided("5", "none", "challenge", "no_credential")).toBe(1);
    expect(decided("4", "ops", "deny", "insufficient_scope")).toBe(1);
    expect(decided("3", "faulty", "fault", "strategy_fault")).toBe(1);
    expect(decided("2", "none", "allow", "none")).toBe(1);
    expect(decided("1", "none", "allow", "none")).toBe(1);
    expect(decided("none", "none", "deny", "no_route")).toBe(1);
    expect(decided("none", "none", "deny", "bad_request")).toBe(1);
    expect(read.sum(`${DURATIONS}_count`, { route: "5" })).toBe(3);
    expect(read.sum(`${DURATIONS}_sum`, { route: "5" })).toBeGreaterThan(0);
    expect(gateway.events("http.access")).toEqual([]);
  });

  test("say how the process is, and which build", async () => {
    const { gateway } = await startWith(start);
    const before = Date.now() / 1000;
    const read = await scrape(gateway);
    expect(read.sum("gatehouse_build_info")).toBe(1);
    const info = read.samples.find(({ name }) => name === "gatehouse_build_info");
    expect(info?.labels.version).toMatch(/^\d+\.\d+\.\d+/);
    expect(read.sum("gatehouse_connections")).toBeGreaterThanOrEqual(1);
    expect(read.sum("process_resident_memory_bytes")).toBeGreaterThan(10_000_000);
    expect(read.sum("process_cpu_seconds_total")).toBeGreaterThan(0);
    const startedAt = read.sum("process_start_time_seconds");
    expect(startedAt).toBeLessThanOrEqual(before + 1);
    expect(startedAt).toBeGreaterThan(before - 3600);
    if (process.platform === "linux")
      expect(read.sum("process_open_fds")).toBeGreaterThanOrEqual(3);
    const later = await scrape(gateway);
    expect(later.sum("process_cpu_seconds_total")).toBeGreaterThanOrEqual(
      read.sum("process_cpu_seconds_total"),
    );
  });

  test("follow streams and WebSockets while they are open, and count them when they have ended", async () => {
    const { gateway } = await startWith(start);
    const handshake =
      "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    const open = async (path: string, more = "") => {
      const client = await openRaw(gateway.address);
      client.send(`GET ${path} HTTP/1.1\r\nHost: a\r\n${bearer}${more}\r\n`);
      await client.read({ until: (text) => text.includes("hello") || text.includes(" 101 ") });
      return client;
    };
    const stream = await open("/v1/stream");
    const socket = await open("/v1/socket", handshake);
    const during = await scrapeUntil(gateway, (one) => one.sum(STREAMS) === 2);
    // That of the stream and that of the reading.
    expect(during.sum("gatehouse_connections")).toBe(2);
    expect(during.sum(DECISIONS, { route: "5", decision: "allow" })).toBe(2);
    expect(during.sum(REQUESTS, { route: "5" })).toBe(0);
    stream.kill();
    socket.kill();
    const after = await scrapeUntil(
      gateway,
      (one) => one.sum(STREAMS) === 0 && one.sum(REQUESTS, { route: "5" }) === 2,
    );
    expect(after.sum(REQUESTS, { route: "5", code: "200" })).toBe(1);
    expect(after.sum(REQUESTS, { route: "5", code: "101" })).toBe(1);
    expect(after.sum(`${DURATIONS}_count`, { route: "5" })).toBe(2);
  });

  test("are no more for 500 methods, paths and hosts than for a few, and hold none of them", async () => {
    const { gateway } = await startWith(start);
    const known = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
    const word = () => crypto.randomUUID().replaceAll("-", "");
    const letters = () =>
      word()
        .replaceAll(/\d/g, (digit) => "GHIJKLMNOP".charAt(Number(digit)))
        .toUpperCase();
    const one = (at: number): string => {
      const method =
        at % 2 === 0 ? `ZZ${letters().slice(0, 9)}` : (known[at % known.length] ?? "GET");
      const paths = [`/public/zz${word()}`, `/v1/zz${word()}`, `/zz${word()}?q=zz${word()}`];
      const wrong = `Authorization: Bearer zz${word()}\r\nX-Forwarded-For: 10.9.8.7\r\n`;
      return request(method, paths[at % 3] ?? "/", wrong, `zz${word()}.example`);
    };
    const ask = async (from: number, to: number): Promise<number> => {
      for (let at = from; at < to; at += 25) {
        const batch = Array.from({ length: 25 }, (_, n) => statusOf(gateway, one(at + n)));
        expect(await Promise.all(batch)).not.toContain(undefined);
      }
      const all = (read: Exposition): number =>
        ["1", "5", "none"].reduce((sum, route) => sum + read.sum(REQUESTS, { route }), 0);
      return (await scrapeUntil(gateway, (read) => all(read) === to)).samples.length;
    };
    await scrapeUntil(gateway, (read) => read.sum(REQUESTS, { route: "0" }) > 0);
    const few = await ask(0, 100);
    expect(await ask(100, 500)).toBe(few);
    const read = await scrape(gateway);
    expect(JSON.stringify(read.samples)).not.toMatch(/zz|ZZ|example|10\.9\.8\.7/);
    const labels = read.samples.filter(({ name }) => name === REQUESTS).map((one) => one.labels);
    expect(new Set(labels.map(({ method }) => method))).toEqual(new Set([...known, "other"]));
    expect(new Set(labels.map(({ code }) => code))).toEqual(new Set(["200", "401", "404"]));
    expect(JSON.stringify(read.samples)).not.toContain(OPS_TOKEN);
    expect(JSON.stringify(read.samples)).not.toContain("127.0.0.1");
  });
});

describeBoth("Metrics and a reload", (start) => {
  test("live on, also when the route goes and comes again", async () => {
    const { gateway, upstream } = await startWith(start);
    for (let n = 0; n < 3; n += 1) await statusOf(gateway, request("GET", "/public/x"));
    await scrapeUntil(gateway, (read) => read.sum(REQUESTS, { route: "1" }) === 3);
    const config = CONFIG(upstream.address);
    expect(await gateway.reload(config.replace("access: false", "access: true"))).toBeNull();
    expect((await scrape(gateway)).sum(REQUESTS, { route: "1" })).toBe(3);
    await statusOf(gateway, request("GET", "/public/x"));
    const four = await scrapeUntil(gateway, (read) => read.sum(REQUESTS, { route: "1" }) === 4);
    // Where no route shows them nothing is counted.
    expect(await gateway.reload(CONFIG(upstream.address, ""))).toBeNull();
    expect(await statusOf(gateway, request("GET", "/metrics", bearer))).toBe(404);
    expect(await statusOf(gateway, request("GET", "/public/x"))).toBe(200);
    expect(await gateway.reload(config)).toBeNull();
    const again = await scrape(gateway);
    expect(again.sum(REQUESTS, { route: "1" })).toBe(4);
    expect(again.sum(RELOADED_AT)).toBeGreaterThan(four.sum(RELOADED_AT));
    await statusOf(gateway, request("GET", "/public/x"));
    await scrapeUntil(gateway, (read) => read.sum(REQUESTS, { route: "1" }) === 5);
  });

  test("begin with a route that a reload brings", async () => {
    const { gateway, upstream } = await startWith(start, "");
    expect(await statusOf(gateway, request("GET", "/public/x"))).toBe(200);
    expect(await gateway.reload(CONFIG(upstream.address))).toBeNull();
    expect((await scrape(gateway)).sum(REQUESTS)).toBe(0);
    await scrapeUntil(gateway, (read) => read.sum(REQUESTS, { route: "0", code: "200" }) > 0);
  });

  test("say that a configuration was refused, and when one is in force again", async () => {
    const { gateway, upstream } = await startWith(start);
    const first = await scrape(gateway);
    expect(first.sum(RELOADED)).toBe(1);
    expect(Math.abs(first.sum(RELOADED_AT) - Date.now() / 1000)).toBeLessThan(3600);
    const config = CONFIG(upstream.address);
    expect(await gateway.reload(`${config}nonsense: true\n`)).toContain("unknown key");
    const refused = await scrape(gateway);
    expect([refused.sum(RELOADED), refused.sum(RELOADED_AT)]).toEqual([0, first.sum(RELOADED_AT)]);
    const moved = config.replace("version: 1", "version: 1\nstate_dir: ./elsewhere");
    expect(await gateway.reload(moved)).not.toBeNull();
    expect((await scrape(gateway)).sum(RELOADED)).toBe(0);
    expect(await gateway.reload(config)).toBeNull();
    const good = await scrape(gateway);
    expect(good.sum(RELOADED)).toBe(1);
    expect(good.sum(RELOADED_AT)).toBeGreaterThan(first.sum(RELOADED_AT));
  });
});

describe("docs/metrics.md", () => {
  const text = readFileSync(join(import.meta.dir, "../../docs/metrics.md"), "utf8");

  test("names every metric with its labels, and no other", async () => {
    const { gateway } = await startWith(startInProcess);
    const { types, samples } = await scrapeUntil(gateway, (read) => read.sum(REQUESTS) > 0);
    const rows = text
      .split("\n")
      .filter((line) => line.startsWith("| `gatehouse_") || line.startsWith("| `process_"));
    const words = (cell = ""): string[] =>
      [...cell.matchAll(/`([^`]+)`/g)].map(([, word]) => word ?? "");
    const documented = new Map(
      rows.flatMap((row) => {
        const [, names, labels] = row.split("|");
        return words(names).map((name) => [name, words(labels).toSorted()] as const);
      }),
    );
    expect([...documented.keys()].toSorted()).toEqual([...types.keys()].toSorted());
    for (const { name, labels } of samples) {
      const family = name.replace(/(?:_bucket|_sum|_count)$/, "");
      const own = Object.keys(labels).filter((label) => label !== "le");
      expect([name, own.toSorted()]).toEqual([name, documented.get(family) ?? []]);
    }
    const alerted = new Set(text.match(/\b(?:gatehouse|process)_[a-z_]+/g));
    expect([...alerted].filter((name) => !types.has(name))).toEqual([]);
    await gateway.stop();
  });

  test("shows a route that is right", async () => {
    const [, shown = ""] = /```yaml\n(strategies:[\s\S]*?)```/.exec(text) ?? [];
    const gateway = await startInProcess({
      config: `version: 1\nserver: { listen: 127.0.0.1:0 }\n${shown}`,
      env: { GATEHOUSE_SCRAPE_TOKEN: OPS_TOKEN },
    });
    expect((await scrape(gateway)).sum("gatehouse_build_info")).toBe(1);
    await gateway.stop();
  });
});

describe("the reader of these tests", () => {
  const HEAD = "# HELP a_total A.\n# TYPE a_total counter\n";
  const BUCKETS = (...values: number[]) =>
    `# HELP h H.\n# TYPE h histogram\nh_bucket{le="1"} ${values[0]}\nh_bucket{le="+Inf"} ${values[1]}\nh_sum 1\nh_count ${values[2]}\n`;

  test("reads what is right", () => {
    const { samples, types, sum } = readExposition(
      `${HEAD}a_total{x="q\\"\\\\\\n",y=""} 1e3\na_total 2\n\n${BUCKETS(1, 2, 2)}`,
    );
    expect(samples[0]).toEqual({ name: "a_total", labels: { x: 'q"\\\n', y: "" }, value: 1000 });
    expect(Object.fromEntries(types)).toEqual({ a_total: "counter", h: "histogram" });
    expect(sum("a_total")).toBe(1002);
  });

  test.each([
    ["no end", "# HELP a_total A."],
    ["no announcement", "a_total 1\n"],
    ["no type", "# HELP a_total A.\na_total 1\n"],
    ["no help", "# TYPE a_total counter\na_total 1\n"],
    ["another name", `${HEAD}b_total 1\n`],
    ["a counter without its end", "# HELP a A.\n# TYPE a counter\na 1\n"],
    ["a gauge with that end", "# HELP a_total A.\n# TYPE a_total gauge\na_total 1\n"],
    ["the same twice", `${HEAD}a_total{x="1"} 1\na_total{x="1"} 2\n`],
    ["two of a family", `${HEAD}a_total 1\n${HEAD}`],
    ["no value", `${HEAD}a_total\n`],
    ["no number", `${HEAD}a_total Nan1\n`],
    ["a quote inside", `${HEAD}a_total{x="a"b"} 1\n`],
    ["a comma at the end", `${HEAD}a_total{x="a",} 1\n`],
    ["a label twice", `${HEAD}a_total{x="a",x="b"} 1\n`],
    ["buckets that shrink", BUCKETS(3, 2, 2)],
    ["a count beside the buckets", BUCKETS(1, 2, 3)],
  ])("refuses %s", (_, text) => {
    expect(() => readExposition(text)).toThrow();
  });
});
