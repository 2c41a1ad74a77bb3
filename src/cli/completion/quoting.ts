/**
 * Texts of ours in a script for a shell.
 *
 * Invariant: bash, zsh and fish read back exactly the text, whatever it contains.
 */

/** In single quotes, for bash and zsh. */
export function quoted(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

/** In single quotes, for fish, where a backslash counts within them. */
export function fishQuoted(text: string): string {
  return `'${text.replaceAll("\\", "\\\\").replaceAll("'", "\\'")}'`;
}
