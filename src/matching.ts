/**
 * Which route a request belongs to.
 *
 * Invariant: the router alone says what matches; this file only says what it is asked about.
 */
import type { BuiltRoute } from "./built-route.ts";
import type { Original } from "./check.ts";
import type { RouteConfig } from "./config/model.ts";
import { isPreflight } from "./cors.ts";
import type { Origin } from "./request-view.ts";
import { pathMatcher, type RouteMatch, type Router } from "./router.ts";
import { firstValue } from "./wire/fields.ts";
import type { RequestHead } from "./wire/head.ts";

/**
 * A preflight asks about another request: it belongs to the route of that one, where that has CORS rules, so that
 * `methods` of a route need not name OPTIONS.
 */
export function matchFor(
  router: Router<BuiltRoute>,
  { method, target, fields }: RequestHead,
  authority: string,
): RouteMatch<BuiltRoute> {
  if (isPreflight(method, fields)) {
    const wanted = firstValue(fields, "access-control-request-method") ?? "";
    const asked = router.match(authority, wanted, target);
    if (asked.kind === "route" && asked.route.config.cors !== null) return asked;
  }
  return router.match(authority, method, target);
}

/**
 * Whether some proxy asks at a target, as it was sent. A question there is answered by a route with `check` or by nobody:
 * its method, its host and what follows a prefix are often the client's, who could choose another route with them (a
 * public one, a preflight), and a 2xx from there would let the original pass.
 */
export function askedAt(routes: readonly RouteConfig[]): (target: string) => boolean {
  const asking = routes.filter(({ check }) => check !== null);
  const matchers = asking.flatMap(({ paths }) => paths.map(pathMatcher));
  if (matchers.length === 0) return () => false;
  return (target) => {
    const { path } = splitTarget(target);
    return matchers.some((matches) => matches(path));
  };
}

/** The route of a proxy's question judges by its own access; the original's path is its own, byte for byte. */
export function matchAsked(route: BuiltRoute, target: string): RouteMatch<BuiltRoute> {
  return { kind: "route", route, ...splitTarget(target) };
}

/** The request that a proxy asks about. Written out: copying with a spread showed in profiles. */
export function asOriginal(
  head: RequestHead,
  origin: Origin,
  { method, target, authority, scheme }: Original,
): { readonly head: RequestHead; readonly from: Origin } {
  const { minor, fields, framing, expectsContinue, keepAlive } = head;
  const { requestId, clientAddress, isPeerTrusted } = origin;
  return {
    head: { method, target, authority, minor, fields, framing, expectsContinue, keepAlive },
    from: { requestId, clientAddress, isPeerTrusted, scheme, authority },
  };
}

/** Path and query, the latter with its `?`. */
export function splitTarget(target: string): { path: string; query: string } {
  const mark = target.indexOf("?");
  if (mark === -1) return { path: target, query: "" };
  return { path: target.slice(0, mark), query: target.slice(mark) };
}
