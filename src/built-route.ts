/**
 * A route with everything that it names looked up once.
 *
 * Invariant: a name that leads nowhere stops the start; it never becomes a route with a check less.
 */
import { mergeChallenges, type NamedStrategy } from "./authenticate.ts";
import { identityHeaderNames, passingFields } from "./check.ts";
import type { GatewayConfig, RouteConfig } from "./config/model.ts";
import type { Identity } from "./contract/outcome.ts";
import type { Challenge, StrategyInstance, Surface } from "./contract/plugin.ts";
import type { Upstream } from "./forward.ts";
import { identityFields, remembered } from "./headers.ts";

export interface BuiltRoute {
  readonly config: RouteConfig;
  readonly strategies: readonly NamedStrategy[];
  readonly challenges: readonly Challenge[];
  readonly upstream: Upstream | null;
  readonly surface: Surface | null;
  /** Header lines that tell the upstream who was proven. */
  identityFields(strategy: string, identity: Identity): string;
  /** The same for the proxy that asked, with every name that it may copy; `null`: nobody was proven. */
  passingFields(strategy: string | null, identity: Identity | null): string;
  /** Who knows the models, where the route's policy asks a strategy. */
  readonly modelSource: StrategyInstance | null;
  /** Headers of the client that are not passed on, lower case: credentials, and names the upstream gets injected. */
  readonly removed: ReadonlySet<string>;
  /** The same for requests that one of these strategies accepted, where its credential is passed on. */
  readonly removedFor: ReadonlyMap<string, ReadonlySet<string>>;
}

/** A surface that Gatehouse has itself, for the strategy that the route names or of its own; `null`: there is none. */
export type BuiltInSurface = (route: RouteConfig) => Surface | null;

/** What a route may name. */
export interface RouteParts {
  readonly config: Pick<GatewayConfig, "routes">;
  readonly strategies: ReadonlyMap<string, NamedStrategy>;
  readonly upstreams: ReadonlyMap<string, Upstream>;
  /** Asked for surfaces that the strategy does not bring itself. Absent: there are none. */
  readonly builtInSurface?: BuiltInSurface;
}

/** @throws TypeError when something that the config's check let pass is not there */
export function buildRoute(config: RouteConfig, parts: RouteParts): BuiltRoute {
  const names = config.access === "public" ? [] : config.access;
  const strategies = names.map((name) => required(parts.strategies.get(name), name));
  const { upstream } = config;
  const target = upstream === null ? null : required(parts.upstreams.get(upstream), upstream);
  const source = config.models?.from ?? null;
  const injected = target?.injectedNames ?? new Set<string>();
  // A client may send its key where none is asked for; that is no reason to tell the upstream.
  const carriers = strategies.length > 0 ? strategies : [...parts.strategies.values()];
  const passing = config.forwardCredential;
  const named = typeof passing === "boolean" ? [] : passing;
  return {
    config,
    strategies,
    challenges: mergeChallenges(strategies),
    upstream: target,
    surface: config.surface === null ? null : surfaceOf(config, config.surface, parts),
    identityFields: remembered((strategy, identity) => identityFields(config, strategy, identity)),
    passingFields: passingFor(config, parts.config.routes),
    modelSource: source === null ? null : required(parts.strategies.get(source), source).instance,
    removed: new Set([...injected, ...(passing === true ? [] : carriers.flatMap(headersOf))]),
    removedFor: new Map(
      named.map((name) => {
        const kept = headersOf(required(parts.strategies.get(name), name));
        const dropped = carriers.flatMap(headersOf).filter((header) => !kept.includes(header));
        return [name, new Set([...injected, ...dropped])];
      }),
    ),
  };
}

/** Where a question is answered by its own access, its own names are all there are. */
function passingFor(
  route: RouteConfig,
  routes: readonly RouteConfig[],
): BuiltRoute["passingFields"] {
  const names = identityHeaderNames(route.check?.judges === "own" ? [route] : routes);
  const nobody = passingFields({ route, names, strategy: null, identity: null });
  const somebody = remembered((strategy, identity) =>
    passingFields({ route, names, strategy, identity }),
  );
  return (strategy, identity) =>
    strategy === null || identity === null ? nobody : somebody(strategy, identity);
}

function headersOf({ instance }: NamedStrategy): string[] {
  return (instance.credentialHeaders ?? ["authorization"]).map((name) => name.toLowerCase());
}

function surfaceOf(
  route: RouteConfig,
  { strategy, name }: NonNullable<RouteConfig["surface"]>,
  { strategies, builtInSurface }: RouteParts,
): Surface {
  const builtIn = (): Surface | undefined => builtInSurface?.(route) ?? undefined;
  if (strategy === null) return required(builtIn(), name);
  const { surfaces } = required(strategies.get(strategy), strategy).instance;
  const own = surfaces?.find((one) => one.name === name);
  return required(own ?? builtIn(), `${strategy}.${name}`);
}

function required<T>(value: T | undefined, name: string): T {
  if (value === undefined) throw new TypeError(`route names ${name}, which was not built`);
  return value;
}
