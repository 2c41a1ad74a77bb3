/**
 * Writing one reply: framing, back-pressure, and the end or the visible cut of a body.
 *
 * Invariant: exactly the announced number of bytes is written, or the connection is closed; a body that broke
 * off never gets a clean end (RFC 9112 section 8), and an answer that may have no body (HEAD, 204, 304) gets none.
 */
import type { BodySink, BodySource } from "./body.ts";
import type { Reply } from "./exchange.ts";
import { headBytes, type Outgoing } from "./socket.ts";

const CHUNK_END = headBytes("\r\n");
const LAST_CHUNK = headBytes("0\r\n\r\n");
/** Chunks up to this size are copied behind their size line, so that one event is one write. */
const COPY_MAX = 16_384;

/** The lines of a reply whose body is at hand, and its bytes; what {@link ReplyWriter} would write in one go. */
export function wholeReply(
  reply: Reply & { readonly body: Uint8Array | null },
  context: ReplyContext,
): { readonly head: string; readonly body: Uint8Array | null; readonly keepAlive: boolean } {
  const framing = framingOf(reply, context);
  const keepAlive = context.keepAlive && reply.close !== true;
  const head = headText(reply, context, { framing, keepAlive });
  return { head, body: framing === "none" ? null : reply.body, keepAlive };
}

/** Whether nothing has to be waited for. */
export function isWhole(reply: Reply): reply is Reply & { readonly body: Uint8Array | null } {
  return reply.tunnel === undefined && (reply.body === null || reply.body instanceof Uint8Array);
}

/** Facts of the request that decide the framing. */
export interface ReplyContext {
  readonly method: string;
  readonly minor: 0 | 1;
  readonly keepAlive: boolean;
}

type Framing = "none" | "length" | "chunked" | "until_close";

/** Writes a reply and reports its end once. */
export class ReplyWriter implements BodySink {
  private readonly outgoing: Outgoing;
  private readonly done: (complete: boolean) => void;
  private source: BodySource | null = null;
  framing: Framing = "none";
  private remaining = 0;
  private finished = false;
  bodyBytes = 0;
  /** Whether the connection can be used again after this reply. */
  keepAlive = false;

  /** @param done told once, with whether the reply is whole; a reply that is not must not be followed by another */
  constructor(outgoing: Outgoing, done: (complete: boolean) => void) {
    this.outgoing = outgoing;
    this.done = done;
  }

  send(reply: Reply, context: ReplyContext): void {
    const body = reply.body;
    this.framing = framingOf(reply, context);
    this.keepAlive = context.keepAlive && reply.close !== true && this.framing !== "until_close";
    const head = headText(reply, context, this);
    if (this.framing === "none" || body === null || body instanceof Uint8Array) {
      this.sendWhole(head, body);
      return;
    }
    this.source = body;
    this.remaining = body.length ?? 0;
    this.outgoing.writeHead(head);
    body.pipe(this);
  }

  private sendWhole(head: string, body: Uint8Array | BodySource | null): void {
    if (this.framing !== "none" && body instanceof Uint8Array) {
      this.bodyBytes = body.length;
      this.outgoing.writeHead(head, body);
    } else {
      if (body !== null && !(body instanceof Uint8Array)) body.cancel();
      this.outgoing.writeHead(head);
    }
    this.finish(true);
  }

  /** The client can tell a cut from the end by the framing; without one only a reset says it. */
  get isCutVisible(): boolean {
    return this.framing === "length" || this.framing === "chunked";
  }

  write(chunk: Uint8Array): boolean {
    if (this.finished || chunk.length === 0) return true;
    this.bodyBytes += chunk.length;
    if (this.framing === "chunked") return this.writeChunk(chunk);
    if (this.framing === "length") {
      this.remaining -= chunk.length;
      if (this.remaining < 0) {
        this.finish(false);
        return true;
      }
    }
    return this.outgoing.write(chunk);
  }

  private writeChunk(chunk: Uint8Array): boolean {
    const size = `${chunk.length.toString(16)}\r\n`;
    if (chunk.length > COPY_MAX) {
      this.outgoing.write(headBytes(size));
      this.outgoing.write(chunk);
      return this.outgoing.write(CHUNK_END);
    }
    const framed = Buffer.allocUnsafe(size.length + chunk.length + 2);
    framed.write(size, 0, "latin1");
    framed.set(chunk, size.length);
    framed.set(CHUNK_END, size.length + chunk.length);
    return this.outgoing.write(framed);
  }

  end(): void {
    if (this.finished) return;
    if (this.framing === "chunked") this.outgoing.write(LAST_CHUNK);
    this.finish(this.framing !== "length" || this.remaining === 0);
  }

  fail(): void {
    this.finish(false);
  }

  /** The kernel took everything: let the source go on. */
  drained(): void {
    if (!this.finished) this.source?.resume();
  }

  /** The client is gone, or the reply has to stop. */
  abort(): void {
    if (this.finished) return;
    this.source?.cancel();
    this.finish(false);
  }

  private finish(complete: boolean): void {
    if (this.finished) return;
    this.finished = true;
    this.done(complete);
  }
}

function framingOf(reply: Reply, context: ReplyContext): Framing {
  if (context.method === "HEAD" || reply.status === 204 || reply.status === 304) return "none";
  if (reply.status < 200) return "none";
  if (reply.body === null || reply.body instanceof Uint8Array || reply.body.length !== null) {
    return "length";
  }
  return context.minor === 1 ? "chunked" : "until_close";
}

/** HEAD to an answer of our own: the length is known, and is what GET would get (RFC 9110 section 9.3.2). */
function isHeadOfBytes(reply: Reply, context: ReplyContext): boolean {
  return context.method === "HEAD" && reply.status >= 200 && reply.body instanceof Uint8Array;
}

function lengthOf(reply: Reply): number {
  return reply.body === null ? 0 : (reply.body.length ?? 0);
}

function headText(
  reply: Reply,
  context: ReplyContext,
  { framing, keepAlive }: { readonly framing: Framing; readonly keepAlive: boolean },
): string {
  let head = `HTTP/1.1 ${reply.status} ${reply.reason}\r\n${reply.fields}`;
  if (framing === "chunked") head += "Transfer-Encoding: chunked\r\n";
  else if (framing === "length" || isHeadOfBytes(reply, context))
    head += `Content-Length: ${lengthOf(reply)}\r\n`;
  if (reply.tunnel !== undefined) head += "Connection: Upgrade\r\n";
  else if (!keepAlive) head += "Connection: close\r\n";
  else if (context.minor === 0) head += "Connection: keep-alive\r\n";
  return `${head}\r\n`;
}
