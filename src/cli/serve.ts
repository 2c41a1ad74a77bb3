/**
 * `gatehouse serve`: from a config file to a listening gateway, until it is told to stop.
 *
 * Invariant: nothing listens unless the whole config is right; SIGTERM and SIGINT finish what is open and end with 0.
 */
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
}

/** Serves until the context is stopped. */
export async function serve(context: CliContext, options: ServeOptions): Promise<ExitCode> {
  const loadPlugin = pluginLoader(context.plugins);
  const config = await checkedConfig(context, options, loadPlugin);
  const sink = stdoutSink();
  const { level, format } = config.logging;
  const isText = format === "text" || (format === "auto" && context.stdoutIsTerminal);
  const log = createLog({ level, format: isText ? "text" : "json", sink });
  const gateway = await startGateway({
    config,
    loadPlugin,
    env: context.env,
    log,
    clock: systemClock,
  });
  const scheme = config.server.tls.length > 0 ? "https" : "http";
  for (const address of gateway.addresses) {
    log.info("server.listening", { address, scheme, version: context.version });
  }
  await stopped(context.stop);
  log.info("server.draining", { deadline_ms: config.server.drainMs });
  await gateway.stop(config.server.drainMs);
  log.info("server.stopped");
  sink.flush();
  return EXIT.ok;
}

async function checkedConfig(
  context: CliContext,
  options: ServeOptions,
  loadPlugin: LoadPlugin,
): Promise<GatewayConfig> {
  const { config, issues, file } = await loadConfig({
    file: options.config ?? null,
    cwd: context.cwd,
    env: context.env,
    overrides: options.listen === undefined ? {} : { "server.listen": options.listen },
    loadPlugin,
  });
  if (config !== null) return config;
  throw new OperatorError(EXIT.config, renderIssues(issues, options.config ?? file).trimEnd());
}

function stopped(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener("abort", () => resolve(), { once: true });
  });
}
