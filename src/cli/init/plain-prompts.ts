/**
 * The same questions for a terminal that cannot move its cursor, and for screen readers: lines, and an answer to each.
 *
 * Invariant: nothing that was written is written over; a secret is not shown; the end of the input is a no to
 * everything (Stopped).
 */
import { createInterface, type Interface } from "node:readline";
import { askHidden } from "../ask-hidden.ts";
import { type Interruption, Stopped } from "./interruption.ts";
import type { Choice, Prompter, Validate } from "./prompts.ts";

/** Asks on standard error. */
export function plainPrompter(interruption: Interruption): Prompter {
  const lines = openLines(interruption);
  const write = (text: string): void => void process.stderr.write(`${text}\n`);
  const ask = async <T>(
    question: string,
    read: (answer: string) => { readonly value: T } | { readonly problem: string },
  ): Promise<T> => {
    while (true) {
      const found = read((await lines.next(question)).trim());
      if ("value" in found) return found.value;
      write(found.problem);
    }
  };
  return {
    one(message, choices, initial) {
      write(listed(message, choices));
      const usual =
        Math.max(
          0,
          choices.findIndex(({ value }) => value === initial),
        ) + 1;
      return ask(`Number [${usual}]: `, (answer) => numbered(answer || String(usual), choices));
    },
    several(message, choices, initial) {
      write(listed(message, choices));
      const usual = choices.flatMap(({ value }, index) =>
        initial.includes(value) ? [index + 1] : [],
      );
      return ask(`Numbers, with commas [${usual.join(",")}]: `, (answer) =>
        allNumbered(answer || usual.join(","), choices),
      );
    },
    text: (message, { initial, validate }) =>
      ask(`${message}${initial === undefined ? "" : ` [${initial}]`} `, (answer) =>
        checked(answer || (initial ?? ""), validate),
      ),
    hidden: (message, validate) => askSecret(message, { validate, lines, write }),
    confirm: (message, initial) =>
      ask(`${message} [${initial ? "Y/n" : "y/N"}] `, (answer) => yesOrNo(answer, initial)),
    title: write,
    say: write,
    warn: (text) => write(`warning: ${text}`),
    done: write,
    end: (text) => {
      lines.close();
      write(text);
    },
  };
}

interface Lines {
  /** @throws Stopped at the end of the input, or when it was asked to stop */
  next(question: string): Promise<string>;
  /** While something else reads the terminal. */
  close(): void;
}

function openLines(interruption: Interruption): Lines {
  let lines: Interface | null = null;
  return {
    async next(question) {
      process.stderr.write(question);
      lines ??= createInterface({ input: process.stdin, terminal: false });
      const current = lines;
      const { promise, resolve, reject } = Promise.withResolvers<string>();
      const onClose = (): void => reject(new Stopped());
      current.once("line", resolve);
      current.once("close", onClose);
      try {
        return await interruption.until(promise);
      } finally {
        current.off("line", resolve);
        current.off("close", onClose);
      }
    },
    close() {
      lines?.close();
      lines = null;
    },
  };
}

async function askSecret(
  message: string,
  {
    validate,
    lines,
    write,
  }: { readonly validate: Validate; readonly lines: Lines; write(text: string): void },
): Promise<string> {
  lines.close();
  while (true) {
    const answer = (await orStopped(askHidden("secret")(`${message} `))).trim();
    const problem = validate(answer);
    if (problem === undefined) return answer;
    write(problem);
  }
}

/** Ctrl-C, or the end of the input. */
async function orStopped(asking: Promise<string>): Promise<string> {
  try {
    return await asking;
  } catch {
    throw new Stopped();
  }
}

function listed(message: string, choices: readonly Choice<string>[]): string {
  const lines = choices.map(
    ({ label, hint }, index) => `  ${index + 1}) ${label}${hint === undefined ? "" : ` (${hint})`}`,
  );
  return [message, ...lines].join("\n");
}

function numbered<Value extends string>(
  answer: string,
  choices: readonly Choice<Value>[],
): { readonly value: Value } | { readonly problem: string } {
  const choice = /^\d+$/.test(answer) ? choices[Number(answer) - 1] : undefined;
  return choice === undefined ? { problem: `a number from 1 to ${choices.length}` } : choice;
}

function allNumbered<Value extends string>(
  answer: string,
  choices: readonly Choice<Value>[],
): { readonly value: readonly Value[] } | { readonly problem: string } {
  const found = answer
    .split(/[\s,]+/)
    .filter((word) => word !== "")
    .map((word) => numbered(word, choices));
  const values = found.flatMap((one) => ("value" in one ? [one.value] : []));
  if (values.length > 0 && values.length === found.length) return { value: [...new Set(values)] };
  return { problem: `numbers from 1 to ${choices.length}, such as 1,2` };
}

function checked(
  answer: string,
  validate: Validate | undefined,
): { readonly value: string } | { readonly problem: string } {
  const problem = validate?.(answer);
  return problem === undefined ? { value: answer } : { problem };
}

function yesOrNo(
  answer: string,
  initial: boolean,
): { readonly value: boolean } | { readonly problem: string } {
  if (answer === "") return { value: initial };
  if (/^(?:y|yes)$/i.test(answer)) return { value: true };
  return /^(?:n|no)$/i.test(answer) ? { value: false } : { problem: "y or n" };
}
