/** docs/oidc.md beside the code: its configurations are accepted, its table and its list of reasons are complete. */
import { expect, test } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { parse } from "yaml";
import { loadConfig } from "../../src/config/load.ts";
import { pluginLoader } from "../../src/loader.ts";
import { bundledPlugins } from "../../src/registry.ts";
import plugin from "./index.ts";

const page = readFileSync(join(import.meta.dir, "../../docs/oidc.md"), "utf8");
const blocks = [...page.matchAll(/```yaml\n([\s\S]*?)```/g)].map(([, text]) => text ?? "");

test("the first configuration is a whole one that starts", async () => {
  const loadPlugin = pluginLoader(bundledPlugins);
  const options = { file: null, cwd: "/nonexistent", env: {}, loadPlugin };
  const { config, issues } = await loadConfig({ ...options, text: blocks[0] ?? "" });
  expect(issues).toEqual([]);
  expect(config?.strategies.map(({ use }) => use)).toEqual(["oidc"]);
});

test("each recipe is accepted", () => {
  expect(blocks.length).toBeGreaterThan(3);
  for (const block of blocks.slice(1)) {
    const { use, ...config } = (parse(block) as { login: Record<string, unknown> }).login;
    expect(use).toBe("oidc");
    expect(plugin.config.safeParse(config).error).toBeUndefined();
  }
});

test("every setting is in the table, with its default", () => {
  for (const [key, field] of Object.entries(plugin.config.shape)) {
    const row = page.split("\n").find((line) => line.startsWith(`| \`${key}\` |`));
    const { data } = field.safeParse(undefined);
    const isPlain = typeof data === "string" || typeof data === "boolean";
    expect(row).toStartWith(isPlain ? `| \`${key}\` | \`${data}\` |` : `| \`${key}\` | `);
  }
});

test("every reason that the log may give, and every condition, is on the page", () => {
  const source = ["verify.ts", "key-ring.ts", "strategy.ts"]
    .map((name) => readFileSync(join(import.meta.dir, name), "utf8"))
    .join("\n");
  expect(readdirSync(import.meta.dir)).toContain("verify.ts");
  const whys = [...source.matchAll(/\bflaw\(\s*"(\w+)"/g)].map(([, why]) => why);
  const codes = [...source.matchAll(/(?:\bsay\(|\bcode: )"(\w+)"/g)].map(([, code]) => code);
  expect(new Set(whys).size).toBeGreaterThan(14);
  expect(new Set(codes).size).toBeGreaterThan(6);
  for (const name of [...whys, ...codes]) expect(page).toContain(`\`${name}\``);
});
