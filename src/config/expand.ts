/**
 * A document with every default written out, for `config show --expanded`.
 *
 * Invariant: references stay references. Plugins' defaults come from their schemas, not from parsing, because
 * parsing would need the secrets.
 */
import { z } from "zod";
import type { Plugin } from "../contract/plugin.ts";
import type { ConfigDocument } from "./schema.ts";

/** The document with the defaults of its strategies filled in as well. */
export function expandDocument(
  document: ConfigDocument,
  plugins: ReadonlyMap<string, Plugin>,
): ConfigDocument {
  const strategies = Object.entries(document.strategies).map(([name, strategy]) => {
    const plugin = plugins.get(name);
    return [name, { ...strategy, ...missingDefaults(plugin, strategy) }] as const;
  });
  return { ...document, strategies: Object.fromEntries(strategies) };
}

function missingDefaults(
  plugin: Plugin | undefined,
  strategy: Readonly<Record<string, unknown>>,
): Record<string, unknown> {
  if (plugin === undefined) return {};
  const { properties } = z.toJSONSchema(plugin.config, { io: "input", unrepresentable: "any" });
  const found = Object.entries(properties ?? {}).flatMap(([key, property]) => {
    const value = typeof property === "object" ? property.default : undefined;
    if (value === undefined || Object.hasOwn(strategy, key)) return [];
    // A default behind a transform is in the form that comes out, which may not be accepted going in.
    const isWritable = plugin.config.shape[key]?.["~standard"].validate(value);
    const isFine = !(isWritable instanceof Promise) && isWritable?.issues === undefined;
    return isFine ? [[key, value] as const] : [];
  });
  return Object.fromEntries(found);
}
