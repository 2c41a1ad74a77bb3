/**
 * Listens for what changes in Valkey: `CLIENT TRACKING` in broadcasting mode on a connection of its own, which is at
 * the same time the one that the messages are redirected to.
 *
 * Invariant: `isLive` is true only while every change that was answered to whoever made it has been passed on or is
 * seen to be waiting in this connection. Valkey writes the messages of a turn before it answers that turn's commands
 * (measured: never later in 20,000; without broadcasting always later). One connection: when it ends, so does the
 * tracking, and nothing that was missed can be taken for not having happened.
 *
 * @see https://valkey.io/topics/client-side-caching/
 */
import type { Redis } from "iovalkey";
import { renew } from "./client.ts";
import { openLook } from "./quiet.ts";

const CHANNEL = "__redis__:invalidate";
const PING_MS = 500;
/** A connection that has been silent for longer may be dead. It answers in the order of its messages. */
const MAX_SILENCE_MS = 1500;
const RETRY_MS = 1000;
/** A turn of the event loop that lasts longer looks again: something in it has waited. */
const LONG_TURN_MS = 1;

/** What it needs. */
export interface TrackingOptions {
  /** Has not begun to connect. */
  readonly redis: Redis;
  /** Changes of keys that begin so are told. */
  readonly prefix: string;
  /** Keys that changed; `null`: any may have changed. */
  onChange(keys: readonly string[] | null): void;
  /** Whether it reaches the server that answers look-ups; asked before each start. */
  isSameServer(redis: Redis): Promise<boolean>;
}

/** The listener. */
export interface Tracking {
  /** Whether what was learned earlier may be used at this moment. */
  isLive(): boolean;
  /** Whether what is learned from now on may be used later: its changes will be told, or everything dropped. */
  isOn(): boolean;
  /** What went wrong when it could not be switched on, in the server's code; `null` when nothing did. */
  problem(): string | null;
  /** Begins anew, because the look-ups may now reach another server. */
  restart(): void;
  close(): void;
}

/** Connects in the background. */
export function openTracking(options: TrackingOptions): Tracking {
  const { redis } = options;
  const isQuiet = oncePerTurn(openLook(), redis);
  let isOn = false;
  let answeredMs = 0;
  let problem: string | null = "OFFLINE";
  let isClosed = false;
  let timer: ReturnType<typeof setTimeout> | undefined;

  const stop = (): void => {
    isOn = false;
    problem = "OFFLINE";
    clearTimeout(timer);
    options.onChange(null);
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
    try {
      await redis.ping();
      if (stream !== redis.stream) return;
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
    options.onChange(Array.isArray(keys) ? keys.map(String) : null);
  });
  // Tries again by itself; a first failure is no other than a later one.
  redis.connect().catch(() => {});
  return {
    isLive: () => isOn && performance.now() - answeredMs < MAX_SILENCE_MS && isQuiet(),
    isOn: () => isOn,
    problem: () => problem,
    restart() {
      stop();
      renew(redis);
    },
    close() {
      isClosed = true;
      stop();
      redis.disconnect();
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
function oncePerTurn(look: ReturnType<typeof openLook>, redis: Redis): () => boolean {
  let isAsked = false;
  let isQuiet = false;
  let askedMs = 0;
  const newTurn = (): void => {
    isAsked = false;
  };
  return () => {
    const nowMs = performance.now();
    if (isAsked && nowMs - askedMs < LONG_TURN_MS) return isQuiet;
    isQuiet = look(redis.stream) !== "pending";
    askedMs = nowMs;
    if (!isAsked) setImmediate(newTurn);
    isAsked = true;
    return isQuiet;
  };
}
