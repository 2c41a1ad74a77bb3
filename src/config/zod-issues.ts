/**
 * From zod's issues to ours: what was expected, what kind of thing was found, where, and the near name.
 *
 * Invariant: a value is never repeated. What stands in a config file may be a secret in the wrong place.
 */
import { z } from "zod";
import { type ConfigPath, type Reporter, valueAt } from "./issues.ts";
import { alternatives, descriptionOf, keysOf, schemasAt } from "./schema-walk.ts";
import { closest, nameHint } from "./suggest.ts";

/** What to report against. */
export interface ZodReport {
  readonly report: Reporter;
  readonly schema: z.core.$ZodType;
  /** The value that was parsed. */
  readonly value: unknown;
  /** Where that value stands in the document. */
  readonly base: ConfigPath;
  /** Keys of the outermost map that this schema does not know, for suggestions. */
  readonly otherKeys?: readonly string[];
}

/** Replaced by what the alternatives have to say. */
const UNION = "\0union";

const NAMES: Readonly<Record<string, string>> = {
  string: "text",
  number: "a number",
  int: "a whole number",
  boolean: "true or false",
  array: "a list",
  object: "a map (key: value)",
  record: "a map (key: value)",
  null: "null",
};

/** What kind of thing a value is, without the value. */
export function kindOf(value: unknown): string {
  if (value === null) return "nothing";
  if (Array.isArray(value)) return "a list";
  if (typeof value === "object") return "a map";
  return NAMES[typeof value] ?? typeof value;
}

/** Our wording for every issue whose schema has none of its own; pass it as `error` to `safeParse`. */
export const zodMessage: z.core.$ZodErrorMap = (issue) => {
  switch (issue.code) {
    case "invalid_type":
      return `expected ${NAMES[issue.expected] ?? issue.expected}`;
    case "invalid_value":
      return `expected ${orList(issue.values.map(String))}`;
    case "invalid_union":
      return UNION;
    case "too_small":
      return `expected ${sized("at least", issue.minimum, issue.origin)}`;
    case "too_big":
      return `expected ${sized("at most", issue.maximum, issue.origin)}`;
    case "invalid_format":
      return formatMessage(issue);
    case "unrecognized_keys":
      return "unknown key";
    case "invalid_key":
      return "expected another name";
    default:
      return "not accepted here";
  }
};

/** Reports every issue of a failed parse. */
export function reportZod(error: z.ZodError, context: ZodReport): void {
  for (const issue of error.issues) reportIssue(issue, [], context);
}

function reportIssue(issue: z.core.$ZodIssue, prefix: ConfigPath, context: ZodReport): void {
  const path = [...prefix, ...issue.path.map(step)];
  const full = [...context.base, ...path];
  if (issue.code === "unrecognized_keys") {
    const others = path.length === 0 ? (context.otherKeys ?? []) : [];
    const allowed = [...keysOf(schemasAt(context.schema, path)), ...others];
    for (const key of issue.keys) {
      context.report.addKey([...full, key], "unknown key", keyHint(key, allowed));
    }
  } else if (issue.code === "invalid_union" && issue.message === UNION) {
    reportUnion(issue, path, context);
  } else if (issue.code === "invalid_key") {
    context.report.addKey(full, issue.issues[0]?.message ?? issue.message);
  } else {
    const value = valueAt(context.value, path);
    context.report.add(full, worded(issue, value), hintFor(issue, value, path, context));
  }
}

/** Of the alternatives, the one that has the right kind; if none has, what all of them expect. */
function reportUnion(issue: z.core.$ZodIssueInvalidUnion, path: ConfigPath, context: ZodReport) {
  const isOfKind = (branch: readonly z.core.$ZodIssue[]) =>
    !branch.some(
      ({ path: at, code }) =>
        at.length === 0 && (code === "invalid_type" || code === "invalid_value"),
    );
  const fitting = issue.errors.filter(isOfKind).sort((a, b) => a.length - b.length)[0];
  if (fitting !== undefined) {
    for (const inner of fitting) reportIssue(inner, path, context);
    return;
  }
  const expected = issue.errors.flatMap((branch) =>
    branch.map(({ message }) => message.replace(/^expected /, "")),
  );
  const value = valueAt(context.value, path);
  const message = withKind(`expected ${orList([...new Set(expected)])}`, value);
  context.report.add([...context.base, ...path], message, hintFor(issue, value, path, context));
}

/** The kind of what was found helps only when it is another kind than what was expected. */
function worded(issue: z.core.$ZodIssue, value: unknown): string {
  const isOtherKind =
    value === undefined ||
    issue.code === "invalid_type" ||
    issue.code === "invalid_union" ||
    (issue.code === "invalid_value" && !issue.values.some((one) => typeof one === typeof value));
  return isOtherKind ? withKind(issue.message, value) : issue.message;
}

function withKind(message: string, value: unknown): string {
  if (value === undefined) return `missing: ${message}`;
  return message.startsWith("expected") ? `${message}, found ${kindOf(value)}` : message;
}

function hintFor(
  issue: z.core.$ZodIssue,
  value: unknown,
  path: ConfigPath,
  context: ZodReport,
): string | undefined {
  const schemas = schemasAt(context.schema, path);
  if (typeof value === "string") {
    const choices = schemas.flatMap(alternatives).flatMap(choicesOf);
    const near = closest(value, choices);
    if (near !== undefined) return `did you mean \`${near}\`?`;
    const isYes = /^(?:yes|no|on|off)$/i.test(value);
    if (issue.code === "invalid_type" && issue.expected === "boolean" && isYes) {
      return "in YAML 1.2 only true and false are not text";
    }
  }
  const [schema] = schemas;
  return schema === undefined ? undefined : descriptionOf(schema);
}

function choicesOf(schema: z.core.$ZodType): string[] {
  return schema instanceof z.ZodEnum ? schema.options.map(String) : [];
}

function keyHint(key: string, allowed: readonly string[]): string {
  const near = closest(key, allowed);
  if (near === undefined && key === "<<") return "merge keys are not part of YAML 1.2";
  const hint = nameHint(key, allowed, "nothing may stand here");
  return near === undefined ? `${hint.replace(/^there is /, "allowed here: ")}` : hint;
}

function formatMessage(issue: z.core.$ZodRawIssue<z.core.$ZodIssueInvalidStringFormat>): string {
  const { format, prefix } = issue;
  if (format === "starts_with") return `expected text that starts with ${String(prefix)}`;
  return format === "regex" ? "expected text of another form" : `expected a valid ${format}`;
}

function sized(bound: string, limit: number | bigint, origin: string): string {
  if (origin === "string") {
    return bound === "at least" && limit === 1
      ? "text that is not empty"
      : `${bound} ${limit} characters`;
  }
  if (origin === "array") return `${bound} ${limit} ${limit === 1 ? "entry" : "entries"}`;
  return `${bound} ${limit}`;
}

function orList(words: readonly string[]): string {
  return words.length < 2 ? words.join("") : `${words.slice(0, -1).join(", ")} or ${words.at(-1)}`;
}

function step(key: PropertyKey): string | number {
  return typeof key === "number" ? key : String(key);
}
