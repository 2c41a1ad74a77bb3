/**
 * `gatehouse serve`: from a config file to a listening gateway, until it is told to stop.
 *
 * Invariant: nothing listens unless the whole config is right; SIGHUP reads it anew and keeps the one in force when
 * the new one is wrong; SIGTERM and SIGINT finish what is open and end with 0.
 */
import { makeBuiltInSurfaces } from "../admin/surfaces.ts";
import { systemClock } from "../clock.ts";
import { renderIssues } from "../config/explain.ts";
import { loadConfig } from "../config/load.ts";
import type { GatewayConfig } from "../config/model.ts";
import type { Log } from "../contract/host.ts";
import { EXIT, type ExitCode, errorMessage, OperatorError } from "../errors.ts";
import { type LoadPlugin, pluginLoader } from "../loader.ts";
import { createLog, type LogSink, replaceableLog, stdoutSink } from "../log.ts";
import { startGateway } from "../start.ts";
import type { CliContext, CommonOptions } from "./context.ts";
import type { Control, Verdict } from "./control.ts";
import type { Serving } from "./supervised.ts";

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
  const hangUps = buffered(context);
  const { config, notes, loadPlugin } = await checkedConfig(context, options);
  const sink = stdoutSink();
  const { log, replace } = replaceableLog(logFor(config, context, sink));
  for (const note of notes) log.warn("config.note", { note });
  const manager =
    opened === null ? null : (await import("./supervised.ts")).supervised(opened, log);
  const { version } = context;
  const gateway = await startGateway({
    config,
    loadPlugin,
    env: context.env,
    log,
    clock: systemClock,
    version,
    builtInSurfaces: makeBuiltInSurfaces,
  });
  let drainMs = config.server.drainMs;
  sayListening(log, { config, addresses: gateway.addresses, version });
  manager?.ready({ config, addresses: gateway.addresses });
  const reload = onDemand(async () =>
    (await import("./reloads.ts")).reloads({
      gateway,
      config,
      manager,
      log,
      load: () => checkedConfig(context, options),
      inForce(next) {
        drainMs = next.server.drainMs;
        replace(logFor(next, context, sink));
      },
    }),
  );
  hangUps.hear(() => void reload());
  const control = await controlOf(config, reload, log);
  await stopped(context.stop);
  manager?.stopping();
  control?.close();
  log.info("server.draining", { deadline_ms: drainMs });
  await gateway.stop(drainMs);
  log.info("server.stopped");
  manager?.close();
  await sink.flush();
  return EXIT.ok;
}

function logFor({ logging }: GatewayConfig, context: CliContext, sink: LogSink): Log {
  const { level, format } = logging;
  const isText = format === "text" || (format === "auto" && context.stdoutIsTerminal);
  return createLog({ level, format: isText ? "text" : "json", sink });
}

function sayListening(
  log: Log,
  { config, addresses, version }: Serving & { readonly version: string },
): void {
  const scheme = config.server.tls.length > 0 ? "https" : "http";
  for (const address of addresses) log.info("server.listening", { address, scheme, version });
}

/** The first call makes it; most gateways never need it. */
function onDemand<Value>(make: () => Promise<() => Promise<Value>>): () => Promise<Value> {
  let made: Promise<() => Promise<Value>> | null = null;
  return async () => {
    made ??= make();
    return (await made)();
  };
}

/** A wish that comes while the gateway starts is heard when it has. */
function buffered(context: CliContext): { hear(listener: () => void): void } {
  let isAsked = false;
  let tell = (): void => {
    isAsked = true;
  };
  context.onReload?.(() => tell());
  return {
    hear(listener) {
      tell = listener;
      if (isAsked) listener();
    },
  };
}

async function controlOf(
  { stateDir }: GatewayConfig,
  reload: () => Promise<Verdict>,
  log: Log,
): Promise<Control | null> {
  if (process.platform === "win32") return null;
  try {
    return await (await import("./control.ts")).openControl(stateDir, reload);
  } catch (error) {
    // SIGHUP does the same, without an answer.
    log.info("control.unavailable", { error: errorMessage(error) });
    return null;
  }
}

async function checkedConfig(
  context: CliContext,
  options: ServeOptions,
): Promise<{ config: GatewayConfig; notes: readonly string[]; loadPlugin: LoadPlugin }> {
  // A new one each time: it remembers which file has which name.
  const loadPlugin = pluginLoader(context.plugins);
  const { config, issues, file, notes } = await loadConfig({
    ...presetOf(options),
    file: options.config ?? null,
    cwd: context.cwd,
    env: context.env,
    overrides: options.listen === undefined ? {} : { "server.listen": options.listen },
    loadPlugin,
  });
  if (config !== null) return { config, notes, loadPlugin };
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
