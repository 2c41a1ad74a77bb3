/**
 * Sends requests at a steady pace over keep-alive connections and times each, from a process of its own.
 *
 * Invariant: the pace does not depend on how fast the answers come; every answer is checked. A job comes in by a
 * message and its result goes out by one.
 */
import type { Socket } from "bun";
import { parseResponse } from "./load.ts";
import { BODY } from "./upstream.ts";

/** What to send, each request once. */
export interface PacedJob {
  readonly port: number;
  readonly perSecond: number;
  readonly connections: number;
  readonly requests: readonly string[];
}

/** How long each took from being written to being answered, in ms. */
export interface PacedResult {
  readonly latenciesMs: readonly number[];
  readonly wrong: number;
  readonly complaint: string | null;
}

interface Connection {
  pending: Buffer;
  sentAtMs: number;
}

async function run(job: PacedJob): Promise<PacedResult> {
  const latenciesMs: number[] = [];
  let wrong = 0;
  let complaint: string | null = null;
  let next = 0;
  const idle: Socket<Connection>[] = [];
  const { promise, resolve } = Promise.withResolvers<void>();

  const finish = (socket: Socket<Connection>): void => {
    const answer = parseResponse(socket.data.pending);
    if (answer === null) return;
    socket.data.pending = Buffer.alloc(0);
    latenciesMs.push(performance.now() - socket.data.sentAtMs);
    if (answer.status !== 200 || answer.body !== BODY) {
      wrong += 1;
      complaint ??= `${answer.status} ${answer.body.slice(0, 200)}`;
    }
    idle.push(socket);
    if (latenciesMs.length === job.requests.length) resolve();
  };
  for (let count = 0; count < job.connections; count += 1) {
    idle.push(
      await Bun.connect<Connection>({
        hostname: "127.0.0.1",
        port: job.port,
        data: { pending: Buffer.alloc(0), sentAtMs: 0 },
        socket: {
          data(socket, chunk) {
            socket.data.pending = Buffer.concat([socket.data.pending, chunk]);
            finish(socket);
          },
        },
      }),
    );
  }
  const startMs = performance.now();
  const timer = setInterval(() => {
    const due = Math.min(
      job.requests.length,
      Math.ceil(((performance.now() - startMs) * job.perSecond) / 1000),
    );
    for (; next < due; next += 1) {
      const socket = idle.pop();
      if (socket === undefined) return;
      socket.data.sentAtMs = performance.now();
      socket.write(job.requests[next] ?? "");
    }
  }, 1);
  await promise;
  clearInterval(timer);
  for (const socket of idle) socket.end();
  return { latenciesMs, wrong, complaint };
}

if (import.meta.main) {
  process.on("message", (job: PacedJob) => {
    void run(job).then((result) => process.send?.(result));
  });
}
