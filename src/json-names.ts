/**
 * The names at the top level of a JSON text, as often as they stand there; JSON.parse tells only of the last one.
 *
 * Invariant: one pass, whatever the size, and without regular expressions: over a few million characters an
 * expression with alternatives gives up and says "no match", which would hide every name after a long text.
 */

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const COLON = 0x3a;

/**
 * How many names at the top level `isAlike` takes for the one looked for. Names are given decoded.
 * @param json a text that JSON.parse accepts
 */
export function countTopLevelNames(json: string, isAlike: (name: string) => boolean): number {
  let depth = 0;
  let count = 0;
  for (let at = 0; at < json.length; at++) {
    const code = json.charCodeAt(at);
    if (code === QUOTE) {
      const end = endOfText(json, at);
      if (depth === 1 && isName(json, end) && isAlike(JSON.parse(json.slice(at, end)))) count += 1;
      at = end - 1;
    } else depth += depthStep(code);
  }
  return count;
}

/** `{` and `[` begin a level, `}` and `]` end it. */
function depthStep(code: number): number {
  if (code === 0x7b || code === 0x5b) return 1;
  return code === 0x7d || code === 0x5d ? -1 : 0;
}

/** Behind the quote that closes the text which begins at `start`. */
function endOfText(json: string, start: number): number {
  for (let at = json.indexOf('"', start + 1); at !== -1; at = json.indexOf('"', at + 1)) {
    let first = at;
    while (json.charCodeAt(first - 1) === BACKSLASH) first -= 1;
    if ((at - first) % 2 === 0) return at + 1;
  }
  return json.length;
}

function isName(json: string, end: number): boolean {
  let at = end;
  while (isBlank(json.charCodeAt(at))) at += 1;
  return json.charCodeAt(at) === COLON;
}

function isBlank(code: number): boolean {
  return code === 0x20 || code === 0x09 || code === 0x0a || code === 0x0d;
}
