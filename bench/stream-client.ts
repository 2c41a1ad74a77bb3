/**
 * A process that holds many streams open and notes for each event how long ago it was written.
 *
 * Invariant: events are counted and come in order on every stream, or the measurement fails; only times of the
 * same two processes are subtracted, so what their clocks differ by cancels out between contenders.
 */

import { join } from "node:path";
import type { Subprocess } from "bun";
import { preciseNowMs } from "./upstream.ts";

export interface StreamOrder {
  readonly port: number;
  /** One stream each. */
  readonly requests: readonly string[];
  /** Each stream must have so many events; `null`: they are only held open, and nothing is noted. */
  readonly events: number | null;
}

export interface StreamResult {
  readonly events: number;
  readonly medianMs: number;
  readonly p99Ms: number;
}

type Answer =
  | ({ readonly kind: "done" } & StreamResult)
  | { readonly kind: "open" }
  | { readonly kind: "failed"; readonly error: string };

/** The process as seen from a benchmark. */
export class StreamClient {
  private readonly child: Subprocess;
  private settle: ((answer: Answer) => void) | null = null;

  constructor() {
    this.child = Bun.spawn([process.execPath, join(import.meta.dir, "stream-client.ts")], {
      stdio: ["ignore", "inherit", "inherit"],
      ipc: (message: Answer) => this.settle?.(message),
      onExit: () => this.settle?.({ kind: "failed", error: "the stream client ended" }),
    });
  }

  /** Reads the streams to their end. */
  async read(order: StreamOrder): Promise<StreamResult> {
    const answer = await this.ask(order);
    if (answer.kind !== "done") throw new Error("streams were only opened");
    return answer;
  }

  /** Resolves when each stream has had its first event; they stay open until the process ends. */
  async hold(order: StreamOrder): Promise<void> {
    await this.ask(order);
  }

  async close(): Promise<void> {
    this.settle = null;
    this.child.kill();
    await this.child.exited;
  }

  private ask(order: StreamOrder): Promise<Answer> {
    return new Promise((resolve, reject) => {
      this.settle = (answer) => {
        this.settle = null;
        if (answer.kind === "failed") reject(new Error(answer.error));
        else resolve(answer);
      };
      this.child.send(order);
    });
  }
}

/** Every event has its time and its number; a chunk of bytes may end anywhere between. */
const EVENT = /\{"t":([\d.]+),"n":(\d+),[^}]*\}/g;
/** Connections opened at once. */
const BATCH = 50;

async function obey(order: StreamOrder): Promise<Answer> {
  const delays: number[] = [];
  const streams: Promise<void>[] = [];
  for (let at = 0; at < order.requests.length; at += BATCH) {
    const opened = order.requests.slice(at, at + BATCH).map((request) => {
      const stream = follow(order, request, delays);
      streams.push(order.events === null ? stream.begun : stream.ended);
      return stream.opened;
    });
    await Promise.all(opened);
  }
  await Promise.all(streams);
  if (order.events === null) return { kind: "open" };
  const sorted = Float64Array.from(delays).sort();
  const at = (share: number) => sorted[Math.floor((sorted.length - 1) * share)] ?? Number.NaN;
  return { kind: "done", events: sorted.length, medianMs: at(0.5), p99Ms: at(0.99) };
}

function follow(
  order: StreamOrder,
  request: string,
  delays: number[],
): { opened: Promise<void>; begun: Promise<void>; ended: Promise<void> } {
  const opened = Promise.withResolvers<void>();
  const begun = Promise.withResolvers<void>();
  const ended = Promise.withResolvers<void>();
  const fail = (text: string): void => {
    opened.reject(new Error(text));
    begun.reject(new Error(text));
    ended.reject(new Error(text));
  };
  for (const { promise } of [begun, ended]) promise.catch(() => {});
  let tail = "";
  let next = 0;
  Bun.connect({
    hostname: "127.0.0.1",
    port: order.port,
    socket: {
      open(socket) {
        socket.setNoDelay(true);
        socket.write(request);
      },
      data(socket, chunk) {
        const nowMs = preciseNowMs();
        opened.resolve();
        tail += chunk.toString("latin1");
        let end = 0;
        for (const event of tail.matchAll(EVENT)) {
          if (Number(event[2]) !== next) fail(`event ${event[2]} came instead of ${next}`);
          next += 1;
          end = event.index + event[0].length;
          if (order.events !== null) delays.push(nowMs - Number(event[1]));
        }
        tail = tail.slice(end);
        if (next > 0) begun.resolve();
        if (next !== order.events) return;
        ended.resolve();
        socket.end();
      },
      close: () => fail(`a stream ended after ${next} events: ${tail.slice(0, 200)}`),
      connectError: (_, error) => fail(error.message),
    },
  }).catch((error: Error) => fail(error.message));
  return { opened: opened.promise, begun: begun.promise, ended: ended.promise };
}

if (import.meta.main) {
  process.on("message", (order: StreamOrder) => {
    obey(order).then(
      (answer) => process.send?.(answer),
      (error: Error) => process.send?.({ kind: "failed", error: error.message }),
    );
  });
  process.on("disconnect", () => process.exit(0));
}
