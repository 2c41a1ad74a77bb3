/**
 * Flags and environment variables over the file: `GATEHOUSE_STATE_DIR`, `GATEHOUSE_SERVER__LISTEN`.
 *
 * Invariant: flag > variable > file, and a variable that names a top-level key either takes effect or is
 * reported. Other variables with our prefix belong to the operator (tokens, for instance) and are left alone.
 */
import type { z } from "zod";
import { type ConfigPath, valueAt } from "./issues.ts";
import { childSchemas, keysOf, mayBeScalar } from "./schema-walk.ts";
import { closest, fold } from "./suggest.ts";

/** A value that replaces what the file says. */
export interface Override {
  readonly path: ConfigPath;
  readonly value: unknown;
  /** Variable or flag, for messages. */
  readonly origin: string;
}

/** An override that cannot take effect. */
export interface OverrideProblem {
  readonly message: string;
  readonly hint: string;
}

/** One variable or flag, split into names. */
export interface Setting {
  /** Where `names` start, from the top of the document. */
  readonly base?: ConfigPath;
  readonly names: readonly string[];
  readonly text: string;
  readonly origin: string;
}

const PREFIX = "GATEHOUSE_";

/** The settings among environment variables, by name. */
export function envSettings(
  env: Readonly<Record<string, string | undefined>>,
  topLevel: readonly string[],
): Setting[] {
  const settings: Setting[] = [];
  for (const [name, text] of Object.entries(env)) {
    if (!name.startsWith(PREFIX) || text === undefined) continue;
    const names = name.slice(PREFIX.length).split("__");
    const isOurs = topLevel.some((key) => fold(key) === fold(names[0] ?? ""));
    if (isOurs) settings.push({ names, text, origin: name });
  }
  return settings.sort((a, b) => (a.origin < b.origin ? -1 : 1));
}

/**
 * Variables that were surely meant for us: `GATEHOUSE_SERVER_LISTEN` with one `_` where there must be two.
 * Anything else with our prefix is the operator's own.
 */
export function lookalikes(
  env: Readonly<Record<string, string | undefined>>,
  schema: z.ZodType,
): OverrideProblem[] {
  const paths = keysOf([schema]).flatMap((top) =>
    keysOf(childSchemas(schema, top)).map((key) => [top, key]),
  );
  return paths.flatMap((path) => {
    const name = variableName(path);
    const single = name.replace("__", "_");
    if (env[single] === undefined) return [];
    return [{ message: `${single}: this variable has no effect`, hint: `did you mean ${name}?` }];
  });
}

/** Flags as settings; keys are dotted config paths. */
export function flagSettings(overrides: Readonly<Record<string, string>>): Setting[] {
  return Object.entries(overrides).map(([key, text]) => ({
    names: key.split("."),
    text,
    origin: "the command line",
  }));
}

/**
 * What a setting means for a document.
 * @param schema of `value`
 * @param value the document, or the part of it that `names` start from
 */
export function resolveSetting(
  setting: Setting,
  schema: z.ZodType,
  value: unknown,
): Override | OverrideProblem {
  const path: (string | number)[] = [];
  let schemas: readonly z.core.$ZodType[] = [schema];
  let part = value;
  for (const name of setting.names) {
    const key = keyFor(name, schemas, part, [...(setting.base ?? []), ...path]);
    if (typeof key === "object") return { ...key, message: `${setting.origin}: ${key.message}` };
    path.push(key);
    schemas = schemas.flatMap((one) => childSchemas(one, key));
    part = valueAt(part, [key]);
  }
  if (!schemas.some(mayBeScalar)) {
    return problem(setting, "a list or a map cannot be set this way", "write it in the file");
  }
  if (setting.text.trim() === "") {
    return problem(setting, "it is set but empty", "unset it, or give it a value");
  }
  return { path, value: scalarFor(setting.text, schemas), origin: setting.origin };
}

/** Puts a value into plain data, making maps on the way. Does nothing where the file has no map. */
export function setAt(root: unknown, path: ConfigPath, value: unknown): void {
  let part = root;
  for (const [index, key] of path.entries()) {
    if (typeof part !== "object" || part === null) return;
    const isLast = index === path.length - 1;
    const next = isLast ? value : (valueAt(part, [key]) ?? {});
    Object.defineProperty(part, key, {
      value: next,
      writable: true,
      enumerable: true,
      configurable: true,
    });
    part = next;
  }
}

function keyFor(
  name: string,
  schemas: readonly z.core.$ZodType[],
  part: unknown,
  path: ConfigPath,
): string | number | OverrideProblem {
  const fixed = keysOf(schemas);
  const present = typeof part === "object" && part !== null ? Object.keys(part) : [];
  const known = fixed.length > 0 ? fixed : present;
  const matches = known.filter((key) => fold(key) === fold(name));
  const [key] = matches;
  if (matches.length > 1) {
    return { message: `it could mean ${matches.join(" or ")}`, hint: "write it in the file" };
  }
  // A list where a map belongs keeps its name, so that the mistake in the file is what is reported.
  if (key !== undefined) return Array.isArray(part) && fixed.length === 0 ? Number(key) : key;
  // Headers may be new; a new upstream or strategy, or a new route, is much rather a slip of the pen.
  const isOpen = path.length > 1 && fixed.length === 0 && !Array.isArray(part);
  if (isOpen && schemas.some((one) => childSchemas(one, name).length > 0)) {
    return name.toLowerCase().replaceAll("_", "-");
  }
  const near = closest(name, known);
  const allowed = known.length === 0 ? "the file has none" : `there is ${known.join(", ")}`;
  return {
    message: `no such key: ${[...path, name.toLowerCase()].join(".")}`,
    hint: near === undefined ? allowed : `did you mean ${variableName([...path, near])}?`,
  };
}

/** The variable that sets a path. */
export function variableName(path: ConfigPath): string {
  return `${PREFIX}${path.map((step) => fold(String(step)).toUpperCase()).join("__")}`;
}

/** The text itself where text is accepted, else the number, boolean or null it spells. */
function scalarFor(text: string, schemas: readonly z.core.$ZodType[]): unknown {
  const isAccepted = (value: unknown) => schemas.some((one) => accepts(one, value));
  if (isAccepted(text)) return text;
  const scalar = plainScalar(text.trim());
  return scalar !== undefined && isAccepted(scalar) ? scalar : text;
}

function accepts(schema: z.core.$ZodType, value: unknown): boolean {
  const result = schema["~standard"].validate(value);
  return !(result instanceof Promise) && result.issues === undefined;
}

function plainScalar(text: string): unknown {
  if (/^(?:null|~)$/i.test(text)) return null;
  if (/^(?:true|false)$/i.test(text)) return text.toLowerCase() === "true";
  return /^[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?$/i.test(text) ? Number(text) : undefined;
}

function problem(setting: Setting, message: string, hint: string): OverrideProblem {
  return { message: `${setting.origin}: ${message}`, hint };
}
