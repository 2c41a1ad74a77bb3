/**
 * How a set-up learns that it should stop: Ctrl-C, SIGTERM, a terminal that goes away.
 *
 * Invariant: whatever the reason, what was made is taken away again; a terminal that is gone makes no further trouble.
 */
import { EXIT, errorCode, OperatorError } from "../../errors.ts";
import type { CliContext } from "../context.ts";

/** What stops a set-up. */
export class Stopped extends OperatorError {
  constructor() {
    super(EXIT.failure, "stopped");
    this.name = "Stopped";
  }
}

/** Listens until it is closed. */
export interface Interruption {
  readonly signal: AbortSignal;
  /** @throws Stopped when it was asked to stop */
  check(): void;
  /** Gives the result, or throws Stopped as soon as it is asked to stop. */
  until<T>(work: Promise<T>): Promise<T>;
  /** As Ctrl-C does. */
  stop(): void;
  close(): void;
}

/** Begins to listen. */
export function listenForInterruption(context: Pick<CliContext, "stop">): Interruption {
  const controller = new AbortController();
  const stop = (): void => controller.abort(new Stopped());
  const quiet = (): void => undefined;
  const onStreamError = (error: unknown): void => {
    // EIO is what a terminal that has gone says.
    if (errorCode(error) === "EIO") stop();
  };
  context.stop.addEventListener("abort", stop, { once: true });
  if (context.stop.aborted) stop();
  process.on("SIGHUP", stop);
  process.stdin.on("error", onStreamError);
  process.stderr.on("error", quiet);
  return {
    signal: controller.signal,
    check() {
      if (controller.signal.aborted) throw new Stopped();
    },
    async until(work) {
      if (controller.signal.aborted) throw new Stopped();
      const { promise, reject } = Promise.withResolvers<never>();
      const onAbort = (): void => reject(new Stopped());
      controller.signal.addEventListener("abort", onAbort, { once: true });
      try {
        return await Promise.race([work, promise]);
      } finally {
        controller.signal.removeEventListener("abort", onAbort);
      }
    },
    stop,
    close() {
      context.stop.removeEventListener("abort", stop);
      process.off("SIGHUP", stop);
      process.stdin.off("error", onStreamError);
      process.stderr.off("error", quiet);
    },
  };
}
