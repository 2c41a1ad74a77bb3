/** config.example.yaml: it starts as it is, every key is in it, and what is commented out is right. */
import { afterAll, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { z } from "gatehouse";
import { loadTestPlugin, plain, tempDir } from "../../test/support/config.ts";
import { A_KEY, GOOD_CERTIFICATE } from "../../test/support/tls-fixtures.ts";
import { bundledPlugins } from "../registry.ts";
import { loadConfig } from "./load.ts";
import { documentSchema } from "./schema.ts";
import { alternatives } from "./schema-walk.ts";

const EXAMPLE = join(import.meta.dir, "../../config.example.yaml");
const directory = tempDir();
afterAll(directory.remove);

/** Strategies have their own tests; here their settings are anything. */
const anything = { ...plain, config: z.looseObject({}) };
/** What the references in it lead to. */
const SECRETS = { API_KEY: "x", VALKEY_PASSWORD: "x", TOKEN_SALT: "5a".repeat(32) };
/** Their settings are parsed by themselves, below. */
const BUNDLED = ["bearer-sqlite", "static-env", "nip98", "valkey-hash", "oidc"];
const NAMES = [...BUNDLED, "./my-strategy.ts"];

function load(text: string, env: Record<string, string> = {}) {
  return loadConfig({
    file: join(directory.path, "config.example.yaml"),
    text,
    cwd: "/",
    env,
    loadPlugin: async (use) => (NAMES.includes(use) ? anything : loadTestPlugin(use)),
  });
}

/** Prose has exactly one space after `#`; whatever has none, or more, is a setting. */
function uncommented(): string {
  return readFileSync(EXAMPLE, "utf8").replace(/^( *)#(?! [^ ])(?=.)/gm, "$1");
}

test("the example is a configuration as it is, closed but for the tokens of team", async () => {
  const { config, issues } = await load(readFileSync(EXAMPLE, "utf8"));
  expect(issues).toEqual([]);
  expect(config?.server.listen).toEqual([{ kind: "tcp", host: "127.0.0.1", port: 8008 }]);
  expect(config?.routes.map(({ paths, access, upstream }) => [paths, access, upstream])).toEqual([
    [["/**"], ["team"], "api"],
  ]);
  expect(config?.strategies).toEqual([
    { name: "team", use: "bearer-sqlite", sha256: null, settings: {} },
  ]);
});

test("with every setting uncommented it is still a configuration", async () => {
  directory.write("tls/cert.pem", GOOD_CERTIFICATE);
  directory.write("tls/ca.pem", GOOD_CERTIFICATE);
  directory.write("tls/key.pem", A_KEY);
  const { issues } = await load(uncommented(), SECRETS);
  expect(issues).toEqual([]);
});

test("every key of the schema is in it", async () => {
  const { written } = await load(uncommented(), SECRETS);
  const missing = [...keyPaths(documentSchema, "")].filter(
    (path) => !present(written, path.split(".")),
  );
  expect(missing).toEqual([]);
});

test("the strategies that are shown are parts of the executable, with settings that they take", async () => {
  const { config } = await load(uncommented(), SECRETS);
  const shown = config?.strategies.filter(({ use }) => !use.startsWith("./")) ?? [];
  expect(shown.map(({ use }) => use).toSorted()).toEqual(BUNDLED.toSorted());
  for (const { use, settings } of shown) {
    const written = JSON.stringify(settings).replace("${env:TOKEN_SALT}", SECRETS.TOKEN_SALT);
    const parsed = bundledPlugins
      .find(({ name }) => name === use)
      ?.config.safeParse(JSON.parse(written));
    expect([use, parsed?.error?.issues ?? []]).toEqual([use, []]);
  }
});

test("the other two ways to a Valkey are shown, and right", async () => {
  const text = readFileSync(EXAMPLE, "utf8");
  for (const way of ["sentinel", "cluster"]) {
    const line = text.split("\n").find((one) => one.startsWith(`# ${way}:`)) ?? "";
    const routes = "routes: [{ match: { path: / }, access: public }]";
    const shared = `version: 1\nshared:\n  ${line.slice(2)}\n${routes}\n`;
    const { issues } = await load(shared, { SENTINEL_PASSWORD: "x" });
    expect(issues).toEqual([]);
  }
});

test("the first line points editors at the schema, and no line is longer than 120 characters", () => {
  const lines = readFileSync(EXAMPLE, "utf8").split("\n");
  expect(lines[0]).toStartWith("# yaml-language-server: $schema=");
  expect(lines.filter((line) => line.length > 120)).toEqual([]);
});

/** Every key of a schema; `*` stands for any name or position. */
function keyPaths(schema: z.core.$ZodType, prefix: string): Set<string> {
  const found = new Set<string>();
  for (const one of alternatives(schema)) {
    const children: [string, z.core.$ZodType][] =
      one instanceof z.ZodObject
        ? Object.entries(one.shape)
        : one instanceof z.ZodRecord
          ? [["*", one.valueType]]
          : one instanceof z.ZodArray
            ? [["*", one.element]]
            : [];
    for (const [key, child] of children) {
      const path = prefix === "" ? key : `${prefix}.${key}`;
      if (key !== "*" && !/^shared\.(sentinel|cluster)$/.test(path)) found.add(path);
      for (const inner of keyPaths(child, path)) {
        // One of the two ways to write TLS pairs is enough, and one of the three ways to a Valkey.
        if (!/^(server\.tls\.\*|shared\.(sentinel|cluster))\./.test(inner)) found.add(inner);
      }
    }
  }
  return found;
}

function present(value: unknown, [key, ...rest]: string[]): boolean {
  if (key === undefined) return true;
  if (typeof value !== "object" || value === null) return false;
  if (key === "*") return Object.values(value).some((one) => present(one, rest));
  return Object.entries(value).some(([name, one]) => name === key && present(one, rest));
}
