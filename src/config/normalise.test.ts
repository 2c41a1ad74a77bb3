/** What comes out: base units, absolute paths, presets spelled out. */
import { describe, expect, test } from "bun:test";
import { document, loadFine, problemsOf } from "../../test/support/config.ts";

test("a minimal document gets every default", async () => {
  expect(await loadFine(document(), { cwd: "/etc/gatehouse" })).toEqual({
    file: null,
    configDir: "/etc/gatehouse",
    stateDir: "/etc/gatehouse/state",
    shared: null,
    server: {
      listen: [{ kind: "tcp", host: "127.0.0.1", port: 8008 }],
      tls: [],
      publicUrls: [],
      trustedProxies: [],
      healthPath: "/healthz",
      drainMs: 30_000,
      limits: {
        headBytes: 16_384,
        headTimeoutMs: 10_000,
        keepAliveMs: 75_000,
        bodyTimeoutMs: 30_000,
        bodyMinBytesPerSecond: 500,
        sendTimeoutMs: 60_000,
        maxConnections: 10_000,
      },
    },
    strategies: [{ name: "team", use: "plain", sha256: null, settings: {} }],
    upstreams: [],
    logging: { level: "info", access: true, format: "auto" },
    routes: [
      {
        index: 0,
        hosts: [],
        paths: ["/**"],
        methods: [],
        access: ["team"],
        requireRole: null,
        requireScopes: [],
        upstream: null,
        isProxied: false,
        check: null,
        surface: null,
        isAnonymous: false,
        refusedSchemes: [],
        models: null,
        slashes: "merge",
        forwardCredential: false,
        identityHeaders: {
          identity: "x-gatehouse-identity",
          strategy: "x-gatehouse-strategy",
          name: "x-gatehouse-name",
          role: "x-gatehouse-role",
        },
        attributeHeaders: [],
        responseHeaders: [],
        cors: null,
        errors: "auto",
        maxBodyBytes: 104_857_600,
        holdsChunked: false,
        tellsClient: true,
      },
    ],
  });
});

test("an upstream is taken apart, its deadlines in milliseconds and its header names in lower case", async () => {
  const { upstreams } = await loadFine(
    document(`upstreams:
  api:
    url: https://api.example.com/v1/
    timeouts: { connect: 500ms, response: none, idle: 5m }
    headers: { X-Team: blue, Authorization: "Bearer \${env:KEY}" }
    host: preserve
    max_body: none`),
    { env: { KEY: "canary" } },
  );
  expect(upstreams).toEqual([
    {
      name: "api",
      target: { kind: "tcp", tls: true, host: "api.example.com", port: 443 },
      authority: "api.example.com",
      basePath: "/v1",
      connectMs: 500,
      responseMs: null,
      idleMs: 300_000,
      headers: [
        ["x-team", "blue"],
        ["authorization", "Bearer ${env:KEY}"],
      ],
      hostHeader: "preserve",
      maxBodyBytes: null,
      ca: null,
    },
  ]);
});

describe("a route's largest body", () => {
  const UPSTREAMS =
    "upstreams: { a: { url: http://x, max_body: 1MiB }, b: { url: http://x, max_body: none } }";
  test.each([
    ["", 104_857_600],
    ["upstream: a", 1_048_576],
    ["upstream: b", null],
    ["upstream: a, max_body: 5B", 5],
    ["upstream: a, max_body: none", null],
    ["upstream: b, max_body: 1kB", 1000],
  ])("with %j is %p", async (line, expected) => {
    const route = `  - { match: { path: /x }, access: public${line === "" ? "" : `, ${line}`} }`;
    expect((await loadFine(document(UPSTREAMS, route))).routes[0]?.maxBodyBytes).toBe(expected);
  });
});

describe("identity headers", () => {
  test.each([
    ["remote", { identity: "remote-user", name: "remote-name", role: "remote-groups" }],
    ["forwarded", { identity: "x-forwarded-user", role: "x-forwarded-groups" }],
    ["none", {}],
    ["{ owner: X-Owner, scopes: X-Scopes }", { owner: "x-owner", scopes: "x-scopes" }],
  ])("%s becomes %j", async (written, expected) => {
    const route = `  - { match: { path: /x }, access: [team], identity_headers: ${written} }`;
    expect((await loadFine(document("", route))).routes[0]?.identityHeaders).toEqual(expected);
  });
});

test("a route is normalised with its hosts, methods, policy and cross-origin rules", async () => {
  const route = `  - match: { host: [A.Example.com., "*.b.example.com"], path: [/a, /b/**], methods: [GET] }
    access: [team]
    require: { role: admin, scopes: [read, write] }
    slashes: keep
    forward_credential: true
    errors: openai
    cors: { origins: [https://app.example.com], headers: [X-Own], max_age: 90s }`;
  const { routes } = await loadFine(document("", route));
  expect(routes[0]).toMatchObject({
    hosts: ["a.example.com", "*.b.example.com"],
    paths: ["/a", "/b/**"],
    methods: ["GET"],
    requireRole: "admin",
    requireScopes: ["read", "write"],
    slashes: "keep",
    forwardCredential: true,
    errors: "openai",
    cors: {
      origins: ["https://app.example.com"],
      headers: ["x-own"],
      expose: [],
      maxAgeSeconds: 90,
    },
  });
});

test("the server's lists may be written as one value", async () => {
  const one = await loadFine(document("server: { listen: ':80', public_url: https://a.x/ }"));
  const many = await loadFine(document("server: { listen: [':80'], public_url: [https://a.x] }"));
  expect(one.server).toEqual(many.server);
  expect(one.server.publicUrls).toEqual(["https://a.x"]);
});

test("trusted proxies become networks", async () => {
  const line = "server: { trusted_proxies: [10.0.0.0/8, ::1, unix] }";
  expect((await loadFine(document(line))).server.trustedProxies).toEqual([
    { kind: "cidr", text: "10.0.0.0/8" },
    { kind: "cidr", text: "::1/128" },
    { kind: "unix" },
  ]);
});

test.each([
  ["server: { drain: 0s }", []],
  [
    "server: { limits: { head_timeout: 0s } }",
    ["server.limits.head_timeout: expected more than zero"],
  ],
  ["server: { drain: 25d }", ["server.drain: expected at most 24d"]],
  [
    "upstreams: { a: { url: http://x, timeouts: { response: 30d } } }",
    ["upstreams.a.timeouts.response: expected at most 24d"],
  ],
  [
    "server: { trusted_proxies: [0.0.0.0/0] }",
    ["server.trusted_proxies[0]: this trusts every client to say who it is"],
  ],
  [
    "server: { trusted_proxies: [0.0.0.0/1, 128.0.0.0/1] }",
    [
      "server.trusted_proxies[0]: this trusts every client to say who it is",
      "server.trusted_proxies[1]: this trusts every client to say who it is",
    ],
  ],
  [
    "server: { public_url: [https://a.x, b.x] }",
    ["server.public_url[1]: expected http://host:port or https://host"],
  ],
  ["server: { health_path: /** }", ["server.health_path: expected one path, without *"]],
  [
    "server: { health_path: /a//b }",
    ["server.health_path: a path pattern has no empty segment (//)"],
  ],
])("%s has the problems %j", async (line, problems) => {
  expect(await problemsOf(document(line))).toEqual(problems);
});
