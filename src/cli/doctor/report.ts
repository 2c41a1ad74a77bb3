/**
 * Findings as text that is readable on a narrow terminal and without colours.
 *
 * Invariant: the severity is a word, never only a colour; a command between back quotes, which is to be copied, is never
 * broken in two; nothing in a finding can move the cursor.
 */
import { printable } from "../columns.ts";
import type { CliContext } from "../context.ts";
import type { Counts, Finding, GroupedFinding, Severity } from "./finding.ts";

/** How to write. */
export interface Layout {
  /** In characters; lines are broken between words. */
  readonly width: number;
  readonly isColoured: boolean;
}

const COLOURS: Readonly<Record<Severity, string>> = {
  ok: "\u001b[32m",
  info: "\u001b[36m",
  warning: "\u001b[33m",
  error: "\u001b[1;31m",
};
const RESET = "\u001b[0m";
const LEAST_WIDTH = 24;
const MOST_WIDTH = 110;
const USUAL_WIDTH = 80;

/** What a terminal looks like from here. */
export interface TerminalFacts {
  readonly stdoutIsTerminal: boolean;
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Of the terminal, if it says. */
  readonly columns: number | undefined;
  /** False for `--no-color`. */
  readonly color: boolean | undefined;
}

/** The layout for this terminal, or for a file. */
export function layoutOf({ stdoutIsTerminal, env, columns, color }: TerminalFacts): Layout {
  const said = columns ?? Number(env.COLUMNS);
  const width = Number.isInteger(said) && said > 0 ? said : USUAL_WIDTH;
  const isPlain = (env.NO_COLOR ?? "") !== "" || env.TERM === "dumb" || color === false;
  return {
    width: Math.min(MOST_WIDTH, Math.max(LEAST_WIDTH, width)),
    isColoured: stdoutIsTerminal && !isPlain,
  };
}

/** The layout for where a command writes. @param color `--no-color` gives false */
export function layoutFor(
  { stdoutIsTerminal, env }: Pick<CliContext, "stdoutIsTerminal" | "env">,
  color: boolean | undefined,
): Layout {
  return layoutOf({ stdoutIsTerminal, env, columns: process.stdout.columns, color });
}

/** Findings under their headings, in their order; ends with a line break unless there are none. */
export function renderFindings(findings: readonly GroupedFinding[], layout: Layout): string {
  const groups = Map.groupBy(findings, ({ group }) => group);
  return [...groups]
    .map(([group, ofGroup]) => {
      const blocks = ofGroup.map((finding) => renderFinding(finding, layout));
      return `${group}\n${blocks.join("")}`;
    })
    .join("\n");
}

/** `1 error, 2 warnings, 3 remarks`. */
export function countsText({ error, warning, info }: Counts): string {
  const many = (count: number, word: string): string[] =>
    count === 0 ? [] : [`${count} ${word}${count === 1 ? "" : "s"}`];
  const parts = [...many(error, "error"), ...many(warning, "warning"), ...many(info, "remark")];
  return parts.length === 0 ? "nothing is wrong" : parts.join(", ");
}

function renderFinding(finding: Finding, layout: Layout): string {
  const { severity, what, why, next } = finding;
  const word = layout.isColoured ? `${COLOURS[severity]}${severity}${RESET}` : severity;
  const lines = [`  ${word}: ${wrapped(what, `  ${severity}: `, "    ", layout.width)}\n`];
  const say = (label: string, text: string | null): void => {
    if (text !== null) {
      lines.push(`    ${label}: ${wrapped(text, `    ${label}: `, "      ", layout.width)}\n`);
    }
  };
  say("why", why);
  say("mend", next);
  return lines.join("");
}

/** What is never broken: a word, and whatever stands between back quotes. */
function wordsOf(text: string): readonly string[] {
  return text.match(/(?:`[^`]*`|[^ `]|`)+/g) ?? [];
}

/** Broken between words; a word that is longer than a line stays whole. `first` already stands on the first line. */
function wrapped(text: string, first: string, indent: string, width: number): string {
  const lines: string[] = [];
  let line = "";
  let room = width - Bun.stringWidth(first);
  for (const word of wordsOf(printable(text.replaceAll("\n", " ")))) {
    const longer = line === "" ? word : `${line} ${word}`;
    if (line !== "" && Bun.stringWidth(longer) > room) {
      lines.push(line);
      line = word;
      room = width - indent.length;
    } else {
      line = longer;
    }
  }
  return [...lines, line].join(`\n${indent}`);
}
