/**
 * Strategies: does the plugin load, do the keys beside `use` fit its schema once references are resolved, are its
 * secrets references.
 *
 * Invariant: what a reference yields is shown to the plugin's schema and to nobody else, also not by way of the
 * schema's own messages.
 */
import type { z } from "zod";
import type { Plugin } from "../contract/plugin.ts";
import { errorMessage } from "../errors.ts";
import type { ConfigPath, Reporter } from "./issues.ts";
import type { StrategyPart } from "./parts.ts";
import { isSingleReference, type ReferenceSources, resolveDeep } from "./references.ts";
import { alternatives, childSchemas, isSecret } from "./schema-walk.ts";
import { reportZod, zodMessage } from "./zod-issues.ts";

/** Loads what `use` names; throws an Error with a message for the operator. */
export type LoadPlugin = (use: string, sha256: string | null, configDir: string) => Promise<Plugin>;

/** What the core reads of a strategy; the rest is the plugin's. */
const OWN_KEYS = ["use", "sha256"];

/** Loads the plugin of each strategy, one after the other; failures are reported. */
export async function loadPlugins(
  strategies: readonly (readonly [string, StrategyPart | null])[],
  loadPlugin: LoadPlugin,
  { configDir, report }: { readonly configDir: string; readonly report: Reporter },
): Promise<ReadonlyMap<string, Plugin>> {
  const plugins = new Map<string, Plugin>();
  for (const [name, part] of strategies) {
    if (part === null) continue;
    try {
      plugins.set(name, await loadPlugin(part.use, part.sha256?.toLowerCase() ?? null, configDir));
    } catch (error) {
      report.add(["strategies", name, "use"], errorMessage(error), hintOf(error));
    }
  }
  return plugins;
}

/** OperatorError carries one; another error's may not be text. */
function hintOf(error: unknown): string | undefined {
  const isHinted = error instanceof Error && "hint" in error && typeof error.hint === "string";
  return isHinted ? String(error.hint) : undefined;
}

/** Checks the settings of one strategy against its plugin. */
export function checkSettings(
  strategy: readonly [string, StrategyPart],
  plugin: Plugin,
  { sources, report }: { readonly sources: ReferenceSources; readonly report: Reporter },
): void {
  const [name, { use: _use, sha256: _sha256, ...settings }] = strategy;
  const base = ["strategies", name];
  const before = report.count();
  checkSecrets(plugin.config, settings, base, report);
  const { value, problems, secrets } = resolveDeep(settings, sources);
  if (report.count() > before) return;
  for (const { path, problem } of problems) {
    report.add([...base, ...path], problem, "provide it, or change the reference");
  }
  const quiet = redacting(
    report,
    secrets,
    problems.map(({ path }) => [...base, ...path]),
  );
  try {
    const result = plugin.config.safeParse(value, { error: zodMessage });
    if (result.success) {
      for (const problem of plugin.check?.(result.data, sources) ?? []) quiet.add(base, problem);
      return;
    }
    reportZod(result.error, {
      report: quiet,
      schema: plugin.config,
      value,
      base,
      otherKeys: OWN_KEYS,
    });
  } catch (error) {
    quiet.add(base, `the plugin's own check failed: ${errorMessage(error)}`);
  }
}

/** Every value whose schema was made with `secret()` is one reference and nothing else. */
export function checkSecrets(
  schema: z.core.$ZodType,
  value: unknown,
  path: ConfigPath,
  report: Reporter,
): void {
  if (isSecret(schema)) {
    if (value === undefined || (typeof value === "string" && isSingleReference(value))) return;
    report.add(
      path,
      "a secret is not written into this file",
      "write a reference: ${env:NAME}, ${file:/path} or ${cred:name}",
    );
    return;
  }
  if (typeof value !== "object" || value === null) {
    const secretBranch = alternatives(schema).find(isSecret);
    if (secretBranch !== undefined && secretBranch !== schema) {
      checkSecrets(secretBranch, value, path, report);
    }
    return;
  }
  const entries = Array.isArray(value) ? [...value.entries()] : Object.entries(value);
  for (const [key, item] of entries) {
    for (const child of childSchemas(schema, key))
      checkSecrets(child, item, [...path, key], report);
  }
}

/** A reporter that blots out resolved secrets and says nothing about values that could not be resolved. */
function redacting(
  report: Reporter,
  secrets: readonly string[],
  unresolved: readonly ConfigPath[],
): Reporter {
  const paths = new Set(unresolved.map((path) => path.join("\0")));
  const blot = (text: string) =>
    secrets.reduce((rest, secret) => rest.replaceAll(secret, "[hidden]"), text);
  return {
    ...report,
    add(path, message, hint) {
      if (paths.has(path.join("\0"))) return;
      report.add(path, blot(message), hint === undefined ? undefined : blot(hint));
    },
  };
}
