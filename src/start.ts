/**
 * Puts a gateway together from a checked config and opens its listeners.
 *
 * Invariant: everything that can fail fails before the first listener opens, and what was started is stopped again. A
 * running gateway goes over to another config as a whole or not at all; the one before is closed when its last request
 * has been answered.
 */
import { createAudit } from "./audit.ts";
import type { NamedStrategy } from "./authenticate.ts";
import type { BuiltInSurface } from "./built-route.ts";
import type { GatewayConfig, UpstreamConfig } from "./config/model.ts";
import { resolveReferences } from "./config/references.ts";
import type { Clock, Log } from "./contract/host.ts";
import type { Plugin } from "./contract/plugin.ts";
import { EXIT, OperatorError } from "./errors.ts";
import type { Upstream } from "./forward.ts";
import { createGateway } from "./gateway.ts";
import { type RunningStrategies, startStrategies } from "./lifecycle.ts";
import type { Exposition, LastReload, Metrics, Vitals } from "./metrics.ts";
import { readRegularFile } from "./regular-file.ts";
import { restartReason } from "./restart-reason.ts";
import { type Changed, listen, originReader, type Server } from "./server.ts";
import { type StreamWatch, watchStreams } from "./streams.ts";
import { until } from "./until.ts";
import type { ExchangeHandler } from "./wire/exchange.ts";
import { UpstreamPool } from "./wire/upstream-pool.ts";

/** What a gateway is started with. */
export interface StartOptions {
  readonly config: GatewayConfig;
  readonly loadPlugin: (use: string, sha256: string | null, configDir: string) => Promise<Plugin>;
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly log: Log;
  readonly clock: Clock;
  /** Of this build, for the metrics. */
  readonly version: string;
  /** Makes the surfaces that Gatehouse has itself. Absent: only those of strategies can be named. */
  readonly builtInSurfaces?: MakeBuiltInSurfaces;
}

/** Called when the strategies run and before anything listens. @throws OperatorError when a route's cannot be made */
export type MakeBuiltInSurfaces = (parts: {
  readonly config: GatewayConfig;
  readonly strategies: ReadonlyMap<string, NamedStrategy>;
  readonly log: Log;
  readonly clock: Clock;
  /** `null` when no route asks for it. */
  readonly exposition: Exposition | null;
}) => Promise<BuiltInSurface>;

/** A running gateway. */
export interface RunningGateway {
  /** `127.0.0.1:8008` or `unix:/path`, with the ports that were really bound. */
  readonly addresses: readonly string[];
  readonly strategies: RunningStrategies;
  /**
   * Goes over to another config. Requests that are under way end as they began; streams live on, unless their
   * credential or strategy is gone. Not while another one is under way.
   * @throws OperatorError with one clear line when it cannot be; then all is as before
   */
  reload(next: Pick<StartOptions, "config" | "loadPlugin">): Promise<Reloaded>;
  /** For the metrics: a config was not put in force, be it that it could not even be read. */
  reloadFailed(): void;
  /** Stops accepting, finishes what is open up to the deadline, then closes everything. */
  stop(deadlineMs: number): Promise<void>;
}

/** What a reload did to the listeners. */
export type Reloaded = Pick<Changed, "added" | "removed">;

/** How long strategies may take to flush and close. */
const CLOSE_MS = 5000;
/** How long WebSocket clients have to answer our close frame at the end. */
const CLOSE_FRAME_MS = 1000;

/** @throws OperatorError with one clear line when something cannot be started */
export async function startGateway(options: StartOptions): Promise<RunningGateway> {
  const streams = watchStreams(options.clock, options.log);
  const inForce = (): LastReload => ({ isSuccessful: true, successAtMs: options.clock.nowMs() });
  let lastReload = inForce();
  let running: Server | null = null;
  const shared = {
    streams,
    metricsFor: metricsKeeper({
      version: options.version,
      streamCount: () => streams.size,
      connectionCount: () => running?.connectionCount ?? 0,
      lastReload: () => lastReload,
    }),
  };
  let current = await makeGeneration(options, shared, await startStrategies(options));
  const server = await orClose(current, () => listen(options.config.server, current.handler));
  running = server;
  streams.askOf(current.strategies.byName);
  const ending = new Set<Promise<void>>();
  const stopping = new AbortController();
  let reloading: Promise<unknown> | null = null;
  const goOver: RunningGateway["reload"] = async ({ config, loadPlugin }) => {
    mustGoOn(stopping.signal);
    refuseMoves(current.config, config);
    const parts = { ...options, config, loadPlugin, givenUp: stopping.signal };
    const next = await makeGeneration(parts, shared, await current.strategies.next(parts));
    const changed = await orClose(next, () => {
      mustGoOn(stopping.signal);
      return server.change(config.server, next.handler);
    });
    const before = current;
    current = next;
    lastReload = inForce();
    streams.askOf(next.strategies.byName);
    const over = changed.handedOver.then(before.close).then(() => void ending.delete(over));
    ending.add(over);
    return changed;
  };
  return {
    get addresses() {
      return server.addresses;
    },
    get strategies() {
      return current.strategies;
    },
    reload(next) {
      const going = goOver(next).finally(() => {
        reloading = null;
      });
      reloading = going;
      return going;
    },
    reloadFailed() {
      lastReload = { ...lastReload, isSuccessful: false };
    },
    async stop(deadlineMs) {
      stopping.abort();
      const endMs = performance.now() + deadlineMs;
      await server.drain(deadlineMs);
      await until(() => streams.size === 0, endMs - performance.now());
      streams.endAll();
      // Close frames have to be taken before the process is gone.
      await until(() => streams.size === 0, CLOSE_FRAME_MS);
      streams.close();
      // What was started for a configuration that comes too late is closed, too.
      await until(() => reloading === null, CLOSE_MS);
      await Promise.all([...ending, current.close()]);
    },
  };
}

/** A config in force: what is made of it and what has to be closed with it. */
interface Generation {
  readonly config: GatewayConfig;
  readonly strategies: RunningStrategies;
  readonly handler: ExchangeHandler;
  /** Once its handler has given its last reply. Streams from its upstreams may go on. */
  close(): Promise<void>;
}

/** What outlives a config. */
interface Shared {
  readonly streams: StreamWatch;
  metricsFor(config: GatewayConfig): Promise<Metrics | null>;
}

/** The library is loaded with the first config that asks for it; what it counted then stays. */
function metricsKeeper(vitals: Vitals): Shared["metricsFor"] {
  let started: Promise<Metrics> | null = null;
  return async ({ routes }) => {
    if (!routes.some(({ surface }) => surface !== null && surface.strategy === null)) return null;
    started ??= import("./metrics.ts").then(({ startMetrics }) => startMetrics(vitals));
    return started;
  };
}

/** It must know nothing of the one before: what it makes would keep that, and so all of them. */
async function makeGeneration(
  options: StartOptions,
  { streams, metricsFor }: Shared,
  strategies: RunningStrategies,
): Promise<Generation> {
  const { config, log, clock } = options;
  const upstreams = new Map<string, Upstream>();
  const mintRequestId = (): string => crypto.randomUUID();
  const close = (): Promise<void> => {
    for (const upstream of upstreams.values()) upstream.pool.close();
    return strategies.close(CLOSE_MS);
  };
  try {
    for (const one of config.upstreams) upstreams.set(one.name, buildUpstream(one, options));
    const metrics = await metricsFor(config);
    const exposition = metrics?.exposition ?? null;
    const surfaces = { config, strategies: strategies.byName, log, clock, exposition };
    const builtInSurface = (await options.builtInSurfaces?.(surfaces)) ?? (() => null);
    const handler = createGateway({
      config,
      strategies: strategies.byName,
      upstreams,
      builtInSurface,
      audit: createAudit(log, config.logging.access, metrics?.listener ?? null),
      streams,
      originOf: originReader(config.server, mintRequestId),
      mintRequestId,
    });
    return { config, strategies, handler, close };
  } catch (error) {
    await close();
    throw error;
  }
}

async function orClose<Value>(generation: Generation, work: () => Promise<Value>): Promise<Value> {
  try {
    return await work();
  } catch (error) {
    await generation.close();
    throw error;
  }
}

function mustGoOn(stopping: AbortSignal): void {
  if (stopping.aborted) throw new OperatorError(EXIT.failure, "the gateway is stopping");
}

/** @throws OperatorError when a running gateway cannot go over to a config, whatever it says otherwise */
function refuseMoves(before: GatewayConfig, after: GatewayConfig): void {
  const reason = restartReason(before, after);
  if (reason !== null) throw new OperatorError(EXIT.config, reason, "Restart the gateway.");
}

function buildUpstream(config: UpstreamConfig, options: StartOptions): Upstream {
  const injected = config.headers.map(([name, template]) => {
    const resolved = resolveReferences(template, {
      env: options.env,
      configDir: options.config.configDir,
    });
    if ("problem" in resolved) {
      throw new OperatorError(
        EXIT.config,
        `upstreams.${config.name}.headers.${name}: ${resolved.problem}`,
      );
    }
    if (!/^[\t\x20-\x7e\x80-\xff]*$/.test(resolved.value)) {
      throw new OperatorError(
        EXIT.config,
        `upstreams.${config.name}.headers.${name}: not a header value`,
      );
    }
    return `${name}: ${resolved.value}\r\n`;
  });
  const { target } = config;
  const address =
    target.kind === "unix"
      ? { kind: "unix" as const, path: target.path }
      : {
          kind: "tcp" as const,
          host: target.host,
          port: target.port,
          tls: target.tls ? { serverName: target.host, ca: readCa(config) } : null,
        };
  const { connectMs, responseMs, idleMs } = config;
  return {
    name: config.name,
    pool: new UpstreamPool(address, { connectMs, responseMs, idleMs }),
    authority: config.authority,
    basePath: config.basePath,
    preservesHost: config.hostHeader === "preserve",
    idleMs,
    injectedFields: injected.join(""),
    injectedNames: new Set(config.headers.map(([name]) => name)),
  };
}

function readCa(config: UpstreamConfig): string | null {
  return config.ca === null ? null : readRegularFile(config.ca);
}
