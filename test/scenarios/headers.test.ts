/**
 * Headers both ways, over raw sockets: who may say who is asking, what belongs to one connection, and that nothing
 * is invented (RFC 9110 section 7.6.1; CVE-2022-31813, CVE-2025-64484, GHSA-7r4p-vjf4-gxv4, CVE-2026-35051).
 *
 * Invariant: what the upstream saw is compared as whole heads or with every value of a name, so that a second copy
 * in another spelling cannot hide.
 */
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "bun:test";
import { describeBoth, type GatewayUnderTest, OPS_ENV, OPS_TOKEN } from "../support/gateway.ts";
import {
  eventually,
  OK_RESPONSE,
  type RawAnswer,
  type RawUpstream,
  raw,
  rawUpstream,
  type SeenRequest,
  valuesOf,
} from "../support/raw.ts";

const CONFIG = (upstream: string, server = "") => `version: 1
server: { listen: 127.0.0.1:0${server} }
strategies:
  ops: { use: static-env, env: OPS_TOKEN, role: admin, name: "J\u00f6rg 100%" }
  plain: { use: static-env, env: OPS_TOKEN }
upstreams:
  api: { url: "http://${upstream}" }
  keyed:
    url: "http://${upstream}"
    headers: { x-upstream-key: "Bearer \${env:UPSTREAM_KEY}", x-label: fixed }
  hosted: { url: "http://${upstream}", host: preserve }
routes:
  - { match: { path: /public/** }, access: public, upstream: api }
  - { match: { path: /hosted/** }, access: public, upstream: hosted }
  - { match: { path: /keyed/** }, access: public, upstream: keyed }
  - { match: { path: /none/** }, access: [ops], upstream: api, identity_headers: none }
  - { match: { path: /remote/** }, access: [ops], upstream: api, identity_headers: remote }
  - { match: { path: /forwarded/** }, access: [ops], upstream: api, identity_headers: forwarded }
  - match: { path: /custom/** }
    access: [ops]
    upstream: api
    identity_headers: { identity: X-Who, role: X-Rank, scopes: X-May, owner: X-Of }
  - { match: { path: /kept/** }, access: [ops], upstream: api, forward_credential: true }
  - { match: { path: /plain/** }, access: [plain], upstream: api }
  - { match: { path: /** }, access: [ops], upstream: api }
`;
const ENV = { ...OPS_ENV, UPSTREAM_KEY: "upstream-secret-0123456789" };
const AUTHORISED = `Authorization: Bearer ${OPS_TOKEN}\r\n`;
const UUID = /^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

/** Names that only a proxy, or we, may set. Each is tried in many spellings. */
const PROTECTED = [
  "x-gatehouse-identity",
  "x-gatehouse-strategy",
  "x-gatehouse-name",
  "x-gatehouse-role",
  "x-gatehouse-anything",
  "x-forwarded-for",
  "x-forwarded-host",
  "x-forwarded-proto",
  "x-forwarded-port",
  "x-forwarded-prefix",
  "x-forwarded-uri",
  "x-forwarded-method",
  "x-forwarded-user",
  "x-forwarded-groups",
  "forwarded",
  "x-real-ip",
  "true-client-ip",
  "cf-connecting-ip",
  "x-original-url",
  "x-original-uri",
  "x-original-host",
  "x-rewrite-url",
  "x-http-method-override",
  "x-http-method",
  "x-method-override",
  "remote-user",
  "remote-groups",
  "x-remote-user",
  "x-auth-request-user",
  "x-consumer-username",
  "x-who",
  "x-rank",
  "x-may",
  "x-of",
];

const title = (name: string) => name.replace(/(^|-)[a-z]/g, (text) => text.toUpperCase());

/** Every spelling that some backend reads as `name`. */
const SPELLINGS: Readonly<Record<string, (name: string) => string>> = {
  "as it is": (name) => `${name}: EVIL\r\n`,
  "in upper case": (name) => `${name.toUpperCase()}: EVIL\r\n`,
  "in title case": (name) => `${title(name)}: EVIL\r\n`,
  "with underscores": (name) => `${name.replaceAll("-", "_")}: EVIL\r\n`,
  "with one underscore": (name) => `${name.replace("-", "_")}: EVIL\r\n`,
  "with underscores in upper case": (name) =>
    `${name.replaceAll("-", "_").toUpperCase()}: EVIL\r\n`,
  "with dots": (name) => `${name.replaceAll("-", ".")}: EVIL\r\n`,
  "with other signs": (name) => `${name.replaceAll("-", "+")}: EVIL\r\n`,
  twice: (name) => `${name}: EVIL\r\n${title(name)}: EVIL2\r\n`,
  "listed in Connection": (name) => `Connection: close, ${name}\r\n${name}: EVIL\r\n`,
};

/** The listener and everything that the cases need. */
function gatewayWith(start: Parameters<Parameters<typeof describeBoth>[1]>[0], server = "") {
  const under = {} as { upstream: RawUpstream; gateway: GatewayUnderTest };
  beforeAll(async () => {
    under.upstream = rawUpstream();
    const config = CONFIG(under.upstream.address, server);
    under.gateway = await start({ config, env: ENV });
  });
  beforeEach(() => {
    under.upstream.respond = (_, write) => write(OK_RESPONSE);
    under.upstream.seen.length = 0;
  });
  afterAll(async () => {
    under.upstream.stop();
    await under.gateway.stop();
  });
  const ask = (path: string, lines = "", method = "GET"): Promise<RawAnswer> => {
    const last = /^connection:/im.test(lines) ? "" : "Connection: close\r\n";
    return raw(
      under.gateway.address,
      `${method} ${path} HTTP/1.1\r\nHost: a\r\n${lines}${last}\r\n`,
    );
  };
  const seen = (): SeenRequest => {
    expect(under.upstream.seen.length).toBe(1);
    return under.upstream.seen[0]!;
  };
  return { under, ask, seen };
}

describeBoth("request headers", (start) => {
  const { under, ask, seen } = gatewayWith(start);

  describe.each(Object.entries(SPELLINGS))("a protected name %s", (_, spell) => {
    test.each([...PROTECTED])("%s never arrives on a public or a guarded route", async (name) => {
      for (const [path, lines] of [
        ["/public/x", ""],
        ["/x", AUTHORISED],
      ] as const) {
        under.upstream.seen.length = 0;
        expect((await ask(path, lines + spell(name))).statuses).toEqual([200]);
        expect(seen().head).not.toContain("EVIL");
      }
    });
  });

  test("the head on a public route is exactly this: nothing invented, order and case kept", async () => {
    const lines =
      "Zebra: 1\r\nACCEPT-encoding:  br\r\nx-a: b, c\r\nX-A: \xe9\r\ncookie: a=b\r\nEmpty:\r\n";
    await ask("/public/x?q", lines);
    const id = valuesOf(seen(), "x-request-id")[0] ?? "";
    expect(id).toMatch(UUID);
    expect(seen().head.split("\r\n")).toEqual([
      "GET /public/x?q HTTP/1.1",
      `Host: ${under.upstream.address}`,
      "Zebra: 1",
      "ACCEPT-encoding: br",
      "x-a: b, c",
      "X-A: \xe9",
      "cookie: a=b",
      "Empty: ",
      "X-Forwarded-For: 127.0.0.1",
      "X-Forwarded-Proto: http",
      "X-Forwarded-Host: a",
      `X-Request-Id: ${id}`,
    ]);
  });

  test("the head on a guarded route: credential gone, identity there, names percent-encoded", async () => {
    await ask("/x", `${AUTHORISED}X-Api-Key: other\r\nX-Gatehouse-Role: user\r\n`, "POST");
    expect(seen().head.split("\r\n").slice(2)).toEqual([
      "X-Forwarded-For: 127.0.0.1",
      "X-Forwarded-Proto: http",
      "X-Forwarded-Host: a",
      `X-Request-Id: ${valuesOf(seen(), "x-request-id")[0]}`,
      "x-gatehouse-identity: ops",
      "x-gatehouse-strategy: ops",
      "x-gatehouse-name: J%C3%B6rg 100%25",
      "x-gatehouse-role: admin",
    ]);
  });

  test("a fact that the identity lacks is sent empty, so that a copy of the client's is overwritten", async () => {
    await ask("/plain/x", `${AUTHORISED}X-Gatehouse-Name: EVIL\r\n`);
    expect(valuesOf(seen(), "x-gatehouse-name")).toEqual([""]);
    expect(valuesOf(seen(), "x-gatehouse-role")).toEqual(["user"]);
  });

  test.each<[string, Record<string, string[]>]>([
    ["/none/x", { "x-gatehouse-identity": [], "remote-user": [], "x-forwarded-user": [] }],
    [
      "/remote/x",
      { "remote-user": ["ops"], "remote-name": ["J%C3%B6rg 100%25"], "remote-groups": ["admin"] },
    ],
    [
      "/forwarded/x",
      { "x-forwarded-user": ["ops"], "x-forwarded-groups": ["admin"], "x-gatehouse-identity": [] },
    ],
    [
      "/custom/x",
      {
        "x-who": ["ops"],
        "x-rank": ["admin"],
        "x-may": [""],
        "x-of": [""],
        "x-gatehouse-role": [],
      },
    ],
  ])("%s says who it is in the headers of its route only", async (path, expected) => {
    const evil = Object.keys(expected)
      .map((name) => `${name}: EVIL\r\n`)
      .join("");
    await ask(path, AUTHORISED + evil);
    for (const [name, values] of Object.entries(expected)) {
      expect([name, valuesOf(seen(), name)]).toEqual([name, values]);
    }
  });

  test("Connection cannot remove what we set", async () => {
    const names =
      "x-forwarded-for, x-gatehouse-identity, X-GATEHOUSE-ROLE, x-request-id, host, authorization";
    await ask("/x", `${AUTHORISED}Connection: close, ${names}\r\n`);
    expect(valuesOf(seen(), "x-forwarded-for")).toEqual(["127.0.0.1"]);
    expect(valuesOf(seen(), "x-gatehouse-identity")).toEqual(["ops"]);
    expect(valuesOf(seen(), "x-gatehouse-role")).toEqual(["admin"]);
    expect(valuesOf(seen(), "host")).toEqual([under.upstream.address]);
  });

  test("what belongs to one connection stays there, and so does what Connection lists", async () => {
    const lines =
      "Connection: close, X-One\r\nConnection: x-two\r\nX-One: 1\r\nX-Two: 2\r\nKeep-Alive: timeout=5\r\n" +
      "Proxy-Connection: keep-alive\r\nProxy-Authorization: Basic eDp5\r\nProxy-Authenticate: Basic\r\nTE: trailers\r\n" +
      "Trailer: X-T\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\nX-Three: 3\r\n";
    await ask("/public/x", lines);
    expect(seen().fields.map(([name]) => name)).toEqual([
      "host",
      "x-three",
      "x-forwarded-for",
      "x-forwarded-proto",
      "x-forwarded-host",
      "x-request-id",
    ]);
  });

  test("h2c is not forwarded", async () => {
    const lines =
      "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n";
    const head = `GET /public/x HTTP/1.1\r\nHost: a\r\n${lines}\r\n`;
    const answer = await raw(under.gateway.address, head, { until: (text) => text.endsWith("ok") });
    expect(answer.statuses).toEqual([200]);
    expect(seen().head).not.toMatch(/upgrade|h2c|http2|connection/i);
  });

  test.each(["TRACE", "CONNECT"])("%s goes nowhere, not even with a credential", async (method) => {
    const answer = await ask("/x", `${AUTHORISED}Cookie: secret\r\n`, method);
    expect(answer.statuses).toEqual([501]);
    expect(answer.text).not.toContain("secret");
    expect(under.upstream.seen).toEqual([]);
  });

  test("forward_credential passes the credential on, once", async () => {
    await ask("/kept/x", AUTHORISED);
    expect(valuesOf(seen(), "authorization")).toEqual([`Bearer ${OPS_TOKEN}`]);
    expect(valuesOf(seen(), "x-gatehouse-identity")).toEqual(["ops"]);
  });

  test("a key that is sent where none is asked for is not shown to the upstream", async () => {
    await ask("/public/x", "Authorization: Bearer EVIL\r\nX-Api-Key: EVIL\r\n");
    expect(seen().head).not.toContain("EVIL");
  });

  test.each(["X-Upstream-Key", "x_upstream_key", "x.upstream.key", "X-UPSTREAM-KEY", "X-Label"])(
    "an injected header replaces the client's %s and is not shown to the client",
    async (name) => {
      const answer = await ask("/keyed/x", `Connection: close, ${name}\r\n${name}: EVIL\r\n`);
      expect(valuesOf(seen(), "x-upstream-key")).toEqual([`Bearer ${ENV.UPSTREAM_KEY}`]);
      expect(valuesOf(seen(), "x-label")).toEqual(["fixed"]);
      expect(seen().head).not.toContain("EVIL");
      expect(answer.text).not.toContain(ENV.UPSTREAM_KEY);
    },
  );

  test("the upstream's own authority is its Host; with host: preserve it is the client's", async () => {
    await ask("/hosted/x");
    expect(valuesOf(seen(), "host")).toEqual(["a"]);
  });

  test("a peer that is not trusted gets a request id of ours, and its own is dropped", async () => {
    const answer = await ask("/public/x", "X-Request-Id: mine\r\n");
    const ids = valuesOf(seen(), "x-request-id");
    expect(ids.length).toBe(1);
    expect(ids[0]).toMatch(UUID);
    expect(answer.text).toContain(`\r\nX-Request-Id: ${ids[0]}\r\n`);
  });
});

describeBoth("response headers", (start) => {
  const { under, ask } = gatewayWith(start);

  test("pass as they are, in order, with every Set-Cookie and no date or server of ours", async () => {
    const lines = "Server: x\r\nSet-Cookie: a=1\r\nset-cookie: b=2\r\nSet-Cookie: c=3, d\r\n";
    under.upstream.respond = (_, write) =>
      write(`HTTP/1.1 203 Quite So\r\n${lines}Content-Length: 2\r\nX-Z: \xe9\r\n\r\nok`);
    const answer = await ask("/public/x");
    const [head = ""] = answer.text.split("\r\n\r\n");
    expect(head.replace(/X-Request-Id: .*/, "X-Request-Id: *").split("\r\n")).toEqual([
      "HTTP/1.1 203 Quite So",
      "Server: x",
      "Set-Cookie: a=1",
      "set-cookie: b=2",
      "Set-Cookie: c=3, d",
      "X-Z: \xe9",
      "X-Request-Id: *",
      "Content-Length: 2",
      "Connection: close",
    ]);
  });

  test("what belongs to the upstream's connection, and x-gatehouse-* of its making, is removed", async () => {
    under.upstream.respond = (_, write) =>
      write(
        "HTTP/1.1 200 OK\r\nConnection: close, X-One\r\nX-One: 1\r\nKeep-Alive: timeout=5\r\nUpgrade: h2c\r\nTrailer: a\r\n" +
          "Proxy-Authenticate: Basic\r\nX-Gatehouse-Reason: no_credential\r\nx-GATEHOUSE-Anything: EVIL\r\n" +
          "X-Keep: yes\r\nContent-Length: 2\r\n\r\nok",
      );
    const answer = await ask("/public/x");
    expect(answer.text).toContain("\r\nX-Keep: yes\r\n");
    expect(answer.text).not.toMatch(/x-one|keep-alive|h2c|trailer|proxy-|x-gatehouse|evil/i);
  });

  test("the upstream's own request id is kept, and there is one only", async () => {
    under.upstream.respond = (_, write) =>
      write("HTTP/1.1 200 OK\r\nx-request-id: req_upstream\r\nContent-Length: 2\r\n\r\nok");
    const answer = await ask("/public/x");
    expect(answer.text.match(/x-request-id: .*/gi)).toEqual(["x-request-id: req_upstream"]);
  });

  test.each([
    ["two lengths", "Content-Length: 2\r\nContent-Length: 3\r\n"],
    ["a length and chunks", "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n"],
    ["an unknown coding", "Transfer-Encoding: gzip, chunked\r\n"],
    ["a folded line", "X-A: b\r\n c\r\n"],
    ["a bare LF", "X-A: b\nX-B: c\r\n"],
    ["a bare CR", "X-A: b\rX-B: c\r\n"],
    ["a NUL", "X-A: b\0\r\n"],
    ["an empty name", ": b\r\n"],
  ])("%s in the upstream's head is 502, and nothing of it is shown", async (_, lines) => {
    under.upstream.respond = (_, write) =>
      write(`HTTP/1.1 200 OK\r\n${lines}X-Shown: no\r\n\r\nok`);
    const answer = await ask("/public/x");
    expect(answer.statuses).toEqual([502]);
    expect(answer.text).toContain("X-Gatehouse-Reason: upstream_broken");
    expect(answer.text).not.toContain("X-Shown");
  });
});

describeBoth("behind a trusted proxy", (start) => {
  const { under, ask, seen } = gatewayWith(start, ", trusted_proxies: [127.0.0.1, 10.0.0.0/8]");

  const clientAddress = async (): Promise<unknown> => {
    const id = valuesOf(seen(), "x-request-id")[0];
    const access = () => under.gateway.events("http.access").find((one) => one.request_id === id);
    await eventually("the request is logged", () => access() !== undefined);
    return access()?.client_ip;
  };

  test.each([
    ["one address", "X-Forwarded-For: 192.0.2.1\r\n", "192.0.2.1"],
    ["an invented one on the left", "X-Forwarded-For: 198.51.100.9, 192.0.2.1\r\n", "192.0.2.1"],
    [
      "trusted hops on the right",
      "X-Forwarded-For: 198.51.100.9, 192.0.2.1, 10.1.1.1\r\n",
      "192.0.2.1",
    ],
    [
      "hops over several lines",
      "X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-For: 10.1.1.1\r\n",
      "192.0.2.1",
    ],
    ["nothing but trusted hops", "X-Forwarded-For: 10.2.2.2, 10.1.1.1\r\n", "10.2.2.2"],
    ["an IPv6 address", "X-Forwarded-For: 2001:db8::1\r\n", "2001:db8::1"],
    ["an IPv4 address in IPv6 clothes", "X-Forwarded-For: ::ffff:192.0.2.1\r\n", "192.0.2.1"],
    ["no address", "X-Forwarded-For: unknown\r\n", "127.0.0.1"],
    [
      "rubbish to the left of a trusted hop",
      "X-Forwarded-For: 1.2.3.4'--, 10.1.1.1\r\n",
      "10.1.1.1",
    ],
    ["nothing at all", "", "127.0.0.1"],
    [
      "Forwarded and X-Real-IP, which are not read",
      "Forwarded: for=192.0.2.7\r\nX-Real-IP: 192.0.2.8\r\n",
      "127.0.0.1",
    ],
  ])("the client is found from the right: %s", async (_, lines, expected) => {
    await ask("/public/x", lines);
    expect(await clientAddress()).toBe(expected);
  });

  test("the chain is passed on with the peer at its end", async () => {
    await ask("/public/x", "X-Forwarded-For: 192.0.2.1, 10.1.1.1\r\n");
    expect(valuesOf(seen(), "x-forwarded-for")).toEqual(["192.0.2.1, 10.1.1.1, 127.0.0.1"]);
  });

  test.each([
    [
      "one value each",
      "X-Forwarded-Proto: https\r\nX-Forwarded-Host: b.example.com\r\n",
      ["https", "b.example.com"],
    ],
    [
      "two lines",
      "X-Forwarded-Host: b\r\nX-Forwarded-Host: c\r\nX-Forwarded-Proto: https\r\n",
      ["https", "a"],
    ],
    [
      "two values in a line",
      "X-Forwarded-Host: b, c\r\nX-Forwarded-Proto: https, http\r\n",
      ["http", "a"],
    ],
    ["no host at all", "X-Forwarded-Host: b/c\r\nX-Forwarded-Proto: gopher\r\n", ["http", "a"]],
  ])("host and scheme are believed when there is one opinion: %s", async (_, lines, expected) => {
    await ask("/public/x", lines);
    const told = [
      ...valuesOf(seen(), "x-forwarded-proto"),
      ...valuesOf(seen(), "x-forwarded-host"),
    ];
    expect(told).toEqual(expected);
  });

  test.each([
    ["one", "X-Request-Id: Req_1.a:b-2\r\n", "Req_1.a:b-2"],
    ["two", "X-Request-Id: one\r\nX-Request-Id: two\r\n", null],
    ["an empty one", "X-Request-Id:\r\n", null],
    ["one with blanks", "X-Request-Id: a b\r\n", null],
    ["one with quotes", 'X-Request-Id: a"b\r\n', null],
    ["one of 129 characters", `X-Request-Id: ${"a".repeat(129)}\r\n`, null],
  ])("its request id is taken when it is one and harmless: %s", async (_, lines, expected) => {
    await ask("/public/x", lines);
    const ids = valuesOf(seen(), "x-request-id");
    expect(ids.length).toBe(1);
    if (expected === null) expect(ids[0]).toMatch(UUID);
    else expect(ids).toEqual([expected]);
  });

  test("identity and rerouting headers are not believed even so", async () => {
    const names = [
      "X-Gatehouse-Identity",
      "X-Forwarded-User",
      "X-Forwarded-Uri",
      "X-Original-URL",
      "Forwarded",
    ];
    await ask("/public/x", names.map((name) => `${name}: EVIL\r\n`).join(""));
    expect(seen().head).not.toContain("EVIL");
  });
});
