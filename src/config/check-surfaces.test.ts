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
    expect(await of("login.metrics")).toEqual([
      "routes[0].surface: strategy `login` has no surface `metrics` | there is health",
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
