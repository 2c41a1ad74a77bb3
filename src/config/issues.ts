/**
 * How everything in config/ reports what is wrong: by config path, with the place in the file looked up once.
 *
 * Invariant: checks never stop at the first problem and never throw for bad input; they add to one list.
 */
import type { ConfigIssue } from "./model.ts";

/** Keys and list positions from the top of the document. */
export type ConfigPath = readonly (string | number)[];

/** Where something stands. `origin` names the variable or flag it came from instead of the file. */
export interface Place {
  readonly line: number;
  readonly column: number;
  readonly origin: string | null;
}

/** Finds the value at a path, or its key; of something that is missing, the nearest thing around it. */
export type Locate = (path: ConfigPath, what: "value" | "key") => Place;

/** Collects issues. */
export interface Reporter {
  /** Reports a value. */
  add(path: ConfigPath, message: string, hint?: string): void;
  /** Reports the key itself. */
  addKey(path: ConfigPath, message: string, hint?: string): void;
  /** Reports a place that has no config path, from 1; 0 when there is none. */
  addAt(line: number, column: number, message: string, hint?: string): void;
  /** How many so far. */
  count(): number;
  /** Everything so far, in the order of the file, without repetitions. */
  list(): ConfigIssue[];
}

/** More than anybody reads, and a bound on what a hostile file can make us print. */
const MAX_ISSUES = 100;

/** A path as people write it: `routes[0].match.path`. */
export function pathText(path: ConfigPath): string {
  return path.reduce<string>((text, step) => {
    if (typeof step === "number") return `${text}[${step}]`;
    return text === "" ? step : `${text}.${step}`;
  }, "");
}

/** A reporter over one document. */
export function createReporter(locate: Locate): Reporter {
  const issues = new Map<string, ConfigIssue>();
  const put = (path: string, place: Place, message: string, hint?: string) => {
    const said = place.origin === null ? message : `set by ${place.origin}: ${message}`;
    const base = { path, line: place.line, column: place.column, message: said };
    issues.set(`${path}\n${said}`, hint === undefined ? base : { ...base, hint });
  };
  return {
    add: (path, message, hint) => put(pathText(path), locate(path, "value"), message, hint),
    addKey: (path, message, hint) => put(pathText(path), locate(path, "key"), message, hint),
    addAt: (line, column, message, hint) => put("", { line, column, origin: null }, message, hint),
    count: () => issues.size,
    list: () => capped([...issues.values()].sort(byPlace)),
  };
}

/** Orders issues by their place in the file; those without one come first. */
export function byPlace(a: ConfigIssue, b: ConfigIssue): number {
  return a.line - b.line || a.column - b.column;
}

function capped(issues: ConfigIssue[]): ConfigIssue[] {
  if (issues.length <= MAX_ISSUES) return issues;
  const rest = issues.length - MAX_ISSUES;
  const note = { path: "", line: issues.at(MAX_ISSUES)?.line ?? 0, column: 1 };
  return [...issues.slice(0, MAX_ISSUES), { ...note, message: `${rest} more problems follow` }];
}

/** What stands at a path of plain data, or undefined. */
export function valueAt(value: unknown, path: ConfigPath): unknown {
  return path.reduce<unknown>((part, key) => {
    if (typeof part !== "object" || part === null) return undefined;
    return Object.getOwnPropertyDescriptor(part, key)?.value;
  }, value);
}
