/** What presets have in common, and what they make of an environment. What they let through is in test/scenarios/. */
import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { z } from "zod";
import { problemsOf } from "../../test/support/config.ts";
import { parseYaml } from "../config/yaml.ts";
import { PRESETS } from "./list.ts";
import type { ServeDocument } from "./preset.ts";

const DOCS = readFileSync(join(import.meta.dir, "../../docs/presets.md"), "utf8");

/** Presets that guard what people run; routstrd has tests and a document of its own. */
const GUARDS = PRESETS.filter(({ usual }) => usual !== undefined);

function served(
  name: string,
  env: Record<string, string> = {},
  flags: Record<string, string> = {},
): ServeDocument {
  const made = PRESETS.find((preset) => preset.name === name)?.serve?.({ env, cwd: "/", flags });
  if (made === undefined) throw new Error(`${name} does not serve`);
  return made;
}

/** One value of the document, by path. */
function at(made: ServeDocument, ...path: (string | number)[]): unknown {
  if ("problems" in made) throw new Error(made.problems.join("\n"));
  return path.reduce<unknown>(
    (part, key) => (part as Record<string | number, unknown> | undefined)?.[key],
    made.document,
  );
}

describe("every preset", () => {
  test("has a name of its own and a description", () => {
    const names = PRESETS.map(({ name }) => name);
    expect(new Set(names).size).toBe(names.length);
    expect(names.every((name) => /^[a-z][a-z-]+$/.test(name))).toBe(true);
    expect(PRESETS.filter(({ description }) => description === "")).toEqual([]);
  });

  test("describes each option, and says what happens without it", () => {
    const silent = PRESETS.flatMap(({ name, options }) => {
      const { properties = {}, required = [] } = z.toJSONSchema(options, { io: "input" });
      return Object.entries(properties).flatMap(([key, property]) => {
        const said = typeof property === "object" ? (property.description ?? "") : "";
        const isComplete = said !== "" && (required.includes(key) || said.includes("Default"));
        return isComplete ? [] : [`${name}.${key}`];
      });
    });
    expect(silent).toEqual([]);
  });

  test("refuses an option that it does not know", () => {
    const loose = PRESETS.filter(({ options }) => options.safeParse({ surprise: 1 }).success);
    expect(loose).toEqual([]);
  });

  test("ends in a route for every path, and opens nothing that is not named", () => {
    for (const { name, routes } of GUARDS) {
      const made = routes({ upstream: "api", access: ["team"] });
      expect([name, made.at(-1)?.match, made.at(-1)?.access]).toEqual([
        name,
        { path: ["/**"] },
        ["team"],
      ]);
      const open = made.filter(({ access }) => access === "public");
      expect(open.filter(({ match }) => !(match as { methods?: unknown }).methods)).toEqual([]);
    }
  });

  test("is for one host where that is asked for", () => {
    for (const { routes } of GUARDS) {
      const made = routes({ upstream: "api", access: ["team"], host: "a.example.com" });
      const hosts = made.map(({ match }) => (match as { host?: unknown }).host);
      expect(new Set(hosts)).toEqual(new Set(["a.example.com"]));
    }
  });
});

describe("behind a proxy that asks and forwards by itself", () => {
  const configWith = (more: object) =>
    GUARDS.map(({ name }) => ({
      name,
      text: JSON.stringify({
        version: 1,
        server: { trusted_proxies: ["127.0.0.1/32"] },
        strategies: { team: { use: "plain" } },
        routes: [
          { match: { path: "/auth/nginx" }, check: "nginx" },
          { preset: name, with: { upstream: "proxy", access: ["team"], ...more } },
        ],
      }),
    }));

  test("every preset judges requests, and says nothing of forwarding", async () => {
    for (const { name, text } of configWith({})) {
      expect([name, await problemsOf(text)]).toEqual([name, []]);
    }
  });

  test("an option that could not hold there is a problem", async () => {
    for (const { name, text } of configWith({ origins: ["https://app.example.com"] })) {
      const [problem] = await problemsOf(text);
      expect([name, problem]).toEqual([name, expect.stringContaining("cannot have any effect")]);
    }
  });
});

describe("docs/presets.md", () => {
  const section = (name: string) =>
    DOCS.split(/^## /m).find((one) => one.startsWith(`\`${name}\``));

  test("has a section for each, which names every option of its own", () => {
    const shared = new Set(["upstream", "access", "host", "origins", "models", "unlisted"]);
    const missing = GUARDS.flatMap(({ name, options }) =>
      Object.keys(options.shape)
        .filter((key) => !(shared.has(key) ? DOCS : (section(name) ?? "")).includes(`\`${key}`))
        .map((key) => `${name}.${key}`),
    );
    expect(missing).toEqual([]);
  });

  test("shows for each a config whose options it takes", () => {
    for (const { name, options } of GUARDS) {
      const [, shown = ""] = /```yaml\n([\s\S]*?)```/.exec(section(name) ?? "") ?? [];
      const { value, problems } = parseYaml(shown);
      expect([name, problems]).toEqual([name, []]);
      const { routes = [] } = value as { routes?: { preset: string; with: unknown }[] };
      expect([name, routes.map(({ preset }) => preset)]).toEqual([name, [name]]);
      expect(options.safeParse(routes[0]?.with).error).toBeUndefined();
    }
  });
});

describe("serve --preset", () => {
  test("listens on loopback unless it is told otherwise", () => {
    for (const { name } of GUARDS) {
      expect(at(served(name), "server", "listen")).toBe("127.0.0.1:8008");
    }
    expect(at(served("vllm", {}, { host: "::1", port: "99" }), "server", "listen")).toBe(
      "[::1]:99",
    );
  });

  test("never puts the value of a variable into the document", () => {
    const env = Object.fromEntries(
      GUARDS.flatMap(({ usual }) => (usual?.key === undefined ? [] : [[usual.key.env, "canary"]])),
    );
    expect(Object.keys(env).length).toBeGreaterThan(4);
    for (const { name } of GUARDS) {
      expect(JSON.stringify(served(name, env))).not.toContain("canary");
    }
  });

  test.each([
    [undefined, "http://127.0.0.1:11434"],
    ["", "http://127.0.0.1:11434"],
    ["0.0.0.0", "http://127.0.0.1:11434"],
    ["0.0.0.0:5000", "http://127.0.0.1:5000"],
    [":5000", "http://127.0.0.1:5000"],
    ["[::]:5000", "http://127.0.0.1:5000"],
    ["[::1]", "http://[::1]:11434"],
    ["gpu.example", "http://gpu.example:11434"],
    ["10.0.0.7:80", "http://10.0.0.7:80"],
    ["https://gpu.example", "https://gpu.example"],
    ["http://gpu.example:1234/", "http://gpu.example:1234"],
    [' "127.0.0.1:9" ', "http://127.0.0.1:9"],
  ])("OLLAMA_HOST=%s is %s", (host, url) => {
    const env = host === undefined ? {} : { OLLAMA_HOST: host };
    expect(at(served("ollama", env), "upstreams", "ollama", "url")).toBe(url);
  });

  test("a flag wins over the environment", () => {
    const made = served("ollama", { OLLAMA_HOST: "gpu" }, { upstream: "http://127.0.0.1:1" });
    expect(at(made, "upstreams", "ollama", "url")).toBe("http://127.0.0.1:1");
  });

  test("a key that a server may lack is set upstream only when there is one", () => {
    expect(at(served("vllm", { VLLM_API_KEY: " " }), "upstreams", "vllm")).toEqual({
      url: "http://127.0.0.1:8000",
    });
    expect(at(served("vllm", { VLLM_API_KEY: "x" }), "upstreams", "vllm", "headers")).toEqual({
      authorization: "Bearer ${env:VLLM_API_KEY}",
    });
    expect(at(served("anthropic"), "upstreams", "anthropic", "headers")).toEqual({
      "x-api-key": "${env:ANTHROPIC_API_KEY}",
    });
  });

  test("Authsome's tokens travel in a header of their own, to the port that it was given", () => {
    const made = served("authsome", { AUTHSOME_PORT: "8123" });
    expect(at(made, "strategies", "team")).toEqual({
      use: "bearer-sqlite",
      header: "x-gatehouse-key",
      authorization: false,
    });
    expect(at(made, "upstreams", "authsome", "url")).toBe("http://127.0.0.1:8123");
    expect(at(served("authsome", { AUTHSOME_PORT: "x" }), "upstreams", "authsome", "url")).toBe(
      "http://127.0.0.1:7998",
    );
  });

  test("Dexto's origins and port are its own variables", () => {
    const made = served("dexto", {
      PORT: "3000",
      DEXTO_ALLOWED_ORIGINS: " https://a.example.com,, https://b.example.com ",
      DEXTO_BASE_URL: "https://agent.example.com",
    });
    expect(at(made, "upstreams", "dexto", "url")).toBe("http://127.0.0.1:3000");
    expect(at(made, "routes", 0, "with", "origins")).toEqual([
      "https://a.example.com",
      "https://b.example.com",
    ]);
    expect(at(made, "routes", 0, "with", "access")).toEqual(["key", "team"]);
    expect("notes" in made && made.notes).toEqual([]);
  });

  test("anvil's own /healthz is not answered here", () => {
    expect(at(served("anvil"), "server", "health_path")).toBeNull();
  });

  test("a flag that means nothing to a preset is a problem, in each of them", () => {
    for (const { name } of PRESETS) {
      const flag = name === "anvil" ? "db-path" : "auth-env";
      expect(served(name, {}, { [flag]: "X" })).toEqual({
        problems: [`--${flag} means nothing to the preset ${name}; leave it out`],
      });
    }
  });
});
