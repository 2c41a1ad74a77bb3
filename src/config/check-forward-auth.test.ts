/** Routes that answer a proxy's question: what they must and must not say. */
import { describe, expect, test } from "bun:test";
import { loadText, problemsOf } from "../../test/support/config.ts";

/** A config with these routes and a trusted proxy. */
function withRoutes(routes: readonly string[], server = "trusted_proxies: [127.0.0.1/32]"): string {
  return `version: 1
server: { ${server} }
strategies: { team: { use: plain } }
upstreams: { api: { url: "http://127.0.0.1:9000" } }
routes:
${routes.map((route) => `  - { ${route} }`).join("\n")}
`;
}

const ASK = "match: { path: /auth }, check: traefik";
const REST = "match: { path: /** }, access: [team], upstream: api";

describe("a route with check", () => {
  test.each([
    ["without access", ASK],
    ["with its own access", "match: { path: /auth }, access: [team], check: nginx"],
    ["with a status", "match: { path: /auth }, check: { proxy: caddy, allow_status: 204 }"],
    ["for envoy", "match: { path: /auth/envoy/** }, check: envoy"],
  ])("%s is fine", async (_, route) => {
    expect(await problemsOf(withRoutes([route, REST]))).toEqual([]);
  });

  test.each([
    ["upstream: api", "upstream"],
    ["surface: team.page", "surface"],
    ["models: { allow: [a] }", "models"],
    ["cors: { origins: ['*'] }", "cors"],
    ["response_headers: { x-a: b }", "response_headers"],
    ["max_body: 1MiB", "max_body"],
    ["forward_credential: true", "forward_credential"],
  ])("forwards nothing, so %s is refused", async (key, path) => {
    expect(await problemsOf(withRoutes([`${ASK}, ${key}`, REST]))).toEqual([
      `routes[0].${path}: a route with check forwards nothing`,
    ]);
  });

  test.each([
    ["require: { role: admin }", "require"],
    ["refuse: [basic]", "refuse"],
    ["identity_headers: remote", "identity_headers"],
  ])("without access leaves %s to the routes that judge", async (key, path) => {
    expect(await problemsOf(withRoutes([`${ASK}, ${key}`, REST]))).toEqual([
      `routes[0].${path}: without access the original request is judged by the other routes`,
    ]);
    const own = `match: { path: /auth }, access: [team], check: nginx, ${key}`;
    expect(await problemsOf(withRoutes([own, REST]))).toEqual([]);
  });

  test("cannot be public", async () => {
    const route = "match: { path: /auth }, access: public, check: traefik";
    expect(await problemsOf(withRoutes([route, REST]))).toEqual([
      "routes[0].access: a question that everybody may ask lets everybody pass",
    ]);
  });

  test("needs trusted proxies, but for own access to any proxy", async () => {
    const { issues } = await loadText(withRoutes([ASK, REST], "drain: 5s"));
    expect(issues.map(({ path, hint }) => [path, hint])).toEqual([
      [
        "routes[0].check",
        "write the proxy's address into server.trusted_proxies, such as [127.0.0.1/32]",
      ],
    ]);
    const own = "match: { path: /auth }, access: [team], check: generic";
    expect(await problemsOf(withRoutes([own, REST], "drain: 5s"))).toEqual([]);
  });

  test("comes before every route that could take the question", async () => {
    expect(await problemsOf(withRoutes([REST, ASK]))).toContain(
      "routes[1].match: routes[0] before it could take the proxy's question",
    );
    const elsewhere = REST.replace("path: /**", "path: /**, host: app.example.com");
    expect(await problemsOf(withRoutes([elsewhere, ASK]))).toEqual([
      "routes[1].match: routes[0] before it could take the proxy's question",
    ]);
  });

  test("without access needs another route to judge by", async () => {
    expect(await problemsOf(withRoutes([ASK]))).toEqual([
      "routes[0].check: there is no route that the original request could be judged by",
    ]);
  });

  test.each(["/healthz", "/**"])(
    "at %s is refused while the health path is there",
    async (path) => {
      const route = `match: { path: ${path} }, access: [team], check: nginx`;
      expect(await problemsOf(withRoutes([route]))).toEqual([
        "routes[0].match: server.health_path is below it, and would let a request pass",
      ]);
      const trusted = "trusted_proxies: [127.0.0.1/32]";
      expect(await problemsOf(withRoutes([route], `health_path: null, ${trusted}`))).toEqual([]);
    },
  );

  test("for envoy has a prefix, status 200, and the health path is elsewhere", async () => {
    for (const path of ["/**", "/auth", "/auth/*/**", "/*/**"]) {
      const problems = await problemsOf(
        withRoutes([
          `match: { path: ${path} }, check: envoy`,
          "match: { path: /x }, access: [team]",
        ]),
      );
      expect([path, problems.some((one) => one.includes("such as /auth/envoy/**"))]).toEqual([
        path,
        true,
      ]);
    }
    const status = "match: { path: /e/** }, check: { proxy: envoy, allow_status: 204 }";
    expect(await problemsOf(withRoutes([status, REST]))).toEqual([
      "routes[0].check: envoy lets a request pass only on status 200",
    ]);
    const health = "health_path: /e/live, trusted_proxies: [127.0.0.1/32]";
    expect(
      await problemsOf(withRoutes(["match: { path: /e/** }, check: envoy", REST], health)),
    ).toEqual(["routes[0].match: server.health_path is below it, and would let a request pass"]);
  });
});

describe("a route that the proxy in front serves", () => {
  test("says `upstream: proxy`, without keys that work while forwarding", async () => {
    const route = "match: { path: /** }, access: [team], upstream: proxy";
    expect(await problemsOf(withRoutes([ASK, route]))).toEqual([]);
    expect(
      await problemsOf(withRoutes([ASK, `${route}, models: { allow: [a] }, max_body: 1KiB`])),
    ).toEqual([
      "routes[1].models: the proxy in front forwards these requests, so this cannot have any effect",
      "routes[1].max_body: the proxy in front forwards these requests, so this cannot have any effect",
    ]);
  });

  test("an upstream cannot be called proxy", async () => {
    const text = withRoutes([REST.replace("api", "proxy")]).replace("{ api:", "{ proxy:");
    expect(await problemsOf(text)).toEqual([
      "upstreams.proxy: this name stands for the reverse proxy in front, which forwards by itself",
    ]);
  });
});

test("access may be left out only beside check", async () => {
  expect(await problemsOf(withRoutes(["match: { path: /** }, upstream: api"]))).toEqual([
    "routes[0].access: missing: expected public or a list of strategies",
  ]);
});
