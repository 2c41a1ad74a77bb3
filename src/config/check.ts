/**
 * What a configuration means, as far as that can be told without listening or connecting.
 *
 * Invariant: `config validate` and `serve` run exactly this; nothing here writes, listens or sends.
 */
import type { Plugin } from "../contract/plugin.ts";
import { checkAuthorities, checkListeners, checkStateDir, checkTls } from "./check-files.ts";
import { checkHeldBodies, checkReachability, checkRouteNames } from "./check-routes.ts";
import { checkSharedShape, checkSharedSources, isSharedSecret } from "./check-shared.ts";
import { checkSettings } from "./check-strategies.ts";
import { checkSurfaces } from "./check-surfaces.ts";
import { checkLoops, checkUpstreamHeaders } from "./check-upstreams.ts";
import { type ConfigPath, type Reporter, valueAt } from "./issues.ts";
import type { NormalisedParts } from "./normalise.ts";
import type { DocumentParts } from "./parts.ts";
import { hasReference, type ReferenceSources } from "./references.ts";

/** Everything the checks look at. */
export interface CheckContext {
  /** The document as plain data, overrides applied. */
  readonly written: unknown;
  readonly parts: DocumentParts;
  readonly normalised: NormalisedParts;
  /** By name of the strategy; one that did not load is missing. */
  readonly plugins: ReadonlyMap<string, Plugin>;
  readonly sources: ReferenceSources;
  /** `shape` leaves out what depends on this process: variables, credentials, files and their modes. */
  readonly depth: "full" | "shape";
  readonly report: Reporter;
}

/** Runs every check. */
export function check(context: CheckContext): void {
  const { parts, normalised, plugins, sources, report } = context;
  const { server, upstreams, routes, stateDir } = normalised;
  checkStrayReferences(context.written, report);
  checkSharedShape(valueAt(context.written, ["shared"]), report);
  for (const [name, part] of parts.strategies) {
    const plugin = plugins.get(name);
    if (name === "public") {
      report.addKey(["strategies", name], "`public` is not a strategy's name", "choose another");
    }
    if (part !== null && plugin !== undefined && context.depth === "full") {
      checkSettings([name, part], plugin, { sources, report });
    }
  }
  checkRouteNames(parts, report);
  checkSurfaces(parts, plugins, report);
  checkReachability(routes, report);
  checkHeldBodies(routes, report);
  checkLoops(upstreams, server, report);
  if (context.depth === "shape") return;
  checkUpstreamHeaders(parts, sources, report);
  if (normalised.shared !== null) checkSharedSources(normalised.shared, sources, report);
  checkAuthorities(upstreams, report);
  if (stateDir !== null) checkStateDir(stateDir, report);
  if (server === null) return;
  checkListeners(server.listen, report);
  const isList = Array.isArray(parts.server?.tls);
  checkTls(server, (index) => (isList ? ["server", "tls", index] : ["server", "tls"]), report);
}

/** References are resolved in three places; anywhere else they would be taken literally. */
function checkStrayReferences(value: unknown, report: Reporter, path: ConfigPath = []): void {
  if (path[0] === "strategies" && path.length === 3) {
    const isOwn = path[2] !== "use" && path[2] !== "sha256";
    if (isOwn) return;
  }
  if (path[0] === "upstreams" && path[2] === "headers") return;
  if (typeof value === "string" && hasReference(value) && !isSharedSecret(path)) {
    report.add(
      path,
      "a reference has no meaning here",
      "references are for a strategy's settings, an upstream's headers and the passwords of shared; other keys can be set by variables such as GATEHOUSE_STATE_DIR",
    );
  }
  if (typeof value !== "object" || value === null) return;
  const entries = Array.isArray(value) ? [...value.entries()] : Object.entries(value);
  for (const [key, item] of entries) checkStrayReferences(item, report, [...path, key]);
}
