/**
 * A configuration that is there already, read so that it can be changed.
 *
 * Invariant: only looks. One of another version, or one that is wrong, is refused before anything is asked about it.
 */
import { readFileSync, realpathSync } from "node:fs";
import { dirname } from "node:path";
import { type Document, isMap, isSeq, parseDocument } from "yaml";
import { renderIssues } from "../../config/explain.ts";
import { type LoadedConfig, loadConfig } from "../../config/load.ts";
import type { GatewayConfig } from "../../config/model.ts";
import { readSource } from "../../config/source.ts";
import { EXIT, errorCode, OperatorError } from "../../errors.ts";
import { pluginLoader } from "../../loader.ts";
import type { CliContext } from "../context.ts";
import { unwritable } from "./files.ts";

/** A configuration that can be changed. */
export interface Existing {
  /** Where it really lies, without links. */
  readonly file: string;
  readonly text: string;
  readonly config: GatewayConfig;
  readonly plugins: LoadedConfig["plugins"];
  /** Strategies that keep tokens. */
  readonly keepers: readonly string[];
}

/** The version that this program reads. */
const VERSION = 1;

/** @throws OperatorError: EXIT.config for one that cannot be changed by questions */
export async function readExisting(context: CliContext, named: string): Promise<Existing> {
  const file = realFile(named);
  const source = readSource(file);
  if ("problem" in source) {
    const { message, hint } = source.problem;
    throw new OperatorError(EXIT.config, message, hint);
  }
  refuseVersion(file, parseDocument(source.text));
  const { config, issues, plugins } = await loadConfig({
    file,
    cwd: dirname(file),
    env: context.env,
    loadPlugin: pluginLoader(context.plugins),
    depth: "shape",
  });
  if (config === null) {
    throw new OperatorError(
      EXIT.config,
      `${renderIssues(issues, file).trimEnd()}\nnothing was changed`,
      "Mend it first; init changes a configuration that is right, and never writes over one.",
    );
  }
  const keepers = config.strategies
    .map(({ name }) => name)
    .filter((name) => plugins.get(name)?.offers?.tokens === true);
  return { file, text: source.text, config, plugins, keepers };
}

function realFile(path: string): string {
  try {
    return realpathSync(path);
  } catch (error) {
    throw unwritable(path, error);
  }
}

/** The keys of a later version may mean something else, and those of an earlier one too. */
function refuseVersion(file: string, document: Document): void {
  const found: unknown = isMap(document.contents) ? document.get("version") : undefined;
  if (found === VERSION || document.errors.length > 0) return;
  const isNewer = typeof found === "number" && found > VERSION;
  const what = found === undefined ? "says no version" : `says version: ${shown(found)}`;
  throw new OperatorError(
    EXIT.config,
    `${file} ${what}, and this program reads version ${VERSION}; nothing was changed`,
    isNewer
      ? "It was made by a newer gatehouse: use that one, or update this."
      : `It is of an earlier version: move it away (mv ${file} ${file}.old), run init, and carry over what you need.`,
  );
}

function shown(value: unknown): string {
  return typeof value === "number" || typeof value === "string"
    ? String(value).slice(0, 20)
    : "something else";
}

/** The strategies that guard the first guarded route: those that a further upstream gets, too. */
export function usualAccess({ config }: Existing): readonly string[] {
  for (const { access } of config.routes) {
    if (access !== "public" && access.length > 0) return access;
  }
  return config.strategies.map(({ name }) => name);
}

/** The text as a document that keeps its comments. */
export function editable(text: string): Document {
  return parseDocument(text, { version: "1.2", schema: "core", keepSourceTokens: true });
}

/** Where a route for one host goes: behind the questions of proxies, before what takes everything. */
export function placeForRoute(document: Document): number {
  const routes = document.get("routes");
  if (!isSeq(routes)) return 0;
  const isCheck = (item: unknown): boolean => isMap(item) && item.has("check");
  return routes.items.findLastIndex(isCheck) + 1;
}

/** The bytes on disk now; null when they are gone. */
export function textNow(file: string): string | null {
  try {
    return readFileSync(file, "utf8");
  } catch (error) {
    if (errorCode(error) === "ENOENT") return null;
    throw unwritable(file, error);
  }
}
