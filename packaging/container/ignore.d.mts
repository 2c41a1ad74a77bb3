/** Types of ignore.mjs, for the tests. */

/** A line of a .dockerignore. */
export interface IgnoreRule {
  readonly pattern: RegExp;
  /** Brings files back. */
  readonly keeps: boolean;
}

export function parseIgnoreFile(text: string): readonly IgnoreRule[];

export function isIgnored(path: string, rules: readonly IgnoreRule[]): boolean;
