/**
 * Header fields as parallel arrays: one entry per line, in the order they came.
 *
 * Invariant: every name is a token and every value is free of control bytes (RFC 9110 section 5.5), because only
 * the parser in head.ts makes these. So they can be written to a peer again without a second look.
 */

/** `lower[i]`, `raw[i]` and `values[i]` belong to line `i`. Strings hold bytes (latin1). */
export interface Fields {
  readonly lower: readonly string[];
  readonly raw: readonly string[];
  readonly values: readonly string[];
}

/** What `toLowerCase` would change, and all beyond ASCII. */
const CAPITAL = /[A-Z\x80-\uffff]/;

/** `toLowerCase`, which on a piece of a head takes three times as long as to see that there is nothing to do. */
export function lowerCase(text: string): string {
  return CAPITAL.test(text) ? text.toLowerCase() : text;
}

/** The value of the first line with this lower-case name, or undefined. */
export function firstValue(fields: Fields, name: string): string | undefined {
  const index = fields.lower.indexOf(name);
  return index === -1 ? undefined : fields.values[index];
}

/** The value of the only line with this lower-case name; undefined when there is none or more than one. */
export function onlyValue({ lower, values }: Fields, name: string): string | undefined {
  const index = lower.indexOf(name);
  if (index === -1 || lower.indexOf(name, index + 1) !== -1) return undefined;
  return values[index];
}

/** Every value with this lower-case name, in order. */
export function allValues(fields: Fields, name: string): string[] {
  const found: string[] = [];
  for (let i = fields.lower.indexOf(name); i !== -1; i = fields.lower.indexOf(name, i + 1)) {
    found.push(fields.values[i] ?? "");
  }
  return found;
}

/** The members of a comma-separated list header over all its lines, lower case, empty ones left out. */
export function listMembers(fields: Fields, name: string): string[] {
  const members: string[] = [];
  for (const value of allValues(fields, name)) {
    for (const member of value.split(",")) {
      const trimmed = lowerCase(member.trim());
      if (trimmed !== "") members.push(trimmed);
    }
  }
  return members;
}
