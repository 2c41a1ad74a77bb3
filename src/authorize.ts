/**
 * Identity and route to allow or deny.
 *
 * Invariant: pure; a requirement that is written is met or the answer is deny.
 */
import type { RouteConfig } from "./config/model.ts";
import type { Identity } from "./contract/outcome.ts";

/** `null` allows; otherwise why not. */
export type Denial = "insufficient_role" | "insufficient_scope";

/** Checks `require` of the route. An admin also satisfies `user`. */
export function authorize(
  route: Pick<RouteConfig, "requireRole" | "requireScopes">,
  identity: Identity,
): Denial | null {
  if (route.requireRole === "admin" && identity.role !== "admin") return "insufficient_role";
  if (route.requireScopes.length === 0) return null;
  const scopes = identity.scopes ?? [];
  const isMissingOne = route.requireScopes.some((scope) => !scopes.includes(scope));
  return isMissingOne ? "insufficient_scope" : null;
}
