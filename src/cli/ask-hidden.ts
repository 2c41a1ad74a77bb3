/**
 * A question on the terminal whose answer is not shown while it is typed.
 *
 * Invariant: the answer is neither echoed nor part of a message, and an interrupted question ends the command.
 */
import { createInterface } from "node:readline";
import { Writable } from "node:stream";
import { EXIT, OperatorError } from "../errors.ts";

/** Asks on the terminal without showing what is typed. */
export type AskHidden = (question: string) => Promise<string>;

/** Asks on standard error; `what` names what is missing when the input ends without an answer. */
export function askHidden(what: string): AskHidden {
  return async (question) => {
    // readline writes what is typed to its output, so its output goes nowhere.
    const nowhere = new Writable({ write: (_chunk, _encoding, done) => done() });
    const lines = createInterface({ input: process.stdin, output: nowhere, terminal: true });
    process.stderr.write(question);
    try {
      return await new Promise<string>((resolve, reject) => {
        lines.once("line", resolve);
        lines.once("SIGINT", () => reject(new OperatorError(EXIT.failure, "interrupted")));
        lines.once("close", () => reject(new OperatorError(EXIT.usage, `no ${what} was given`)));
      });
    } finally {
      lines.close();
      process.stderr.write("\n");
    }
  };
}
