/**
 * The model policy of a route: only listed models may be asked for.
 *
 * Invariant: what cannot be read with one meaning is refused. A compressed body, a body that is not JSON, a `model`
 * that is missing, twice there or no text cannot slip past the list; nor can a header that names another model.
 */
import type { ModelPolicy } from "./config/model.ts";
import type { StrategyInstance } from "./contract/plugin.ts";
import type { RequestView } from "./request-view.ts";
import { collectBody } from "./wire/collect.ts";

export type ModelRefusal = "model_denied" | "model_unreadable" | "body_too_large";

/**
 * `null` lets the request pass. The body is read and then forwarded from memory.
 * @throws BodyReadError when the client broke off
 */
export async function checkModel(
  view: RequestView,
  policy: ModelPolicy,
  source: StrategyInstance | null,
): Promise<ModelRefusal | null> {
  const asked = await askedModels(view, policy);
  if (asked === "too_large") return "body_too_large";
  if (asked !== null && asked.length === 0) return null;
  const unreadable = policy.failsOpen ? null : "model_unreadable";
  if (asked === null) return unreadable;
  const known = policy.from === null ? [] : knownModels(source);
  const allowed = [...(policy.allow ?? []), ...(known ?? [])];
  if (asked.every((model) => allowed.includes(model))) return null;
  return known === null ? unreadable : "model_denied";
}

function knownModels(source: StrategyInstance | null): readonly string[] | null {
  try {
    const models = source?.models?.() ?? null;
    return models === null || models.length === 0 ? null : models;
  } catch {
    return null;
  }
}

/** Every model that the request names; empty when it has no body and no header; `null` when it cannot be told. */
async function askedModels(
  view: RequestView,
  { header, maxBodyBytes }: ModelPolicy,
): Promise<readonly string[] | null | "too_large"> {
  const named = header === null ? [] : view.headers.all(header);
  if (named.length > 1) return null;
  const body = await readAhead(view, maxBodyBytes);
  if (body === null) return "too_large";
  if (body.length === 0) return named;
  const encodings = view.headers.all("content-encoding").filter((one) => one !== "identity");
  const model = encodings.length > 0 ? null : modelOf(body);
  return model === null ? null : [...named, model];
}

async function readAhead(view: RequestView, maxBytes: number): Promise<Uint8Array | null> {
  const { body } = view;
  if (body === null) return new Uint8Array();
  const bytes = body instanceof Uint8Array ? body : await collectBody(body, maxBytes);
  if (bytes === null || bytes.length > maxBytes) return null;
  view.body = bytes;
  return bytes;
}

/** The one `model` of a JSON object; `null` when there is none, or more than one. */
function modelOf(bytes: Uint8Array): string | null {
  try {
    const text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
    const value: unknown = JSON.parse(text);
    if (typeof value !== "object" || value === null || !("model" in value)) return null;
    const { model } = value;
    return typeof model === "string" && countTopLevelKey(text, "model") === 1 ? model : null;
  } catch {
    return null;
  }
}

/** How often a key stands at the top level of valid JSON, in any spelling (`"m\u006fdel"` is `model`) and any case. */
function countTopLevelKey(json: string, key: string): number {
  let depth = 0;
  let count = 0;
  const tokens = /"(?:[^"\\]|\\.)*"|[{}[\]]/g;
  for (let match = tokens.exec(json); match !== null; match = tokens.exec(json)) {
    const [token] = match;
    if (token === "{" || token === "[") depth += 1;
    else if (token === "}" || token === "]") depth -= 1;
    else if (depth === 1 && isKey(json, tokens.lastIndex)) {
      const name: unknown = JSON.parse(token);
      // Some parsers match keys without regard to case (Go's encoding/json).
      if (typeof name === "string" && name.toLowerCase() === key) count += 1;
    }
  }
  return count;
}

function isKey(json: string, after: number): boolean {
  const colon = /[ \t\r\n]*:/y;
  colon.lastIndex = after;
  return colon.test(json);
}
