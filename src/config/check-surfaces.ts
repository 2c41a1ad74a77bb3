/**
 * Surfaces that routes name: is there one of that name, as far as that is known before the strategy is started?
 *
 * Invariant: only what is certainly wrong is reported. A plugin that does not say what it offers is believed to
 * offer everything; its strategy is asked when it is started.
 */
import type { Plugin } from "../contract/plugin.ts";
import type { ConfigPath, Reporter } from "./issues.ts";
import type { DocumentParts, RoutePart } from "./parts.ts";
import { closest, nameHint } from "./suggest.ts";

/** Surfaces that Gatehouse itself has for a strategy (src/admin/), and whether it must keep tokens for them. */
export const BUILT_IN_SURFACES: Readonly<Record<string, { readonly needsTokens: boolean }>> = {
  tokens: { needsTokens: true },
  docs: { needsTokens: true },
  health: { needsTokens: false },
};

/** The surface that is the gateway's own: no strategy has it, and none may have its name. */
export const METRICS = "metrics";

/** A route, the surface it names, and where to report about that. */
interface Wanted {
  readonly route: RoutePart;
  readonly strategy: string;
  readonly name: string;
  readonly path: ConfigPath;
}

/** Reports surfaces that the strategy's plugin says it has not got. */
export function checkSurfaces(
  parts: DocumentParts,
  plugins: ReadonlyMap<string, Plugin>,
  report: Reporter,
): void {
  parts.routes.forEach((route, index) => {
    const [strategy, name] = route?.surface?.split(".") ?? [];
    if (route === null || strategy === undefined || name === undefined) return;
    const plugin = plugins.get(strategy);
    if (plugin === undefined) return;
    const wanted = { route, strategy, name, path: ["routes", index, "surface"] };
    checkOffered(wanted, plugin, { parts, plugins, report });
  });
}

interface Surroundings {
  readonly parts: DocumentParts;
  readonly plugins: ReadonlyMap<string, Plugin>;
  readonly report: Reporter;
}

function checkOffered(wanted: Wanted, plugin: Plugin, around: Surroundings): void {
  const { offers } = plugin;
  const { strategy, name, path } = wanted;
  if (offers?.surfaces.includes(name) === true) return;
  const builtIn = Object.hasOwn(BUILT_IN_SURFACES, name) ? BUILT_IN_SURFACES[name] : undefined;
  if (builtIn === undefined) {
    if (offers === undefined) return;
    const names = [...offers.surfaces, ...builtInFor(offers.tokens)];
    const isOurs = closest(name, names) === undefined && closest(name, [METRICS]) !== undefined;
    const hint = isOurs ? METRICS_HINT : nameHint(name, names, "it has none");
    around.report.add(path, `strategy \`${strategy}\` has no surface \`${name}\``, hint);
  } else if (builtIn.needsTokens && offers?.tokens === false) {
    around.report.add(
      path,
      `strategy \`${strategy}\` (${plugin.name}) keeps no tokens, so there is no \`${strategy}.${name}\``,
      keepersHint(around.plugins),
    );
  } else {
    // A plugin that does not say what it offers may bring a surface of this name, to which none of this applies.
    if (offers !== undefined) checkBuiltIn(wanted, around);
  }
}

/** For those who write something before it or after it. */
const METRICS_HINT = `did you mean \`surface: ${METRICS}\`? It belongs to no strategy and stands alone`;

/** Reports a route's strategy that is not there, and what cannot stand beside the gateway's own surface. */
export function checkSurfaceNames(
  route: RoutePart,
  strategies: readonly string[],
  base: ConfigPath,
  report: Reporter,
): void {
  if (route.surface === undefined) {
    if (!route.anonymous) return;
    report.add([...base, "anonymous"], "only a surface can decide about nobody", "remove it");
    return;
  }
  const [strategy = "", name] = route.surface.split(".");
  if (name === undefined) {
    if (!route.anonymous) return;
    report.add(
      [...base, "anonymous"],
      "the metrics decide about nobody: who was not accepted does not read them",
      "remove it, or write access: public",
    );
  } else if (!strategies.includes(strategy)) {
    const hint =
      strategy === METRICS
        ? METRICS_HINT
        : nameHint(strategy, strategies, "there are no strategies");
    report.add([...base, "surface"], `unknown strategy \`${strategy}\``, hint);
  }
}

/** Reports a strategy that has the name of the gateway's own surface. */
export function checkStrategyNames(strategies: readonly string[], report: Reporter): void {
  if (!strategies.includes(METRICS)) return;
  report.add(
    ["strategies", METRICS],
    `this name stands for the gateway's own numbers (\`surface: ${METRICS}\`)`,
    "choose another name, for instance scraper",
  );
}

function checkBuiltIn({ route, strategy, name, path }: Wanted, { parts, report }: Surroundings) {
  if (name === "tokens" && route.access === "public") {
    report.add(
      path,
      "the token API has to know who asks, and a public route asks nobody",
      "list the strategies that people log in with in access",
    );
  }
  const documented = `${strategy}.tokens`;
  if (name === "docs" && !parts.routes.some((one) => one?.surface === documented)) {
    report.add(
      path,
      `there is nothing to document: no route has \`surface: ${documented}\``,
      "add that route, or remove this one",
    );
  }
}

function builtInFor(keepsTokens: boolean): string[] {
  return Object.entries(BUILT_IN_SURFACES)
    .filter(([, { needsTokens }]) => keepsTokens || !needsTokens)
    .map(([name]) => name);
}

function keepersHint(plugins: ReadonlyMap<string, Plugin>): string {
  const keepers = [...plugins].filter(([, { offers }]) => offers?.tokens === true);
  if (keepers.length === 0)
    return "add a strategy that does, for instance one with `use: bearer-sqlite`";
  return `name one that does: ${keepers.map(([name]) => name).join(", ")}`;
}
