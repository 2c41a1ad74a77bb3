/**
 * The connections to Valkey: one server, a primary behind sentinels, or a cluster.
 *
 * Invariant: a command has an answer, an error or its deadline; none waits for a connection and none is sent twice.
 * While the server is away each fails at once. The client tries again by itself for ever, at least once a second.
 */
import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import type { ConnectionOptions } from "node:tls";
import debug from "debug";
import { parseDuration } from "gatehouse";
import { Cluster, Redis, type RedisOptions } from "iovalkey";
import { failure, failureOf } from "./failure.ts";
import { type Node, placeOf, readAddress, readNode, type Settings } from "./settings.ts";

// The client's debug output, switched on by DEBUG in the environment, shows commands with their arguments: passwords.
debug.disable();

const FIRST_RETRY_MS = 25;
const LAST_RETRY_MS = 1000;
/** A server that was named but is not there should be said to be so before an operator gives up waiting. */
const START_MS = 5000;

/** What the parts of the strategy use. */
export interface Valkey {
  /** For people: where it is, without user and password. */
  readonly place: string;
  readonly isCluster: boolean;
  /** Sends a command. @throws ValkeyError */
  command(...words: readonly [string, ...string[]]): Promise<unknown>;
  /** Commands on one key in one go. The first error is thrown. @throws ValkeyError */
  together(commands: readonly (readonly [string, ...string[]])[]): Promise<readonly unknown[]>;
  /** SCAN to its end, on every primary. */
  scan(pattern: string): Promise<string[]>;
  isReady(): boolean;
  /** Called when a connection that was ready is lost. */
  onLost(listener: () => void): void;
  close(): void;
}

/** How to connect, from the settings. */
export interface Way {
  readonly settings: Settings;
  /** Relative names of files start here. */
  readonly configDir: string;
}

/** @throws ValkeyError when the first connection cannot be made */
export async function openValkey(way: Way): Promise<Valkey> {
  const { settings } = way;
  const place = placeOf(settings);
  const timeoutMs = timeoutOf(settings);
  const client = settings.cluster === undefined ? dial(way) : dialCluster(way);
  let lastError: unknown;
  let wasReady = false;
  const lost: (() => void)[] = [];
  client.on("error", (error: unknown) => {
    lastError = error;
  });
  client.on("ready", () => {
    wasReady = true;
  });
  client.on("close", () => {
    if (wasReady) for (const listener of lost) listener();
    wasReady = false;
  });
  try {
    await within(client.connect(), Math.max(START_MS, timeoutMs));
  } catch (error) {
    client.disconnect();
    throw failure(place, lastError ?? error);
  }
  const guarded = <T>(to: Redis | Cluster, work: Promise<T>) =>
    within(work, timeoutMs).catch((error: unknown) => {
      const found = failure(place, error);
      // It may be half open. Whatever else waits on it fails at once instead of one deadline after the other.
      if (found.code === "ETIMEDOUT" && to instanceof Redis && to.status === "ready") renew(to);
      throw found;
    });
  const send = (to: Redis | Cluster, [name, ...words]: readonly [string, ...string[]]) =>
    guarded(to, to.call(name, ...words));
  const primaries = () => (client instanceof Cluster ? client.nodes("master") : [client]);
  return {
    place,
    isCluster: client instanceof Cluster,
    command: (...words) => send(client, words),
    together: (commands) => guarded(client, allOf(client, commands)),
    async scan(pattern) {
      const found = await Promise.all(
        primaries().map((one) => scanOne((...words) => send(one, words), pattern, place)),
      );
      return found.flat();
    },
    isReady: () => client.status === "ready",
    onLost: (listener) => void lost.push(listener),
    close: () => client.disconnect(),
  };
}

/** A connection of its own to the server or the primary; it has not begun to connect. */
export function dial({ settings, configDir }: Way): Redis {
  const options = { ...common(settings, configDir), retryStrategy: retryMs, lazyConnect: true };
  const redis =
    settings.url === undefined ? viaSentinel(settings, options) : direct(settings, options);
  watch(redis, timeoutOf(settings));
  return redis;
}

/** Ends a connection and begins another one, without waiting for the peer. */
export function renew(redis: Redis): void {
  redis.stream?.destroy();
}

function direct(settings: Settings, options: RedisOptions): Redis {
  const { host, port, database, isTls } = readAddress(settings.url ?? "");
  const tls = isTls && options.tls === undefined ? { tls: {} } : {};
  return new Redis({ ...options, host, port, db: database, ...tls });
}

function viaSentinel(settings: Settings, options: RedisOptions): Redis {
  const { name, nodes, username, password } = settings.sentinel ?? { name: "", nodes: [] };
  const secured = options.tls === undefined ? {} : { sentinelTLS: options.tls };
  return new Redis({
    ...options,
    ...secured,
    name,
    sentinels: nodes.map(nodeOf),
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

function dialCluster({ settings, configDir }: Way): Cluster {
  return new Cluster(settings.cluster?.nodes.map(nodeOf) ?? [], {
    redisOptions: common(settings, configDir),
    clusterRetryStrategy: retryMs,
    enableOfflineQueue: false,
    slotsRefreshTimeout: timeoutOf(settings),
    lazyConnect: true,
  });
}

function common(settings: Settings, configDir: string) {
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

function tlsOptions(tls: NonNullable<Settings["tls"]>, configDir: string): ConnectionOptions {
  const { ca, server_name: servername } = tls;
  return {
    ...(ca === undefined ? {} : { ca: readFileSync(resolve(configDir, ca), "utf8") }),
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

function timeoutOf(settings: Settings): number {
  return parseDuration(settings.command_timeout) ?? 2000;
}

function nodeOf(text: string): Node {
  const node = readNode(text);
  if (node === null) throw new TypeError("not a node");
  return node;
}

async function scanOne(
  send: (...words: readonly [string, ...string[]]) => Promise<unknown>,
  pattern: string,
  place: string,
): Promise<string[]> {
  const keys: string[] = [];
  let cursor = "0";
  do {
    const reply = await send("scan", cursor, "match", pattern, "count", "1000");
    const [next, page] = Array.isArray(reply) ? reply : [];
    if (typeof next !== "string" || !Array.isArray(page)) throw failureOf(place, "BADREPLY");
    keys.push(...page.map(String));
    cursor = next;
  } while (cursor !== "0");
  return keys;
}

async function allOf(
  client: Redis | Cluster,
  commands: readonly (readonly [string, ...string[]])[],
): Promise<unknown[]> {
  const replies = await client.pipeline(commands.map((words) => [...words])).exec();
  return (replies ?? []).map(([error, reply]) => {
    if (error !== null) throw error;
    return reply;
  });
}

/** The promise, or an error with the code ETIMEDOUT. */
async function within<T>(work: Promise<T>, ms: number): Promise<T> {
  const { promise, reject } = Promise.withResolvers<never>();
  const timer = setTimeout(
    () => reject(Object.assign(new Error("too late"), { code: "ETIMEDOUT" })),
    ms,
  );
  try {
    return await Promise.race([work, promise]);
  } finally {
    clearTimeout(timer);
  }
}
