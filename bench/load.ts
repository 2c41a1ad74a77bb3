/**
 * The load: keep-alive connections that each ask again as soon as they have their whole answer, from a process of
 * its own.
 *
 * Invariant: every single answer is checked, status and body, byte for byte; the number of requests is fixed, so
 * the load ends. Connections are opened before the clock starts.
 */

import { join } from "node:path";
import type { Socket, Subprocess } from "bun";

/** Whom to load, and what they must answer. */
export interface LoadTarget {
  readonly port: number;
  readonly isTls: boolean;
  /** One connection each. */
  readonly requests: readonly string[];
  readonly body: string;
}

export interface LoadResult {
  readonly requests: number;
  readonly wrong: number;
  /** What the first wrong answer was. */
  readonly complaint: string | null;
  readonly seconds: number;
  readonly medianMs: number;
  readonly p99Ms: number;
}

type Command =
  | { readonly kind: "open"; readonly target: LoadTarget }
  | { readonly kind: "go"; readonly requests: number; readonly pauseMs: number };
type Answer =
  | { readonly kind: "opened" }
  | { readonly kind: "failed"; readonly error: string }
  | ({ readonly kind: "done" } & LoadResult);

/** The load process as seen from a benchmark. */
export class Load {
  private readonly child: Subprocess;
  private settle: ((answer: Answer) => void) | null = null;

  constructor() {
    this.child = Bun.spawn([process.execPath, join(import.meta.dir, "load.ts")], {
      stdio: ["ignore", "inherit", "inherit"],
      ipc: (message: Answer) => this.settle?.(message),
      onExit: () => this.settle?.({ kind: "failed", error: "the load process ended" }),
    });
  }

  /** Connects to the target and leaves the one before. */
  async open(target: LoadTarget): Promise<void> {
    await this.ask({ kind: "open", target });
  }

  /** Sends the requests over the open connections; `pauseMs` between two on the same one. */
  async go(requests: number, pauseMs = 0): Promise<LoadResult> {
    const answer = await this.ask({ kind: "go", requests, pauseMs });
    if (answer.kind !== "done") throw new Error(`the load process said ${answer.kind}`);
    return answer;
  }

  async close(): Promise<void> {
    this.settle = null;
    this.child.kill();
    await this.child.exited;
  }

  private ask(command: Command): Promise<Answer> {
    return new Promise((resolve, reject) => {
      this.settle = (answer) => {
        this.settle = null;
        if (answer.kind === "failed") reject(new Error(answer.error));
        else resolve(answer);
      };
      this.child.send(command);
    });
  }
}

/** A request as it goes over the wire. */
export function rawRequest(path: string, key: string | null): string {
  const credential = key === null ? "" : `Authorization: Bearer ${key}\r\n`;
  return `GET ${path} HTTP/1.1\r\nHost: gate.example\r\n${credential}User-Agent: bench\r\nAccept: */*\r\n\r\n`;
}

/** A whole response at the start of `bytes`, or `null` when it is not whole yet. */
export interface ParsedResponse {
  readonly status: number;
  readonly body: string;
  /** Where the next one begins. */
  readonly end: number;
}

const HEAD_END = Buffer.from("\r\n\r\n");

export function parseResponse(bytes: Buffer): ParsedResponse | null {
  const headEnd = bytes.indexOf(HEAD_END);
  if (headEnd === -1) return null;
  const head = bytes.toString("latin1", 0, headEnd);
  const status = Number(head.slice(9, 12));
  const length = /\r\ncontent-length: *(\d+)/i.exec(head);
  const start = headEnd + 4;
  if (length === null) return parseChunked(bytes, start, status);
  const end = start + Number(length[1]);
  return end > bytes.length ? null : { status, body: bytes.toString("latin1", start, end), end };
}

function parseChunked(bytes: Buffer, from: number, status: number): ParsedResponse | null {
  let body = "";
  for (let at = from; ; ) {
    const lineEnd = bytes.indexOf("\r\n", at, "latin1");
    if (lineEnd === -1) return null;
    const size = Number.parseInt(bytes.toString("latin1", at, lineEnd), 16);
    const next = lineEnd + 2 + size + 2;
    if (next > bytes.length) return null;
    if (!(size > 0)) return { status, body, end: next };
    body += bytes.toString("latin1", lineEnd + 2, lineEnd + 2 + size);
    at = next;
  }
}

/** One connection. */
interface Client {
  readonly request: string;
  socket: Socket<Client> | null;
  pending: Buffer | null;
  sentMs: number;
  isWaiting: boolean;
}

/** The other side: what the process does. */
class Generator {
  private target: LoadTarget | null = null;
  private clients: Client[] = [];
  private toSend = 0;
  private toCome = 0;
  private pauseMs = 0;
  /** Counts the runs: a pause that began in one must not end in the next. */
  private run = 0;
  private wrong = 0;
  private complaint: string | null = null;
  private startedMs = 0;
  private latencies = new Float64Array(0);
  private done: ((result: LoadResult) => void) | null = null;

  async open(target: LoadTarget): Promise<void> {
    const old = this.clients;
    this.clients = [];
    for (const client of old) client.socket?.end();
    this.target = target;
    this.clients = target.requests.map((request) => ({
      request,
      socket: null,
      pending: null,
      sentMs: 0,
      isWaiting: false,
    }));
    await Promise.all(this.clients.map((client) => this.connect(client, target)));
  }

  private connect(client: Client, target: LoadTarget): Promise<void> {
    return new Promise((resolve, reject) => {
      const ready = (socket: Socket<Client>): void => {
        client.socket = socket;
        socket.setNoDelay(true);
        resolve();
      };
      const tls = { tls: { rejectUnauthorized: false } };
      Bun.connect<Client>({
        hostname: "127.0.0.1",
        port: target.port,
        data: client,
        ...(target.isTls ? tls : {}),
        socket: {
          open: (socket) => (target.isTls ? undefined : ready(socket)),
          handshake: (socket) => ready(socket),
          data: (_, chunk) => this.received(client, chunk),
          close: () => this.lost(client),
          connectError: (_, error) => reject(error),
        },
      }).catch(reject);
    });
  }

  go(requests: number, pauseMs: number): Promise<LoadResult> {
    this.run += 1;
    this.toSend = requests;
    this.toCome = requests;
    this.pauseMs = pauseMs;
    this.wrong = 0;
    this.complaint = null;
    this.latencies = new Float64Array(requests);
    this.startedMs = performance.now();
    return new Promise((resolve) => {
      this.done = resolve;
      for (const client of this.clients) this.next(client);
    });
  }

  private next(client: Client): void {
    if (this.toSend === 0) return;
    this.toSend -= 1;
    client.isWaiting = true;
    client.sentMs = performance.now();
    client.socket?.write(client.request);
  }

  private received(client: Client, chunk: Buffer): void {
    const bytes = client.pending === null ? chunk : Buffer.concat([client.pending, chunk]);
    const response = parseResponse(bytes);
    if (response === null) {
      // The runtime may use the memory of a chunk again.
      client.pending = client.pending === null ? Buffer.from(bytes) : bytes;
      return;
    }
    client.pending = null;
    const isRight = response.status === 200 && response.body === this.target?.body;
    if (!client.isWaiting) this.complain("an answer that nobody asked for");
    else if (!isRight) this.complain(`${response.status} ${response.body.slice(0, 200)}`);
    else if (response.end !== bytes.length) this.complain("bytes after the answer");
    if (!client.isWaiting) return;
    client.isWaiting = false;
    this.latencies[this.toCome - 1] = performance.now() - client.sentMs;
    this.toCome -= 1;
    if (this.toCome === 0) this.finish();
    else if (this.pauseMs > 0) this.nextAfterPause(client, this.run);
    else this.next(client);
  }

  private nextAfterPause(client: Client, run: number): void {
    setTimeout(() => this.run === run && this.next(client), this.pauseMs);
  }

  private complain(text: string): void {
    this.wrong += 1;
    this.complaint ??= text;
  }

  private lost(client: Client): void {
    if (this.done === null || !this.clients.includes(client)) return;
    this.wrong += this.toCome;
    this.complaint ??= "a connection was closed";
    this.finish();
  }

  private finish(): void {
    const done = this.done;
    this.done = null;
    this.toSend = 0;
    const sorted = this.latencies.sort();
    done?.({
      requests: sorted.length,
      wrong: this.wrong,
      complaint: this.complaint,
      seconds: (performance.now() - this.startedMs) / 1000,
      medianMs: sorted[Math.floor((sorted.length - 1) * 0.5)] ?? Number.NaN,
      p99Ms: sorted[Math.floor((sorted.length - 1) * 0.99)] ?? Number.NaN,
    });
  }
}

if (import.meta.main) {
  const generator = new Generator();
  const say = (answer: Answer): void => void process.send?.(answer);
  const obey = async (command: Command): Promise<void> => {
    try {
      if (command.kind === "go") {
        say({ kind: "done", ...(await generator.go(command.requests, command.pauseMs)) });
        return;
      }
      await generator.open(command.target);
      say({ kind: "opened" });
    } catch (error) {
      say({ kind: "failed", error: String(error) });
    }
  };
  process.on("message", (command: Command) => void obey(command));
  process.on("disconnect", () => process.exit(0));
}
