/**
 * From a file, variables and flags to a configuration, or to everything that is wrong with it.
 *
 * Invariant: `config` is null exactly when there are issues; nothing is thrown for bad input; loading has no effect
 * on anything outside but running the top level of external plugin files.
 */
import { dirname, resolve } from "node:path";
import type { Plugin } from "../contract/plugin.ts";
import { check } from "./check.ts";
import { type LoadPlugin, loadPlugins } from "./check-strategies.ts";
import { findConfigFile } from "./find.ts";
import {
  type ConfigPath,
  createReporter,
  type Locate,
  pathText,
  type Reporter,
  valueAt,
} from "./issues.ts";
import type { ConfigIssue, GatewayConfig } from "./model.ts";
import { type NormalisedParts, normalise } from "./normalise.ts";
import { configNotes } from "./notes.ts";
import {
  envSettings,
  flagSettings,
  lookalikes,
  resolveSetting,
  type Setting,
  setAt,
} from "./overrides.ts";
import { partsOf } from "./parts.ts";
import { expandPresets, findServingPreset } from "./presets.ts";
import { type ConfigDocument, documentSchema } from "./schema.ts";
import { decodeSource, readSource, type Source } from "./source.ts";
import { fold, nameHint } from "./suggest.ts";
import { parseYaml } from "./yaml.ts";
import { reportZod, zodMessage } from "./zod-issues.ts";

/** What to load. */
export interface LoadOptions {
  /** Path of the file, or null to look where {@link findConfigFile} looks (or when `text` is given). */
  readonly file: string | null;
  /** The content, instead of what is in the file. Relative paths start at the directory of `file`, else `cwd`. */
  readonly text?: string;
  readonly cwd: string;
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Dotted key to value, from flags: `{ "server.listen": "127.0.0.1:8008" }`. */
  readonly overrides?: Readonly<Record<string, string>>;
  readonly loadPlugin: LoadPlugin;
  /** Instead of a file: a preset with the environment and these flags (`port`, `host`, `upstream`, `db-path`). */
  readonly preset?: { readonly name: string; readonly flags: Readonly<Record<string, string>> };
  /**
   * `shape` is for commands that do not serve: variables and files that only the service can read are not looked
   * at. Default `full`.
   */
  readonly depth?: "full" | "shape";
}

/** The outcome of {@link loadConfig}. */
export interface LoadedConfig {
  /** Null exactly when there are issues. */
  readonly config: GatewayConfig | null;
  /** The document with defaults filled in; null when it does not have the shape of one. */
  readonly document: ConfigDocument | null;
  /** In the order of the file. */
  readonly issues: ConfigIssue[];
  /** Absolute path of the file that was read, or null. */
  readonly file: string | null;
  /** The document as written, with variables and flags applied: plain data, references unresolved. */
  readonly written: unknown;
  /** What the operator should know although nothing is wrong, one sentence each. */
  readonly notes: readonly string[];
  /** The plugin of each strategy that loaded, by the strategy's name. */
  readonly plugins: ReadonlyMap<string, Plugin>;
}

interface Loading {
  readonly options: LoadOptions;
  readonly file: string | null;
  readonly configDir: string;
  readonly report: Reporter;
  /** Path texts that did not come from the file, and what they came from. */
  readonly origins: Map<string, string>;
}

/** Loads and checks a configuration. All problems are in `issues`, not the first only. */
export async function loadConfig(options: LoadOptions): Promise<LoadedConfig> {
  if (options.preset !== undefined) return loadPreset(options.preset, options);
  const file = fileOf(options);
  const none = { ...NOTHING, file };
  const source = sourceOf(options, file);
  if ("problem" in source) {
    const { line, column, message, hint } = source.problem;
    return { ...none, issues: [{ path: "", line, column, message, hint }] };
  }
  const yaml = parseYaml(source.text);
  const origins = new Map<string, string>();
  const report = createReporter(locateWith(yaml.locate, origins));
  for (const { line, column, message, hint } of yaml.problems) {
    report.addAt(line, column, message, hint);
  }
  if (!yaml.isUsable) return { ...none, issues: report.list() };
  if (yaml.value === null || yaml.value === undefined) {
    report.addAt(1, 1, "the file is empty", "config.example.yaml shows one");
    return { ...none, issues: report.list() };
  }
  const configDir = file === null ? options.cwd : dirname(file);
  return loadDocument(yaml.value, { options, file, configDir, report, origins });
}

const NOTHING = {
  config: null,
  document: null,
  file: null,
  written: undefined,
  plugins: new Map(),
  notes: [],
};

async function loadPreset(
  { name, flags }: NonNullable<LoadOptions["preset"]>,
  options: LoadOptions,
): Promise<LoadedConfig> {
  const report = createReporter(() => ({ line: 0, column: 0, origin: null }));
  const preset = await findServingPreset(name, report);
  if (preset === null) return { ...NOTHING, issues: report.list() };
  const made = preset({ env: options.env, cwd: options.cwd, flags });
  if ("problems" in made) {
    for (const problem of made.problems) report.addAt(0, 0, problem);
    return { ...NOTHING, issues: report.list() };
  }
  const origins = new Map<string, string>();
  const loading = { options, file: null, configDir: options.cwd, report, origins };
  const loaded = await loadDocument(structuredClone(made.document), loading);
  return { ...loaded, notes: [...made.notes, ...loaded.notes] };
}

function fileOf({ file, text, env, cwd }: LoadOptions): string | null {
  if (file !== null) return resolve(cwd, file);
  return text === undefined ? findConfigFile({ env, cwd }).file : null;
}

function sourceOf({ text, env, cwd }: LoadOptions, file: string | null): Source {
  if (text !== undefined) return decodeSource(new TextEncoder().encode(text));
  if (file !== null) return readSource(file);
  const searched = findConfigFile({ env, cwd }).searched.join(", ");
  const message = `no configuration file: looked for ${searched}`;
  const hint = "pass -c FILE; config.example.yaml shows one";
  return { problem: { message, hint, line: 0, column: 0 } };
}

async function loadDocument(written: unknown, loading: Loading): Promise<LoadedConfig> {
  const { options, file, configDir, report } = loading;
  const { env } = options;
  const late = applyOverrides(written, loading);
  const plugins = await loadPlugins(partsOf(written).strategies, options.loadPlugin, loading);
  applyStrategySettings(written, late, plugins, loading);
  const { value, origin } = await expandPresets(written, report);
  const reportHere = reportingAt(report, origin);
  const result = documentSchema.safeParse(value, { error: zodMessage });
  if (!result.success) {
    reportZod(result.error, { report: reportHere, schema: documentSchema, value, base: [] });
  }
  const document = result.success ? result.data : null;
  const parts = partsOf(value);
  const normalised = normalise(parts, { ...loading, report: reportHere });
  const depth = options.depth ?? "full";
  const sources = { env, configDir };
  check({ written: value, parts, normalised, plugins, sources, depth, report: reportHere });
  const issues = report.list();
  const config = issues.length === 0 ? assemble(normalised, loading) : null;
  const notes = config === null ? [] : configNotes(config);
  return { config, document, issues, file, written, plugins, notes };
}

/** What is found in the expanded document is reported where it comes from. */
function reportingAt(report: Reporter, origin: (path: ConfigPath) => ConfigPath): Reporter {
  return {
    ...report,
    add: (path, message, hint) => report.add(origin(path), message, hint),
    addKey: (path, message, hint) => report.addKey(origin(path), message, hint),
  };
}

/** Applies what the core schema knows about; settings of strategies wait for their plugins' schemas. */
function applyOverrides(written: unknown, loading: Loading): Setting[] {
  const topLevel = Object.keys(documentSchema.shape);
  const { env, overrides } = loading.options;
  // Flags last, so that they win.
  const settings = [...envSettings(env, topLevel), ...flagSettings(overrides ?? {})];
  for (const { message, hint } of lookalikes(env, documentSchema)) {
    loading.report.addAt(0, 0, message, hint);
  }
  const isLate = ({ names: [first, , key] }: Setting) =>
    first?.toLowerCase() === "strategies" &&
    !["use", "sha256", undefined].includes(key?.toLowerCase());
  for (const setting of settings) {
    if (isLate(setting)) continue;
    apply(setting, { schema: documentSchema, value: written }, written, loading);
  }
  return settings.filter(isLate);
}

function applyStrategySettings(
  written: unknown,
  settings: readonly Setting[],
  plugins: ReadonlyMap<string, Plugin>,
  loading: Loading,
): void {
  const strategies = partsOf(written).strategies.map(([name]) => name);
  for (const setting of settings) {
    const [, wanted = "", ...names] = setting.names;
    const name = strategies.find((one) => fold(one) === fold(wanted));
    if (name === undefined) {
      const hint = nameHint(wanted.toLowerCase(), strategies, "the file has no strategies");
      loading.report.addAt(0, 0, `${setting.origin}: there is no such strategy in the file`, hint);
      continue;
    }
    const plugin = plugins.get(name);
    if (plugin === undefined) continue;
    const base = ["strategies", name];
    const value = valueAt(written, base);
    apply({ ...setting, names, base }, { schema: plugin.config, value }, written, loading);
  }
}

function apply(
  setting: Setting,
  within: { schema: Parameters<typeof resolveSetting>[1]; value: unknown },
  written: unknown,
  { report, origins }: Loading,
): void {
  const resolved = resolveSetting(setting, within.schema, within.value);
  if ("message" in resolved) {
    report.addAt(0, 0, resolved.message, resolved.hint);
    return;
  }
  const path = [...(setting.base ?? []), ...resolved.path];
  setAt(written, path, resolved.value);
  origins.set(pathText(path), resolved.origin);
}

/** What was set from outside has no place in the file. */
function locateWith(locate: Locate, origins: ReadonlyMap<string, string>): Locate {
  return (path, what) => {
    const origin = origins.get(pathText(path));
    return origin === undefined ? locate(path, what) : { line: 0, column: 0, origin };
  };
}

function assemble(parts: NormalisedParts, { file, configDir }: Loading): GatewayConfig {
  const { server, stateDir, logging } = parts;
  if (server === null || stateDir === null || logging === null) {
    throw new TypeError("a part is missing although nothing was reported");
  }
  return Object.freeze({
    file,
    configDir,
    stateDir,
    shared: parts.shared,
    server,
    strategies: parts.strategies.filter((one) => one !== null),
    upstreams: parts.upstreams.filter((one) => one !== null),
    logging,
    routes: parts.routes.filter((one) => one !== null),
  });
}
