/**
 * What may be said about a route that answers a proxy's question, and about one whose requests the proxy forwards.
 *
 * Invariant: a key that could not have any effect there is reported: an operator who wrote a limit or a model list
 * must not believe that it holds.
 */
import type { Reporter } from "./issues.ts";
import type { DocumentParts, RoutePart } from "./parts.ts";
import { patternCovers } from "./pattern-cover.ts";

/** Name in `upstream` of what is no upstream of ours. */
export const PROXY = "proxy";

/** Keys whose work is done while forwarding. */
const FORWARDING = [
  "models",
  "cors",
  "response_headers",
  "max_body",
  "forward_credential",
  "chunked_body",
  "forwarded_headers",
] as const;
/** What decides about the original request is said by the route that is for it. */
const DECIDING = ["require", "refuse", "identity_headers"] as const;

/**
 * Checks one route of `parts`. Names of strategies and upstreams are somebody else's work.
 * @param index position of the route
 */
export function checkForwardAuth(
  route: RoutePart,
  parts: DocumentParts,
  index: number,
  report: Reporter,
): void {
  const base = ["routes", index];
  if (route.check === undefined) {
    if (route.access === undefined) {
      report.add(
        [...base, "access"],
        "missing: expected public or a list of strategies",
        "only a route with check may leave it out",
      );
    }
    if (route.upstream === PROXY) checkProxied(route, base, report);
    return;
  }
  const say = (key: string, message: string, hint?: string) =>
    report.add([...base, key], message, hint);
  if (route.access === "public") {
    say("access", "a question that everybody may ask lets everybody pass", "list strategies");
  }
  for (const key of ["upstream", "surface", ...FORWARDING] as const) {
    if (isWritten(route, key)) say(key, "a route with check forwards nothing", "remove it");
  }
  if (route.access === undefined) checkOriginal(route, parts, say);
  checkOrder(route, parts, index, say);
  checkHealth(route, parts, say);
  const { proxy, status } = readCheck(route.check);
  if (proxy === "envoy") checkEnvoy(route, status, say);
  const isNobodyTrusted = parts.server !== null && parts.server.trusted_proxies.length === 0;
  if (isNobodyTrusted && (proxy !== "generic" || route.access === undefined)) {
    say(
      "check",
      "questions are answered to trusted proxies only, and there are none",
      "write the proxy's address into server.trusted_proxies, such as [127.0.0.1/32]",
    );
  }
}

type Say = (key: string, message: string, hint?: string) => void;

function checkOriginal(route: RoutePart, parts: DocumentParts, say: Say): void {
  for (const key of DECIDING) {
    if (isWritten(route, key)) {
      say(
        key,
        "without access the original request is judged by the other routes",
        `write ${key} on those, or name strategies in access`,
      );
    }
  }
  if (!parts.routes.some((one) => one === null || one.check === undefined)) {
    say("check", "there is no route that the original request could be judged by", "add routes");
  }
}

/** The Host of a question is often that of the original, so only the path can be relied on. */
function checkOrder(route: RoutePart, parts: DocumentParts, index: number, say: Say): void {
  const taker = parts.routes.slice(0, index).findIndex((earlier) => {
    if (earlier === null || earlier.check !== undefined) return false;
    return pathsOf(route).some((path) =>
      pathsOf(earlier).some((wide) => patternCovers(wide, path)),
    );
  });
  if (taker === -1) return;
  say(
    "match",
    `routes[${taker}] before it could take the proxy's question`,
    "the first match wins: write routes with check first",
  );
}

function pathsOf({ match }: RoutePart): readonly string[] {
  return typeof match.path === "string" ? [match.path] : match.path;
}

function checkEnvoy(route: RoutePart, status: number, say: Say): void {
  if (status !== 200) say("check", "envoy lets a request pass only on status 200");
  const paths = pathsOf(route);
  if (!paths.every((path) => /^(?:\/[^/*]+)+\/\*\*$/.test(path))) {
    say(
      "match",
      "envoy puts a prefix before the original path: expected patterns such as /auth/envoy/**",
    );
  }
}

/** The health path answers 200 before any route is looked at. */
function checkHealth(route: RoutePart, parts: DocumentParts, say: Say): void {
  const health = parts.server?.health_path ?? null;
  if (health === null || !pathsOf(route).some((path) => patternCovers(path, health))) return;
  say("match", "server.health_path is below it, and would let a request pass", "move one of them");
}

function checkProxied(
  route: RoutePart,
  base: readonly (string | number)[],
  report: Reporter,
): void {
  for (const key of FORWARDING) {
    if (!isWritten(route, key)) continue;
    report.add(
      [...base, key],
      "the proxy in front forwards these requests, so this cannot have any effect",
      "remove it, or let an upstream of the gateway serve the route",
    );
  }
}

/** Whether a key says something else than its default. */
function isWritten(route: RoutePart, key: keyof RoutePart): boolean {
  const value = route[key];
  if (key === "chunked_body") return value !== "stream";
  if (key === "forwarded_headers") return value === false;
  if (value === undefined || value === false || value === "default") return false;
  return typeof value !== "object" || Object.keys(value).length > 0;
}

function readCheck(check: NonNullable<RoutePart["check"]>): { proxy: string; status: number } {
  if (typeof check === "string") return { proxy: check, status: 200 };
  return { proxy: check.proxy, status: check.allow_status };
}
