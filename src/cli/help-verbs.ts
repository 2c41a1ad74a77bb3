/**
 * `completion`, and what `gatehouse help` says beside the parser's own words.
 *
 * Invariant: like program.ts it imports a command only when that command is meant.
 */
import { Argument, type Command } from "commander";
import { EXIT_MEANINGS } from "./exit-codes.ts";
import type { VerbTools } from "./nostr-verbs.ts";

const EXAMPLES = `source <(gatehouse completion bash)
  gatehouse completion zsh > ~/.zfunc/_gatehouse
  gatehouse completion fish > ~/.config/fish/completions/gatehouse.fish`;

/** Adds the verb to the program. */
export function addCompletion(program: Command, { run, verb }: VerbTools): void {
  verb(
    program,
    "completion",
    "print a script that lets the Tab key complete verbs and options",
    EXAMPLES,
  )
    .addArgument(new Argument("<shell>", "which shell").choices(["bash", "zsh", "fish"]))
    .action((shell: string) =>
      run(async (context) => {
        const { treeOf } = await import("./command-tree.ts");
        return (await import("./completion.ts")).completion(context, shell, treeOf(program));
      }),
    );
}

/** What stands below the help of the program itself. */
export function programHelp(): string {
  const codes = Object.values(EXIT_MEANINGS).map(
    ({ code, meaning }) => `  ${String(code).padStart(2)}  ${meaning}`,
  );
  return `
Start with:
  gatehouse init
  gatehouse demo

Exit codes:
${codes.join("\n")}

The manual page: gatehouse help --man | man -l -`;
}
