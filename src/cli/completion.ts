/**
 * `completion bash|zsh|fish`: a script for the shell.
 *
 * Invariant: a script knows everything itself. Pressing Tab starts no program, opens no file and runs nothing of what
 * stands on the line; words of ours are quoted, whatever they contain.
 */
import { EXIT, type ExitCode, OperatorError } from "../errors.ts";
import { PRESETS } from "../presets/list.ts";
import { everyVerb, type TreeArgument, type TreeOption, type TreeVerb } from "./command-tree.ts";
import { bashScript } from "./completion/bash.ts";
import { fishScript } from "./completion/fish.ts";
import { zshScript } from "./completion/zsh.ts";
import type { CliContext } from "./context.ts";

/** What may stand in a place. */
export type Kind =
  | { readonly is: "file" | "directory" | "anything" }
  | { readonly is: "words"; readonly words: readonly string[] };

/** An option as the scripts need it. */
export interface ScriptOption {
  /** `-c`, `--config`. */
  readonly names: readonly string[];
  readonly description: string;
  /** Null for a switch. */
  readonly value: Kind | null;
}

/** A verb or group as the scripts need it. */
export interface ScriptVerb {
  /** `token create`; empty for the program. */
  readonly path: string;
  readonly verbs: readonly { readonly name: string; readonly description: string }[];
  readonly options: readonly ScriptOption[];
  /** The first positional argument; null when there is none. */
  readonly argument: Kind | null;
}

const SHELLS: Readonly<Record<string, (verbs: readonly ScriptVerb[]) => string>> = {
  bash: bashScript,
  zsh: zshScript,
  fish: fishScript,
};

/** Options whose values are a list that the parser does not know. */
const WORDS: Readonly<Record<string, readonly string[]>> = {
  "--role": ["admin", "user"],
  "--only": ["state", "config"],
};

/** Prints the script. @throws OperatorError when there is none for this shell */
export function completion(context: CliContext, shell: string, tree: TreeVerb): ExitCode {
  const script = SHELLS[shell];
  if (script === undefined || !Object.hasOwn(SHELLS, shell)) {
    throw new OperatorError(EXIT.usage, `expected one of ${Object.keys(SHELLS).join(", ")}`);
  }
  context.out(script(scriptVerbs(tree)));
  return EXIT.ok;
}

/** The tree with what may stand where. */
export function scriptVerbs(tree: TreeVerb): readonly ScriptVerb[] {
  const verbs = everyVerb(tree).map((verb) => ({
    path: verb.path.join(" "),
    verbs: namesOf(verb),
    options: verb.options.map(scriptOption),
    argument: verb.args[0] === undefined ? null : argumentKind(verb.args[0]),
  }));
  // `help VERB` is the parser's own; its argument is any verb.
  const help = { name: "help", description: "print help for a command" };
  return [
    ...verbs.map((verb) => (verb.path === "" ? { ...verb, verbs: [...verb.verbs, help] } : verb)),
    { path: "help", verbs: namesOf(tree), options: [], argument: null },
    ...namesOf(tree).map(({ name }) => ({
      path: `help ${name}`,
      verbs: [],
      options: [],
      argument: null,
    })),
  ];
}

function namesOf({ verbs }: TreeVerb): readonly { name: string; description: string }[] {
  return verbs.map(({ path, description }) => ({ name: path.at(-1) ?? "", description }));
}

function scriptOption(option: TreeOption): ScriptOption {
  const names = [option.short, option.long].filter((name) => name !== null);
  return { names, description: option.description, value: optionKind(option) };
}

function optionKind({ long, value, choices }: TreeOption): Kind | null {
  if (value === null) return null;
  if (choices.length > 0) return { is: "words", words: choices };
  const words = long === "--preset" ? servingPresets() : WORDS[long ?? ""];
  return words === undefined ? kindOfName(value) : { is: "words", words };
}

function servingPresets(): readonly string[] {
  return PRESETS.filter(({ serve }) => serve !== undefined).map(({ name }) => name);
}

function argumentKind({ name, choices }: TreeArgument): Kind {
  return choices.length > 0 ? { is: "words", words: choices } : kindOfName(name);
}

/** `<file>` and `<dir>` say what they are. */
function kindOfName(name: string): Kind {
  if (/^(?:file|path)$/.test(name)) return { is: "file" };
  return { is: /^dir(?:ectory)?$/.test(name) ? "directory" : "anything" };
}
