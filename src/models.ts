/**
 * The model policy of a route: only listed models may be asked for.
 *
 * Invariant: what cannot be read with one meaning is refused. A compressed body, a body that is not JSON, a `model`
 * that is missing, twice there or no text cannot slip past the list; nor can a header or a query that names another
 * model, or a Content-Type under which the same bytes say something else.
 */
import type { ModelPolicy } from "./config/model.ts";
import type { StrategyInstance } from "./contract/plugin.ts";
import { countTopLevelNames } from "./json-names.ts";
import type { RequestView } from "./request-view.ts";

/** JSON that is called a form and would have more fields than this is not looked through. */
const MAX_FORM_PARTS = 100_000;

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

/** Every model that the request names; empty when it has no body and names none; `null` when it cannot be told. */
async function askedModels(
  view: RequestView,
  { header, maxBodyBytes }: ModelPolicy,
): Promise<readonly string[] | null | "too_large"> {
  const inHeader = header === null ? [] : view.headers.all(header);
  if (inHeader.length > 1) return null;
  const named = [...inHeader, ...modelsInQuery(view.query)];
  const body = await view.wholeBody(maxBodyBytes);
  if (body === null) return "too_large";
  if (body.length === 0) return named;
  const encodings = view.headers.all("content-encoding").filter((one) => one !== "identity");
  const reading = readingOf(view.headers.all("content-type"));
  if (encodings.length > 0 || reading === null) return null;
  const model = modelOf(body, reading === "form");
  return model === null ? null : [...named, model];
}

/** Some backends take the model from `?model=`. */
function modelsInQuery(query: string): string[] {
  return [...new URLSearchParams(query.replaceAll(";", "&"))].flatMap(([name, value]) =>
    name.toLowerCase() === "model" ? [value] : [],
  );
}

/**
 * How a backend that heeds Content-Type reads the body; `null` when that is not the reading here. In UTF-7, which
 * body-parser knows, `+ACI-` is a quote. A form is what curl says when it is told nothing, so its JSON still passes.
 */
function readingOf(contentTypes: readonly string[]): "json" | "form" | null {
  const type = contentTypes[0]?.toLowerCase() ?? "";
  if (contentTypes.length > 1 || type.includes(",") || type.includes("multipart/")) return null;
  const charsets = type.split("charset").slice(1);
  if (!charsets.every((rest) => /^ *= *"?(?:utf-?8|us-ascii)"? *(?:;|$)/.test(rest))) return null;
  return type.includes("form-urlencoded") ? "form" : "json";
}

/** Whether the text, taken for a form, has or may have a field for the model. */
function namesModelAsForm(text: string): boolean {
  const parts = text.split(/[&;]/, MAX_FORM_PARTS);
  return (
    parts.length === MAX_FORM_PARTS ||
    parts.some((part) => {
      const [name] = new URLSearchParams(part.split("=", 1)[0]).keys();
      return name !== undefined && /^\s*model\s*(?:\[|$)/i.test(name);
    })
  );
}

/** The one `model` of a JSON object; `null` when there is none, or more than one. */
function modelOf(bytes: Uint8Array, isForm: boolean): string | null {
  try {
    const text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
    const value: unknown = JSON.parse(text);
    if (typeof value !== "object" || value === null || !("model" in value)) return null;
    const { model } = value;
    if (typeof model !== "string" || countTopLevelNames(text, isModel) !== 1) return null;
    return isForm && namesModelAsForm(text) ? null : model;
  } catch {
    return null;
  }
}

/** Also in other letters (Go's encoding/json), and for those who end a name at a NUL (parsers in C). */
function isModel(name: string): boolean {
  const nul = name.indexOf("\0");
  return (nul === -1 ? name : name.slice(0, nul)).toLowerCase() === "model";
}
