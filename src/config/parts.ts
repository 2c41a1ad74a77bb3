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
  /** Undefined when there is none. */
  readonly shared: ConfigDocument["shared"] | null;
  readonly logging: ConfigDocument["logging"] | null;
  readonly strategies: readonly (readonly [string, StrategyPart | null])[];
  readonly upstreams: readonly (readonly [string, UpstreamPart | null])[];
  readonly routes: readonly (RoutePart | null)[];
}

/** Keys whose value may be replaced by its default without changing what other checks conclude. */
const SPARE = {
  server: ["health_path", "drain", "limits"],
  upstream: ["timeouts", "headers", "host", "max_body", "ca"],
  route: [
    "require",
    "check",
    "upstream",
    "surface",
    "models",
    "refuse",
    "forward_credential",
    "identity_headers",
    "response_headers",
    "cors",
    "max_body",
  ],
};

/** Parses each piece of plain data by itself. */
export function partsOf(value: unknown): DocumentParts {
  const { shape } = documentSchema;
  const routes = valueAt(value, ["routes"]);
  return {
    server: parsed(shape.server, valueAt(value, ["server"]), SPARE.server),
    stateDir: parsed(shape.state_dir, valueAt(value, ["state_dir"]), []),
    shared: parsed(shape.shared, valueAt(value, ["shared"]), []),
    logging: parsed(shape.logging, valueAt(value, ["logging"]), []),
    strategies: members(valueAt(value, ["strategies"]), strategySchema(), []),
    upstreams: members(valueAt(value, ["upstreams"]), upstreamSchema(), SPARE.upstream),
    routes: (Array.isArray(routes) ? routes : []).map((one) =>
      parsed(shape.routes.element, one, SPARE.route),
    ),
  };
}

function strategySchema() {
  return documentSchema.shape.strategies.unwrap().valueType;
}

function upstreamSchema() {
  return documentSchema.shape.upstreams.unwrap().valueType;
}

function members<Value>(
  value: unknown,
  schema: z.ZodType<Value>,
  spare: readonly string[],
): [string, Value | null][] {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return [];
  return Object.entries(value).map(([name, one]) => [name, parsed(schema, one, spare)]);
}

/** Without unknown and broken spare keys, so that they do not hide what is wrong with the rest. */
function parsed<Value>(
  schema: z.ZodType<Value>,
  value: unknown,
  spare: readonly string[],
): Value | null {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const copy: unknown = structuredClone(value);
  for (const issue of result.error.issues) {
    const [first] = issue.path;
    const isSpare = typeof first === "string" && spare.includes(first);
    if (isSpare) remove(copy, [first]);
    else if (issue.code === "unrecognized_keys") {
      for (const key of issue.keys) remove(copy, [...issue.path, key]);
    } else return null;
  }
  const again = schema.safeParse(copy);
  return again.success ? again.data : null;
}

function remove(root: unknown, path: readonly PropertyKey[]): void {
  const holder = path
    .slice(0, -1)
    .reduce<unknown>((part, key) => valueAt(part, [keyOf(key)]), root);
  const last = path.at(-1);
  if (typeof holder === "object" && holder !== null && last !== undefined) {
    Reflect.deleteProperty(holder, last);
  }
}

function keyOf(key: PropertyKey): string | number {
  return typeof key === "number" ? key : String(key);
}
