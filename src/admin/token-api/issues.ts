/**
 * What is wrong with a request, in a sentence for whoever wrote it.
 *
 * Invariant: values are never repeated; keys are, cut short.
 */
import type { z } from "zod";

const MAX_KEY = 60;

/** All issues, each with the key it is about: `description: expected text`. */
export function describeIssues(issues: readonly z.core.$ZodIssue[]): string {
  return issues.map(describe).join("; ");
}

function describe(issue: z.core.$ZodIssue): string {
  const place = issue.path.map(String).join(".");
  const text = textOf(issue);
  return place === "" ? text : `${place}: ${text}`;
}

function textOf(issue: z.core.$ZodIssue): string {
  switch (issue.code) {
    case "unrecognized_keys":
      return `unknown key ${issue.keys.map(quoted).join(", ")}`;
    case "invalid_type":
      return issue.input === undefined && issue.path.length > 0
        ? `expected a value of type ${issue.expected}`
        : `expected ${issue.expected}`;
    case "invalid_value":
      return `expected one of ${issue.values.map(String).join(", ")}`;
    default:
      return issue.message;
  }
}

function quoted(key: string): string {
  return `\`${key.length > MAX_KEY ? `${key.slice(0, MAX_KEY)}…` : key}\``;
}
