/**
 * Carries the templates of our chart out: the functions of Go's text/template, Sprig and Helm that they use.
 *
 * This is no Helm, see chart-template.ts.
 *
 * Invariant: an unknown function, variable or value that is used as something that it is not is an error.
 */
import { createHash } from "node:crypto";
import { parse, stringify } from "yaml";
import type { Body, Command, Node, Pipe, Term } from "./chart-template.ts";

/** Templates by name: those that files define, and the files themselves by their path. */
export type Templates = ReadonlyMap<string, Body>;

/** Where an expression is evaluated. */
interface Scope {
  readonly dot: unknown;
  readonly variables: Map<string, unknown>;
  readonly outer: Scope | null;
  readonly templates: Templates;
}

type Fields = Record<string, unknown>;

/** Helm and Kubernetes read YAML 1.1, where `off` is no text and 0440 is octal. */
export const YAML = { version: "1.1" } as const;

/** What a template comes to. */
export function execute(templates: Templates, name: string, root: unknown): string {
  const body = templates.get(name);
  if (body === undefined) throw new Error(`there is no template ${name}`);
  const scope = { dot: root, variables: new Map([["", root]]), outer: null, templates };
  return printed(body, scope);
}

function printed(body: Body, scope: Scope): string {
  return body.map((node) => printNode(node, scope)).join("");
}

function inner(scope: Scope, dot: unknown): Scope {
  return { dot, variables: new Map(), outer: scope, templates: scope.templates };
}

function printNode(node: Node, scope: Scope): string {
  switch (node.kind) {
    case "text":
      return node.text;
    case "print":
      return text(evaluate(node.pipe, scope));
    case "assign":
      assign(node, scope);
      return "";
    case "range":
      return printRange(node, scope);
    default: {
      for (const { pipe, body } of node.branches) {
        const value = evaluate(pipe, scope);
        if (isTrue(value)) {
          return printed(body, inner(scope, node.kind === "with" ? value : scope.dot));
        }
      }
      return printed(node.other, inner(scope, scope.dot));
    }
  }
}

function assign({ name, isNew, pipe }: Extract<Node, { kind: "assign" }>, scope: Scope): void {
  const value = evaluate(pipe, scope);
  const owner = isNew ? scope : ownerOf(name, scope);
  owner.variables.set(name, value);
}

function ownerOf(name: string, scope: Scope): Scope {
  for (let at: Scope | null = scope; at !== null; at = at.outer) {
    if (at.variables.has(name)) return at;
  }
  throw new Error(`there is no variable $${name}`);
}

function printRange({ names, pipe, body }: Extract<Node, { kind: "range" }>, scope: Scope): string {
  const over = evaluate(pipe, scope) ?? [];
  // Go goes through maps in the order of their keys.
  const entries: readonly (readonly [unknown, unknown])[] = Array.isArray(over)
    ? [...over.entries()]
    : Object.entries(fieldsOf(over)).sort(([a], [b]) => (a < b ? -1 : 1));
  const [first, second] = names.length === 1 ? [undefined, names[0]] : names;
  return entries
    .map(([key, value]) => {
      const each = inner(scope, value);
      if (first !== undefined) each.variables.set(first, key);
      if (second !== undefined) each.variables.set(second, value);
      return printed(body, each);
    })
    .join("");
}

function evaluate(pipe: Pipe, scope: Scope): unknown {
  let last: readonly unknown[] = [];
  for (const command of pipe) last = [evaluateCommand(command, last, scope)];
  return last[0];
}

function evaluateCommand(command: Command, last: readonly unknown[], scope: Scope): unknown {
  const [head, ...rest] = command;
  if (head === undefined) throw new Error("an empty command");
  if (head.kind !== "function") {
    if (rest.length + last.length > 0) throw new Error("a value is no function");
    return termValue(head, scope);
  }
  const { name } = head;
  if (Object.hasOwn(LAZY, name)) return LAZY[name]?.(rest, scope);
  const call = Object.hasOwn(FUNCTIONS, name) ? FUNCTIONS[name] : undefined;
  if (call === undefined) throw new Error(`the function ${name} is not known here`);
  return call([...rest.map((term) => termValue(term, scope)), ...last], scope);
}

function termValue(term: Term, scope: Scope): unknown {
  switch (term.kind) {
    case "literal":
      return term.value;
    case "dot":
      return fieldOf(scope.dot, term.path);
    case "variable":
      return fieldOf(ownerOf(term.name, scope).variables.get(term.name), term.path);
    case "pipe":
      return fieldOf(evaluate(term.pipe, scope), term.path);
    case "function":
      return evaluateCommand([term], [], scope);
  }
}

/** Of a map: what is not there is nothing. Of nothing: an error, as in Go. */
function fieldOf(value: unknown, path: readonly string[]): unknown {
  return path.reduce<unknown>((at, name) => {
    if (at === null || at === undefined) throw new Error(`nil pointer evaluating .${name}`);
    return fieldsOf(at)[name];
  }, value);
}

function fieldsOf(value: unknown): Fields {
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new Error(`expected a map, not ${JSON.stringify(value)}`);
  }
  return value as Fields;
}

function listOf(value: unknown): readonly unknown[] {
  if (!Array.isArray(value)) throw new Error(`expected a list, not ${JSON.stringify(value)}`);
  return value;
}

function isTrue(value: unknown): boolean {
  if (value === null || value === undefined || value === "" || value === 0) return false;
  if (typeof value === "boolean") return value;
  return typeof value !== "object" || Object.keys(value).length > 0;
}

function text(value: unknown): string {
  if (value === null || value === undefined) return "";
  if (typeof value === "object")
    throw new Error(`a map or list is no text: ${JSON.stringify(value)}`);
  return String(value);
}

/** These do not look at what they do not need. */
const LAZY: Readonly<Record<string, (terms: readonly Term[], scope: Scope) => unknown>> = {
  and: (terms, scope) => firstThat(terms, scope, (value) => !isTrue(value)),
  or: (terms, scope) => firstThat(terms, scope, isTrue),
};

function firstThat(terms: readonly Term[], scope: Scope, is: (value: unknown) => boolean): unknown {
  let value: unknown;
  for (const term of terms) {
    value = termValue(term, scope);
    if (is(value)) return value;
  }
  return value;
}

type Call = (args: readonly unknown[], scope: Scope) => unknown;

const FUNCTIONS: Readonly<Record<string, Call>> = {
  add1: ([value]) => Number(value) + 1,
  b64enc: ([value]) => Buffer.from(text(value)).toString("base64"),
  concat: (lists) => lists.flatMap(listOf),
  contains: ([part, whole]) => text(whole).includes(text(part)),
  deepCopy: ([value]) => structuredClone(value),
  default: ([fallback, value]) => (isTrue(value) ? value : fallback),
  dict: (args) => Object.fromEntries(pairs(args)),
  dig: (args) => dig(args),
  eq: ([a, b]) => a === b,
  fail: ([message]) => {
    throw new Error(text(message));
  },
  fromYaml: ([value]) => parse(text(value), YAML) ?? {},
  gt: ([a, b]) => Number(a) > Number(b),
  hasKey: ([map, key]) => Object.hasOwn(fieldsOf(map), text(key)),
  include: ([name, dot], { templates }) => execute(templates, text(name), dot),
  index: ([list, at]) => listOf(list)[Number(at)],
  int: ([value]) => Math.trunc(Number(value)),
  join: ([by, list]) => listOf(list).map(text).join(text(by)),
  kindIs: ([kind, value]) => kind === kindOf(value),
  list: (args) => args,
  mergeOverwrite: ([into, ...over]) => over.reduce<Fields>(merged, fieldsOf(into)),
  ne: ([a, b]) => a !== b,
  nindent: ([width, value]) => `\n${indented(text(value), Number(width))}`,
  not: ([value]) => !isTrue(value),
  print: (args) => args.map(text).join(""),
  printf: ([format, ...args]) => formatted(text(format), args),
  quote: ([value]) => JSON.stringify(text(value)),
  replace: ([from, to, value]) => text(value).replaceAll(text(from), text(to)),
  set: ([map, key, value]) => Object.assign(fieldsOf(map), { [text(key)]: value }),
  sha256sum: ([value]) => createHash("sha256").update(text(value)).digest("hex"),
  toString: ([value]: readonly unknown[]) => text(value),
  toYaml: ([value]) => toYaml(value),
  trim: ([value]) => text(value).trim(),
  trimSuffix: ([suffix, value]) =>
    text(value).endsWith(text(suffix)) ? text(value).slice(0, -text(suffix).length) : text(value),
  trunc: ([length, value]) => text(value).slice(0, Number(length)),
};

/** Go's word for what a value of YAML is. */
function kindOf(value: unknown): string {
  if (value === null || value === undefined) return "invalid";
  if (Array.isArray(value)) return "slice";
  return { boolean: "bool", number: "float64", object: "map" }[String(typeof value)] ?? "string";
}

function* pairs(args: readonly unknown[]): Generator<[string, unknown]> {
  for (let at = 0; at < args.length; at += 2) yield [text(args[at]), args[at + 1]];
}

/** Keys, a fallback, and the map they lead into. */
function dig(args: readonly unknown[]): unknown {
  const [map, fallback, ...keys] = args.toReversed();
  let at: unknown = map;
  for (const key of keys.toReversed()) {
    if (at === null || at === undefined || !Object.hasOwn(fieldsOf(at), text(key))) return fallback;
    at = fieldsOf(at)[text(key)];
  }
  return at;
}

function merged(into: Fields, over: unknown): Fields {
  for (const [key, value] of Object.entries(fieldsOf(over))) {
    const known = into[key];
    const areMaps = [known, value].every(
      (one) => typeof one === "object" && one !== null && !Array.isArray(one),
    );
    into[key] = areMaps ? merged(fieldsOf(known), value) : value;
  }
  return into;
}

function indented(value: string, width: number): string {
  return value.replaceAll(/^/gm, " ".repeat(width));
}

/** fmt.Sprintf with %s, %v and %d. */
function formatted(format: string, args: readonly unknown[]): string {
  let at = 0;
  const said = format.replaceAll(/%(.)/g, (_, verb: string) => {
    const value = args[at++];
    if (verb === "d" && !Number.isInteger(value)) throw new Error(`%d of ${JSON.stringify(value)}`);
    if (!"svd".includes(verb)) throw new Error(`%${verb} is not known here`);
    return text(value);
  });
  if (at !== args.length) throw new Error(`${format} takes ${at} arguments, not ${args.length}`);
  return said;
}

function toYaml(value: unknown): string {
  return stringify(value, { ...YAML, sortMapEntries: true, lineWidth: 0 }).trimEnd();
}
