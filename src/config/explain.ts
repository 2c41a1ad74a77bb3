/**
 * Issues for people and for programs.
 *
 * Invariant: one line an issue in the form that editors and CI understand, `file:line:col: path: message`; the
 * hint follows, indented.
 */
import { isAbsolute } from "node:path";
import { byPlace } from "./issues.ts";
import type { ConfigIssue } from "./model.ts";

/** An issue with its file, for `--json`. */
export interface FiledIssue extends ConfigIssue {
  readonly file: string | null;
}

/** Text for standard error, with a final line break; empty when there are no issues. */
export function renderIssues(issues: readonly ConfigIssue[], file: string | null): string {
  return issues
    .toSorted(byPlace)
    .map(({ line, column, path, message, hint }) => {
      // What is about the file as a whole may begin with its path already.
      const isNamed = file !== null && path === "" && line === 0 && isAbout(message, file);
      const where = line === 0 ? [isNamed ? null : file] : [file ?? "configuration", line, column];
      const what = [path, message].filter((part) => part !== "").join(": ");
      const place = where.filter((part) => part !== null).join(":");
      const text = place === "" ? what : `${place}: ${what}`;
      return hint === undefined ? `${text}\n` : `${text}\n  ${hint}\n`;
    })
    .join("");
}

/** `/etc/x.yaml does not exist` is about `x.yaml`. */
function isAbout(message: string, file: string): boolean {
  return isAbsolute(message) && message.includes(`${file.replace(/^(?:\.\.?\/)+/, "")} `);
}

/** The same as data, in the same order. */
export function issuesAsData(issues: readonly ConfigIssue[], file: string | null): FiledIssue[] {
  return issues.toSorted(byPlace).map((issue) => ({ file, ...issue }));
}
