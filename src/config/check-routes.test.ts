/** Routes: names, options that contradict each other, and routes that can never match. */
import { describe, expect, test } from "bun:test";
import { document, loadText, problemsOf } from "../../test/support/config.ts";

function withRoutes(...routes: string[]): string {
  const lines = routes.map((route) => `  - { ${route} }`).join("\n");
  return `version: 1
strategies: { team: { use: plain }, ops: { use: plain } }
upstreams: { api: { url: http://127.0.0.1:9000 } }
routes:
${lines}
`;
}

describe("a name", () => {
  test("of a strategy or upstream that does not exist is refused with the near one", async () => {
    const { issues } = await loadText(
      withRoutes("match: { path: / }, access: [ops, taem], upstream: apo"),
    );
    expect(issues).toEqual([
      {
        path: "routes[0].access[1]",
        line: 5,
        column: 41,
        message: "unknown strategy `taem`",
        hint: "did you mean `team`?",
      },
      {
        path: "routes[0].upstream",
        line: 5,
        column: 58,
        message: "unknown upstream `apo`",
        hint: "did you mean `api`?",
      },
    ]);
  });

  test("of nothing near is answered with what there is", async () => {
    const { issues } = await loadText(withRoutes("match: { path: / }, access: [valkey]"));
    expect(issues[0]?.hint).toBe("there is team, ops");
    const bare = "version: 1\nroutes: [{ match: { path: / }, access: [x], upstream: y }]";
    const { issues: none } = await loadText(bare);
    expect(none.map(({ hint }) => hint)).toEqual([
      "there are no strategies",
      "there are no upstreams",
    ]);
  });

  test("of a strategy or upstream that is itself broken is still known", async () => {
    const text = withRoutes("match: { path: / }, access: [team], upstream: api").replace(
      "url: http://127.0.0.1:9000",
      "url: ftp://x",
    );
    expect(await problemsOf(text)).toEqual([
      "upstreams.api.url: expected http://host:port or https://host",
    ]);
  });

  test("in access twice is refused; public in a list is explained", async () => {
    expect(await problemsOf(withRoutes("match: { path: / }, access: [team, team]"))).toEqual([
      "routes[0].access[1]: `team` is listed twice",
    ]);
    const { issues } = await loadText(withRoutes("match: { path: / }, access: [public]"));
    expect(issues[0]?.hint).toBe("a public route is written `access: public`");
  });

  test("that nothing uses is fine", async () => {
    expect(await problemsOf(withRoutes("match: { path: / }, access: [team]"))).toEqual([]);
  });
});

describe("a route", () => {
  test.each([
    ["/** before everything", ["path: /**"], "path: /v1/**", true],
    ["the same path twice", ["path: /v1"], "path: /v1", true],
    ["a wider path", ["path: /v1/**"], "path: /v1/models", true],
    ["a path that is only near", ["path: /v1/*"], "path: /v1/", false],
    ["a host against every host", ["path: /**, host: a.example.com"], "path: /x", false],
    ["every host against a host", ["path: /**"], "path: /x, host: a.example.com", true],
    [
      "a wildcard host",
      ['path: /**, host: "*.example.com"'],
      "path: /x, host: a.example.com",
      true,
    ],
    ["another host", ["path: /**, host: b.example.com"], "path: /x, host: a.example.com", false],
    ["one of two hosts", ["path: /**, host: b.x"], "path: /x, host: [a.x, b.x]", false],
    [
      "both hosts, one route each",
      ["path: /**, host: a.x", "path: /**, host: b.x"],
      "path: /x, host: [a.x, b.x]",
      true,
    ],
    ["a method against every method", ["path: /**, methods: [GET]"], "path: /x", false],
    ["every method against a method", ["path: /**"], "path: /x, methods: [GET]", true],
    [
      "all of its methods, one route each",
      ["path: /x, methods: [GET]", "path: /x, methods: [POST, PUT]"],
      "path: /x, methods: [GET, POST]",
      true,
    ],
    [
      "all but one of its methods",
      ["path: /x, methods: [GET]"],
      "path: /x, methods: [GET, POST]",
      false,
    ],
    ["all of its paths", ["path: [/a/**, /b]"], "path: [/a/x, /b]", true],
    ["all but one of its paths", ["path: [/a/**, /b]"], "path: [/a/x, /c]", false],
  ])("after %s: %j before %s makes it unreachable: %p", async (_name, before, match, expected) => {
    const routes = [...before, match].map((one) => `match: { ${one} }, access: [team]`);
    const names = before.map((_, index) => `routes[${index}]`).join(" and ");
    const verb = before.length === 1 ? "covers" : "cover";
    const problem = `routes[${before.length}].match: this route can never match: ${names} before it ${verb} everything it is for`;
    expect(await problemsOf(withRoutes(...routes))).toEqual(expected ? [problem] : []);
  });

  test("that looks at paths in another form is only covered by /**", async () => {
    const kept = "match: { path: /v1/** }, access: [team], slashes: keep";
    const merged = "match: { path: /v1/x }, access: [team]";
    expect(await problemsOf(withRoutes(kept, merged))).toEqual([]);
    expect(await problemsOf(withRoutes(kept.replace("/v1/**", "/**"), merged))).toHaveLength(1);
  });

  test("that is broken neither covers nor is covered", async () => {
    const broken = "match: { path: /**, host: 'a b' }, access: [team]";
    const problems = await problemsOf(withRoutes(broken, "match: { path: /x }, access: [team]"));
    expect(problems).toEqual([
      "routes[0].match.host: expected a host name such as a.example.com or *.example.com",
    ]);
  });

  test("on the path of health_path is fine", async () => {
    expect(await problemsOf(withRoutes("match: { path: /healthz }, access: public"))).toEqual([]);
  });

  test("that is public cannot require anything", async () => {
    const route = "match: { path: / }, access: public, require: { role: user }";
    expect(await problemsOf(withRoutes(route))).toEqual([
      "routes[0].require: a public route has no identity that could satisfy this",
    ]);
  });
});

describe("cors", () => {
  test.each([
    ["origins: ['*']", []],
    ["origins: [https://a.example.com, 'tauri://localhost', 'http://localhost:3000']", []],
    [
      "origins: ['*'], credentials: true",
      ["credentials: cookies cannot be allowed to every origin"],
    ],
    ["origins: ['*', https://a.x]", ["origins[0]: * stands alone"]],
    [
      "origins: [https://a.x/]",
      ["origins[0]: expected an exact origin in lower case, without a path"],
    ],
    ["origins: [a.x]", ["origins[0]: expected an exact origin in lower case, without a path"]],
    [
      "origins: ['https://*.x']",
      ["origins[0]: expected an exact origin in lower case, without a path"],
    ],
    ["origins: ['*'], methods: [get]", ["methods[0]: expected an upper-case method such as GET"]],
  ])("with %s has the problems %j", async (cors, problems) => {
    const route = `match: { path: / }, access: public, cors: { ${cors} }`;
    expect(await problemsOf(withRoutes(route))).toEqual(
      problems.map((problem) => `routes[0].cors.${problem}`),
    );
  });
});

test("identity headers need one header a fact, and none that belongs to the connection", async () => {
  const route =
    "match: { path: / }, access: [team], identity_headers: { identity: X-A, name: x-a, role: Host }";
  expect(await problemsOf(withRoutes(route))).toEqual([
    "routes[0].identity_headers.name: the same header as `identity`",
    "routes[0].identity_headers.role: this header belongs to the connection",
  ]);
});

test("a body that is held in memory needs a limit, the route's or its upstream's", async () => {
  const held = "match: { path: / }, access: [team], upstream: api, chunked_body: whole";
  const problem = "routes[0].chunked_body: a body that is held in memory needs a limit";
  expect(await problemsOf(withRoutes(held))).toEqual([]);
  expect(await problemsOf(withRoutes(`${held}, max_body: none`))).toEqual([problem]);
  const unlimited = withRoutes(held).replace("127.0.0.1:9000", "127.0.0.1:9000, max_body: none");
  expect(await problemsOf(unlimited)).toEqual([problem]);
  expect(await problemsOf(unlimited.replace("whole", "whole, max_body: 32MiB"))).toEqual([]);
  expect(await problemsOf(withRoutes(held.replace("[team]", "public")))).toEqual([
    "routes[0].chunked_body: anybody could fill the memory with bodies that are held",
  ]);
});

test("a document with a catch-all in the end has no problem", async () => {
  expect(await problemsOf(document())).toEqual([]);
});
