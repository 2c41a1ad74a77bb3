/**
 * JSON as a signed event must be written: what every reader of it would read the same way.
 *
 * Invariant: a text with a key twice in one object, at any level and however it is escaped, or with a number that
 * is not written as a plain integer, has no value here; two parsers could understand it differently.
 */

/** Strings whole, so that what stands in them is not looked at; structure; numbers. */
const TOKENS = /"[^"\\]*(?:\\.[^"\\]*)*"|[{}[\]:]|-?\d[\d.eE+-]*/g;

const INTEGER = /^-?\d+$/;

/** The value of `text`, or `undefined` when it is not JSON or not strict (see above). */
export function parseStrict(text: string): unknown {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return undefined;
  }
  return isUnambiguous(text) ? value : undefined;
}

/** `text` is known to be JSON, so a colon only ever follows a key and the brackets match. */
function isUnambiguous(text: string): boolean {
  /** Keys of the objects we are in; an array has none. */
  const open: Set<string>[] = [];
  let last = "";
  for (const [token] of text.matchAll(TOKENS)) {
    if (token === "{" || token === "[") open.push(new Set());
    else if (token === "}" || token === "]") open.pop();
    else if (token.startsWith('"')) last = token;
    else if (token === ":" ? !isNew(keyOf(last), open.at(-1)) : !INTEGER.test(token)) return false;
  }
  return true;
}

function isNew(key: string, keys: Set<string> | undefined): boolean {
  if (keys === undefined || keys.has(key)) return false;
  keys.add(key);
  return true;
}

function keyOf(quoted: string): string {
  return quoted.includes("\\") ? String(JSON.parse(quoted)) : quoted.slice(1, -1);
}
