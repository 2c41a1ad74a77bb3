/**
 * From host, path and method to a route. Built once, immutable.
 *
 * Invariant: the first route that matches wins, and only if every reading of the path (path.ts) leads to the same
 * one; what was matched is what is forwarded.
 */
import type { RouteConfig } from "./config/model.ts";
import { type CanonicalPath, canonicalPath, foldPath, needsFold, readingsOf } from "./path.ts";

/** What the router says. `path` and `query` are what is forwarded; `query` has its `?`. */
export type RouteMatch<Route> =
  | { readonly kind: "route"; readonly route: Route; readonly path: string; readonly query: string }
  | { readonly kind: "none"; readonly path: string }
  | { readonly kind: "refused"; readonly reason: "path_ambiguous" | "path_malformed" };

export interface Router<Route> {
  /** @param authority host with optional port, lower case; @param target path and query as sent */
  match(authority: string, method: string, target: string): RouteMatch<Route>;
  /**
   * The same for a request that somebody else forwards, byte for byte as it came: what it was before dots and slashes
   * were resolved is one more reading. `path` is the one sent.
   */
  matchAsSent(authority: string, method: string, target: string): RouteMatch<Route>;
}

type Matcher = (path: string) => boolean;

interface CompiledRoute<Route> {
  readonly route: Route;
  readonly hosts: readonly Matcher[];
  readonly methods: ReadonlySet<string> | null;
  readonly paths: readonly Matcher[];
  readonly foldedPaths: readonly Matcher[];
  readonly isKept: boolean;
}

/** Compiles routes; `build` makes whatever the caller wants to get back for each. */
export function createRouter<Route>(
  routes: readonly RouteConfig[],
  build: (config: RouteConfig) => Route,
): Router<Route> {
  const compiled = routes.map((config) => compile(config, build(config)));
  const isFolded = routes.every(({ paths }) => paths.every((path) => foldPath(path) === path));
  const isForAll = compiled.every(({ hosts, methods }) => hosts.length === 0 && methods === null);
  const find = (authority: string, method: string, target: string, isSentOn: boolean) => {
    const mark = target.indexOf("?");
    const raw = mark === -1 ? target : target.slice(0, mark);
    const forms = canonicalPath(raw);
    if (forms === null) return { kind: "refused", reason: "path_malformed" } as const;
    const candidates = isForAll ? compiled : candidatesFor(compiled, hostOf(authority), method);
    const { found, canonical } = firstFor(candidates, forms);
    const path = isSentOn ? raw : canonical;
    if (!readingsAgree({ candidates, found, isFolded }, path, forms.isPlain)) {
      return { kind: "refused", reason: "path_ambiguous" } as const;
    }
    if (found === undefined) return { kind: "none", path } as const;
    const query = mark === -1 ? "" : target.slice(mark);
    return { kind: "route", route: found.route, path, query } as const;
  };
  return {
    match: (authority, method, target) => find(authority, method, target, false),
    matchAsSent: (authority, method, target) => find(authority, method, target, true),
  };
}

interface Finding<Route> {
  readonly candidates: readonly CompiledRoute<Route>[];
  readonly found: CompiledRoute<Route> | undefined;
  /** Every pattern is as {@link foldPath} leaves it, so a folded path matches as it is. */
  readonly isFolded: boolean;
}

function readingsAgree<Route>(finding: Finding<Route>, path: string, isPlain: boolean): boolean {
  // The only reading of a plain path is the one that has led to `found`.
  if (isPlain) return foldedAgrees(finding, path);
  const { candidates, found } = finding;
  const readings = readingsOf(path);
  if (readings === null) return false;
  // `path` itself is among them: a route that keeps slashes may own what another one has merged.
  for (const reading of readings) {
    if (candidates.find((one) => fits(one.paths, reading)) !== found) return false;
    if (!foldedAgrees(finding, reading)) return false;
  }
  return true;
}

function foldedAgrees<Route>(finding: Finding<Route>, reading: string): boolean {
  const { candidates, found, isFolded } = finding;
  if (isFolded && !needsFold(reading)) return true;
  const folded = foldPath(reading);
  return candidates.find((one) => fits(one.foldedPaths, folded)) === found;
}

function compile<Route>(config: RouteConfig, route: Route): CompiledRoute<Route> {
  return {
    route,
    hosts: config.hosts.map(hostMatcher),
    methods: config.methods.length === 0 ? null : new Set(config.methods),
    paths: config.paths.map(pathMatcher),
    foldedPaths: config.paths.map((pattern) => pathMatcher(foldPath(pattern))),
    isKept: config.slashes === "keep",
  };
}

function firstFor<Route>(routes: readonly CompiledRoute<Route>[], forms: CanonicalPath) {
  const found = routes.find((one) => fits(one.paths, one.isKept ? forms.kept : forms.merged));
  return { found, canonical: found?.isKept ? forms.kept : forms.merged };
}

function candidatesFor<Route>(
  routes: readonly CompiledRoute<Route>[],
  host: string,
  method: string,
): readonly CompiledRoute<Route>[] {
  return routes.filter((one) => isFor(one, host, method));
}

function isFor<Route>(route: CompiledRoute<Route>, host: string, method: string): boolean {
  if (route.methods !== null && !route.methods.has(method)) return false;
  return route.hosts.length === 0 || fits(route.hosts, host);
}

function fits(matchers: readonly Matcher[], text: string): boolean {
  for (const matches of matchers) if (matches(text)) return true;
  return false;
}

/** `example.com:8080`, `[::1]:8080` and `example.com.` without port and root label: they name the same host. */
function hostOf(authority: string): string {
  const colon = authority.lastIndexOf(":");
  const host = colon === -1 || authority.endsWith("]") ? authority : authority.slice(0, colon);
  let end = host.length;
  while (host.charCodeAt(end - 1) === DOT) end -= 1;
  return host.slice(0, end);
}

const DOT = 0x2e;

function hostMatcher(pattern: string): Matcher {
  if (!pattern.startsWith("*.")) return (host) => host === pattern;
  const suffix = pattern.slice(1);
  return (host) => host.length > suffix.length && host.endsWith(suffix);
}

/** Exact, `*` for one segment, `**` for any depth including none: `/v1/**` is also for `/v1`. */
export function pathMatcher(pattern: string): Matcher {
  if (pattern === "/**") return () => true;
  if (!pattern.includes("*")) return (path) => path === pattern;
  const prefix = pattern.slice(0, -3);
  if (pattern.endsWith("/**") && !prefix.includes("*")) {
    const below = `${prefix}/`;
    return (path) => path === prefix || path.startsWith(below);
  }
  if (pattern.split("/").filter((segment) => segment === "**").length > 1) {
    return segmentMatcher(pattern);
  }
  const source = pattern
    .split("/")
    .slice(1)
    .map((segment) => {
      if (segment === "**") return "(?:/.*)?";
      return segment === "*" ? "/[^/]+" : `/${segment.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")}`;
    })
    .join("");
  const form = new RegExp(`^${source}$`);
  return (path) => form.test(path);
}

/**
 * The same for a pattern with more than one `**`, for which an expression would try every way to share out a long path
 * among them. Here only the last one that was met can take more.
 */
function segmentMatcher(pattern: string): Matcher {
  const wanted = pattern.split("/").slice(1);
  return (path) => {
    const segments = path.split("/").slice(1);
    let next = 0;
    let open: { readonly next: number; taken: number } | null = null;
    for (let at = 0; at < segments.length; ) {
      const segment = segments[at];
      const want = wanted[next];
      if (want === "**") {
        next += 1;
        open = { next, taken: at };
      } else if (want === segment || (want === "*" && segment !== "")) {
        next += 1;
        at += 1;
      } else if (open === null) {
        return false;
      } else {
        open.taken += 1;
        next = open.next;
        at = open.taken;
      }
    }
    return wanted.slice(next).every((want) => want === "**");
  };
}
