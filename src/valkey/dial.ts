/**
 * Connections that have not begun to connect: addresses, TLS, users, and how they behave when the server is away.
 *
 * Invariant: nothing waits for a connection, nothing is sent twice, and each connection tries again by itself for ever,
 * at least twice a second.
 */
import { resolve } from "node:path";
import type { ConnectionOptions } from "node:tls";
import debug from "debug";
import { Cluster, Redis, type RedisOptions } from "iovalkey";
import { parseDuration } from "../contract/quantity.ts";
import {
  readValkeyAddress,
  readValkeyNode,
  type ValkeySettings,
} from "../contract/valkey-settings.ts";
import { readRegularFile } from "../regular-file.ts";

// The client's debug output, switched on by DEBUG in the environment, shows commands with their arguments: passwords.
debug.disable();

const FIRST_RETRY_MS = 25;
const LAST_RETRY_MS = 500;
const AGAIN_MS = 100;

/** How to connect, from the settings. */
export interface Way {
  readonly settings: ValkeySettings;
  /** Relative names of files start here. */
  readonly configDir: string;
}

/** How long a command may take. */
export function timeoutOf(settings: ValkeySettings): number {
  return parseDuration(settings.command_timeout) ?? 2000;
}

/** A connection of its own to the server or the primary. */
export function dial({ settings, configDir }: Way): Redis {
  const options = { ...common(settings, configDir), retryStrategy: retryMs, lazyConnect: true };
  const redis =
    settings.url === undefined ? viaSentinel(settings, options) : direct(settings, options);
  watch(redis, timeoutOf(settings));
  keepTrying(redis);
  return redis;
}

const left = new WeakSet<Redis | Cluster>();

/** Ends a connection for good. */
export function hangUp(client: Redis | Cluster): void {
  left.add(client);
  client.disconnect();
}

/**
 * The library gives up for good when sentinels tell of a failover while it asks them where the primary is, which is
 * what it does all the time after a primary has died.
 */
function keepTrying(redis: Redis): void {
  const again = (): void => {
    if (!left.has(redis)) redis.connect().catch(() => {});
  };
  redis.on("end", () => setTimeout(again, AGAIN_MS).unref());
}

/** Connections to the nodes of a cluster. */
export function dialCluster({ settings, configDir }: Way): Cluster {
  return new Cluster(settings.cluster?.nodes.map(readValkeyNode) ?? [], {
    redisOptions: common(settings, configDir),
    clusterRetryStrategy: retryMs,
    enableOfflineQueue: false,
    // By default what failed is sent again, sixteen times: only where a node says that it has not done it (MOVED, ASK).
    retryDelayOnFailover: 0,
    retryDelayOnClusterDown: 0,
    slotsRefreshTimeout: timeoutOf(settings),
    lazyConnect: true,
  });
}

/** Ends a connection and begins another one, without waiting for the peer. */
export function renew(redis: Redis): void {
  redis.stream?.destroy();
}

function direct(settings: ValkeySettings, options: RedisOptions): Redis {
  const { host, port, database, isTls } = readValkeyAddress(settings.url ?? "");
  const tls = isTls && options.tls === undefined ? { tls: {} } : {};
  return new Redis({ ...options, host, port, db: database, ...tls });
}

function viaSentinel(settings: ValkeySettings, options: RedisOptions): Redis {
  const { name, nodes, username, password } = settings.sentinel ?? { name: "", nodes: [] };
  const secured = options.tls === undefined ? {} : { sentinelTLS: options.tls };
  return new Redis({
    ...options,
    ...secured,
    name,
    sentinels: nodes.map(readValkeyNode),
    enableTLSForSentinelMode: options.tls !== undefined,
    sentinelRetryStrategy: retryMs,
    sentinelCommandTimeout: timeoutOf(settings),
    failoverDetector: true,
    // After a failover the old primary says so; the sentinels know the new one.
    reconnectOnError: (error) => error.message.startsWith("READONLY"),
    ...(username === undefined ? {} : { sentinelUsername: username }),
    ...(password === undefined ? {} : { sentinelPassword: password }),
  });
}

function common(settings: ValkeySettings, configDir: string) {
  const { username, password, tls } = settings;
  return {
    connectTimeout: Math.min(timeoutOf(settings), 2000),
    disconnectTimeout: 100,
    enableOfflineQueue: false,
    autoResendUnfulfilledCommands: false,
    autoResubscribe: false,
    // What waits for an answer when a connection ends fails then and there.
    maxRetriesPerRequest: 0,
    ...(username === undefined ? {} : { username }),
    ...(password === undefined ? {} : { password }),
    ...(tls === undefined ? {} : { tls: tlsOptions(tls, configDir) }),
  };
}

function tlsOptions(tls: NonNullable<ValkeySettings["tls"]>, configDir: string): ConnectionOptions {
  const { ca, server_name: servername } = tls;
  return {
    ...(ca === undefined ? {} : { ca: readRegularFile(resolve(configDir, ca)) }),
    ...(servername === undefined ? {} : { servername }),
  };
}

/** Between connecting and being ready the client waits for the server's answers without an end; this ends it. */
function watch(redis: Redis, timeoutMs: number): void {
  let timer: ReturnType<typeof setTimeout> | undefined;
  redis.on("connect", () => {
    clearTimeout(timer);
    timer = setTimeout(() => renew(redis), timeoutMs);
    timer.unref();
  });
  redis.on("ready", () => clearTimeout(timer));
  redis.on("close", () => clearTimeout(timer));
}

function retryMs(times: number): number {
  return Math.min(FIRST_RETRY_MS * 2 ** Math.min(times, 10), LAST_RETRY_MS);
}
