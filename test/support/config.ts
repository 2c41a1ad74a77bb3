/**
 * Configurations in tests: real files in a real directory, loaded as the program loads them.
 *
 * Invariant: plugins are small and written here, so that these tests only change with the configuration.
 */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { definePlugin, type Plugin, parseDuration, secret, z } from "gatehouse";
import { type LoadedConfig, loadConfig } from "../../src/config/load.ts";
import type { GatewayConfig } from "../../src/config/model.ts";

/** A directory of its own; `remove` it. */
export interface TempDir {
  readonly path: string;
  /** Writes a file with mode 0600 unless told otherwise; gives its absolute path. */
  write(name: string, content: string | Uint8Array, mode?: number): string;
  remove(): void;
}

/** Makes a {@link TempDir}. */
export function tempDir(): TempDir {
  const path = mkdtempSync(join(tmpdir(), "gatehouse-config-"));
  return {
    path,
    write(name, content, mode = 0o600) {
      const file = join(path, name);
      mkdirSync(dirname(file), { recursive: true });
      writeFileSync(file, content, { mode });
      return file;
    },
    remove: () => rmSync(path, { recursive: true, force: true }),
  };
}

const instance = { authenticate: () => ({ outcome: "absent" }) as const };

/** A plugin with every kind of setting. */
export const sample: Plugin = definePlugin({
  name: "sample",
  contract: 1,
  config: z.strictObject({
    salt: secret("Mixed into every hash.").optional(),
    admins: z.array(secret("A secret of an admin.")).optional().describe("Secrets of admins."),
    mode: z.enum(["fast", "safe"]).default("safe").describe("How to look. Default safe."),
    tries: z.int().min(1).max(9).default(3).describe("How often, 1 to 9. Default 3."),
    strict: z.boolean().default(true).describe("Default true."),
    word: z
      .string()
      .regex(/^[a-z]+$/, { error: (issue) => `not a word: ${String(issue.input)}` })
      .optional()
      .describe("A word; its message repeats what it was given."),
    ttl: z
      .string()
      .default("30s")
      .transform((text) => parseDuration(text) ?? 0)
      .describe("How long. Default 30s."),
  }),
  init: () => instance,
});

/** A plugin without settings. */
export const plain: Plugin = definePlugin({
  name: "plain",
  contract: 1,
  config: z.strictObject({}),
  init: () => instance,
});

/** Knows `sample` and `plain` by name. */
export async function loadTestPlugin(use: string): Promise<Plugin> {
  const found = [sample, plain].find((plugin) => plugin.name === use);
  if (found === undefined) throw new Error(`there is no plugin ${use}`);
  return found;
}

/** What to load besides the text. */
export interface LoadText {
  readonly env?: Readonly<Record<string, string | undefined>>;
  readonly overrides?: Readonly<Record<string, string>>;
  readonly cwd?: string;
}

/** Loads a text as if it were a file in `cwd` (which need not exist). */
export function loadText(text: string, options: LoadText = {}): Promise<LoadedConfig> {
  return loadConfig({
    file: null,
    text,
    cwd: "/nonexistent/gatehouse",
    env: {},
    loadPlugin: loadTestPlugin,
    ...options,
  });
}

/** The smallest complete document, with lines put in front of its routes. */
export function document(lines = "", routes = ""): string {
  return `version: 1
strategies: { team: { use: plain } }
${lines}
routes:
${routes}
  - match: { path: /** }
    access: [team]
`;
}

/** Loads and expects no issues. */
export async function loadFine(text: string, options: LoadText = {}): Promise<GatewayConfig> {
  const { config, issues } = await loadText(text, options);
  if (config === null) throw new Error(JSON.stringify(issues, null, 2));
  return config;
}

/** Loads and gives each issue as `path: message`, in the order of the file. */
export async function problemsOf(text: string, options: LoadText = {}): Promise<string[]> {
  const { issues } = await loadText(text, options);
  return issues.map(({ path, message }) => (path === "" ? message : `${path}: ${message}`));
}
