/**
 * What is refused before any strategy is asked, whoever sends it.
 *
 * Invariant: pure, and about the place and kind of a credential only, never about its value.
 */
import type { RouteConfig } from "./config/model.ts";
import type { RequestView } from "./request-view.ts";

/** RFC 6750 section 2.3 in a query: such URLs end in logs and histories (RFC 9700 section 4.3.2). */
const CREDENTIAL_IN_QUERY = /[?&](?:access_token|api_key|apikey)=/i;

/** Why the strategies are not even asked; `null` when they are. */
export function beforeAsking(
  view: RequestView,
  { refusedSchemes }: Pick<RouteConfig, "refusedSchemes">,
): "credential_in_url" | "scheme_refused" | null {
  if (CREDENTIAL_IN_QUERY.test(view.query)) return "credential_in_url";
  return isRefusedScheme(view, refusedSchemes) ? "scheme_refused" : null;
}

/** Whether the Authorization is of a scheme that the route answers 403 whoever sends it. */
function isRefusedScheme(view: RequestView, schemes: readonly string[]): boolean {
  if (schemes.length === 0) return false;
  return view.headers.all("authorization").some((value) => {
    const scheme = /^[^ \t]+/.exec(value)?.[0].toLowerCase();
    return scheme !== undefined && schemes.includes(scheme);
  });
}
