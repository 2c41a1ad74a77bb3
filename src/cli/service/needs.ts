/**
 * What a configuration needs of the machine it is served on: places, ports, credentials, variables.
 *
 * Invariant: the configuration is read as the service will read it, without the variables of the shell that installs
 * it; no secret is looked at.
 */
import { readFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { renderIssues } from "../../config/explain.ts";
import { type LoadedConfig, loadConfig } from "../../config/load.ts";
import type { GatewayConfig, ListenAddress } from "../../config/model.ts";
import { EXIT, errorCode, OperatorError } from "../../errors.ts";
import { isPath, pluginLoader } from "../../loader.ts";
import type { CliContext } from "../context.ts";
import { insideRoot, type ServiceInput, type Which } from "./input.ts";

/** Paths are absolute, lists are sorted and without repetition. */
export interface ServiceNeeds {
  readonly stateDir: string;
  readonly listen: readonly ListenAddress[];
  /** Names in `${cred:name}`, and in paths below /run/credentials/NAME.service. */
  readonly credentials: readonly string[];
  /** Some credential is named by its path, which is there only while the service runs. */
  readonly hasCredentialPaths: boolean;
  /** Names in `${env:NAME}` and in the setting `env` of a strategy. */
  readonly variables: readonly string[];
  /** Certificates, `${file:…}`, `${toml:…}`, plugin files and what settings of strategies name. */
  readonly files: readonly string[];
  /** Directories of databases that strategies share with other programs. */
  readonly databases: readonly string[];
  readonly drainMs: number;
  readonly strategyCount: number;
}

/** What `--environment-file` gives: `null` values are not known because the file may not be read here. */
export type ServiceEnv = Readonly<Record<string, string>>;

/** Settings of strategies that name a file, by convention of their names. */
const FILE_KEY = /(?:^|_)(?:file|ca|cert|root|dir|database)$/;

interface ReadOptions {
  readonly env: ServiceEnv;
  readonly depth: "full" | "shape";
  readonly root: string | null;
}

/**
 * @param depth `full` where the files that the service reads can be read now
 * @throws OperatorError with every problem of the configuration
 */
export async function readNeeds(
  context: CliContext,
  input: ServiceInput,
  { env, depth, root }: ReadOptions,
): Promise<ServiceNeeds> {
  const file = join(root ?? "/", input.config);
  const loaded = await loadConfig({
    file,
    cwd: dirname(file),
    env,
    loadPlugin: pluginLoader(context.plugins),
    depth,
  });
  if (loaded.config === null) {
    throw new OperatorError(EXIT.config, renderIssues(loaded.issues, file).trimEnd());
  }
  return needsOf(loaded.config, loaded.written, { name: input.name, root });
}

/** The needs of a configuration; `written` is its document, for the references in it. */
export function needsOf(
  config: GatewayConfig,
  written: LoadedConfig["written"],
  { name, root }: Pick<Which, "name" | "root">,
): ServiceNeeds {
  const { server, strategies, upstreams, configDir, stateDir } = config;
  const at = (path: string) => insideRoot(resolve(configDir, path), root);
  const references = referencesIn(written);
  const settings = [...strategies.map((one) => one.settings), sharedOf(written)].flatMap((one) =>
    settingsOf(one),
  );
  const named = settings.filter(({ key, text }) => isFileSetting(key, text));
  const files = [
    ...server.tls.flatMap(({ cert, key }) => [at(cert), at(key)]),
    ...upstreams.flatMap(({ ca }) => (ca === null ? [] : [at(ca)])),
    ...references.file.map(at),
    ...strategies.filter(({ use }) => isPath(use)).map(({ use }) => at(use)),
    ...named.map(({ text }) => at(text)),
  ];
  const held = `/run/credentials/${name}.service/`;
  const passed = files.filter((path) => path.startsWith(held));
  const databases = named.filter(({ key }) => /database$/.test(key)).map(({ text }) => at(text));
  const variables = settings.filter(({ key, text }) => key === "env" && /^\w+$/.test(text));
  return {
    stateDir: at(stateDir),
    listen: server.listen,
    credentials: sorted([...references.cred, ...passed.map((path) => path.slice(held.length))]),
    hasCredentialPaths: passed.length > 0,
    variables: sorted([...references.env, ...variables.map(({ text }) => text)]),
    files: sorted(files.filter((path) => !path.startsWith("/run/credentials/"))),
    databases: sorted(databases.map((path) => dirname(path))),
    drainMs: server.drainMs,
    strategyCount: strategies.length,
  };
}

/**
 * The variables that the service will have.
 * @throws OperatorError when the file cannot be read, or others can read it
 */
export function readServiceEnv(file: string | null): ServiceEnv {
  if (file === null) return {};
  let text: string;
  try {
    text = readFileSync(file, "utf8");
  } catch (error) {
    const code = errorCode(error) ?? "error";
    throw new OperatorError(
      code === "EACCES" ? EXIT.permission : EXIT.config,
      `--environment-file ${file} cannot be read (${code})`,
      code === "ENOENT" ? `Make it: install -m 600 /dev/null ${file}` : "Run this with sudo.",
    );
  }
  const lines = text.split("\n").flatMap((line) => {
    const match = /^\s*([A-Za-z_][A-Za-z0-9_]*)=(.*)$/.exec(line);
    if (match === null) return [];
    const [, name = "", value = ""] = match;
    return [[name, value.trim().replace(/^(["'])(.*)\1$/, "$2")] as const];
  });
  return Object.fromEntries(lines);
}

/** What the replicas share, whose settings are like a strategy's. */
function sharedOf(written: unknown): unknown {
  const isMap = typeof written === "object" && written !== null && "shared" in written;
  return isMap ? written.shared : null;
}

interface References {
  readonly env: readonly string[];
  readonly file: readonly string[];
  readonly cred: readonly string[];
}

/** `$${` is no reference. */
function referencesIn(value: unknown): References {
  const found = { env: [] as string[], file: [] as string[], cred: [] as string[] };
  for (const { text } of settingsOf(value)) {
    for (const match of text.matchAll(/(?<!\$)\$\{(env|file|cred|toml):([^{}]+)\}/g)) {
      const [, kind = "", name = ""] = match;
      if (kind === "toml") found.file.push(name.replace(/#[^#]*$/, ""));
      else found[kind as keyof References].push(name);
    }
  }
  return found;
}

interface Setting {
  readonly key: string;
  readonly text: string;
}

/** Every text in maps and lists, with the nearest key above it. */
function settingsOf(value: unknown, key = ""): Setting[] {
  if (typeof value === "string") return [{ key, text: value }];
  if (typeof value !== "object" || value === null) return [];
  return Object.entries(value).flatMap(([name, item]) =>
    settingsOf(item, Array.isArray(value) ? key : name),
  );
}

function isFileSetting(key: string, text: string): boolean {
  return FILE_KEY.test(key) && !text.includes("${") && !text.includes("://");
}

function sorted(values: readonly string[]): readonly string[] {
  return [...new Set(values)].sort();
}
