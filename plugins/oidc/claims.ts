/**
 * Finding claims by name or path, and reading them as what they should be.
 *
 * Invariant: only a claim's own members are looked at, and a value of another type than expected counts as missing.
 */
import { isObject, type JsonObject, own } from "./json.ts";

/** Longest text that becomes part of an identity. */
const MAX_TEXT = 1024;

/**
 * What stands at `path`. The whole is tried as a name first (`https://example.com/roles`), at every level, and then
 * cut at its dots (`realm_access.roles`, `resource_access.my.app.roles`).
 */
export function claimAt(claims: JsonObject, path: string): unknown {
  if (Object.hasOwn(claims, path)) return own(claims, path);
  for (let dot = path.indexOf("."); dot !== -1; dot = path.indexOf(".", dot + 1)) {
    const inner = own(claims, path.slice(0, dot));
    const found = isObject(inner) ? claimAt(inner, path.slice(dot + 1)) : undefined;
    if (found !== undefined) return found;
  }
  return undefined;
}

/** Trimmed; `undefined` when it is not a text, blank, over 1024 characters or has half a surrogate pair. */
export function textOf(value: unknown): string | undefined {
  if (typeof value !== "string" || value.length > MAX_TEXT || !value.isWellFormed()) return;
  const text = value.trim();
  return text === "" ? undefined : text;
}

/**
 * A text as it is, or a whole number in its digits. One that JSON numbers cannot tell from the next is none, nor is a text
 * with blanks around it: trimmed it would be somebody else's, where people choose their names themselves.
 */
export function idOf(value: unknown): string | undefined {
  if (typeof value === "number") return Number.isSafeInteger(value) ? String(value) : undefined;
  const text = textOf(value);
  return text === value ? text : undefined;
}

/** The texts of a list, others left out; a single text as one, or split at white space. Not trimmed. */
export function textsOf(value: unknown, isSplit: boolean): string[] {
  const list: readonly unknown[] = Array.isArray(value) ? value : isSplit ? words(value) : [value];
  return list.filter((item): item is string => textOf(item) !== undefined);
}

function words(value: unknown): string[] {
  return typeof value === "string" ? value.split(/\s+/) : [];
}

/** Whether the claim is one of the wanted texts, or a list that holds one. Numbers and booleans count as written. */
export function isOneOf(value: unknown, wanted: readonly string[]): boolean {
  const said: readonly unknown[] = Array.isArray(value) ? value : [value];
  return said.some(
    (item) =>
      ["string", "number", "boolean"].includes(typeof item) && wanted.includes(String(item)),
  );
}
