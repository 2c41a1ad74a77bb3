/**
 * Which files of the build context a `.dockerignore` keeps out.
 *
 * Invariant: the last rule that matches decides, as engines do it; a pattern of a kind that is not understood here is
 * an error.
 */

/** Rules in the order of the file: `{ pattern, keeps }`, where `keeps` brings a file back. */
export function parseIgnoreFile(text) {
  return text.split("\n").flatMap((raw) => {
    const line = raw.trim();
    if (line === "" || line.startsWith("#")) return [];
    const keeps = line.startsWith("!");
    const pattern = keeps ? line.slice(1) : line;
    if (/[?[\]\\]|\*\*/.test(pattern)) throw new Error(`${line} is not understood here`);
    return [{ pattern: new RegExp(`^${escaped(pattern)}(?:/|$)`), keeps }];
  });
}

function escaped(pattern) {
  return pattern.replace(/[.+^${}()|]/g, "\\$&").replaceAll("*", "[^/]*");
}

/** Whether a path, relative to the context, is kept out. A rule about a directory is about all that is in it. */
export function isIgnored(path, rules) {
  return rules.reduce((out, { pattern, keeps }) => (pattern.test(path) ? !keeps : out), false);
}
