/**
 * A route with everything that it names looked up once.
 *
 * Invariant: a name that leads nowhere stops the start; it never becomes a route with a check less.
 */
import { mergeChallenges, type NamedStrategy } from "./authenticate.ts";
import { identityHeaderNames } from "./check.ts";
import type { GatewayConfig, RouteConfig } from "./config/model.ts";
import type { Challenge, StrategyInstance, Surface } from "./contract/plugin.ts";
import type { Upstream } from "./forward.ts";

export interface BuiltRoute {
  readonly config: RouteConfig;
  readonly strategies: readonly NamedStrategy[];
  readonly challenges: readonly Challenge[];
  readonly upstream: Upstream | null;
  readonly surface: Surface | null;
  /** Headers that tell who was proven, lower case. */
  readonly identityNames: readonly string[];
  /** Who knows the models, where the route's policy asks a strategy. */
  readonly modelSource: StrategyInstance | null;
  /** Headers of the client that are not passed on, lower case: credentials, and names the upstream gets injected. */
  readonly removed: ReadonlySet<string>;
  /** The same for requests that one of these strategies accepted, where its credential is passed on. */
  readonly removedFor: ReadonlyMap<string, ReadonlySet<string>>;
}

/** What a route may name. */
export interface RouteParts {
  readonly config: Pick<GatewayConfig, "routes">;
  readonly strategies: ReadonlyMap<string, NamedStrategy>;
  readonly upstreams: ReadonlyMap<string, Upstream>;
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
    surface: config.surface === null ? null : surfaceOf(config.surface, parts.strategies),
    identityNames: identityHeaderNames([config]),
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

function headersOf({ instance }: NamedStrategy): string[] {
  return (instance.credentialHeaders ?? ["authorization"]).map((name) => name.toLowerCase());
}

function surfaceOf(
  { strategy, name }: { readonly strategy: string; readonly name: string },
  strategies: ReadonlyMap<string, NamedStrategy>,
): Surface {
  const { surfaces } = required(strategies.get(strategy), strategy).instance;
  return required(
    surfaces?.find((one) => one.name === name),
    `${strategy}.${name}`,
  );
}

function required<T>(value: T | undefined, name: string): T {
  if (value === undefined) throw new TypeError(`route names ${name}, which was not built`);
  return value;
}
