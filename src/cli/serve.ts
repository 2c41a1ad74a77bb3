/**
 * `gatehouse serve`: from a config file to a listening gateway, until it is told to stop.
 *
 * Invariant: nothing listens unless the whole config is right; SIGTERM and SIGINT finish what is open and end with 0.
 */
import { makeBuiltInSurfaces } from "../admin/surfaces.ts";
import { systemClock } from "../clock.ts";
import { renderIssues } from "../config/explain.ts";
import { loadConfig } from "../config/load.ts";
import type { GatewayConfig } from "../config/model.ts";
import { EXIT, type ExitCode, OperatorError } from "../errors.ts";
import { type LoadPlugin, pluginLoader } from "../loader.ts";
import { createLog, stdoutSink } from "../log.ts";
import { startGateway } from "../start.ts";
import type { CliContext, CommonOptions } from "./context.ts";

export interface ServeOptions extends CommonOptions {
  /** Over `server.listen` of the file. */
  readonly listen?: string;
  /** With a preset, as the flags of the program it replaces. */
  readonly port?: string;
  readonly host?: string;
  readonly upstream?: string;
  readonly dbPath?: string;
  readonly authEnv?: string;
}

/** Serves until the context is stopped. */
export async function serve(context: CliContext, options: ServeOptions): Promise<ExitCode> {
  // Before any plugin is loaded, so that nothing it starts can speak for us; without a service manager, for nothing.
  const opened =
    process.env.NOTIFY_SOCKET === undefined
      ? null
      : await (await import("../notify.ts")).takeNotifier(process.env);
  const loadPlugin = pluginLoader(context.plugins);
  const { config, notes } = await checkedConfig(context, options, loadPlugin);
  const sink = stdoutSink();
  const { level, format } = config.logging;
  const isText = format === "text" || (format === "auto" && context.stdoutIsTerminal);
  const log = createLog({ level, format: isText ? "text" : "json", sink });
  for (const note of notes) log.warn("config.note", { note });
  const manager =
    opened === null ? null : (await import("./supervised.ts")).supervised(opened, config, log);
  const gateway = await startGateway({
    config,
    loadPlugin,
    env: context.env,
    log,
    clock: systemClock,
    builtInSurfaces: makeBuiltInSurfaces,
  });
  const scheme = config.server.tls.length > 0 ? "https" : "http";
  for (const address of gateway.addresses) {
    log.info("server.listening", { address, scheme, version: context.version });
  }
  manager?.ready(gateway.addresses);
  await stopped(context.stop);
  manager?.stopping();
  log.info("server.draining", { deadline_ms: config.server.drainMs });
  await gateway.stop(config.server.drainMs);
  log.info("server.stopped");
  manager?.close();
  sink.flush();
  return EXIT.ok;
}

async function checkedConfig(
  context: CliContext,
  options: ServeOptions,
  loadPlugin: LoadPlugin,
): Promise<{ config: GatewayConfig; notes: readonly string[] }> {
  const { config, issues, file, notes } = await loadConfig({
    ...presetOf(options),
    file: options.config ?? null,
    cwd: context.cwd,
    env: context.env,
    overrides: options.listen === undefined ? {} : { "server.listen": options.listen },
    loadPlugin,
  });
  if (config !== null) return { config, notes };
  throw new OperatorError(
    EXIT.config,
    renderIssues(issues, options.preset ?? options.config ?? file).trimEnd(),
  );
}

/** Flags of a preset mean nothing without one, so they are refused rather than ignored. */
function presetOf(options: ServeOptions): Partial<Parameters<typeof loadConfig>[0]> {
  const { preset: name, port, host, upstream, dbPath, authEnv } = options;
  const given = { port, host, upstream, "db-path": dbPath, "auth-env": authEnv };
  const flags = Object.fromEntries(
    Object.entries(given).filter((flag): flag is [string, string] => flag[1] !== undefined),
  );
  if (name !== undefined) return { preset: { name, flags } };
  const [flag] = Object.keys(flags);
  if (flag === undefined) return {};
  throw new OperatorError(
    EXIT.usage,
    `--${flag} goes with --preset`,
    "with a config file, change the file, or use --listen",
  );
}

function stopped(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener("abort", () => resolve(), { once: true });
  });
}
