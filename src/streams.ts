/**
 * Replies and tunnels that are still open, with the identity they were opened for.
 *
 * Invariant: a stream ends within about a second after its credential was revoked or has expired, or its strategy is
 * configured no more; a fault while asking ends nothing (the request was decided, and a restarting store must not cut
 * every stream). A stream is ended once, and asked about once at a time, however slow the store is; one that never
 * answers keeps no other stream alive, and none any longer than its strategy is configured.
 */
import type { NamedStrategy } from "./authenticate.ts";
import type { Clock, Log } from "./contract/host.ts";
import type { Identity } from "./contract/outcome.ts";

/** Something open that can be ended. */
export interface OpenStream {
  readonly strategy: NamedStrategy | null;
  readonly identity: Identity | null;
  readonly requestId: string;
  /** `expired`/`revoked`: the credential; `shutdown`: the gateway. */
  end(why: "expired" | "revoked" | "shutdown"): void;
}

export interface StreamWatch {
  /** Returns what takes it off the list again. */
  add(stream: OpenStream): () => void;
  readonly size: number;
  /** From now on these are asked, also about the streams that are open already. */
  askOf(strategies: ReadonlyMap<string, NamedStrategy>): void;
  endAll(): void;
  close(): void;
}

const SWEEP_MS = 1000;

type Doom = "expired" | "revoked";

/** Starts watching; the timer only runs while something is open. */
export function watchStreams(clock: Clock, log: Log): StreamWatch {
  let strategies: ReadonlyMap<string, NamedStrategy> = new Map();
  const open = new Set<OpenStream>();
  const ending = new WeakSet<OpenStream>();
  let asked = new WeakSet<OpenStream>();
  let timer: ReturnType<typeof setInterval> | null = null;
  const stopTimer = (): void => {
    if (timer !== null) clearInterval(timer);
    timer = null;
  };
  const look = async (stream: OpenStream): Promise<void> => {
    const asking = asked;
    asking.add(stream);
    const why = await doom(stream, { strategies, clock, log });
    asking.delete(stream);
    // What a strategy of the configuration before says late counts no more.
    if (why === null || asking !== asked || !open.has(stream) || ending.has(stream)) return;
    ending.add(stream);
    finish(stream, why, log);
  };
  const sweep = (): void => {
    for (const stream of open) if (!ending.has(stream) && !asked.has(stream)) void look(stream);
  };
  return {
    add(stream) {
      open.add(stream);
      timer ??= setInterval(sweep, SWEEP_MS);
      return () => {
        open.delete(stream);
        if (open.size === 0) stopTimer();
      };
    },
    get size() {
      return open.size;
    },
    askOf(next) {
      strategies = next;
      asked = new WeakSet();
    },
    endAll() {
      for (const stream of [...open]) {
        ending.add(stream);
        stream.end("shutdown");
      }
    },
    close: stopTimer,
  };
}

/** Who is asked. */
interface Asking {
  readonly strategies: ReadonlyMap<string, NamedStrategy>;
  readonly clock: Clock;
  readonly log: Log;
}

/** Why a stream has to end, or `null`. */
async function doom(
  { identity, strategy, requestId }: OpenStream,
  { strategies, clock, log }: Asking,
): Promise<Doom | null> {
  if (identity === null || strategy === null) return null;
  if (identity.expiresAtMs !== undefined && identity.expiresAtMs <= clock.nowMs()) return "expired";
  const now = strategies.get(strategy.name);
  // An identity means nothing to another plugin that has the name now.
  if (now === undefined || now.plugin.name !== strategy.plugin.name) return "revoked";
  try {
    return (await now.instance.isCurrent?.(identity)) === false ? "revoked" : null;
  } catch {
    log.warn("stream.check_failed", { strategy: strategy.name, request_id: requestId });
    return null;
  }
}

function finish(stream: OpenStream, why: Doom, log: Log): void {
  log.info("stream.ended", {
    why,
    request_id: stream.requestId,
    strategy: stream.strategy?.name,
    token_id: stream.identity?.id,
  });
  stream.end(why);
}
