/**
 * Which paths are tried: one for each route of the configuration, or those that model servers usually have.
 *
 * Invariant: pure. What a path should be (guarded, public) is said by the configuration's own router, or not at all.
 */
import type { GatewayConfig, RouteConfig } from "../../config/model.ts";
import { createRouter } from "../../router.ts";
import type { Target } from "./target.ts";

/** A path to try. */
export interface Candidate {
  readonly path: string;
  /** `unknown`: nobody said. */
  readonly expected: "guarded" | "public" | "unknown";
  /** That it is open is usual, or is worse than usual. Without a configuration only. */
  readonly openIs: "usual" | "bad" | "odd";
}

const WORD = "gatehouse-doctor";
const MOST_GUARDED = 24;
const MOST_PUBLIC = 4;

const USUAL = ["/", "/health", "/healthz", "/livez", "/readyz", "/robots.txt", "/favicon.ico"];
const BAD = [
  "/v1/models",
  "/v1/chat/completions",
  "/api/tags",
  "/api/ps",
  "/api/keys",
  "/metrics",
  "/slots",
  "/props",
  "/queue",
  "/admin",
  "/config",
];
const ODD = ["/docs", "/openapi.json", "/version", "/status"];

/** At most some two dozen paths, the path of the URL first. */
export function candidates(target: Target, config: GatewayConfig | null): readonly Candidate[] {
  if (config === null) return withoutConfig(target);
  const router = createRouter(config.routes, (route) => route);
  const expectedOf = (path: string): Candidate["expected"] => {
    if (path === config.server.healthPath) return "public";
    const match = router.match(target.authority.toLowerCase(), "GET", path);
    if (match.kind !== "route" || match.route.check !== null) return "unknown";
    return match.route.access === "public" || match.route.isAnonymous ? "public" : "guarded";
  };
  // Those that servers usually have as well: whoever is in front may treat them otherwise.
  const paths = [target.path, ...config.routes.flatMap(samplesOf), ...USUAL, ...BAD, ...ODD];
  const all = [...new Set(paths)].map(
    (path): Candidate => ({ path, expected: expectedOf(path), openIs: "bad" }),
  );
  const some = (expected: Candidate["expected"], most: number): readonly Candidate[] =>
    all.filter((one) => one.expected === expected).slice(0, most);
  return [...some("guarded", MOST_GUARDED), ...some("public", MOST_PUBLIC)];
}

/** What the configuration says about any other path; `unknown` also where it would be refused. */
export function isPublicBy(config: GatewayConfig | null, authority: string, path: string): boolean {
  if (config === null) return false;
  if (path === config.server.healthPath) return true;
  const match = createRouter(config.routes, (route) => route).match(authority, "GET", path);
  return match.kind === "route" && match.route.access === "public";
}

function samplesOf({ paths, methods }: RouteConfig): readonly string[] {
  if (methods.length > 0 && !methods.includes("GET")) return [];
  return paths.map((pattern) => pattern.replaceAll(/\*\*?/g, WORD));
}

function withoutConfig(target: Target): readonly Candidate[] {
  const of = (paths: readonly string[], openIs: Candidate["openIs"]): readonly Candidate[] =>
    paths.map((path) => ({ path, expected: "unknown", openIs }));
  // The root, or a health path, is no statement about what is behind it.
  const isKnown = [...USUAL, ...ODD].includes(target.path);
  const all = [
    ...(isKnown ? [] : of([target.path], "bad")),
    ...of(USUAL, "usual"),
    ...of(BAD, "bad"),
    ...of(ODD, "odd"),
  ];
  return all.filter(({ path }, at) => all.findIndex((one) => one.path === path) === at);
}

/** The part of a public path that tricks start from: without its last segment if that stands for anything. */
export function stemOf(path: string): string {
  return path.endsWith(`/${WORD}`) ? path.slice(0, -WORD.length - 1) : path.replace(/\/$/, "");
}
