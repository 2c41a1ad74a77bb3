/**
 * The surface `docs`: the OpenAPI document of a strategy's token API, and the same as a page.
 *
 * Invariant: both are made from the routes of the config, when they are first asked for, and do not depend on who asks.
 */
import type { Surface } from "../../contract/plugin.ts";
import { jsonAnswer, Problem, problemAnswer, secured } from "../answers.ts";
import { docsPage, STYLE_SOURCE } from "./docs-page.ts";
import { type Mounted, openApiDocument } from "./document.ts";

const DOCUMENT = "openapi.json";

/** What it needs. */
export interface DocsParts {
  /** Path patterns of the route. */
  readonly patterns: readonly string[];
  /** The routes of the token API. */
  readonly documented: readonly Mounted[];
  readonly publicUrls: readonly string[];
}

/** Mount it on `/docs/**`, or on paths of which one ends in `/openapi.json`. */
export function docsSurface({ patterns, documented, publicUrls }: DocsParts): Surface {
  const document = once(() => openApiDocument(documented, publicUrls));
  const page = once(() => docsPage(document(), documentPath(patterns)));
  const pages = new Set(patterns.map((pattern) => pattern.replace(/\/\*\*?$/, "") || "/"));
  return {
    name: "docs",
    handle({ url, method }, { requestId }) {
      const { pathname } = new URL(url);
      const isDocument = pathname.endsWith(`/${DOCUMENT}`);
      const refused = (problem: Problem) => secured(problemAnswer(problem, requestId));
      if (!isDocument && !pages.has(pathname)) return refused(new Problem("no_route"));
      if (method !== "GET" && method !== "HEAD") {
        return refused(new Problem("method_not_allowed", undefined, { allow: "GET, HEAD" }));
      }
      if (isDocument) return secured(jsonAnswer(200, document()));
      const headers = { "content-type": "text/html; charset=utf-8" };
      return secured(new Response(page(), { headers }), STYLE_SOURCE);
    },
  };
}

/** Where the document is, from wherever the page is; `null` when no pattern leads to it. */
function documentPath(patterns: readonly string[]): string | null {
  const literal = patterns.find((pattern) => pattern.endsWith(`/${DOCUMENT}`));
  if (literal !== undefined && !literal.includes("*")) return literal;
  const wide = patterns.find((pattern) => /\/\*\*?$/.test(pattern));
  return wide === undefined ? null : wide.replace(/\*\*?$/, DOCUMENT);
}

function once<T>(make: () => T): () => T {
  let made: { readonly value: T } | null = null;
  return () => {
    made ??= { value: make() };
    return made.value;
  };
}
