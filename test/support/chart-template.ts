/**
 * Reads the templates of our chart: that part of Go's text/template which they use, and nothing beside.
 *
 * This is no Helm. It shows that the templates are well formed and what they come to; whatever it does not know is an
 * error, so that a chart cannot use more than is checked here.
 *
 * Invariant: nothing is skipped: every action of a template is in the tree.
 */

/** A part of a template. */
export type Node =
  | { readonly kind: "text"; readonly text: string }
  | { readonly kind: "print"; readonly pipe: Pipe }
  | { readonly kind: "assign"; readonly name: string; readonly isNew: boolean; readonly pipe: Pipe }
  | { readonly kind: "if" | "with"; readonly branches: readonly Branch[]; readonly other: Body }
  | {
      readonly kind: "range";
      readonly names: readonly string[];
      readonly pipe: Pipe;
      readonly body: Body;
    };

/** Parts in their order. */
export type Body = readonly Node[];

/** A condition and what follows from it. */
export interface Branch {
  readonly pipe: Pipe;
  readonly body: Body;
}

/** Commands, each of which gets the one before as its last argument. */
export type Pipe = readonly Command[];

/** A function with arguments, or one value. */
export type Command = readonly Term[];

/** A value as it is written. `path` are the fields behind it. */
export type Term =
  | { readonly kind: "literal"; readonly value: string | number | boolean | null }
  | { readonly kind: "dot"; readonly path: readonly string[] }
  | { readonly kind: "variable"; readonly name: string; readonly path: readonly string[] }
  | { readonly kind: "pipe"; readonly pipe: Pipe; readonly path: readonly string[] }
  | { readonly kind: "function"; readonly name: string };

type Token = { readonly text: string } | { readonly action: string; readonly line: number };

/** The template's own body; what it defines goes into `defines`. @throws Error with the line */
export function parseTemplate(source: string, defines: Map<string, Body>): Body {
  const tokens = tokenise(source);
  const end = { at: 0 };
  const { body, closer } = parseBody(tokens, end, defines);
  if (closer !== null) throw new Error(`${closer} without a beginning`);
  return body;
}

function tokenise(source: string): readonly Token[] {
  const tokens: Token[] = [];
  let at = 0;
  let isTrimmed = false;
  for (const found of source.matchAll(/\{\{(-?)(\s*\/\*[\s\S]*?\*\/\s*|[\s\S]*?)(-?)\}\}/g)) {
    const [whole, left, inner = "", right] = found;
    let text = source.slice(at, found.index);
    if (isTrimmed) text = text.trimStart();
    if (left === "-") text = text.trimEnd();
    tokens.push({ text });
    const action = inner.trim();
    if (!action.startsWith("/*")) {
      tokens.push({ action, line: source.slice(0, found.index).split("\n").length });
    }
    isTrimmed = right === "-";
    at = found.index + whole.length;
  }
  const rest = source.slice(at);
  if (rest.includes("{{")) throw new Error("an action is not closed");
  tokens.push({ text: isTrimmed ? rest.trimStart() : rest });
  return tokens;
}

interface Cursor {
  at: number;
}

function parseBody(
  tokens: readonly Token[],
  cursor: Cursor,
  defines: Map<string, Body>,
): { body: Body; closer: string | null } {
  const body: Node[] = [];
  while (cursor.at < tokens.length) {
    const token = tokens[cursor.at++] as Token;
    if ("text" in token) {
      if (token.text !== "") body.push({ kind: "text", text: token.text });
      continue;
    }
    const { action, line } = token;
    if (/^(?:end|else\b.*)$/.test(action)) return { body, closer: action };
    try {
      const node = parseAction(action, tokens, cursor, defines);
      if (node !== null) body.push(node);
    } catch (error) {
      throw new Error(`line ${line}: ${error instanceof Error ? error.message : error}`);
    }
  }
  return { body, closer: null };
}

function parseAction(
  action: string,
  tokens: readonly Token[],
  cursor: Cursor,
  defines: Map<string, Body>,
): Node | null {
  const [, word = "", rest = ""] = /^(\w+)\b\s*([\s\S]*)$/.exec(action) ?? [];
  if (word === "define") {
    const { body, closer } = parseBody(tokens, cursor, defines);
    if (closer !== "end") throw new Error(`${action} has no end`);
    defines.set(JSON.parse(rest), body);
    return null;
  }
  if (word === "range") {
    const [, names, pipe = rest] = /^((?:\$\w+,?\s*)+):=\s*([\s\S]*)$/.exec(rest) ?? [];
    const { body, closer } = parseBody(tokens, cursor, defines);
    if (closer !== "end") throw new Error(`${action} has no end`);
    const variables = [...(names ?? "").matchAll(/\w+/g)].map(([name]) => name);
    return { kind: "range", names: variables, pipe: parsePipe(pipe), body };
  }
  if (word === "if" || word === "with") return parseBranches(word, rest, tokens, cursor, defines);
  const [, name, operator, value] = /^\$(\w+)\s*(:?=)\s*([\s\S]*)$/.exec(action) ?? [];
  if (name === undefined) return { kind: "print", pipe: parsePipe(action) };
  return { kind: "assign", name, isNew: operator === ":=", pipe: parsePipe(value ?? "") };
}

function parseBranches(
  kind: "if" | "with",
  condition: string,
  tokens: readonly Token[],
  cursor: Cursor,
  defines: Map<string, Body>,
): Node {
  const branches: Branch[] = [];
  let next: string | null = condition;
  for (;;) {
    const { body, closer } = parseBody(tokens, cursor, defines);
    if (closer === null) throw new Error(`${kind} ${condition} has no end`);
    if (next === null) return { kind, branches, other: body };
    branches.push({ pipe: parsePipe(next), body });
    if (closer === "end") return { kind, branches, other: [] };
    const [, again] = /^else if\s+([\s\S]+)$/.exec(closer) ?? [];
    if (again === undefined && closer !== "else") throw new Error(`${closer} is not known here`);
    next = again ?? null;
  }
}

const WORDS =
  /\s+|"(?:[^"\\]|\\.)*"|-?\d+(?:\.\d+)?(?![\w.])|\$?[\w]*(?:\.\w+)+|\$\w*|\.|\w+|[()|]|\S/g;

function parsePipe(text: string): Pipe {
  const words = [...text.matchAll(WORDS)]
    .map(([word]) => word)
    .filter((word) => word.trim() !== "");
  const cursor = { at: 0 };
  const pipe = parseCommands(words, cursor);
  if (cursor.at !== words.length) throw new Error(`${words[cursor.at]} is too much in ${text}`);
  return pipe;
}

function parseCommands(words: readonly string[], cursor: Cursor): Pipe {
  const commands: Term[][] = [[]];
  while (cursor.at < words.length) {
    const word = words[cursor.at] as string;
    if (word === ")") break;
    cursor.at += 1;
    if (word === "|") commands.push([]);
    else commands.at(-1)?.push(parseTerm(word, words, cursor));
  }
  if (commands.some((command) => command.length === 0)) throw new Error("an empty command");
  return commands;
}

function parseTerm(word: string, words: readonly string[], cursor: Cursor): Term {
  if (word === "(") {
    const pipe = parseCommands(words, cursor);
    if (words[cursor.at++] !== ")") throw new Error("a bracket is not closed");
    return { kind: "pipe", pipe, path: [] };
  }
  if (word.startsWith('"')) return { kind: "literal", value: JSON.parse(word) };
  if (/^-?\d/.test(word)) return { kind: "literal", value: Number(word) };
  if (word === "true" || word === "false") return { kind: "literal", value: word === "true" };
  if (word === "nil") return { kind: "literal", value: null };
  if (word === ".") return { kind: "dot", path: [] };
  const [head = "", ...path] = word.split(".");
  if (head === "" && path.length > 0) return { kind: "dot", path };
  if (head.startsWith("$")) return { kind: "variable", name: head.slice(1), path };
  if (/^\w+$/.test(word)) return { kind: "function", name: word };
  throw new Error(`${word} is not known here`);
}
