/**
 * Turns the `use` of a strategy into a plugin: a bundled one by name, or an external file.
 *
 * Invariant: what runs is, byte for byte, what was checked and hashed. The runtime is handed those bytes when it
 * asks for the file, so a file that changes after the check cannot slip in. Files that a plugin imports from
 * its own directory (or below) pass the same ownership checks; the pin covers the plugin's file alone.
 */
import { existsSync } from "node:fs";
import { extname, resolve } from "node:path";
import { closest } from "./config/suggest.ts";
import * as contract from "./contract/gatehouse.ts";
import type { Plugin } from "./contract/plugin.ts";
import { EXIT, OperatorError } from "./errors.ts";
import { importFailure } from "./import-failure.ts";
import { type PluginFile, readPluginFile } from "./plugin-file.ts";
import { isPlugin, pluginProblems } from "./plugin-shape.ts";

/** Loads what `use` names; `sha256` is the pin or null; relative paths start at `configDir`. */
export type LoadPlugin = (use: string, sha256: string | null, configDir: string) => Promise<Plugin>;

/**
 * A loader that knows the given bundled plugins. One loader remembers which external file has which plugin name,
 * so use one for all strategies of a configuration.
 *
 * The returned function rejects with OperatorError: an unknown name, a file that is missing or could have been
 * changed by somebody else, a pin that does not match, source that does not compile or throws, an export of the
 * wrong shape, a name that is taken.
 */
export function pluginLoader(bundled: readonly Plugin[]): LoadPlugin {
  const names = bundled.map((plugin) => plugin.name);
  const pathOfName = new Map<string, string>();
  return async (use, sha256, configDir) => {
    if (!isPath(use)) return bundledPlugin(bundled, use, sha256);
    const file = readPluginFile(pluginPath(use, configDir));
    checkPin(file, sha256);
    const plugin = pluginOf(await importChecked(file), file.path);
    if (names.includes(plugin.name)) {
      throw new OperatorError(
        EXIT.config,
        `plugin file ${file.path} calls itself ${plugin.name}, which is a bundled plugin`,
        "Give it another `name`.",
      );
    }
    const other = pathOfName.get(plugin.name);
    if (other !== undefined && other !== file.path) {
      throw new OperatorError(
        EXIT.config,
        `plugin files ${other} and ${file.path} both call themselves ${plugin.name}`,
        "Give one of them another `name`; two strategies may use one file.",
      );
    }
    pathOfName.set(plugin.name, file.path);
    return plugin;
  };
}

/** Whether `use` names a file rather than a bundled plugin. */
export function isPath(use: string): boolean {
  return /^(\.{0,2}\/|\.\.?$)/.test(use) || /\.[cm]?[jt]s$/.test(use);
}

function bundledPlugin(bundled: readonly Plugin[], use: string, sha256: string | null): Plugin {
  const plugin = bundled.find((candidate) => candidate.name === use);
  if (plugin === undefined) {
    const names = bundled.map((candidate) => candidate.name);
    const near = closest(use, names);
    throw new OperatorError(
      EXIT.config,
      `there is no bundled plugin ${JSON.stringify(use)}; bundled are ${names.join(", ")}`,
      near === undefined
        ? "The path of an external file starts with ./ or / or ends in .ts or .js."
        : `Did you mean ${near}?`,
    );
  }
  if (sha256 === null) return plugin;
  throw new OperatorError(
    EXIT.config,
    `sha256 is for external files, and ${use} is bundled`,
    "Remove sha256; the bundled plugins are part of the executable.",
  );
}

function pluginPath(use: string, configDir: string): string {
  const path = resolve(configDir, use);
  // What follows a question mark is not part of the file name for the module loader.
  if (!/[?#\0\n]/.test(path)) return path;
  throw new OperatorError(
    EXIT.config,
    `the path of plugin file ${JSON.stringify(path)} has ? or #`,
  );
}

function checkPin(file: PluginFile, sha256: string | null): void {
  if (sha256 === null || sha256.toLowerCase() === file.sha256) return;
  throw new OperatorError(
    EXIT.config,
    `plugin file ${file.path} is not the one that was pinned: its SHA-256 is ${file.sha256}`,
    "Look at what changed in it; if that is what you want, put the new value in `sha256`.",
  );
}

function pluginOf(module: Readonly<Record<string, unknown>>, path: string): Plugin {
  const others = Object.keys(module).filter((name) => name !== "default");
  if (others.length > 0) {
    throw new OperatorError(
      EXIT.config,
      `plugin file ${path} exports ${others.join(", ")} besides its default`,
      "Only the default export is a plugin; move the rest to a file beside it.",
    );
  }
  const value = module.default;
  if (isPlugin(value)) return value;
  const problems = value === undefined ? ["it has no default export"] : pluginProblems(value);
  throw new OperatorError(
    EXIT.config,
    `plugin file ${path} is not a plugin: ${problems.join("; ")}`,
    "The plugin guide (docs/plugin-guide.md) shows a complete one.",
  );
}

/*
 * The module loader of the process is one of a kind, and so is what it was told: these are the state of
 * the runtime's module registry, not of this file.
 */
let isContractRegistered = false;
const servedDirectories = new Set<string>();
const checkedSources = new Map<string, PluginFile>();
/** SHA-256 by path of what plugin files import: the registry keeps each as it was first. */
const importedFiles = new Map<string, string>();
/** How often a content could not be imported. */
const failedImports = new Map<string, number>();

/** As long as a strategy has to start. */
const IMPORT_MS = 30_000;

async function importChecked(file: PluginFile): Promise<Readonly<Record<string, unknown>>> {
  registerContract();
  const directory = file.path.slice(0, file.path.lastIndexOf("/") + 1);
  refuseStale(directory);
  serveDirectory(directory);
  // The hash makes it another module when the content is another, so a changed file is loaded anew.
  const content = `${file.path}?sha256=${file.sha256}`;
  const failures = failedImports.get(content) ?? 0;
  const specifier = failures === 0 ? content : `${content}&try=${failures + 1}`;
  checkedSources.set(specifier, file);
  try {
    return await soon(import(specifier), file.path);
  } catch (error) {
    // The registry keeps a failure, and what it was about (a file that was missing) may be mended by now.
    failedImports.set(content, failures + 1);
    throw importFailure(error, file.path);
  } finally {
    checkedSources.delete(specifier);
  }
}

/** A plugin whose top level waits for ever must not keep a gateway from ever reading its configuration again. */
async function soon<Value>(importing: Promise<Value>, path: string): Promise<Value> {
  const { promise, reject } = Promise.withResolvers<never>();
  const timer = setTimeout(() => {
    const why = `plugin file ${path} did not finish loading within ${IMPORT_MS / 1000} s`;
    const hint = "Wait in `init`, not at the top level of the file.";
    reject(new OperatorError(EXIT.config, why, hint));
  }, IMPORT_MS);
  try {
    return await Promise.race([importing, promise]);
  } finally {
    clearTimeout(timer);
  }
}

/** A plugin would get a file beside it as it was when this process first loaded it. */
function refuseStale(directory: string): void {
  for (const [path, sha256] of importedFiles) {
    if (!path.startsWith(directory) || !existsSync(path)) continue;
    if (readPluginFile(path).sha256 === sha256) continue;
    throw new OperatorError(
      EXIT.config,
      `${path}, which a plugin file imports, has changed, and a running gateway keeps it as it was`,
      "Restart the gateway.",
    );
  }
}

/** Gives external files `import { … } from "gatehouse"` without a node_modules, also in the executable. */
function registerContract(): void {
  if (isContractRegistered) return;
  isContractRegistered = true;
  Bun.plugin({
    name: "gatehouse-contract",
    setup(build) {
      build.module("gatehouse", () => ({ exports: { ...contract }, loader: "object" }));
    },
  });
}

/** From now on, source files in `directory` and below are read and checked by us instead of the runtime. */
function serveDirectory(directory: string): void {
  if (servedDirectories.has(directory)) return;
  servedDirectories.add(directory);
  const literal = directory.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
  Bun.plugin({
    name: "gatehouse-plugin-files",
    setup(build) {
      build.onLoad({ filter: new RegExp(`^${literal}.+\\.[cm]?[jt]sx?(\\?.*)?$`) }, ({ path }) => {
        const checked = checkedSources.get(path);
        const file = checked ?? readPluginFile(path.replace(/\?.*$/, ""));
        if (checked === undefined) importedFiles.set(file.path, file.sha256);
        return { contents: file.bytes, loader: loaderOf(file.path) };
      });
    },
  });
}

function loaderOf(path: string): "js" | "jsx" | "ts" | "tsx" {
  const extension = extname(path);
  if (extension.endsWith("x")) return extension === ".tsx" ? "tsx" : "jsx";
  return extension.endsWith("ts") ? "ts" : "js";
}
