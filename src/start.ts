/**
 * Puts a gateway together from a checked config and opens its listeners.
 *
 * Invariant: everything that can fail fails before the first listener opens, and what was started is stopped again.
 */
import { readFileSync } from "node:fs";
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
import { listen, originReader } from "./server.ts";
import { watchStreams } from "./streams.ts";
import { UpstreamPool } from "./wire/upstream-pool.ts";

/** What a gateway is started with. */
export interface StartOptions {
  readonly config: GatewayConfig;
  readonly loadPlugin: (use: string, sha256: string | null, configDir: string) => Promise<Plugin>;
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly log: Log;
  readonly clock: Clock;
  /** Makes the surfaces that Gatehouse has itself. Absent: only those of strategies can be named. */
  readonly builtInSurfaces?: MakeBuiltInSurfaces;
}

/** Called when the strategies run and before anything listens. @throws OperatorError when a route's cannot be made */
export type MakeBuiltInSurfaces = (parts: {
  readonly config: GatewayConfig;
  readonly strategies: ReadonlyMap<string, NamedStrategy>;
  readonly log: Log;
  readonly clock: Clock;
}) => Promise<BuiltInSurface>;

/** A running gateway. */
export interface RunningGateway {
  /** `127.0.0.1:8008` or `unix:/path`, with the ports that were really bound. */
  readonly addresses: readonly string[];
  readonly strategies: RunningStrategies;
  /** Stops accepting, finishes what is open up to the deadline, then closes everything. */
  stop(deadlineMs: number): Promise<void>;
}

/** How long strategies may take to flush and close. */
const CLOSE_MS = 5000;
/** How long WebSocket clients have to answer our close frame at the end. */
const CLOSE_FRAME_MS = 1000;

/** @throws OperatorError with one clear line when something cannot be started */
export async function startGateway(options: StartOptions): Promise<RunningGateway> {
  const { config, log, clock } = options;
  const upstreams = new Map(config.upstreams.map((one) => [one.name, buildUpstream(one, options)]));
  const strategies = await startStrategies(options);
  const streams = watchStreams(clock, log);
  const mintRequestId = (): string => crypto.randomUUID();
  try {
    const surfaces = { config, strategies: strategies.byName, log, clock };
    const builtInSurface = (await options.builtInSurfaces?.(surfaces)) ?? (() => null);
    const handler = createGateway({
      config,
      strategies: strategies.byName,
      upstreams,
      builtInSurface,
      audit: createAudit(log, config.logging.access),
      streams,
      originOf: originReader(config.server, mintRequestId),
      mintRequestId,
    });
    const server = await listen(config.server, handler);
    return {
      addresses: server.addresses,
      strategies,
      async stop(deadlineMs) {
        const endMs = performance.now() + deadlineMs;
        await server.drain(deadlineMs);
        await settled(() => streams.size === 0, endMs - performance.now());
        streams.endAll();
        // Close frames have to be taken before the process is gone.
        await settled(() => streams.size === 0, CLOSE_FRAME_MS);
        streams.close();
        for (const upstream of upstreams.values()) upstream.pool.close();
        await strategies.close(CLOSE_MS);
      },
    };
  } catch (error) {
    await strategies.close(CLOSE_MS);
    throw error;
  }
}

/** Waits for tunnels, which are no connections any more. */
function settled(isDone: () => boolean, withinMs: number): Promise<void> {
  const endMs = performance.now() + withinMs;
  return new Promise((resolve) => {
    const look = (): void => {
      if (isDone() || performance.now() >= endMs) resolve();
      else setTimeout(look, 20);
    };
    look();
  });
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
  return config.ca === null ? null : readFileSync(config.ca, "utf8");
}
