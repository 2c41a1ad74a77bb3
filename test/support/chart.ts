/**
 * Our Helm chart as tests see it: its values, what its templates come to, and what is wrong with either.
 *
 * This is no Helm, see chart-template.ts.
 *
 * Invariant: values go through the chart's own schema before anything is rendered, as in Helm.
 */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { parse, parseAllDocuments } from "yaml";
import { z } from "zod";
import { execute, YAML } from "./chart-render.ts";
import { type Body, parseTemplate } from "./chart-template.ts";

export const CHART = join(import.meta.dir, "../../packaging/helm/gatehouse");

/** A rendered object of Kubernetes. */
export interface Manifest {
  readonly apiVersion: string;
  readonly kind: string;
  readonly metadata: {
    readonly name: string;
    readonly labels?: Readonly<Record<string, string>>;
    readonly annotations?: Readonly<Record<string, string>>;
  };
  readonly [field: string]: unknown;
}

/** Values, over those of the chart. */
export type Values = Readonly<Record<string, unknown>>;

/** What the chart comes to. */
export interface Rendered {
  readonly manifests: readonly Manifest[];
  readonly notes: string;
}

const templates = loadTemplates();
const schema = z.fromJSONSchema(readJson("values.schema.json"));

/** @throws Error with what Helm would say: a value that the schema refuses, a check that fails */
export function renderChart(over: Values = {}, release = "gate"): Rendered {
  const values = withDefaults(over);
  const checked = schema.safeParse(values);
  if (!checked.success) throw new Error(z.prettifyError(checked.error));
  const { version, appVersion, name } = readYaml("Chart.yaml") as Record<string, string>;
  const root = {
    Values: values,
    Chart: { Name: name, Version: version, AppVersion: appVersion },
    Release: { Name: release, Namespace: "models", Service: "Helm" },
    Template: { BasePath: `${name}/templates` },
  };
  const files = [...templates.keys()].filter((path) => path.endsWith(".yaml"));
  return {
    manifests: files.flatMap((path) => documentsOf(execute(templates, path, root), path)),
    notes: execute(templates, `${name}/templates/NOTES.txt`, root),
  };
}

/** The only object of a kind. @throws Error when there is none, or more than one */
export function onlyOf(kind: string, { manifests }: Rendered): Manifest {
  const found = manifests.filter((one) => one.kind === kind);
  const [first] = found;
  if (first === undefined || found.length > 1) throw new Error(`${found.length} of kind ${kind}`);
  return first;
}

/** Values of the examples, by the name of their file. */
export function exampleValues(): ReadonlyMap<string, Values> {
  const files = readdirSync(join(CHART, "ci"));
  return new Map(files.map((file) => [file, readYaml(`ci/${file}`) as Values]));
}

/** Every path `.Values.a.b` that a template names. */
export function namedValues(): readonly string[] {
  const sources = templateFiles().map((file) =>
    readFileSync(join(CHART, "templates", file), "utf8"),
  );
  const names = sources.flatMap((source) =>
    [...source.matchAll(/\.Values((?:\.\w+)+)/g)].map(([, path]) => (path ?? "").slice(1)),
  );
  return [...new Set(names)].sort();
}

/** The chart's values with these over them; null takes a key away. */
export function withDefaults(over: Values): Record<string, unknown> {
  return overlaid(readYaml("values.yaml") as Record<string, unknown>, over);
}

function overlaid(under: Record<string, unknown>, over: Values): Record<string, unknown> {
  const result = { ...under };
  for (const [key, value] of Object.entries(over)) {
    if (value === null) delete result[key];
    else if (isMap(value) && isMap(result[key])) result[key] = overlaid(result[key], value);
    else result[key] = structuredClone(value);
  }
  return result;
}

function isMap(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function loadTemplates(): ReadonlyMap<string, Body> {
  const loaded = new Map<string, Body>();
  for (const file of templateFiles()) {
    const source = readFileSync(join(CHART, "templates", file), "utf8");
    try {
      loaded.set(`gatehouse/templates/${file}`, parseTemplate(source, loaded));
    } catch (error) {
      throw new Error(`${file}: ${error instanceof Error ? error.message : error}`);
    }
  }
  return loaded;
}

function templateFiles(): readonly string[] {
  const names = readdirSync(join(CHART, "templates"), { recursive: true, encoding: "utf8" });
  return names.filter((name) => /\.(?:yaml|tpl|txt)$/.test(name)).sort();
}

function documentsOf(text: string, path: string): readonly Manifest[] {
  return parseAllDocuments(text, { ...YAML, uniqueKeys: true }).flatMap((document) => {
    const [problem] = document.errors;
    if (problem !== undefined) throw new Error(`${path}: ${problem.message}\n${text}`);
    const value: unknown = document.toJS();
    if (value === null || value === undefined) return [];
    if (!isMap(value) || typeof value.kind !== "string" || !isMap(value.metadata)) {
      throw new Error(`${path}: no object of Kubernetes:\n${text}`);
    }
    return [value as unknown as Manifest];
  });
}

function readYaml(path: string): unknown {
  return parse(readFileSync(join(CHART, path), "utf8"), YAML);
}

function readJson(path: string): z.core.JSONSchema.JSONSchema {
  return JSON.parse(readFileSync(join(CHART, path), "utf8"));
}
