/**
 * Path confusion, over raw sockets and by property: a decision holds for every path that a backend may see in the
 * bytes it is sent (CVE-2019-9901, CVE-2021-29492, CVE-2021-31920, CVE-2026-41059 and their kin).
 *
 * Invariant: what was matched is what the upstream gets, byte for byte; the reference readings in this file are
 * written without a look at src/path.ts and share no code with it.
 */
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "bun:test";
import type { RouteConfig } from "../../src/config/model.ts";
import { createRouter, type RouteMatch } from "../../src/router.ts";
import { describeBoth, type GatewayUnderTest, OPS_ENV } from "../support/gateway.ts";
import { OK_RESPONSE, type RawUpstream, raw, rawUpstream } from "../support/raw.ts";

const ROUTES = `
  - { match: { path: /exact }, access: public, upstream: api }
  - { match: { path: /one/*/end }, access: public, upstream: api }
  - { match: { path: /models/** }, access: public, upstream: api }
  - { match: { path: /kept/** }, access: public, slashes: keep, upstream: api }
  - { match: { path: /Shout }, access: [ops], upstream: api }
  - { match: { path: /slashed/ }, access: [ops], upstream: api }
  - { match: { path: /inner/secret }, access: [ops], slashes: keep, upstream: api }
  - { match: { path: [/inner/**, /shout/**, /Shout/**, /slashed] }, access: public, upstream: api }
  - { match: { host: admin.example.com, path: /by-host }, access: [ops], upstream: api }
  - { match: { path: /by-host }, access: public, upstream: api }
  - { match: { path: [/admin/**, /wallet, /v1/**] }, access: [ops], upstream: api }
`;

const config = (upstream: string) => `version: 1
server: { listen: 127.0.0.1:0 }
strategies: { ops: { use: static-env, env: OPS_TOKEN } }
upstreams: { api: { url: "http://${upstream}" } }
routes:${ROUTES}`;

/** Target as sent, and what the upstream gets; `=` is the same bytes. */
const PASSES: readonly (readonly [string, string])[] = [
  ["/exact", "="],
  ["/exact?", "="],
  ["/exact?a=%2e%2e/../admin&b=//x;y\\z%00%zz", "="],
  ["/exact?a=b?c=d&%41=+%2B", "="],
  ["/exact?q=\xc3\xa9\xff", "="],
  ["/models", "="],
  ["/models/", "="],
  ["/models/vendor%2Fmodel", "="],
  ["/models/vendor%2fmodel", "="],
  ["/models/llama3:8b", "="],
  ["/models/a:b@c=d,e+f!g~h'(i)*$&", "="],
  ["/models/a%2Bb", "="],
  ["/models/a%20b", "="],
  ["/models/caf%C3%A9", "="],
  ["/models/caf\xc3\xa9", "="],
  ["/models/\xc3\xa0/\xc3\x85", "="],
  ["/models/%E4%BD%A0%E5%A5%BD", "="],
  ["/models/100%25", "="],
  ["/models/a;v=1/b", "="],
  ["/models/.hidden/..b/c..d/...", "="],
  ["/models/UPPER/Case", "="],
  ["/models/a.", "="],
  ["/models/a%20", "="],
  ["/models/a/./b", "/models/a/b"],
  ["/models/a/../b", "/models/b"],
  ["/models/a/%2e%2E/b", "/models/b"],
  ["/models/a/..", "/models/"],
  ["/models//a///b", "/models/a/b"],
  ["//models/a", "/models/a"],
  ["/x/../models/a", "/models/a"],
  ["/../../models/a", "/models/a"],
  ["/kept//a///b", "="],
  ["/kept/https://example.com//x", "="],
  ["/kept/a/../b//c", "/kept/b//c"],
  ["/one/x/end", "="],
  ["/one/x:y/end", "="],
  ["/inner/other", "="],
  ["/by-host", "="],
];

/** Not public under some reading: refused. */
const AMBIGUOUS: readonly string[] = [
  "/models/..%2fadmin",
  "/models/..%2Fadmin",
  "/models/%2e%2e%2fadmin",
  "/models/%252e%252e/admin",
  "/models/..%252fadmin",
  "/models/..%5cadmin",
  "/models/..\\admin",
  "/models\\..\\admin",
  "/models/..;/admin",
  "/models/..;a=b/admin",
  "/models/..%3b/admin",
  "/models/%2e%2e;/admin",
  "/models/.;/..;/admin",
  "/models/a%2f..%2f..%2fadmin",
  "/models/a;b%2f..%2f..%2fadmin",
  "/models/..%20/admin",
  "/models/..%2f%2fadmin",
  "/models%2f..%2fadmin",
  "/models/%ef%bc%8e%ef%bc%8e/admin",
  "/models/\xef\xbc\x8e\xef\xbc\x8e/admin",
  "/models/..%ef%bc%8fadmin",
  "/models/..%ef%bc%bcadmin",
  "/models/%e2%80%a5/admin",
  "/models/..%ef%bc%9b/admin",
  "/models/%ef%bc%852e%2e/admin",
  "/exact/",
  "/exact.",
  "/exact%20",
  "/EXACT",
  "/Exact",
  "/exact;a=b",
  "/exact%3fa",
  "/exact%23a",
  "/exact%2f",
  "/exact%5c",
  "/exact\\",
  "/e%78act",
  "/e%2578act",
  "/exact\xa0/x",
  "/exact\x85",
  "/exact%253f",
  "/MODELS/a",
  "/model%73/a",
  "/models%2fa",
  "/one/a%2fb/end",
  "/one/a%252fb/end",
  "/one/a%2f/end",
  "/%2fexact",
  "/%5cexact",
  "/kept/..%2fadmin",
  "/kept//..%2f..%2fadmin",
  "/kept\\..\\..\\admin",
  "/Wallet",
  "/wallet/",
  "/wallet%2f",
  "/w%61llet",
  "/Admin/x",
  "/%61dmin/x",
  "/unknown/..%2fexact",
  // A pattern with upper case or a slash at its end is the same place for a backend that ignores both.
  "/shout",
  "/slashed",
  // A route that merges slashes must not pass on what a route that keeps them guards.
  "/inner//secret",
];

/** Cannot be read safely at all. */
const MALFORMED: readonly string[] = [
  "/models/%00",
  "/models/a%00.txt",
  "/models/%2500",
  "/models/%0a",
  "/models/%0d%0aX-A:%20b",
  "/models/%250a",
  "/models/%7f",
  "/models/%09",
  "/models/%",
  "/models/%2",
  "/models/%zz",
  "/models/%u002e%u002e/admin",
  "/models/%25u002e%25u002e/admin",
  "/models/%c0%ae%c0%ae/admin",
  "/models/%c0%af",
  "/models/\xc0\xae\xc0\xae/admin",
  "/models/%e0%80%ae/admin",
  "/models/%f0%80%80%ae/admin",
  "/models/%25c0%25ae/admin",
];

/** Guarded or nowhere, under every reading. */
const ELSEWHERE: readonly (readonly [string, number])[] = [
  ["/models/../admin", 401],
  ["/models/%2e%2e/admin", 401],
  ["/models/%2E./admin/x", 401],
  ["/kept/../admin/x", 401],
  ["//wallet", 401],
  ["/./wallet", 401],
  ["//admin/x", 401],
  ["/inner/secret", 401],
  ["/slashed/", 401],
  ["/Shout", 401],
  ["/modelsx", 404],
  ["/models.", 400],
  ["/one/end", 404],
  ["/one//end", 404],
  ["/one/a/b/end", 404],
  ["/", 404],
  ["/..", 404],
  ["/nowhere", 404],
];

describeBoth("paths", (start) => {
  let upstream: RawUpstream;
  let gateway: GatewayUnderTest;
  beforeAll(async () => {
    upstream = rawUpstream((_, write) => write(OK_RESPONSE));
    gateway = await start({ config: config(upstream.address), env: OPS_ENV });
  });
  beforeEach(() => {
    upstream.seen.length = 0;
  });
  afterAll(async () => {
    upstream.stop();
    await gateway.stop();
  });

  const ask = (target: string, host = "a") =>
    raw(gateway.address, `GET ${target} HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n\r\n`);

  test.each([...PASSES])("%j is public and arrives as %j", async (target, expected) => {
    expect((await ask(target)).statuses).toEqual([200]);
    const arrives = expected === "=" ? target : expected;
    expect(upstream.seen.map(({ line }) => line)).toEqual([`GET ${arrives} HTTP/1.1`]);
  });

  test.each([...AMBIGUOUS])("%j can be read in two ways and is refused", async (target) => {
    const answer = await ask(target);
    expect(answer.statuses).toEqual([400]);
    expect(answer.text).toContain("X-Gatehouse-Reason: path_ambiguous");
    expect(upstream.seen).toEqual([]);
  });

  test.each([...MALFORMED])("%j cannot be read safely and is refused", async (target) => {
    const answer = await ask(target);
    expect(answer.statuses).toEqual([400]);
    expect(answer.text).toContain("X-Gatehouse-Reason: path_malformed");
    expect(upstream.seen).toEqual([]);
  });

  test.each([...ELSEWHERE])("%j is not public: %d", async (target, status) => {
    expect((await ask(target)).statuses).toEqual([status]);
    expect(upstream.seen).toEqual([]);
  });

  test.each([
    ["admin.example.com", 401],
    ["ADMIN.example.com", 401],
    ["admin.example.com:8008", 401],
    ["admin.example.com.", 401],
    ["admin.example.com.:80", 401],
    ["example.com", 200],
  ])("the host %s is matched as the name it is: %d", async (host, status) => {
    expect((await ask("/by-host", host)).statuses).toEqual([status]);
    expect(upstream.seen.length).toBe(status === 200 ? 1 : 0);
  });

  test("a path with more readings than any client needs is refused, and soon", async () => {
    const startedMs = performance.now();
    const part = "a%253b%255c%252f%252e%20%EF%BC%8F;x//%25253b%25255c";
    for (const target of [`/kept/${part}`, `/kept/${part.repeat(300)}`]) {
      const answer = await ask(target);
      expect(answer.statuses).toEqual([400]);
    }
    expect(performance.now() - startedMs).toBeLessThan(1000);
    expect(upstream.seen).toEqual([]);
  });
});

// The reference: every path that some backend may see in the bytes of `path`.

function percentDecoded(path: string): string {
  const bytes = Buffer.from(path, "latin1");
  const out: number[] = [];
  for (let at = 0; at < bytes.length; at++) {
    const hex = bytes.toString("latin1", at + 1, at + 3);
    if (bytes[at] === 0x25 && /^[0-9a-f]{2}$/i.test(hex)) {
      out.push(Number.parseInt(hex, 16));
      at += 2;
    } else out.push(bytes[at] ?? 0);
  }
  return Buffer.from(out).toString("latin1");
}

function withoutDots(path: string): string {
  const kept: string[] = [];
  const parts = path.split("/");
  for (const part of parts.slice(1)) {
    if (part === "..") kept.pop();
    else if (part !== ".") kept.push(part);
  }
  const last = parts.at(-1);
  return `/${kept.join("/")}${last === "." || last === ".." ? "/" : ""}`;
}

const asUnicode = (path: string) => Buffer.from(path, "latin1").toString("utf8").normalize("NFKC");
const asBytes = (path: string) => Buffer.from(path, "utf8").toString("latin1");

const BACKENDS: readonly ((path: string) => string)[] = [
  percentDecoded,
  (path) => percentDecoded(percentDecoded(path)),
  (path) =>
    path.replace(/%u([0-9a-f]{4})/gi, (_, hex) =>
      String.fromCharCode(Number.parseInt(hex, 16) & 0xff),
    ),
  (path) => path.split("\\").join("/"),
  (path) =>
    path
      .split("/")
      .map((part) => part.split(";")[0])
      .join("/"),
  (path) =>
    path
      .split("/")
      .filter((part, index) => part !== "" || index === 0)
      .join("/"),
  withoutDots,
  (path) => path.split("?")[0] ?? "",
  (path) => path.split("#")[0] ?? "",
  (path) => path.split("\0")[0] ?? "",
  (path) => path.split(/[\x85\xa0]/)[0] ?? "",
  (path) => path.toLowerCase(),
  (path) =>
    path
      .split("/")
      .map((part) => part.trimEnd())
      .join("/"),
  (path) => asBytes(asUnicode(path)),
];

/** Two backends in a row, as a proxy and the application behind it are, and paths resolved at the end. */
function referenceReadings(path: string): Set<string> {
  const found = new Set<string>([path]);
  for (const first of BACKENDS) {
    for (const second of BACKENDS) {
      const text = second(first(path));
      found.add(text);
      found.add(withoutDots(text));
      found.add(withoutDots(text.split(/\/+/).join("/")));
    }
  }
  return found;
}

const isUnder = (path: string, base: string) => {
  const folded = path.toLowerCase();
  return folded === base || folded.startsWith(`${base}/`);
};

const NASTY = [
  "/",
  "//",
  "/./",
  "/../",
  ".",
  "..",
  "%2e",
  "%2E",
  "%252e",
  "%2f",
  "%2F",
  "%252f",
  "%25252f",
  "%5c",
  "%255C",
  "\\",
  ";",
  ";a=b",
  "%3b",
  "%253b",
  "%3f",
  "%23",
  "%20",
  "%00",
  "%09",
  "%0a",
  "%c0%ae",
  "%c0%af",
  "%ef%bc%8e",
  "%ef%bc%8f",
  "%ef%bc%bc",
  "%ef%bc%9b",
  "%ef%bc%85",
  "%e2%80%a5",
  "%u002e",
  "%u002f",
  "%25u002f",
  "a",
  "b.c",
  "public",
  "PUBLIC",
  "%70ublic",
  "admin",
  "Admin",
  "%61dmin",
  "%2561dmin",
  "\x85",
  "\xa0",
  "\xc3\xa0",
  "*",
  ":",
  "%",
  "%25",
];

/** A route as far as the router looks at it. */
function route(index: number, paths: string[], more: Partial<RouteConfig> = {}): RouteConfig {
  const matched = { index, paths, hosts: [], methods: [], slashes: "merge" as const };
  return { ...matched, access: ["ops"], ...more } as RouteConfig;
}

/** A small generator with a seed (Numerical Recipes), so that a failure can be repeated. */
function dice(seed: number): (sides: number) => number {
  let state = seed;
  return (sides) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((state / 2 ** 32) * sides);
  };
}

describe("whatever passes on a public route stays public under every reading", () => {
  const open = { access: "public" } as const;
  const tables: readonly (readonly [string, readonly RouteConfig[]])[] = [
    ["deny by default", [route(0, ["/public/**"], open)]],
    ["guarded rest", [route(0, ["/public/**"], open), route(1, ["/**"])]],
    ["guarded first", [route(0, ["/admin/**"]), route(1, ["/public/**"], open), route(2, ["/**"])]],
    ["slashes kept", [route(0, ["/public/**"], { ...open, slashes: "keep" }), route(1, ["/**"])]],
    [
      "both kinds",
      [
        route(0, ["/admin/**"], { slashes: "keep" }),
        route(1, ["/public/**"], open),
        route(2, ["/**"]),
      ],
    ],
  ];

  test.each([...tables])("%s", (_, routes) => {
    const router = createRouter(routes, (config) => config);
    const roll = dice(20_261_121);
    let passed = 0;
    for (let round = 0; round < 2_000; round++) {
      let target = roll(4) === 0 ? "/" : "/public/";
      for (let left = 1 + roll(7); left > 0; left--) target += NASTY[roll(NASTY.length)];
      const match: RouteMatch<RouteConfig> = router.match("a", "GET", target);
      if (match.kind !== "route" || match.route.access !== "public") continue;
      passed += 1;
      for (const reading of referenceReadings(match.path)) {
        if (!isUnder(reading, "/public")) {
          throw new Error(
            `${JSON.stringify(target)} passes as ${JSON.stringify(match.path)}, which can be read as ${JSON.stringify(reading)}`,
          );
        }
      }
    }
    expect(passed).toBeGreaterThan(20);
  });

  test("and a guarded island in a public sea is never reached without a credential", () => {
    const router = createRouter(
      [route(0, ["/public/admin/**"]), route(1, ["/public/**"], open)],
      (config) => config,
    );
    const roll = dice(7);
    for (let round = 0; round < 2_000; round++) {
      let target = "/public/";
      for (let left = 1 + roll(7); left > 0; left--) target += NASTY[roll(NASTY.length)];
      const match = router.match("a", "GET", target);
      if (match.kind !== "route" || match.route.access !== "public") continue;
      for (const reading of referenceReadings(match.path)) {
        if (isUnder(reading, "/public/admin")) {
          throw new Error(`${JSON.stringify(target)} can be read as ${JSON.stringify(reading)}`);
        }
      }
    }
  });
});
