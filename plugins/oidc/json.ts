/**
 * JSON objects as tokens carry them: UTF-8, and with no name twice.
 *
 * Invariant: a text that two readers could understand differently has no value here.
 */

/** A JSON object. Names such as `__proto__` are names like all others: look with `Object.hasOwn`. */
export type JsonObject = Readonly<Record<string, unknown>>;

/** What the bytes are: an object; an object with a name twice in it, as the last one counts; or neither. */
export type ReadObject =
  | { readonly kind: "object"; readonly value: JsonObject }
  | { readonly kind: "ambiguous"; readonly value: JsonObject }
  | { readonly kind: "none" };

/** A byte order mark is kept, so that it is what it is to JSON: an error. */
const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

const NONE: ReadObject = { kind: "none" };

/** Strings whole, so that what stands in them is not looked at, and what gives a text its structure. */
const PIECES = /"(?:[^"\\]|\\.)*"|[{}[\]:]/g;

/** Reads an object. */
export function readObject(bytes: Uint8Array): ReadObject {
  try {
    const text = decoder.decode(bytes);
    const value: unknown = JSON.parse(text);
    if (!isObject(value)) return NONE;
    return { kind: hasNameTwice(text) ? "ambiguous" : "object", value };
  } catch {
    return NONE;
  }
}

/** Neither `null` nor a list. */
export function isObject(value: unknown): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** What stands under a name of the object itself, `undefined` when nothing does. */
export function own(object: JsonObject, name: string): unknown {
  return Object.hasOwn(object, name) ? object[name] : undefined;
}

/** At any level. The text is known to be JSON, so a colon follows a name and brackets match. */
function hasNameTwice(text: string): boolean {
  const levels: Set<string>[] = [];
  let previous = "";
  for (const [piece] of text.matchAll(PIECES)) {
    if (piece === "{" || piece === "[") levels.push(new Set());
    else if (piece === "}" || piece === "]") levels.pop();
    else if (piece !== ":") previous = piece;
    else if (!isNew(nameIn(previous), levels.at(-1))) return true;
  }
  return false;
}

function isNew(name: string, names: Set<string> | undefined): boolean {
  if (names === undefined || names.has(name)) return false;
  names.add(name);
  return true;
}

/** Escapes count for what they stand for: "is\u0073" is "iss". */
function nameIn(quoted: string): string {
  return quoted.includes("\\") ? String(JSON.parse(quoted)) : quoted.slice(1, -1);
}
