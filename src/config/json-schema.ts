/**
 * The JSON Schema of the config file, for editors.
 *
 * Invariant: made from documentSchema and the schemas of plugins and presets, never written by hand; what a strategy
 * may hold depends on its `use`, and what a preset takes on its name.
 */
import { z } from "zod";
import type { Plugin } from "../contract/plugin.ts";
import { PRESETS } from "../presets/list.ts";
import type { Preset } from "../presets/preset.ts";
import { documentSchema } from "./schema.ts";

/** Identifies the format, not a place to download it from. */
export const SCHEMA_ID = "https://gatehouse.invalid/schema/config-1.json";

/** First line of generated config files: editors look for the schema beside the file. */
export const SCHEMA_COMMENT = "# yaml-language-server: $schema=./gatehouse.schema.json";

type JsonSchema = z.core.JSONSchema.BaseSchema;

/** A JSON Schema (draft 2020-12) in which every given plugin's settings are known. */
export function configJsonSchema(plugins: readonly Plugin[]): JsonSchema {
  const { $schema, ...schema } = toJson(documentSchema);
  const strategies = schema.properties?.strategies;
  const strategy = typeof strategies === "object" ? strategies.additionalProperties : undefined;
  if (typeof strategies !== "object" || typeof strategy !== "object") {
    throw new TypeError("documentSchema has no record of strategies");
  }
  const withPlugins = { ...strategy, allOf: plugins.map((plugin) => branch(plugin, strategy)) };
  const routes = schema.properties?.routes;
  const route = typeof routes === "object" ? routes.items : undefined;
  if (typeof routes !== "object" || typeof route !== "object" || Array.isArray(route)) {
    throw new TypeError("documentSchema has no list of routes");
  }
  const items = { anyOf: [route, ...PRESETS.map(presetEntry)] };
  return {
    $schema: $schema ?? "https://json-schema.org/draft/2020-12/schema",
    $id: SCHEMA_ID,
    title: "Gatehouse configuration",
    ...schema,
    properties: {
      ...schema.properties,
      strategies: { ...strategies, additionalProperties: withPlugins },
      routes: { ...routes, items },
    },
  };
}

/** If `use` is this plugin, then its keys and no others. */
function branch(plugin: Plugin, strategy: JsonSchema): JsonSchema {
  const { properties, required } = toJson(plugin.config);
  return {
    if: { properties: { use: { const: plugin.name } }, required: ["use"] },
    // biome-ignore lint/suspicious/noThenProperty: a keyword of JSON Schema
    then: {
      properties: { ...strategy.properties, ...properties },
      required: ["use", ...(required ?? [])],
      additionalProperties: false,
    },
  };
}

/** An entry of `routes` that a preset spells out. */
function presetEntry({ name, description, options }: Preset): JsonSchema {
  const { $schema: _, ...taken } = toJson(options);
  return {
    type: "object",
    description,
    properties: {
      preset: { const: name, description },
      with: { ...taken, description: `Options of the preset ${name}.` },
    },
    required: ["preset", "with"],
    additionalProperties: false,
  };
}

function toJson(schema: z.ZodType): JsonSchema {
  return z.toJSONSchema(schema, { io: "input", unrepresentable: "any" });
}
