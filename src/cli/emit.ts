/**
 * `gatehouse emit traefik|nginx|caddy|envoy|haproxy`: the configuration of a proxy in front that asks this gateway.
 *
 * Invariant: it reads the configuration and prints; nothing is started, connected to or written.
 */
import { renderIssues } from "../config/explain.ts";
import { loadConfig } from "../config/load.ts";
import { EXIT, type ExitCode, OperatorError } from "../errors.ts";
import { pluginLoader } from "../loader.ts";
import type { CliContext, CommonOptions } from "./context.ts";
import type { EmitProxy, FactOptions, Facts } from "./emit/facts.ts";
import { factsOf, type Loaded } from "./emit/facts.ts";

/** Options of `gatehouse emit`. */
export interface EmitOptions extends CommonOptions, FactOptions {
  /** Traefik: Docker labels in place of the file. */
  readonly labels?: boolean;
  /** HAProxy: the Lua file in place of the sections. */
  readonly lua?: boolean;
}

/** Programs that there is a snippet for. */
export const EMIT_PROXIES: readonly EmitProxy[] = ["traefik", "nginx", "caddy", "envoy", "haproxy"];

/** Prints the snippet; what the operator should know besides goes to standard error. */
export async function emit(
  context: CliContext,
  name: string,
  options: EmitOptions,
): Promise<ExitCode> {
  const proxy = EMIT_PROXIES.find((one) => one === name);
  if (proxy === undefined) {
    throw new OperatorError(EXIT.usage, `expected one of ${EMIT_PROXIES.join(", ")}`);
  }
  refuseStrayOptions(proxy, options);
  const facts = factsOf(proxy, await load(context, options), options);
  const text = await snippetOf(proxy, facts, options);
  if (options.json === true) {
    const { path, copied, credentials, notes } = facts;
    const headers = { copied, credentials };
    context.out(`${JSON.stringify({ proxy, path, text, headers, notes }, null, 2)}\n`);
    return EXIT.ok;
  }
  context.out(text);
  for (const note of facts.notes) context.err(`note: ${note}\n`);
  return EXIT.ok;
}

function refuseStrayOptions(proxy: EmitProxy, { labels, lua }: EmitOptions): void {
  if (labels === true && proxy !== "traefik") {
    throw new OperatorError(EXIT.usage, "--labels is for traefik");
  }
  if (lua === true && proxy !== "haproxy") {
    throw new OperatorError(EXIT.usage, "--lua is for haproxy");
  }
}

async function load(context: CliContext, options: EmitOptions): Promise<Loaded> {
  const loaded = await loadConfig({
    file: options.config ?? null,
    cwd: context.cwd,
    env: context.env,
    loadPlugin: pluginLoader(context.plugins),
    // Secrets are the service's; nothing here needs one.
    depth: "shape",
    ...(options.preset === undefined ? {} : { preset: { name: options.preset, flags: {} } }),
  });
  const { config, plugins, issues } = loaded;
  const file = options.preset ?? options.config ?? loaded.file;
  if (config === null) throw new OperatorError(EXIT.config, renderIssues(issues, file).trimEnd());
  return { config, plugins, bundled: new Set(context.plugins.map((plugin) => plugin.name)) };
}

async function snippetOf(proxy: EmitProxy, facts: Facts, options: EmitOptions): Promise<string> {
  switch (proxy) {
    case "nginx":
      return (await import("./emit/nginx.ts")).nginxSnippet(facts);
    case "caddy":
      return (await import("./emit/caddy.ts")).caddySnippet(facts);
    case "envoy":
      return (await import("./emit/envoy.ts")).envoySnippet(facts);
    case "traefik": {
      const { traefikLabels, traefikSnippet } = await import("./emit/traefik.ts");
      return options.labels === true ? traefikLabels(facts) : traefikSnippet(facts);
    }
    case "haproxy": {
      const { haproxyLua, haproxySnippet } = await import("./emit/haproxy.ts");
      return options.lua === true ? haproxyLua(facts) : haproxySnippet(facts);
    }
  }
}
