/**
 * The verbs as plain data: what completion scripts and the manual page are made from.
 *
 * Invariant: everything comes from the parser's own tree, so a new verb or option is in all of them without another
 * line of code.
 */
import type { Argument, Command, Option } from "commander";

/** An option of a verb. */
export interface TreeOption {
  /** `-c`, or null. */
  readonly short: string | null;
  /** `--config`, or null. */
  readonly long: string | null;
  /** `file` of `--config <file>`; null for a switch. */
  readonly value: string | null;
  readonly description: string;
  /** What may be said, when that is a list; else empty. */
  readonly choices: readonly string[];
}

/** A positional argument. */
export interface TreeArgument {
  /** `file`. */
  readonly name: string;
  readonly isRequired: boolean;
  readonly choices: readonly string[];
}

/** A verb, or a group of verbs. */
export interface TreeVerb {
  /** Below the program: `["token", "create"]`; empty for the program itself. */
  readonly path: readonly string[];
  readonly description: string;
  readonly options: readonly TreeOption[];
  readonly args: readonly TreeArgument[];
  /** Complete lines, as they are typed. Empty for a group. */
  readonly examples: readonly string[];
  readonly verbs: readonly TreeVerb[];
}

/** The tree below `command`. Hidden verbs and options are left out, as in the help. */
export function treeOf(command: Command, path: readonly string[] = []): TreeVerb {
  const help = command.createHelp();
  return {
    path,
    description: command.description(),
    options: help.visibleOptions(command).map(optionOf),
    args: command.registeredArguments.map(argumentOf),
    examples: examplesOf(command),
    verbs: help
      .visibleCommands(command)
      // The parser's own one for help is not part of the tree that is walked.
      .filter((one) => command.commands.includes(one))
      .map((one) => treeOf(one, [...path, one.name()])),
  };
}

/** Every verb that does something, groups left out. */
export function leaves(tree: TreeVerb): readonly TreeVerb[] {
  return tree.verbs.length === 0 ? [tree] : tree.verbs.flatMap(leaves);
}

/** Every verb and group, the program itself first. */
export function everyVerb(tree: TreeVerb): readonly TreeVerb[] {
  return [tree, ...tree.verbs.flatMap(everyVerb)];
}

function optionOf(option: Option): TreeOption {
  const value = /[<[]([^>\]]+)[>\]]/.exec(option.flags)?.[1] ?? null;
  return {
    short: option.short ?? null,
    long: option.long ?? null,
    value: value === null ? null : value.replace(/\.{3}$/, ""),
    description: option.description,
    choices: option.argChoices ?? [],
  };
}

function argumentOf(argument: Argument): TreeArgument {
  return {
    name: argument.name(),
    isRequired: argument.required,
    choices: argument.argChoices ?? [],
  };
}

/** The help is asked for them, because that is where they stand. */
function examplesOf(command: Command): readonly string[] {
  const { writeOut } = command.configureOutput();
  let text = "";
  command.configureOutput({
    writeOut: (more) => {
      text += more;
    },
  });
  command.outputHelp();
  if (writeOut !== undefined) command.configureOutput({ writeOut });
  const [, after = ""] = text.split(/\n(?:Examples?|Start with):\n/);
  return (after.split("\n\n")[0] ?? "")
    .split("\n")
    .map((line) => line.trim())
    .filter((line) => line !== "");
}
