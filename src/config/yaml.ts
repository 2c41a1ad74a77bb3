/**
 * YAML 1.2 core with positions, turned into plain values.
 *
 * Invariant: time and memory are bounded by the size of the file, and nothing that stands in it is repeated but
 * names of keys and anchors: the library's own messages quote the file, so they are not shown.
 */
import { type Document, LineCounter, parseDocument } from "yaml";
import type { Locate, Place } from "./issues.ts";
import { createLocator, createReader, MAX_DEPTH, type YamlProblem } from "./yaml-values.ts";

/** Values and positions of one document. */
export interface ParsedYaml {
  /** Plain objects, lists and scalars; undefined when `isUsable` is false. */
  readonly value: unknown;
  readonly locate: Locate;
  readonly problems: readonly YamlProblem[];
  /** Whether the structure is certain enough to be validated in spite of the problems. */
  readonly isUsable: boolean;
}

const MAX_SYNTAX_PROBLEMS = 20;

const QUOTE_IT = "put the text in quotes";
const SYNTAX: Readonly<Record<string, readonly [string, string]>> = {
  TAB_AS_INDENT: ["a tab is used for indentation", "indent with spaces; YAML forbids tabs"],
  BAD_INDENT: ["the indentation does not fit", "line it up with its neighbours, with spaces"],
  BLOCK_AS_IMPLICIT_KEY: ["a second `: ` on one line", QUOTE_IT],
  BLOCK_IN_FLOW: ["a block inside [ ] or { }", "use either brackets or indentation"],
  BAD_SCALAR_START: ["text cannot start with this character", QUOTE_IT],
  BAD_DQ_ESCAPE: ["an unknown \\ escape in double quotes", "use single quotes"],
  MISSING_CHAR: ["a closing quote, a bracket, a colon or a space is missing", "add it"],
  MULTILINE_IMPLICIT_KEY: ["a key goes over several lines", "is a colon missing?"],
  MULTIPLE_DOCS: ["a second document starts here (---)", "keep one document in the file"],
  MULTIPLE_ANCHORS: ["a value has two anchors", "keep one &name"],
  NON_STRING_KEY: ["a list or a map is used as a key", "keys are text"],
  KEY_OVER_1024_CHARS: ["a key is longer than 1024 characters", "is a colon missing?"],
  RESOURCE_EXHAUSTION: ["nested too deep", `at most ${MAX_DEPTH} levels are read`],
  TAG_RESOLVE_FAILED: ["a tag (!name) that means nothing here", "remove the tag"],
  UNEXPECTED_TOKEN: [
    "something that does not fit here",
    "check the lines above; quote special text",
  ],
};

/** Parses `text`; nothing is thrown for bad input. */
export function parseYaml(text: string): ParsedYaml {
  const lines = new LineCounter();
  const document = parseDocument(text, {
    lineCounter: lines,
    prettyErrors: false,
    version: "1.2",
    schema: "core",
    stringKeys: true,
    uniqueKeys: false,
    merge: false,
  });
  const at = (offset: number): Place => {
    const { line, col } = lines.linePos(offset);
    return { line: Math.max(1, line), column: Math.max(1, col), origin: null };
  };
  const problems = syntaxProblems(document, at);
  if (problems.length > 0) {
    return { value: undefined, locate: () => at(0), problems, isUsable: false };
  }
  const reader = createReader(at);
  const value = reader.read(document.contents, 0);
  return {
    value,
    locate: createLocator(document.contents, reader, at),
    problems: reader.problems,
    isUsable: !reader.isBroken(),
  };
}

function syntaxProblems(document: Document.Parsed, at: (offset: number) => Place): YamlProblem[] {
  const found = [...document.errors, ...document.warnings].map((error) => {
    const [message, hint] = SYNTAX[error.code] ?? [`YAML error ${error.code}`, "check this line"];
    return { ...at(error.pos[0]), message, hint };
  });
  const { yaml } = document.directives;
  if (yaml.explicit === true && yaml.version !== "1.2") {
    found.push({ ...at(0), message: "another YAML version is asked for", hint: "remove %YAML" });
  }
  const byLine = new Map(found.map((problem) => [`${problem.line} ${problem.message}`, problem]));
  return [...byLine.values()].slice(0, MAX_SYNTAX_PROBLEMS);
}
