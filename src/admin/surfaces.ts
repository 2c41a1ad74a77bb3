/**
 * The surfaces that Gatehouse has itself: for any strategy `tokens`, `docs` and `health`, and of its own `metrics`.
 *
 * Invariant: they are made before anything listens; what cannot be made stops the start. The libraries behind them are
 * loaded only when a route uses them, so that no other start waits for them.
 */
import { BUILT_IN_SURFACES, METRICS } from "../config/check-surfaces.ts";
import type { RouteConfig } from "../config/model.ts";
import type { Surface } from "../contract/plugin.ts";
import type { TokenStore } from "../contract/tokens.ts";
import { EXIT, OperatorError } from "../errors.ts";
import type { MakeBuiltInSurfaces } from "../start.ts";
import { basesOf, isReached } from "./mount.ts";

type Parts = Parameters<MakeBuiltInSurfaces>[0];
type SurfaceName = NonNullable<RouteConfig["surface"]>;

/** For `startGateway`. */
export const makeBuiltInSurfaces: MakeBuiltInSurfaces = async (parts) => {
  const made = new Map<number, Surface>();
  for (const route of parts.config.routes) {
    if (route.surface === null || bringsItself(route.surface, parts)) continue;
    made.set(route.index, await make(route, route.surface, parts));
  }
  return (route) => made.get(route.index) ?? null;
};

function bringsItself({ strategy, name }: SurfaceName, { strategies }: Parts): boolean {
  if (strategy === null) return false;
  const own = strategies.get(strategy)?.instance.surfaces ?? [];
  return own.some((surface) => surface.name === name);
}

async function make(route: RouteConfig, wanted: SurfaceName, parts: Parts): Promise<Surface> {
  const { strategy, name } = wanted;
  if (strategy === null) return makeOwn(route, name, parts);
  if (name === "health") {
    const { healthSurface } = await import("./health.ts");
    const instance = parts.strategies.get(strategy)?.instance ?? {};
    const unavailableStatus = route.errors === "message" ? 500 : 503;
    return healthSurface({ instance, patterns: route.paths, unavailableStatus });
  }
  if (name === "tokens") return makeTokens(route, strategy, parts);
  if (name === "docs") return makeDocs(route, strategy, parts);
  throw refused(route, `strategy ${strategy} has no surface ${name}`);
}

async function makeOwn(route: RouteConfig, name: string, parts: Parts): Promise<Surface> {
  const { exposition } = parts;
  if (name !== METRICS || exposition === null) throw refused(route, "there is no such surface");
  return (await import("./metrics.ts")).metricsSurface(exposition);
}

async function makeTokens(route: RouteConfig, strategy: string, parts: Parts): Promise<Surface> {
  const tokens = tokensOf(route, strategy, parts);
  const { clock, log } = parts;
  const { ENDPOINT, tokenSurface } = await import("./token-api/surface.ts");
  // Whoever comes by another route of these tokens is not somebody else: what ids stand for is the same on all of them.
  const logins = parts.config.routes.filter(
    (one) => isTokens(one, strategy) && isForOwn(one.paths, ENDPOINT),
  );
  return tokenSurface({
    patterns: route.paths,
    strategies: { keeper: strategy, access: [...new Set([...logins, route].flatMap(accessOf))] },
    tokens,
    clock,
    log,
    strategy,
  });
}

function isTokens({ surface }: RouteConfig, strategy: string): boolean {
  return surface?.strategy === strategy && surface.name === "tokens";
}

/** Whether own tokens are reached by a route with these patterns. */
function isForOwn(patterns: readonly string[], endpoint: RegExp): boolean {
  return basesOf(patterns, endpoint).some((base) =>
    ["", "/{id}", "/{id}/rotate"].some((rest) => isReached(`${base}/me/tokens${rest}`, patterns)),
  );
}

function accessOf({ access }: RouteConfig): readonly string[] {
  return access === "public" ? [] : access;
}

async function makeDocs(route: RouteConfig, strategy: string, parts: Parts): Promise<Surface> {
  tokensOf(route, strategy, parts);
  const { docsSurface } = await import("./token-api/docs-surface.ts");
  const documented = parts.config.routes.filter((one) => isTokens(one, strategy));
  return docsSurface({
    patterns: route.paths,
    documented: documented.map(({ paths, methods }) => ({ patterns: paths, methods })),
    publicUrls: parts.config.server.publicUrls,
  });
}

/** @throws OperatorError when the strategy keeps none */
function tokensOf(route: RouteConfig, strategy: string, { strategies }: Parts): TokenStore {
  const tokens = strategies.get(strategy)?.instance.tokens;
  if (tokens !== undefined) return tokens;
  throw refused(route, `strategy ${strategy} keeps no tokens`);
}

function refused({ index, surface }: RouteConfig, why: string): OperatorError {
  const names = Object.keys(BUILT_IN_SURFACES).join(", ");
  const written = [surface?.strategy ?? [], surface?.name].flat().join(".");
  return new OperatorError(
    EXIT.config,
    `routes[${index}].surface: ${written}: ${why}`,
    `Surfaces are ${METRICS}, and STRATEGY.NAME with those that the strategy brings, and ${names}; tokens and docs need a strategy that keeps tokens.`,
  );
}
