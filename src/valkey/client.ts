/**
 * A Valkey for commands: one server, a primary behind sentinels, or a cluster.
 *
 * Invariant: a command has an answer, an error or its deadline; none waits for a connection and none is sent twice.
 * While the server is away each fails at once.
 */
import { Cluster, type Redis } from "iovalkey";
import type { Valkey } from "../contract/valkey.ts";
import { valkeyPlace } from "../contract/valkey-settings.ts";
import { dial, dialCluster, hangUp, renew, timeoutOf, type Way } from "./dial.ts";
import { failure, failureOf } from "./failure.ts";
import { openTracking, type Tracking } from "./tracking.ts";

/** A server that was named but is not there should be said to be so before an operator gives up waiting. */
const START_MS = 5000;

type Client = Redis | Cluster;
type Send = (...words: readonly [string, ...string[]]) => Promise<unknown>;

/** @throws ValkeyError when the first connection cannot be made */
export async function openValkey(way: Way): Promise<Valkey> {
  const { settings } = way;
  const place = valkeyPlace(settings);
  const timeoutMs = timeoutOf(settings);
  const client = settings.cluster === undefined ? dial(way) : dialCluster(way);
  const { lost, back } = listeners(client);
  await connected(client, place, Math.max(START_MS, timeoutMs));
  const guarded = <T>(to: Client, work: Promise<T>) =>
    within(work, timeoutMs).catch((error: unknown) => {
      const found = failure(place, error);
      mend(to, found.code);
      throw found;
    });
  const sendTo =
    (to: Client): Send =>
    (name, ...words) =>
      guarded(to, to.call(name, ...words));
  const command = sendTo(client);
  const primaries = () => (client instanceof Cluster ? client.nodes("master") : [client]);
  const trackings: Tracking[] = [];
  return {
    place,
    isCluster: client instanceof Cluster,
    command,
    together: (commands) => guarded(client, allOf(client, commands)),
    async scan(pattern) {
      const found = await Promise.all(
        primaries().map((one) => scanOne(sendTo(one), pattern, place)),
      );
      return found.flat();
    },
    isReady: () => client.status === "ready",
    onLost: (listener) => void lost.push(listener),
    onBack: (listener) => void back.push(listener),
    track(options) {
      if (client instanceof Cluster) return null;
      // During a failover one connection may still reach the old primary.
      const isSameServer = async (redis: Redis): Promise<boolean> =>
        settings.sentinel === undefined || (await reachSameServer(command, redis));
      const tracking = openTracking({ ...options, redis: dial(way), isSameServer });
      trackings.push(tracking);
      lost.push(tracking.restart);
      return tracking;
    },
    close() {
      for (const tracking of trackings) tracking.close();
      hangUp(client);
    },
  };
}

/** What can be done for the next command after one that failed. */
function mend(to: Client, code: string): void {
  if (to.status !== "ready") return;
  if (to instanceof Cluster) {
    // Another node may have the keys by now, and a node without power never says so itself.
    if (code === "OFFLINE" || code === "ETIMEDOUT" || code === "CLUSTERDOWN") {
      to.refreshSlotsCache();
    }
    return;
  }
  // It may be half open. Whatever else waits on it fails at once instead of one deadline after the other.
  if (code === "ETIMEDOUT") renew(to);
}

async function connected(client: Client, place: string, withinMs: number): Promise<void> {
  let lastError: unknown;
  client.on("error", (error: unknown) => {
    lastError = error;
  });
  try {
    await within(client.connect(), withinMs);
  } catch (error) {
    hangUp(client);
    throw failure(place, lastError ?? error);
  }
}

/** Those who want to be told of an end or of a new beginning. */
function listeners(client: Client): {
  readonly lost: (() => void)[];
  readonly back: (() => void)[];
} {
  const [lost, back]: [(() => void)[], (() => void)[]] = [[], []];
  let isReady = false;
  let isFirst = true;
  client.on("ready", () => {
    if (!isFirst) for (const listener of back) listener();
    [isReady, isFirst] = [true, false];
  });
  client.on("close", () => {
    if (isReady) for (const listener of lost) listener();
    isReady = false;
  });
  return { lost, back };
}

async function reachSameServer(command: Send, redis: Redis): Promise<boolean> {
  const runOf = (info: unknown) => /^run_id:([0-9a-f]{40})/m.exec(String(info))?.[1];
  const [ours, theirs] = await Promise.all([
    command("info", "server"),
    redis.call("info", "server"),
  ]);
  return runOf(ours) !== undefined && runOf(ours) === runOf(theirs);
}

async function scanOne(send: Send, pattern: string, place: string): Promise<string[]> {
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
  client: Client,
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
