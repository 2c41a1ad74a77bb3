/**
 * The document in pieces that are valid on their own.
 *
 * Invariant: a mistake in one upstream or route does not hide what is wrong with the others. A piece that does not
 * fit its schema is null; what is wrong with it has been reported from the whole document.
 */
import type { z } from "zod";
import { valueAt } from "./issues.ts";
import { type ConfigDocument, documentSchema } from "./schema.ts";

/** A strategy as written: `use`, `sha256` and its own keys. */
export type StrategyPart = ConfigDocument["strategies"][string];
/** An upstream with defaults filled in. */
export type UpstreamPart = ConfigDocument["upstreams"][string];
/** A route with defaults filled in. */
export type RoutePart = ConfigDocument["routes"][number];

/** Pieces by name or position. */
export interface DocumentParts {
  readonly server: ConfigDocument["server"] | null;
  readonly stateDir: string | null;
  readonly logging: ConfigDocument["logging"] | null;
  readonly strategies: readonly (readonly [string, StrategyPart | null])[];
  readonly upstreams: readonly (readonly [string, UpstreamPart | null])[];
  readonly routes: readonly (RoutePart | null)[];
}

/** Parses each piece of plain data by itself. */
export function partsOf(value: unknown): DocumentParts {
  const { shape } = documentSchema;
  const routes = valueAt(value, ["routes"]);
  return {
    server: parsed(shape.server, valueAt(value, ["server"])),
    stateDir: parsed(shape.state_dir, valueAt(value, ["state_dir"])),
    logging: parsed(shape.logging, valueAt(value, ["logging"])),
    strategies: members(valueAt(value, ["strategies"]), strategySchema()),
    upstreams: members(valueAt(value, ["upstreams"]), upstreamSchema()),
    routes: (Array.isArray(routes) ? routes : []).map((one) => parsed(shape.routes.element, one)),
  };
}

function strategySchema() {
  return documentSchema.shape.strategies.unwrap().valueType;
}

function upstreamSchema() {
  return documentSchema.shape.upstreams.unwrap().valueType;
}

function members<Value>(value: unknown, schema: z.ZodType<Value>): [string, Value | null][] {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return [];
  return Object.entries(value).map(([name, one]) => [name, parsed(schema, one)]);
}

/** Unknown keys are left out, so that they do not hide what the rest means; anything else wrong gives null. */
function parsed<Value>(schema: z.ZodType<Value>, value: unknown): Value | null {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const copy: unknown = structuredClone(value);
  for (const issue of result.error.issues) {
    if (issue.code !== "unrecognized_keys") return null;
    const holder = issue.path.reduce<unknown>((part, key) => valueAt(part, [keyOf(key)]), copy);
    for (const key of issue.keys) {
      if (typeof holder === "object" && holder !== null) Reflect.deleteProperty(holder, key);
    }
  }
  const again = schema.safeParse(copy);
  return again.success ? again.data : null;
}

function keyOf(key: PropertyKey): string | number {
  return typeof key === "number" ? key : String(key);
}
