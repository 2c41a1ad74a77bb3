/**
 * Request bodies: strict JSON before any schema looks at it.
 *
 * Invariant: a body that two readers could read in two ways is refused: another type or charset, bytes that are not
 * UTF-8, a key that is there twice. JSON is asked for in so many words, which a form of another site cannot say without
 * asking first (a CORS preflight), so a browser that sends a credential by itself cannot be used to make tokens.
 */
import type { MiddlewareHandler } from "hono";
import { countTopLevelNames } from "../../json-names.ts";
import { Problem } from "../answers.ts";

const MAX_BYTES = 65_536;

/** Before the validation of a JSON body. @throws Problem */
export const strictJson: MiddlewareHandler = async (c, next) => {
  const { headers } = c.req.raw;
  if (!isPlainJson(headers.get("content-type") ?? "")) throw new Problem("unsupported_media_type");
  const bytes = await c.req.arrayBuffer();
  if (bytes.byteLength > MAX_BYTES) {
    throw new Problem("body_too_large", `a body has at most ${MAX_BYTES} bytes`);
  }
  refuseTwice(readJson(bytes));
  // In the one spelling that everybody behind this understands.
  headers.set("content-type", "application/json");
  await next();
};

/** `application/json`, with no other charset than UTF-8. */
function isPlainJson(contentType: string): boolean {
  const [type = "", ...parameters] = contentType
    .split(";")
    .map((part) => part.trim().toLowerCase());
  if (type !== "application/json") return false;
  return parameters.every((one) => !one.startsWith("charset=") || /^charset="?utf-?8"?$/.test(one));
}

function readJson(bytes: ArrayBuffer): { readonly text: string; readonly value: unknown } {
  try {
    const text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
    return { text, value: JSON.parse(text) };
  } catch {
    throw new Problem(
      "malformed_json",
      bytes.byteLength === 0 ? "the body is empty; send {}" : undefined,
    );
  }
}

function refuseTwice({ text, value }: { readonly text: string; readonly value: unknown }): void {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return;
  const names = Object.keys(value);
  if (countTopLevelNames(text, () => true) === names.length) return;
  throw new Problem("invalid_request", "a key is there twice");
}
