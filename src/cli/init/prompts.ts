/**
 * Questions on the terminal, over @clack/prompts.
 *
 * Invariant: asked on standard error, so that standard output is the result alone; an answer that is taken back
 * (Ctrl-C, Escape, a terminal that goes away) throws Stopped; the library is loaded when the first question is due.
 */
import { isatty } from "node:tty";
import type { CliContext } from "../context.ts";
import { type Interruption, Stopped } from "./interruption.ts";
import { plainPrompter } from "./plain-prompts.ts";
import { filled } from "./words.ts";

/** One of several answers. */
export interface Choice<Value extends string> {
  readonly value: Value;
  readonly label: string;
  readonly hint?: string;
}

/** What a text may look like; returns what is wrong with it, or undefined. */
export type Validate = (text: string) => string | undefined;

/** Asks people. Everything throws Stopped. */
export interface Prompter {
  one<Value extends string>(
    message: string,
    choices: readonly Choice<Value>[],
    initial?: Value,
  ): Promise<Value>;
  /** At least one of them. */
  several<Value extends string>(
    message: string,
    choices: readonly Choice<Value>[],
    initial: readonly Value[],
  ): Promise<readonly Value[]>;
  text(
    message: string,
    options: { readonly initial?: string; readonly validate?: Validate },
  ): Promise<string>;
  /** Not shown while it is typed. */
  hidden(message: string, validate: Validate): Promise<string>;
  confirm(message: string, initial: boolean): Promise<boolean>;
  title(text: string): void;
  /** Something the operator should know. */
  say(text: string): void;
  warn(text: string): void;
  /** Something that was done. */
  done(text: string): void;
  end(text: string): void;
}

/** Whether there is somebody to ask. */
export function isInteractive(context: Pick<CliContext, "stdinIsTerminal">): boolean {
  return context.stdinIsTerminal && isatty(2);
}

const USUAL_COLUMNS = 80;
const GUIDE_COLUMNS = 4;
const LEAST_COLUMNS = 16;

/** Loads the library. */
export async function openPrompter(
  { env }: Pick<CliContext, "env">,
  interruption: Interruption,
): Promise<Prompter> {
  const wantsLines = !["", "0", "false"].includes(env.ACCESSIBLE ?? "");
  if (env.TERM === "dumb" || wantsLines) return plainPrompter(interruption);
  const clack = await import("@clack/prompts");
  const common = { output: process.stderr, signal: interruption.signal };
  // A terminal that was closed says nothing more.
  process.stdin.once("end", interruption.stop);
  const answered = async <T>(asking: Promise<T>): Promise<Exclude<T, symbol>> => {
    const answer = await asking;
    interruption.check();
    if (isAnswer(answer)) return answer;
    throw new Stopped();
  };
  const validated = (validate: Validate) => (text: string | undefined) => validate(text ?? "");
  return {
    one: (message, choices, initial) =>
      answered(
        clack.select<string>({
          ...common,
          message,
          options: [...choices],
          ...(initial === undefined ? {} : { initialValue: initial }),
        }),
      ) as Promise<never>,
    several: (message, choices, initial) =>
      answered(
        clack.multiselect<string>({
          ...common,
          message,
          options: [...choices],
          initialValues: [...initial],
          required: true,
        }),
      ) as Promise<never>,
    text: (message, { initial, validate }) =>
      answered(
        clack.text({
          ...common,
          message,
          ...(initial === undefined ? {} : { initialValue: initial }),
          ...(validate === undefined ? {} : { validate: validated(validate) }),
        }),
      ).then((text) => text.trim()),
    hidden: (message, validate) =>
      answered(clack.password({ ...common, message, validate: validated(validate) })).then((text) =>
        text.trim(),
      ),
    confirm: (message, initial) =>
      answered(clack.confirm({ ...common, message, initialValue: initial })),
    title: (text) => clack.intro(text, common),
    say: (text) => clack.log.info(fitted(text), common),
    warn: (text) => clack.log.warn(fitted(text), common),
    done: (text) => clack.log.step(fitted(text), common),
    end: (text) => clack.outro(text, common),
  };
}

/** Lines that fit behind the guide; the library breaks its questions itself, but not its remarks. */
function fitted(text: string): string {
  const width = (process.stderr.columns ?? USUAL_COLUMNS) - GUIDE_COLUMNS;
  return text
    .split("\n")
    .map((line) => filled(line, Math.max(LEAST_COLUMNS, width)))
    .join("\n");
}

/** A symbol stands for an answer that was taken back. */
function isAnswer<T>(answer: T): answer is Exclude<T, symbol> {
  return typeof answer !== "symbol";
}
