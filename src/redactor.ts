/**
 * Takes secrets out of messages that plugins wrote.
 *
 * Invariant: a plugin may quote its setting in an error; whatever came out of a reference does not get further
 * than this. It is a net below the rule that plugins do not do so, not a replacement of it.
 */

/** Takes the values of references out of a message. */
export type Redact = (message: string) => string;

/**
 * Redacts what the references in `raw` stood for, given the same settings with references resolved. The whole text
 * that holds one is taken out as well as the part that it stood for.
 */
export function redactor(raw: unknown, resolved: unknown): Redact {
  const secrets = referenceValues(raw, resolved).filter((text) => text !== "");
  // Longest first: one may be part of another.
  secrets.sort((a, b) => b.length - a.length);
  return (message) => secrets.reduce((text, one) => text.replaceAll(one, "[redacted]"), message);
}

function referenceValues(raw: unknown, resolved: unknown): string[] {
  if (typeof raw === "string" && typeof resolved === "string") {
    if (raw === resolved) return [];
    // `Bearer ${env:KEY}`: the message may hold the whole text or the part that is secret. An escape (`$${`) makes
    // the text around it shorter than it was written; then only the whole is known.
    const [before = "", ...rest] = raw.includes("$${") ? [""] : raw.split(/\$\{[^}]*\}/);
    const after = rest.at(-1) ?? "";
    return [resolved, resolved.slice(before.length, resolved.length - after.length)];
  }
  if (typeof raw !== "object" || raw === null) return [];
  if (typeof resolved !== "object" || resolved === null) return [];
  const values = new Map<string, unknown>(Object.entries(resolved));
  return Object.entries(raw).flatMap(([key, value]) => referenceValues(value, values.get(key)));
}
