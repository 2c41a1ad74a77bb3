/**
 * Turns what the argument parser refuses into one line: what was wrong, what may have been meant, where help is.
 *
 * Invariant: nothing that may be a secret is repeated; somebody will paste a token where a verb belongs.
 */
import type { CommanderError } from "commander";
import { EXIT, OperatorError } from "../errors.ts";

/** Longest word that is quoted back. */
const LONGEST_WORD = 30;

/** Help and version were asked for and given, or help stands in for a missing verb. */
const ANSWERED: ReadonlySet<string> = new Set(["commander.helpDisplayed", "commander.version"]);

/**
 * The exit code when the parser has already said everything.
 * @throws OperatorError with what is to be said, or with advice when one of `args` looks like a token
 */
export async function usageOutcome(error: CommanderError, args: readonly string[]): Promise<0 | 2> {
  if (ANSWERED.has(error.code)) return EXIT.ok;
  if (error.code === "commander.help") return error.exitCode === 0 ? EXIT.ok : EXIT.usage;
  const { refuseSecretOption } = await import("./token-input.ts");
  for (const arg of args) refuseSecretOption(arg.slice(arg.indexOf("=") + 1), "arguments");
  throw new OperatorError(EXIT.usage, usageMessage(error.message));
}

/** `unknown command 'serv', did you mean 'serve'? See gatehouse help`. */
export function usageMessage(message: string): string {
  const [first = "", ...rest] = message.replace(/^error: /, "").split("\n");
  // The parser lists surplus arguments as they are, without quotes.
  const said = first.replace(/( but got \d+): .*$/, "$1");
  const meant = /\(Did you mean (?:one of )?(.+)\?\)/.exec(rest.join(" "))?.[1];
  const hint = meant === undefined ? ";" : `, did you mean ${meant}?`;
  return `${hideWords(said).replace(/\.$/, "")}${hint} see 'gatehouse help'`;
}

/** `'--token=abc'` -> `'--token'`; anything long or unlike a word is left out. */
function hideWords(line: string): string {
  return line.replace(/'([^']*)'/g, (_, quoted: string) => {
    const word = quoted.split("=", 1)[0] ?? "";
    // A description of the option (`-c, --config <file>`) is the parser's own text, not the caller's.
    const isOurs = /^(-\w, )?--[a-z-]+( [<[][a-z.]+[>\]])?$/.test(quoted);
    const isWord = /^-{0,2}[a-z][a-z-]*$/i.test(word) && word.length <= LONGEST_WORD;
    return isOurs ? `'${quoted}'` : isWord ? `'${word}'` : "(not shown)";
  });
}
