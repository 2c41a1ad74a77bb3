/**
 * Listens for what changes in Valkey: `CLIENT TRACKING` in broadcasting mode on a connection of its own, which is at
 * the same time the one that the messages are redirected to.
 *
 * Invariant: `isLive` is true only if the connection has answered lately, every message that had reached this machine
 * has been passed on, and none of ours is on its way to be answered. One connection: when it ends, so does the
 * tracking, and nothing that was missed can be taken for not having happened.
 *
 * A message comes on another connection than the answer that whoever changed the key gets, so which of the two the
 * event loop delivers first is open: of 40,000 changes in a tight loop 2,277 were answered first. Valkey writes
 * the messages of a turn before the answers of that turn, so the bytes were there: that is what `isQuiet` looks for.
 * With an answer of our own to be written in the same turn it may be the other way round (37 of 20,000 with a PING
 * each millisecond): so nothing is live while a PING is out. With both, none of 360,000 changes was missed, with and
 * without TLS, whose waiting bytes are seen as well as plain ones.
 *
 * @see https://valkey.io/topics/client-side-caching/
 */
import type { Redis } from "iovalkey";
import type { ValkeyTracking, ValkeyTrackingOptions } from "../contract/valkey.ts";
import { hangUp, renew } from "./dial.ts";
import { openLook } from "./quiet.ts";

const CHANNEL = "__redis__:invalidate";
const PING_MS = 500;
/** A connection that has been silent for longer may be dead. It answers in the order of its messages. */
const MAX_SILENCE_MS = 1500;
const RETRY_MS = 1000;
/** A turn of the event loop that lasts longer looks again: something in it has waited. */
const LONG_TURN_MS = 1;

/** What it needs. */
export interface TrackingOptions extends ValkeyTrackingOptions {
  /** Has not begun to connect. */
  readonly redis: Redis;
  /** Whether it reaches the server that answers look-ups; asked before each start. */
  isSameServer(redis: Redis): Promise<boolean>;
}

/** The listener. */
export interface Tracking extends ValkeyTracking {
  /** Begins anew, because the look-ups may now reach another server. */
  restart(): void;
  close(): void;
}

/** Connects in the background. */
export function openTracking(options: TrackingOptions): Tracking {
  const { redis } = options;
  const isQuiet = oncePerTurn(openLook(), redis);
  let isOn = false;
  let isAsking = false;
  let isDeaf = false;
  let answeredMs = 0;
  let problem: string | null = "OFFLINE";
  let isClosed = false;
  let timer: ReturnType<typeof setTimeout> | undefined;

  const tell = (keys: readonly string[] | null): void => {
    try {
      options.onChange(keys);
    } catch {
      // Whoever did not take it in must not use what is remembered either.
      isDeaf = true;
    }
  };
  const stop = (): void => {
    isOn = false;
    problem = "OFFLINE";
    clearTimeout(timer);
    tell(null);
  };
  const later = (ms: number, work: () => void): void => {
    clearTimeout(timer);
    if (isClosed) return;
    timer = setTimeout(work, ms);
    timer.unref();
  };
  const beat = async (): Promise<void> => {
    const { stream } = redis;
    const dead = setTimeout(() => stream.destroy(), MAX_SILENCE_MS);
    dead.unref();
    isAsking = true;
    try {
      await redis.ping();
      if (stream !== redis.stream) return;
      isAsking = false;
      answeredMs = performance.now();
      later(PING_MS, () => void beat());
    } catch {
      // Its end is told by `close`.
    } finally {
      clearTimeout(dead);
    }
  };
  const begin = async (): Promise<void> => {
    const { stream } = redis;
    try {
      await switchOn(options);
      if (stream !== redis.stream || isClosed) return;
      problem = null;
      isOn = true;
      options.onStart?.();
      await beat();
    } catch (error) {
      problem =
        /^[A-Z]{3,20}\b/.exec(error instanceof Error ? error.message : "")?.[0] ?? "OFFLINE";
      later(RETRY_MS, () => renew(redis));
    }
  };

  redis.on("error", () => {});
  redis.on("ready", () => void begin());
  redis.on("close", stop);
  redis.on("messageBuffer", (_channel: unknown, keys: unknown) => {
    tell(Array.isArray(keys) ? keys.map(String) : null);
  });
  // Tries again by itself; a first failure is no other than a later one.
  redis.connect().catch(() => {});
  return {
    isLive() {
      if (!isOn || isAsking || isDeaf) return false;
      const nowMs = performance.now();
      return nowMs - answeredMs < MAX_SILENCE_MS && isQuiet(nowMs);
    },
    isOn: () => isOn && !isDeaf,
    problem: () => (isDeaf ? "LISTENER" : problem),
    restart() {
      stop();
      renew(redis);
    },
    close() {
      isClosed = true;
      stop();
      hangUp(redis);
    },
  };
}

async function switchOn({ redis, prefix, isSameServer }: TrackingOptions): Promise<void> {
  if (!(await isSameServer(redis))) throw new Error("OTHERSERVER");
  const id = String(await redis.call("client", "id"));
  const words = ["tracking", "on", "redirect", id, "bcast", "prefix", prefix];
  await redis.call("client", ...words);
  await redis.subscribe(CHANNEL);
}

/**
 * Whether nothing waits to be read, asked before the first use in each turn of the event loop: every request of the
 * turn had come in by then, and so had the messages that came before it.
 */
function oncePerTurn(look: ReturnType<typeof openLook>, redis: Redis): (nowMs: number) => boolean {
  let isAsked = false;
  let isQuiet = false;
  let askedMs = 0;
  const newTurn = (): void => {
    isAsked = false;
  };
  return (nowMs) => {
    if (isAsked && nowMs - askedMs < LONG_TURN_MS) return isQuiet;
    isQuiet = look(redis.stream) !== "pending";
    askedMs = nowMs;
    if (!isAsked) setImmediate(newTurn);
    isAsked = true;
    return isQuiet;
  };
}
