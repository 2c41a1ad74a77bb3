/**
 * Replies and tunnels that are still open, with the identity they were opened for.
 *
 * Invariant: a stream ends within about a second after its credential was revoked or has expired; a fault while
 * asking ends nothing (the request was decided, and a restarting store must not cut every stream).
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
  endAll(): void;
  close(): void;
}

const SWEEP_MS = 1000;

/** Starts watching; the timer only runs while something is open. */
export function watchStreams(clock: Clock, log: Log): StreamWatch {
  const open = new Set<OpenStream>();
  let timer: ReturnType<typeof setInterval> | null = null;
  const stopTimer = (): void => {
    if (timer !== null) clearInterval(timer);
    timer = null;
  };
  const sweep = (): void => {
    for (const stream of open) void check(stream, clock, log);
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
    endAll() {
      for (const stream of [...open]) stream.end("shutdown");
    },
    close: stopTimer,
  };
}

async function check(stream: OpenStream, clock: Clock, log: Log): Promise<void> {
  const { identity, strategy } = stream;
  if (identity === null || strategy === null) return;
  if (identity.expiresAtMs !== undefined && identity.expiresAtMs <= clock.nowMs()) {
    finish(stream, "expired", log);
    return;
  }
  try {
    const isCurrent = await strategy.instance.isCurrent?.(identity);
    if (isCurrent === false) finish(stream, "revoked", log);
  } catch {
    log.warn("stream.check_failed", { strategy: strategy.name, request_id: stream.requestId });
  }
}

function finish(stream: OpenStream, why: "expired" | "revoked", log: Log): void {
  log.info("stream.ended", {
    why,
    request_id: stream.requestId,
    strategy: stream.strategy?.name,
    token_id: stream.identity?.id,
  });
  stream.end(why);
}
