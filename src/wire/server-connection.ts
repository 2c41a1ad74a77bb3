/**
 * One client connection: requests in, replies out, one at a time and in order.
 *
 * Invariant: a request body is read to its end or the connection closes; no byte of it is ever read as the next
 * request. Bytes that a client sends ahead (pipelining) wait, bounded, and the next request is not begun before
 * the kernel has taken the last byte of the reply to the one before.
 */
import { chunkedDecoder, lengthDecoder } from "./body.ts";
import type { Exchange, ExchangeHandler, Peer, Reply, WireRefusal } from "./exchange.ts";
import { type Framing, MAX_FIELDS, parseRequestHead, type RequestHead } from "./head.ts";
import { RawWire } from "./raw.ts";
import { isWhole, ReplyWriter, wholeReply } from "./reply-writer.ts";
import { type BodyPace, RequestBody } from "./request-body.ts";
import { headBytes, Outgoing, type OwnedSocket, type SocketOwner } from "./socket.ts";

/** Bounds of one connection; times in milliseconds. */
export interface ConnectionLimits {
  readonly headBytes: number;
  readonly headTimeoutMs: number;
  readonly keepAliveMs: number;
  /** Longest time in which a client takes not a byte of a waiting reply. */
  readonly sendTimeoutMs: number;
  readonly pace: BodyPace;
}

/** What holds for all connections of a server; looked at anew for each request, which keeps it to its end. */
export interface ConnectionSettings {
  readonly handler: ExchangeHandler;
  readonly limits: ConnectionLimits;
}

const HEAD_END = Buffer.from("\r\n\r\n");
const CONTINUE = headBytes("HTTP/1.1 100 Continue\r\n\r\n");
/** What a client may send ahead of its turn. */
const MAX_AHEAD_BYTES = 65_536;
/** A refused body of at most this size is read away, so that the connection lives on. */
const MAX_DISCARD_BYTES = 65_536;
/** How long a closing connection waits for more to read away, so that the client sees the reply and not a reset. */
const LINGER_MS = 2000;
/** How long it reads away altogether. The number is nginx's. */
const LINGER_MAX_MS = 30_000;

/**
 * waiting: for a head. handling: the gateway decides. sending: a reply is under way. discarding: the reply is
 * out, the rest of its request's body is read away. lingering: closing. closed: gone, or a tunnel.
 */
type State = "waiting" | "handling" | "sending" | "discarding" | "lingering" | "closed";

/** An exchange in the hands of its connection. */
class ActiveExchange implements Exchange {
  readonly head: RequestHead;
  readonly body: RequestBody | null;
  readonly peer: Peer;
  readonly startedMs: number;
  isAborted = false;
  private listener: (() => void) | null = null;

  constructor(head: RequestHead, body: RequestBody | null, peer: Peer, startedMs: number) {
    this.head = head;
    this.body = body;
    this.peer = peer;
    this.startedMs = startedMs;
  }

  onAbort(listener: () => void): void {
    this.listener = listener;
    if (this.isAborted) listener();
  }

  abort(): void {
    if (this.isAborted) return;
    this.isAborted = true;
    this.listener?.();
  }
}

/** Owns a client's socket from accept to close, or until it becomes a tunnel. */
export class ServerConnection implements SocketOwner {
  /** Replaced when it is no longer, or only now, trusted; a request keeps the one it came with. */
  peer: Peer;
  private readonly socket: OwnedSocket;
  private readonly outgoing: Outgoing;
  private readonly settings: ConnectionSettings;
  /** Of the request that is under way or was the last. */
  private limits: ConnectionLimits;
  private readonly onGone: (connection: ServerConnection) => void;
  private state: State = "waiting";
  private pending: Buffer | null = null;
  private exchange: ActiveExchange | null = null;
  private writer: ReplyWriter | null = null;
  /** Told once the kernel has taken the whole reply (true) or never will (false). */
  private onFlushed: ((complete: boolean) => void) | null = null;
  private isDraining = false;
  private isReadPaused = false;
  /** A request was answered on this connection. */
  private hasServed = false;
  /** When the state's deadline started to count. */
  private sinceMs: number;
  /** When the wait for a head began; empty lines before one do not begin it anew. */
  private waitingSinceMs: number;
  private lastQueuedBytes = 0;
  private lingeringSinceMs = 0;

  constructor(
    socket: OwnedSocket,
    peer: Peer,
    wiring: {
      settings: ConnectionSettings;
      onGone: (connection: ServerConnection) => void;
    },
  ) {
    this.socket = socket;
    this.peer = peer;
    this.outgoing = new Outgoing(socket);
    this.settings = wiring.settings;
    this.limits = wiring.settings.limits;
    this.onGone = wiring.onGone;
    this.sinceMs = performance.now();
    this.waitingSinceMs = this.sinceMs;
  }

  /** No request is under way and none has begun. */
  get isIdle(): boolean {
    return this.state === "waiting" && this.pending === null;
  }

  /** The request that the handler has not answered yet, if there is one. */
  get deciding(): Exchange | null {
    return this.state === "handling" ? this.exchange : null;
  }

  onData(chunk: Buffer): void {
    if (this.state === "lingering" || this.state === "closed") {
      if (this.outgoing.queuedBytes === 0) this.sinceMs = performance.now();
      return;
    }
    const body = this.exchange?.body;
    if (body && !body.settled) {
      const used = body.accept(chunk, performance.now());
      if (used === chunk.length || !body.complete) return;
      this.keep(chunk.subarray(used));
    } else {
      this.keep(chunk);
    }
    if (this.state === "waiting") this.next();
  }

  private keep(chunk: Buffer): void {
    if (this.pending === null && this.state === "waiting") this.sinceMs = performance.now();
    this.pending = this.pending === null ? chunk : Buffer.concat([this.pending, chunk]);
    if (this.state !== "waiting" && this.pending.length > MAX_AHEAD_BYTES) this.pauseReading();
  }

  /** Takes the next head out of what came, if it is whole. */
  private next(): void {
    const bytes = skipEmptyLines(this.pending);
    this.pending = bytes;
    if (bytes === null) return;
    const end = bytes.indexOf(HEAD_END);
    if (
      end > this.settings.limits.headBytes ||
      (end === -1 && bytes.length > this.settings.limits.headBytes)
    ) {
      this.refuse(
        bytes.indexOf(0x0a) > this.settings.limits.headBytes || !bytes.includes(0x0a)
          ? "uri_too_long"
          : "head_too_large",
      );
    } else if (end === -1) {
      if (hasBareNewline(bytes)) this.refuse("bad_request");
    } else {
      this.pending = end + 4 === bytes.length ? null : bytes.subarray(end + 4);
      this.begin(parseRequestHead(bytes.toString("latin1", 0, end)));
    }
  }

  private begin(head: ReturnType<typeof parseRequestHead>): void {
    if (typeof head === "string") {
      this.refuse(head);
      return;
    }
    if (head.fields.lower.length > MAX_FIELDS) {
      this.refuse("head_too_large");
      return;
    }
    this.state = "handling";
    this.limits = this.settings.limits;
    const body = this.bodyOf(head.framing, head.expectsContinue);
    const exchange = new ActiveExchange(head, body, this.peer, performance.now());
    this.exchange = exchange;
    const ahead = this.pending;
    if (body !== null && ahead !== null) {
      this.pending = null;
      const used = body.accept(ahead, exchange.startedMs);
      if (used < ahead.length && body.complete) this.keep(ahead.subarray(used));
    }
    const reply = this.settings.handler.handle(exchange);
    if (reply instanceof Promise) {
      reply.then(
        (settled) => this.reply(exchange, settled),
        () => this.socket.terminate(),
      );
    } else {
      this.reply(exchange, reply);
    }
  }

  private bodyOf(framing: Framing, expectsContinue: boolean): RequestBody | null {
    if (framing.kind === "none" || framing.kind === "until_close") return null;
    if (framing.kind === "length" && framing.length === 0) return null;
    const length = framing.kind === "length" ? framing.length : null;
    const decoder = length === null ? chunkedDecoder() : lengthDecoder(length);
    const body: RequestBody = new RequestBody(length, decoder, {
      pause: () => this.pauseReading(),
      resume: () => this.resumeReading(),
      wanted: () => {
        // The body may already be here: then nobody waits for the interim answer.
        if (expectsContinue && body.received === 0 && this.state === "handling") {
          this.outgoing.write(CONTINUE);
        }
      },
      settled: (intact) => this.bodySettled(intact),
    });
    return body;
  }

  private reply(exchange: ActiveExchange, reply: Reply): void {
    if (this.exchange !== exchange || this.state !== "handling") {
      reply.onSent?.({ bodyBytes: 0, isComplete: false });
      if (reply.body !== null && !(reply.body instanceof Uint8Array)) reply.body.cancel();
      return;
    }
    this.state = "sending";
    const { head } = exchange;
    const mayStay = head.keepAlive && !this.isDraining && mayLiveOn(exchange, reply);
    const context = { method: head.method, minor: head.minor, keepAlive: mayStay };
    if (isWhole(reply) && this.outgoing.queuedBytes === 0) {
      this.replyWhole(reply, wholeReply(reply, context));
      return;
    }
    this.sinceMs = performance.now();
    const settle = (complete: boolean): void => {
      this.onFlushed = null;
      reply.onSent?.({ bodyBytes: writer.bodyBytes, isComplete: complete });
      this.sent(reply, complete);
    };
    const writer = new ReplyWriter(this.outgoing, (complete) => {
      if (complete && this.outgoing.queuedBytes > 0) this.onFlushed = settle;
      else settle(complete);
    });
    this.writer = writer;
    reply.abort = () => {
      if (this.onFlushed === settle) settle(false);
      else writer.abort();
    };
    writer.send(reply, context);
  }

  /** The common case, without a writer: everything is at hand and goes out in one write. */
  private replyWhole(reply: Reply, { head, body, keepAlive }: ReturnType<typeof wholeReply>): void {
    const bodyBytes = body?.length ?? 0;
    const settle = (complete: boolean): void => {
      this.onFlushed = null;
      reply.onSent?.({ bodyBytes, isComplete: complete });
      if (this.state === "closed") return;
      // The lengths are announced, so a cut is seen.
      if (complete) this.afterReply(keepAlive);
      else this.close(false);
    };
    this.outgoing.writeHead(head, body ?? undefined);
    if (this.outgoing.queuedBytes > 0) {
      this.sinceMs = performance.now();
      this.onFlushed = settle;
    } else settle(true);
  }

  private sent(reply: Reply, complete: boolean): void {
    const writer = this.writer;
    if (this.state === "closed") return;
    if (!complete) {
      // The client gets what came before the cut where it can see that it is one.
      if (writer?.isCutVisible === true) this.close(false);
      else this.socket.terminate();
      return;
    }
    if (reply.tunnel !== undefined) {
      this.becomeTunnel(reply.tunnel);
      return;
    }
    this.afterReply(writer?.keepAlive === true);
  }

  private afterReply(keepAlive: boolean): void {
    const body = this.exchange?.body ?? null;
    const isUnread = body !== null && !body.complete;
    if (!keepAlive) this.close(isUnread || this.pending !== null);
    else if (!isUnread) this.ready();
    else {
      this.state = "discarding";
      body.cancel();
    }
  }

  private bodySettled(intact: boolean): void {
    this.resumeReading();
    if (this.state !== "discarding") return;
    if (intact) this.ready();
    else this.close(true);
  }

  private ready(): void {
    this.exchange = null;
    this.writer = null;
    this.hasServed = true;
    this.state = "waiting";
    this.sinceMs = performance.now();
    this.waitingSinceMs = this.sinceMs;
    if (this.isDraining) {
      this.close(false);
      return;
    }
    this.resumeReading();
    // Not recursion: a client that pipelines a thousand requests must not grow the stack.
    if (this.pending !== null) queueMicrotask(() => this.state === "waiting" && this.next());
  }

  private becomeTunnel(start: (client: RawWire) => void): void {
    const early = this.pending;
    this.pending = null;
    this.state = "closed";
    this.onGone(this);
    const wire = new RawWire(this.socket, this.outgoing, early);
    if (this.isReadPaused) this.socket.resume();
    start(wire);
  }

  private refuse(refusal: WireRefusal): void {
    this.exchange = null;
    this.limits = this.settings.limits;
    const reply = this.settings.handler.refuse(refusal, this.peer);
    this.state = "sending";
    const writer = new ReplyWriter(this.outgoing, () => {
      reply.onSent?.({ bodyBytes: writer.bodyBytes, isComplete: true });
      this.close(true);
    });
    this.writer = writer;
    writer.send(reply, { method: "GET", minor: 1, keepAlive: false });
  }

  /** @param unread the client may still be sending: read on for a while so that it sees the reply */
  private close(unread: boolean): void {
    this.pending = null;
    this.writer = null;
    this.state = "lingering";
    this.sinceMs = performance.now();
    this.lingeringSinceMs = this.sinceMs;
    if (unread) {
      this.resumeReading();
      if (this.outgoing.queuedBytes === 0) this.socket.shutdown();
    } else {
      this.outgoing.end();
    }
  }

  onDrain(): void {
    this.sinceMs = performance.now();
    if (!this.outgoing.flush()) return;
    if (this.onFlushed !== null) this.onFlushed(true);
    else if (this.state === "lingering") this.socket.shutdown();
    else this.writer?.drained();
  }

  /** The client has sent its last byte. As with nginx and Go, that counts as having left. */
  onEnd(): void {
    if (this.state === "handling" || this.state === "sending") {
      this.socket.terminate();
      this.onClose();
    } else if (this.state !== "closed") {
      // Not gone yet where bytes are queued: the deadlines go on until it is.
      this.close(false);
    }
  }

  onClose(): void {
    if (this.state === "closed") return;
    this.state = "closed";
    const exchange = this.exchange;
    this.exchange = null;
    this.onGone(this);
    exchange?.body?.break("peer_closed");
    exchange?.abort();
    this.onFlushed?.(false);
    this.writer?.abort();
  }

  /** Deadlines. Called a few times a second. */
  tick(nowMs: number): void {
    const body = this.exchange?.body;
    if (body?.isTooSlow(nowMs, this.limits.pace)) body.break("too_slow");
    const forMs = nowMs - this.sinceMs;
    if (this.state === "waiting") this.tickWaiting(nowMs);
    else if (this.state === "lingering") {
      this.tickLingering(nowMs);
      this.tickSending(forMs);
    } else this.tickSending(forMs);
  }

  private tickWaiting(nowMs: number): void {
    if (this.pending !== null) {
      if (nowMs - this.sinceMs > this.settings.limits.headTimeoutMs) this.refuse("request_timeout");
    } else {
      // Who has never asked for anything gets the time of a head, not of a kept connection.
      const allowedMs = this.hasServed
        ? this.settings.limits.keepAliveMs
        : this.settings.limits.headTimeoutMs;
      if (nowMs - this.waitingSinceMs > allowedMs) this.close(false);
    }
  }

  private tickLingering(nowMs: number): void {
    if (this.outgoing.queuedBytes > 0) return;
    const isSilent = nowMs - this.sinceMs > LINGER_MS;
    const isLong = nowMs - this.lingeringSinceMs > (this.isDraining ? LINGER_MS : LINGER_MAX_MS);
    if (isSilent || isLong) this.socket.terminate();
  }

  private tickSending(forMs: number): void {
    const queued = this.outgoing.queuedBytes;
    if (queued !== this.lastQueuedBytes) {
      this.lastQueuedBytes = queued;
      this.sinceMs = performance.now();
    } else if (queued === 0) return;
    else if (forMs > this.limits.sendTimeoutMs) this.socket.terminate();
  }

  /** Shutting down: finish what is under way, take nothing new. */
  drain(): void {
    this.isDraining = true;
    if (this.isIdle) this.close(false);
  }

  /** The deadline of the drain has passed: what is open is cut where the client can see it. */
  destroy(): void {
    this.writer?.abort();
    if (this.state !== "closed") this.socket.terminate();
  }

  private pauseReading(): void {
    if (this.isReadPaused || this.state === "closed") return;
    this.isReadPaused = true;
    this.socket.pause();
  }

  private resumeReading(): void {
    if (!this.isReadPaused || this.state === "closed") return;
    // While a head is waited for, the head's own limit bounds what is kept.
    const isAhead = this.state !== "waiting" && (this.pending?.length ?? 0) > MAX_AHEAD_BYTES;
    if (isAhead) return;
    this.isReadPaused = false;
    this.socket.resume();
  }
}

/** Whether the connection can be kept although the reply may come before the client has sent all it meant to. */
function mayLiveOn({ head, body }: Exchange, reply: Reply): boolean {
  // A refused handshake: frames that were sent ahead must not be read as a request (RFC 9931).
  if (reply.tunnel === undefined && head.fields.lower.includes("sec-websocket-key")) return false;
  if (body === null || body.complete) return true;
  // A client that waits for `100 Continue` may send the body or leave it out: nobody can tell what comes next.
  if (body.settled || (head.expectsContinue && body.received === 0)) return false;
  const isStreaming = reply.body !== null && !(reply.body instanceof Uint8Array);
  return !isStreaming && body.length !== null && body.length <= MAX_DISCARD_BYTES;
}

/** RFC 9112 section 2.2: an empty line before a request is skipped. */
function skipEmptyLines(bytes: Buffer | null): Buffer | null {
  if (bytes === null) return null;
  let at = 0;
  while (at < 4 && bytes[at] === 0x0d && bytes[at + 1] === 0x0a) at += 2;
  if (at === bytes.length) return null;
  return at === 0 ? bytes : bytes.subarray(at);
}

/** A LF without CR in an unfinished head: it would never end for us, and ends for others. */
function hasBareNewline(bytes: Buffer): boolean {
  for (let at = bytes.indexOf(0x0a); at !== -1; at = bytes.indexOf(0x0a, at + 1)) {
    if (at === 0 || bytes[at - 1] !== 0x0d) return true;
  }
  return false;
}
