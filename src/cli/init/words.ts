/**
 * Small things about what is said: why something failed, in one line.
 *
 * Invariant: what is not expected to fail is not swallowed.
 */
import { OperatorError } from "../../errors.ts";

/** What is wrong, when `check` says so by throwing; undefined when it does not. */
export function problemOf(check: () => void): string | undefined {
  try {
    check();
    return undefined;
  } catch (error) {
    if (!(error instanceof OperatorError)) throw error;
    const what = error.message.replace(/^--[a-z-]+: /, "");
    return error.hint === undefined ? what : `${what} (${error.hint})`;
  }
}

/** Broken between words. */
export function filled(text: string, width: number): string {
  const lines: string[] = [];
  let line = "";
  for (const word of text.split(" ")) {
    const longer = line === "" ? word : `${line} ${word}`;
    if (line !== "" && Bun.stringWidth(longer) > width) {
      lines.push(line);
      line = word;
    } else {
      line = longer;
    }
  }
  return [...lines, line].join("\n");
}
