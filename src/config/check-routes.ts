/**
 * What routes mean: do the names they use exist, can they ever match, do their options go together.
 *
 * Invariant: only what is certainly wrong is reported. A route is called unreachable only if every host, path and
 * method of it is taken by an earlier route.
 */

import { checkForwardAuth, PROXY } from "./check-forward-auth.ts";
import { checkStrategyNames, checkSurfaceNames } from "./check-surfaces.ts";
import { isFramingHeader } from "./check-upstreams.ts";
import type { ConfigPath, Reporter } from "./issues.ts";
import type { CorsConfig, RouteConfig } from "./model.ts";
import type { DocumentParts, RoutePart } from "./parts.ts";
import { hostCovers, patternCovers } from "./pattern-cover.ts";
import { nameHint } from "./suggest.ts";

/** Names in `routes` against the names there are. Works on parts, so that a broken strategy still counts as named. */
export function checkRouteNames(parts: DocumentParts, report: Reporter): void {
  const strategies = parts.strategies.map(([name]) => name);
  const upstreams = parts.upstreams.map(([name]) => name);
  checkStrategyNames(strategies, report);
  if (upstreams.includes(PROXY)) {
    report.add(
      ["upstreams", PROXY],
      "this name stands for the reverse proxy in front, which forwards by itself",
      "choose another name",
    );
  }
  parts.routes.forEach((route, index) => {
    if (route === null) return;
    const base = ["routes", index];
    if (route.access !== undefined && route.access !== "public")
      checkAccess(route.access, strategies, [...base, "access"], report);
    checkForwardAuth(route, parts, index, report);
    const isNamed = route.upstream !== undefined && route.upstream !== PROXY;
    if (isNamed && !upstreams.includes(route.upstream ?? "")) {
      const hint = nameHint(route.upstream ?? "", upstreams, "there are no upstreams");
      report.add([...base, "upstream"], `unknown upstream \`${route.upstream}\``, hint);
    }
    checkOptions(route, base, report);
    checkOtherNames(route, strategies, base, report);
  });
}

/** Strategies that a route names elsewhere than in `access`, and the keys that go with them. */
function checkOtherNames(
  route: RoutePart,
  strategies: readonly string[],
  base: ConfigPath,
  report: Reporter,
): void {
  const known = (name: string, path: ConfigPath): void => {
    if (strategies.includes(name)) return;
    const hint = nameHint(name, strategies, "there are no strategies");
    report.add([...base, ...path], `unknown strategy \`${name}\``, hint);
  };
  checkSurfaceNames(route, strategies, base, report);
  if (Array.isArray(route.forward_credential)) {
    route.forward_credential.forEach((name, index) => {
      known(name, ["forward_credential", index]);
    });
  }
  if (route.models === undefined) return;
  const { allow, from } = route.models;
  if (from !== undefined) known(from, ["models", "from"]);
  if (allow === undefined && from === undefined) {
    report.add([...base, "models"], "expected allow, from, or both");
  }
}

function checkAccess(
  access: readonly string[],
  strategies: readonly string[],
  path: ConfigPath,
  report: Reporter,
): void {
  access.forEach((name, index) => {
    if (access.indexOf(name) !== index) {
      report.add([...path, index], `\`${name}\` is listed twice`, "remove one");
    } else if (!strategies.includes(name)) {
      const hint =
        name === "public"
          ? "a public route is written `access: public`"
          : nameHint(name, strategies, "there are no strategies");
      report.add([...path, index], `unknown strategy \`${name}\``, hint);
    }
  });
}

function checkOptions(route: RoutePart, base: ConfigPath, report: Reporter): void {
  if (route.access === "public" && route.require !== undefined) {
    report.add(
      [...base, "require"],
      "a public route has no identity that could satisfy this",
      "remove require, or list strategies in access",
    );
  }
  if (route.cors !== undefined) checkCors(route.cors, [...base, "cors"], report);
  if (typeof route.identity_headers === "object") {
    const { attributes = {}, ...facts } = route.identity_headers;
    const named = {
      ...facts,
      ...Object.fromEntries(Object.keys(attributes).map((one) => [one, one])),
    };
    checkIdentityHeaders(named, [...base, "identity_headers"], report);
  }
}

function checkCors(
  cors: Pick<CorsConfig, "origins" | "methods" | "credentials">,
  path: ConfigPath,
  report: Reporter,
): void {
  cors.origins.forEach((origin, index) => {
    if (origin === "*") {
      if (cors.origins.length === 1) return;
      report.add([...path, "origins", index], "* stands alone", "remove the other origins or *");
    } else if (!/^[a-z][a-z0-9+.-]*:\/\/[^\s/?#@A-Z,*]+$/.test(origin)) {
      report.add(
        [...path, "origins", index],
        "expected an exact origin in lower case, without a path",
        "for instance https://app.example.com",
      );
    }
  });
  if (cors.credentials && cors.origins.includes("*")) {
    report.add(
      [...path, "credentials"],
      "cookies cannot be allowed to every origin",
      "name the origins, or set credentials: false",
    );
  }
  cors.methods.forEach((method, index) => {
    if (/^[A-Z]{1,20}$/.test(method)) return;
    report.add([...path, "methods", index], "expected an upper-case method such as GET");
  });
}

function checkIdentityHeaders(
  names: Readonly<Record<string, string | undefined>>,
  path: ConfigPath,
  report: Reporter,
): void {
  const seen = new Map<string, string>();
  for (const [fact, header] of Object.entries(names)) {
    if (header === undefined) continue;
    const other = seen.get(header.toLowerCase());
    if (other !== undefined) {
      report.add(
        [...path, fact],
        `the same header as \`${other}\``,
        "give each fact its own header",
      );
    }
    if (isFramingHeader(header)) {
      report.add([...path, fact], "this header belongs to the connection", "choose another name");
    }
    seen.set(header.toLowerCase(), fact);
  }
}

/** A body that is held in memory needs a limit, the route's or its upstream's, and somebody who may fill it. */
export function checkHeldBodies(routes: readonly (RouteConfig | null)[], report: Reporter): void {
  routes.forEach((route, index) => {
    if (route === null || !route.holdsChunked) return;
    const path = ["routes", index, "chunked_body"];
    if (route.maxBodyBytes === null) {
      const hint = "set max_body of the route, for instance to 32MiB";
      report.add(path, "a body that is held in memory needs a limit", hint);
    }
    if (route.access === "public") {
      const hint = "write chunked_body: stream, or list strategies in access";
      report.add(path, "anybody could fill the memory with bodies that are held", hint);
    }
  });
}

/** Reports every route that can never match because earlier ones take all of it. */
export function checkReachability(routes: readonly (RouteConfig | null)[], report: Reporter): void {
  routes.forEach((route, index) => {
    if (route === null) return;
    const covering = coveredBy(route, routes.slice(0, index));
    if (covering === null) return;
    const names = covering.map((one) => `routes[${one}]`).join(" and ");
    const verb = covering.length === 1 ? "covers" : "cover";
    report.add(
      ["routes", index, "match"],
      `this route can never match: ${names} before it ${verb} everything it is for`,
      "the first match wins: move it up, or remove it",
    );
  });
}

/** The earlier routes that together take everything, or null when something is left. */
function coveredBy(
  route: RouteConfig,
  earlier: readonly (RouteConfig | null)[],
): readonly number[] | null {
  const covering = new Set<number>();
  for (const path of route.paths) {
    for (const host of orAny(route.hosts)) {
      for (const method of orAny(route.methods)) {
        const taker = earlier.find(
          (one) => one !== null && takes(one, { route, path, host, method }),
        );
        if (taker === null || taker === undefined) return null;
        covering.add(taker.index);
      }
    }
  }
  return [...covering].sort((a, b) => a - b);
}

/** One combination that a route is for; null is every host or method. */
interface Combination {
  readonly route: RouteConfig;
  readonly path: string;
  readonly host: string | null;
  readonly method: string | null;
}

function takes(earlier: RouteConfig, { route, path, host, method }: Combination): boolean {
  const isHostTaken =
    earlier.hosts.length === 0 ||
    (host !== null && earlier.hosts.some((wide) => hostCovers(wide, host)));
  const isMethodTaken =
    earlier.methods.length === 0 || (method !== null && earlier.methods.includes(method));
  if (!isHostTaken || !isMethodTaken) return false;
  // With different `slashes` the two look at different forms of a path; only `/**` is for all of them.
  return earlier.paths.some(
    (wide) => wide === "/**" || (earlier.slashes === route.slashes && patternCovers(wide, path)),
  );
}

function orAny(list: readonly string[]): readonly (string | null)[] {
  return list.length === 0 ? [null] : list;
}
