/**
 * Raw sockets for tests: a client that sends exact bytes, and an upstream that records exactly what arrives.
 *
 * Invariant: nothing here parses leniently on behalf of the code under test; bytes are compared as latin1 text.
 */
import type { Socket } from "bun";

/** What a raw exchange brought. */
export interface RawAnswer {
  readonly text: string;
  /** Status codes of the responses in it, in order, 1xx included. */
  readonly statuses: readonly number[];
  /** The peer closed the connection. */
  readonly closed: boolean;
}

export interface RawOptions {
  /** Resolve as soon as this holds; default: when the peer closes. */
  readonly until?: (text: string) => boolean;
  /** Give up after this long and return what came. Default 5000. */
  readonly timeoutMs?: number;
}

/** `127.0.0.1:80`, `unix:/path` to what Bun.connect takes. */
export function target(address: string): { hostname: string; port: number } | { unix: string } {
  if (address.startsWith("unix:")) return { unix: address.slice(5) };
  const colon = address.lastIndexOf(":");
  return { hostname: address.slice(0, colon), port: Number(address.slice(colon + 1)) };
}

/** Sends bytes (latin1) on a new connection and collects the answer. */
export async function raw(
  address: string,
  bytes: string,
  options: RawOptions = {},
): Promise<RawAnswer> {
  const connection = await openRaw(address);
  connection.send(bytes);
  return connection.read(options);
}

/** A connection to be used step by step. */
export interface RawConnection {
  send(bytes: string | Uint8Array): void;
  /** What has come since the start, once the condition holds. */
  read(options?: RawOptions): Promise<RawAnswer>;
  pause(): void;
  resume(): void;
  /** Bytes received so far. */
  readonly received: number;
  /** Closes at once (reset where there is unread data). */
  kill(): void;
  /** Half-close. */
  finish(): void;
}

/** Opens a raw connection. */
export async function openRaw(address: string): Promise<RawConnection> {
  let text = "";
  let received = 0;
  let closed = false;
  const waiters = new Set<() => void>();
  const wake = () => {
    for (const waiter of [...waiters]) waiter();
  };
  const queue: Uint8Array[] = [];
  const flush = (socket: Socket) => {
    while (queue.length > 0) {
      const bytes = queue[0]!;
      const sent = Math.max(0, socket.write(bytes));
      if (sent < bytes.length) {
        queue[0] = bytes.subarray(sent);
        return;
      }
      queue.shift();
    }
  };
  const handlers = {
    data(_: Socket, chunk: Buffer) {
      received += chunk.length;
      if (received < 4_000_000) text += chunk.toString("latin1");
      wake();
    },
    drain: (drained: Socket) => flush(drained),
    end() {
      closed = true;
      wake();
    },
    close() {
      closed = true;
      wake();
    },
    error() {},
  };
  const where = target(address);
  const socket: Socket =
    "unix" in where
      ? await Bun.connect({ unix: where.unix, allowHalfOpen: true, socket: handlers })
      : await Bun.connect({ ...where, allowHalfOpen: true, socket: handlers });
  return {
    send(bytes) {
      queue.push(typeof bytes === "string" ? Buffer.from(bytes, "latin1") : bytes);
      if (queue.length === 1) flush(socket);
    },
    read(options = {}) {
      return new Promise((resolve) => {
        const answer = (): RawAnswer => ({
          text,
          statuses: [...text.matchAll(/HTTP\/1\.1 (\d{3}) /g)].map((match) => Number(match[1])),
          closed,
        });
        const timer = setTimeout(() => {
          waiters.delete(look);
          resolve(answer());
        }, options.timeoutMs ?? 5000);
        const look = () => {
          if (!closed && !(options.until?.(text) ?? false)) return;
          waiters.delete(look);
          clearTimeout(timer);
          resolve(answer());
        };
        waiters.add(look);
        look();
      });
    },
    pause: () => void socket.pause(),
    resume: () => void socket.resume(),
    get received() {
      return received;
    },
    kill: () => void socket.terminate(),
    finish: () => void socket.shutdown(),
  };
}

/** A request as an upstream got it. */
export interface SeenRequest {
  readonly head: string;
  readonly line: string;
  /** Lower-case name and value of each line, in order. */
  readonly fields: readonly (readonly [string, string])[];
  body: string;
}

/** What an upstream does with a request whose head has come; it writes bytes itself. */
export type RawResponder = (
  request: SeenRequest,
  write: (bytes: string | Uint8Array) => void,
  close: () => void,
) => void;

export interface RawUpstream {
  readonly port: number;
  readonly address: string;
  /** Every request whose head arrived, in order. */
  readonly seen: SeenRequest[];
  readonly connections: number;
  /** Connections that were open and are closed now. */
  readonly closedConnections: number;
  respond: RawResponder;
  stop(): void;
}

/** The answer of an upstream that has nothing special to say. */
export const OK_RESPONSE =
  "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok";

/** A raw upstream on a free port. By default it answers 200 `ok` as soon as the head has come. */
export function rawUpstream(respond: RawResponder = (_, write) => write(OK_RESPONSE)): RawUpstream {
  const seen: SeenRequest[] = [];
  let connections = 0;
  let closedConnections = 0;
  const listener = Bun.listen<{
    text: string;
    current: SeenRequest | null;
    left: number;
    queue: Uint8Array[];
  }>({
    hostname: "127.0.0.1",
    port: 0,
    socket: {
      open(socket) {
        connections += 1;
        socket.data = { text: "", current: null, left: 0, queue: [] };
      },
      data(socket, chunk) {
        const state = socket.data;
        let text = chunk.toString("latin1");
        if (state.current !== null && state.left > 0) {
          const body = text.slice(0, state.left);
          state.current.body += body;
          state.left -= body.length;
          text = text.slice(body.length);
          if (state.current.body.endsWith("0\r\n\r\n") && isChunkedRequest(state.current))
            state.left = 0;
          if (text === "") return;
        }
        state.text += text;
        for (
          let end = state.text.indexOf("\r\n\r\n");
          end !== -1;
          end = state.text.indexOf("\r\n\r\n")
        ) {
          const head = state.text.slice(0, end);
          const rest = state.text.slice(end + 4);
          const lines = head.split("\r\n");
          const fields = lines.slice(1).map((line) => {
            const colon = line.indexOf(":");
            return [line.slice(0, colon).toLowerCase(), line.slice(colon + 1).trim()] as const;
          });
          const length = fields.find(([name]) => name === "content-length")?.[1];
          const isChunked = fields.some(([name]) => name === "transfer-encoding");
          const left = isChunked ? Number.MAX_SAFE_INTEGER : Number(length ?? 0);
          const request: SeenRequest = {
            head,
            line: lines[0] ?? "",
            fields,
            body: rest.slice(0, left),
          };
          state.current = request;
          state.left = left - request.body.length;
          state.text = rest.slice(request.body.length);
          seen.push(request);
          const write = (bytes: string | Uint8Array) => {
            state.queue.push(typeof bytes === "string" ? Buffer.from(bytes, "latin1") : bytes);
            if (state.queue.length === 1) flushQueue(socket);
          };
          upstream.respond(request, write, () => socket.end());
          if (state.left > 0) break;
        }
      },
      drain: (socket) => flushQueue(socket),
      close() {
        closedConnections += 1;
      },
      error() {},
    },
  });
  function flushQueue(socket: Socket<{ queue: Uint8Array[] }>): void {
    const { queue } = socket.data;
    while (queue.length > 0) {
      const sent = Math.max(0, socket.write(queue[0]!));
      if (sent < queue[0]!.length) {
        queue[0] = queue[0]!.subarray(sent);
        return;
      }
      queue.shift();
    }
  }
  const upstream: RawUpstream = {
    port: listener.port,
    address: `127.0.0.1:${listener.port}`,
    seen,
    get connections() {
      return connections;
    },
    get closedConnections() {
      return closedConnections;
    },
    respond,
    stop: () => listener.stop(true),
  };
  return upstream;
}

function isChunkedRequest(request: SeenRequest): boolean {
  return request.fields.some(([name]) => name === "transfer-encoding");
}

/** Values of a header that an upstream saw. */
export function valuesOf(request: SeenRequest | undefined, name: string): string[] {
  return (request?.fields ?? []).filter(([one]) => one === name).map(([, value]) => value);
}

/** Waits until a condition holds, looking often; throws after the deadline with what was waited for. */
export async function eventually(
  what: string,
  holds: () => boolean,
  timeoutMs = 5000,
): Promise<void> {
  const end = performance.now() + timeoutMs;
  while (!holds()) {
    if (performance.now() > end) throw new Error(`never happened: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}
