/** Surfaces that routes name, against what the plugins say they have. */
import { describe, expect, test } from "bun:test";
import { definePlugin, type Offers, type Plugin, z } from "gatehouse";
import { loadConfig } from "./load.ts";

function plugin(name: string, offers?: Offers): Plugin {
  return definePlugin({
    name,
    contract: 1,
    config: z.strictObject({}),
    init: () => ({ authenticate: () => ({ outcome: "absent" }) }),
    ...(offers === undefined ? {} : { offers }),
  });
}

const PLUGINS = [
  plugin("keeper", { tokens: true, surfaces: ["page"] }),
  plugin("login", { tokens: false, surfaces: [] }),
  plugin("silent"),
];

/** Each issue of a config with these routes as `path: message | hint`. */
async function problems(routes: readonly string[], strategies = ["keeper", "login", "silent"]) {
  const text = `version: 1
strategies: { ${strategies.map((name) => `${name}: { use: ${name} }`).join(", ")} }
routes: [${routes.map((route) => `{ ${route} }`).join(", ")}]
`;
  const { issues } = await loadConfig({
    file: null,
    text,
    cwd: "/nonexistent/gatehouse",
    env: {},
    loadPlugin: async (use) => {
      const found = PLUGINS.find(({ name }) => name === use);
      if (found === undefined) throw new Error(`there is no plugin ${use}`);
      return found;
    },
  });
  return issues.map(({ path, message, hint }) => `${path}: ${message} | ${hint}`);
}

const API = "match: { path: /api/** }, access: [login], surface: keeper.tokens";

describe("surfaces", () => {
  test("of our own and of the strategy are fine", async () => {
    const fine = [
      API,
      "match: { path: /docs }, access: public, surface: keeper.docs",
      "match: { path: /health/** }, access: public, surface: login.health",
      "match: { path: /page }, access: [login], surface: keeper.page",
    ];
    expect(await problems(fine)).toEqual([]);
  });

  test("of tokens need a strategy that keeps some", async () => {
    const route = "match: { path: /api/** }, access: [login], surface: login.tokens";
    expect(await problems([route])).toEqual([
      "routes[0].surface: strategy `login` (login) keeps no tokens, so there is no `login.tokens` | name one that does: keeper",
    ]);
    expect(await problems([route], ["login"])).toEqual([
      "routes[0].surface: strategy `login` (login) keeps no tokens, so there is no `login.tokens` | add a strategy that does, for instance one with `use: bearer-sqlite`",
    ]);
    const docs = "match: { path: /docs }, access: public, surface: login.docs";
    expect((await problems([docs]))[0]).toContain("`login` (login) keeps no tokens");
  });

  test("that do not exist are refused with the near one", async () => {
    const of = (surface: string) =>
      problems([`match: { path: /x }, access: [login], surface: ${surface}`]);
    expect(await of("keeper.token")).toEqual([
      "routes[0].surface: strategy `keeper` has no surface `token` | did you mean `tokens`?",
    ]);
    expect(await of("keeper.pag")).toEqual([
      "routes[0].surface: strategy `keeper` has no surface `pag` | did you mean `page`?",
    ]);
    expect(await of("login.other")).toEqual([
      "routes[0].surface: strategy `login` has no surface `other` | there is health",
    ]);
    expect(await of("login.constructor")).toHaveLength(1);
  });

  test("of a plugin that does not say what it offers are left to the start", async () => {
    const of = (name: string) =>
      problems([`match: { path: /x }, access: public, surface: silent.${name}`]);
    expect(await of("anything")).toEqual([]);
    expect(await of("tokens")).toEqual([]);
  });

  test("of tokens are not public, and documentation needs something to document", async () => {
    expect(
      await problems(["match: { path: /api/** }, access: public, surface: keeper.tokens"]),
    ).toEqual([
      "routes[0].surface: the token API has to know who asks, and a public route asks nobody | list the strategies that people log in with in access",
    ]);
    expect(
      await problems(["match: { path: /docs }, access: public, surface: keeper.docs"]),
    ).toEqual([
      "routes[0].surface: there is nothing to document: no route has `surface: keeper.tokens` | add that route, or remove this one",
    ]);
  });
});

describe("the surface of the gateway's own", () => {
  const route = (surface: string, more = "") =>
    `match: { path: /metrics }, access: [login], surface: ${surface}${more}`;
  const STANDS_ALONE =
    "did you mean `surface: metrics`? It belongs to no strategy and stands alone";

  test("is named without a strategy, for whom the route says", async () => {
    const open = "match: { path: /open }, access: public, surface: metrics";
    expect(await problems([route("metrics"), open])).toEqual([]);
    expect(await problems([open], [])).toEqual([]);
  });

  test.each([
    ["metric", "expected STRATEGY.NAME, such as nostr.npubs, or metrics | did you mean `metrics`?"],
    [
      "Metrics",
      "expected STRATEGY.NAME, such as nostr.npubs, or metrics | did you mean `metrics`?",
    ],
    ["metrics.health", `unknown strategy \`metrics\` | ${STANDS_ALONE}`],
    ["keeper.metrics", `strategy \`keeper\` has no surface \`metrics\` | ${STANDS_ALONE}`],
    ["login.metric", `strategy \`login\` has no surface \`metric\` | ${STANDS_ALONE}`],
  ])("mistyped as %s is refused with how it is written", async (surface, problem) => {
    expect(await problems([route(surface)])).toEqual([`routes[0].surface: ${problem}`]);
  });

  test("keeps its name for itself", async () => {
    const text = route("metrics").replace("[login]", "[metrics]");
    const { issues } = await loadConfig({
      file: null,
      text: `version: 1\nstrategies: { metrics: { use: login } }\nroutes: [{ ${text} }]\n`,
      cwd: "/nonexistent/gatehouse",
      env: {},
      loadPlugin: async () => plugin("login", { tokens: false, surfaces: [] }),
    });
    expect(issues.map(({ path, message, hint }) => `${path}: ${message} | ${hint}`)).toEqual([
      "strategies.metrics: this name stands for the gateway's own numbers (`surface: metrics`) | choose another name, for instance scraper",
    ]);
  });

  test("does not decide about those whom no strategy accepted", async () => {
    expect(await problems([route("metrics", ", anonymous: true")])).toEqual([
      "routes[0].anonymous: the metrics decide about nobody: who was not accepted does not read them | remove it, or write access: public",
    ]);
  });

  test("stands in no question of a proxy", async () => {
    const check = "match: { path: /auth }, access: [login], check: generic, surface: metrics";
    expect((await problems([check])).join()).toContain("a route with check forwards nothing");
  });

  test.each([
    ["127.0.0.1:8008", "public", false],
    ["[::1]:8008", "public", false],
    ["unix:/run/gatehouse.sock", "public", false],
    [":8008", "[login]", false],
    [":8008", "public", true],
    ["10.0.0.1:8008", "public", true],
  ])("is allowed on %s with access %s, with a note: %p", async (listen, access, isNoted) => {
    const { issues, notes } = await loadConfig({
      file: null,
      text: `version: 1
server: { listen: "${listen}" }
strategies: { login: { use: login } }
routes: [{ match: { path: /metrics }, access: ${access}, surface: metrics }]
`,
      cwd: "/nonexistent/gatehouse",
      env: {},
      loadPlugin: async () => plugin("login", { tokens: false, surfaces: [] }),
    });
    expect(issues).toEqual([]);
    expect(notes.map((note) => note.slice(0, 34))).toEqual(
      isNoted ? ["routes[0]: the metrics are public,"] : [],
    );
  });
});
