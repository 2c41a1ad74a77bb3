/**
 * One connection to an upstream, carrying one call at a time.
 *
 * Invariant: a connection is reused only when the last response was framed, whole and kept alive, its request was
 * sent to the end, and not a byte came that nobody asked for. Everything else destroys it.
 */
import {
  type BodyDecoder,
  type BodyFault,
  type BodySink,
  chunkedDecoder,
  lengthDecoder,
  untilCloseDecoder,
} from "./body.ts";
import { type Framing, parseResponseHead, type ResponseHead, responseFraming } from "./head.ts";
import { RawWire } from "./raw.ts";
import { ResponseBody } from "./response-body.ts";
import { headBytes, Outgoing, type OwnedSocket, type SocketOwner } from "./socket.ts";
import {
  type UpstreamCall,
  type UpstreamDeadlines,
  UpstreamFault,
  type UpstreamFaultCode,
  type UpstreamResponse,
} from "./upstream-call.ts";

/** Largest response head. Generous: some upstreams set many cookies. */
const MAX_HEAD_BYTES = 65_536;
const HEAD_END = Buffer.from("\r\n\r\n");
const CHUNK_END = headBytes("\r\n");
const LAST_CHUNK = headBytes("0\r\n\r\n");

type Phase = "idle" | "head" | "body" | "gone";

/** Who is told what becomes of the connection. */
export interface ConnectionOwner {
  /** Free for the next call. */
  released(connection: UpstreamConnection): void;
  gone(connection: UpstreamConnection): void;
}

export interface CallListener {
  resolve(response: UpstreamResponse): void;
  /** `isUntouched`: not a byte of a response had come. */
  reject(fault: UpstreamFault, isUntouched: boolean): void;
}

export class UpstreamConnection implements SocketOwner, BodySink {
  /** Monotonic time since when it has been idle. */
  idleSinceMs = 0;
  /** Has carried a call before. */
  isReused = false;
  /** How long the upstream said it keeps an idle connection (`Keep-Alive: timeout`), or `null`. */
  keepAliveHintMs: number | null = null;
  private readonly socket: OwnedSocket;
  private readonly outgoing: Outgoing;
  private readonly owner: ConnectionOwner;
  private readonly deadlines: UpstreamDeadlines;
  private phase: Phase = "idle";
  private call: UpstreamCall | null = null;
  private listener: CallListener | null = null;
  private pending: Buffer | null = null;
  private body: ResponseBody | null = null;
  private decoder: BodyDecoder | null = null;
  private isRequestSent = false;
  private mayKeep = false;
  private isTouched = false;
  /** When the current wait began: for room for the request, for the response head after it, or for more of the body. */
  private waitingSinceMs = 0;
  private readonly emit = (payload: Buffer): void => this.body?.deliver(payload);

  constructor(socket: OwnedSocket, owner: ConnectionOwner, deadlines: UpstreamDeadlines) {
    this.socket = socket;
    this.outgoing = new Outgoing(socket);
    this.owner = owner;
    this.deadlines = deadlines;
    socket.data = this;
  }

  /** Sends a call. The connection must be idle. */
  start(call: UpstreamCall, listener: CallListener): void {
    this.call = call;
    this.listener = listener;
    this.phase = "head";
    this.isRequestSent = false;
    this.isTouched = false;
    this.waitingSinceMs = performance.now();
    this.outgoing.writeHead(call.head);
    if (call.body === null) this.requestSent();
    else call.body.pipe(this);
  }

  private requestSent(): void {
    this.isRequestSent = true;
    this.waitingSinceMs = performance.now();
  }

  // The request body's sink.

  write(chunk: Uint8Array): boolean {
    if (this.phase === "gone" || this.call === null || chunk.length === 0) return true;
    // From here on the upstream may be the one that is waited for.
    if (this.phase === "head" && this.outgoing.queuedBytes === 0) {
      this.waitingSinceMs = performance.now();
    }
    if (!this.call.isChunked) return this.outgoing.write(chunk);
    this.outgoing.write(headBytes(`${chunk.length.toString(16)}\r\n`));
    this.outgoing.write(chunk);
    return this.outgoing.write(CHUNK_END);
  }

  end(): void {
    if (this.phase === "gone" || this.call === null) return;
    if (this.call.isChunked) this.outgoing.write(LAST_CHUNK);
    this.requestSent();
  }

  fail(fault: BodyFault): void {
    this.abandon("request_body", "the request body broke off", fault);
  }

  // The socket.

  onData(chunk: Buffer): void {
    if (this.phase === "idle") this.destroy();
    else if (this.phase === "head") this.readHead(chunk);
    else if (this.phase === "body") this.readBody(chunk);
  }

  private readHead(chunk: Buffer): void {
    this.isTouched = true;
    let bytes = this.pending === null ? chunk : Buffer.concat([this.pending, chunk]);
    this.pending = null;
    while (bytes.length > 0) {
      const end = bytes.indexOf(HEAD_END);
      if (end === -1 || end > MAX_HEAD_BYTES) {
        this.pending = bytes;
        if (bytes.length > MAX_HEAD_BYTES) {
          this.abandon("broken_response", "response head too large");
        }
        return;
      }
      const head = parseResponseHead(bytes.toString("latin1", 0, end));
      bytes = bytes.subarray(end + 4);
      // Interim answers but 101 are between the upstream and us: 100 was answered by the listener.
      if (head !== null && head.status < 200 && head.status !== 101) continue;
      this.finalHead(head, bytes);
      return;
    }
  }

  private finalHead(head: ResponseHead | null, rest: Buffer): void {
    if (head === null) this.abandon("broken_response", "malformed response head");
    else if (head.status === 101) this.upgrade(head, rest);
    else this.startBody(head, rest);
  }

  private upgrade(head: ResponseHead, rest: Buffer): void {
    if (this.call?.mayUpgrade !== true) {
      this.abandon("broken_response", "101 without being asked");
      return;
    }
    const listener = this.listener;
    this.phase = "gone";
    this.owner.gone(this);
    const upgraded = new RawWire(this.socket, this.outgoing, rest);
    listener?.resolve({ head, body: null, upgraded });
  }

  private startBody(head: ResponseHead, rest: Buffer): void {
    const framing = responseFraming(head, this.call?.method ?? "GET");
    if (framing === null) {
      this.abandon("broken_response", "contradictory or unknown response framing");
      return;
    }
    this.mayKeep = head.keepAlive && framing.kind !== "until_close" && !isBodyAnnounced(head);
    this.readKeepAlive(head);
    if (framing.kind === "none" || (framing.kind === "length" && framing.length === 0)) {
      this.deliverWhole(head, null, rest.length === 0);
      return;
    }
    if (framing.kind === "length" && rest.length >= framing.length) {
      const isClean = rest.length === framing.length;
      this.deliverWhole(head, isClean ? rest : rest.subarray(0, framing.length), isClean);
      return;
    }
    this.streamBody(head, framing, rest);
  }

  private deliverWhole(head: ResponseHead, body: Uint8Array | null, isClean: boolean): void {
    const listener = this.listener;
    this.mayKeep &&= isClean;
    this.responseDone();
    listener?.resolve({ head, body, upgraded: null });
  }

  private streamBody(head: ResponseHead, framing: Framing, rest: Buffer): void {
    this.phase = "body";
    this.decoder = decoderOf(framing);
    this.body = new ResponseBody(framing.kind === "length" ? framing.length : null, {
      pause: () => this.phase === "body" && this.socket.pause(),
      resume: () => {
        this.waitingSinceMs = performance.now();
        if (this.phase === "body") this.socket.resume();
      },
      cancel: () => this.destroy(),
    });
    const listener = this.listener;
    this.waitingSinceMs = performance.now();
    const body = this.body;
    if (rest.length > 0) this.readBody(rest);
    listener?.resolve({ head, body, upgraded: null });
  }

  private readBody(chunk: Buffer): void {
    this.waitingSinceMs = performance.now();
    const decoded = this.decoder?.push(chunk, this.emit);
    // The reader may have left over what it was just given.
    if (decoded === undefined || decoded.state === "more" || this.phase !== "body") return;
    const body = this.body;
    if (decoded.state === "bad") {
      this.body = null;
      this.destroy();
      body?.fail("bad_chunk");
      return;
    }
    this.mayKeep &&= decoded.used === chunk.length;
    this.body = null;
    this.responseDone();
    body?.end();
  }

  /** The response is whole: keep the connection or not. */
  private responseDone(): void {
    const call = this.call;
    this.call = null;
    this.listener = null;
    this.decoder = null;
    if (!this.isRequestSent) {
      // An early answer: the upstream does not want the rest of the request.
      call?.body?.cancel();
      this.mayKeep = false;
    }
    if (!this.mayKeep || this.outgoing.queuedBytes > 0) {
      this.destroy();
      return;
    }
    this.phase = "idle";
    this.isReused = true;
    this.idleSinceMs = performance.now();
    this.socket.resume();
    this.owner.released(this);
  }

  private readKeepAlive(head: ResponseHead): void {
    const index = head.fields.lower.indexOf("keep-alive");
    if (index === -1) return;
    const seconds = /timeout=(\d{1,5})/i.exec(head.fields.values[index] ?? "")?.[1];
    if (seconds !== undefined) this.keepAliveHintMs = Number(seconds) * 1000;
  }

  onDrain(): void {
    if (this.phase === "head") this.waitingSinceMs = performance.now();
    if (this.outgoing.flush()) this.call?.body?.resume();
  }

  onEnd(): void {
    if (this.phase !== "body") {
      this.lost();
      return;
    }
    // Only a body without framing ends with the connection (RFC 9112 section 6.3).
    const isWhole = this.decoder?.isFramed === false && !this.outgoing.hasFailed;
    const body = this.body;
    this.body = null;
    this.mayKeep = false;
    this.responseDone();
    if (isWhole) body?.end();
    else body?.fail("peer_closed");
  }

  onClose(): void {
    this.lost();
  }

  private lost(): void {
    if (this.phase === "gone") return;
    this.abandon(
      "closed_early",
      "the upstream closed the connection before it answered",
      "peer_closed",
    );
  }

  /** Deadlines. Called a few times a second. */
  tick(nowMs: number): void {
    const waitedMs = nowMs - this.waitingSinceMs;
    const { responseMs, idleMs } = this.deadlines;
    if (this.phase === "head" && responseMs !== null && waitedMs > responseMs) {
      // While the client is the one that is waited for, its own deadline counts.
      if (this.isRequestSent || this.outgoing.queuedBytes > 0) {
        this.abandon("response_timeout", `no response head within ${responseMs} ms`);
      }
    } else if (this.phase === "body" && idleMs !== null && waitedMs > idleMs) {
      if (this.body?.isPaused !== true) {
        this.abandon("response_timeout", `response silent for ${idleMs} ms`, "idle_timeout");
      }
    }
  }

  /** The caller of this call has left. By now the connection may carry somebody else's. */
  cancel(call: UpstreamCall): void {
    if (this.call !== call) return;
    this.abandon("cancelled", "the client left", "cancelled");
  }

  private abandon(
    code: UpstreamFaultCode,
    detail: string,
    bodyFault: BodyFault | null = null,
  ): void {
    const { listener, body, phase, call } = this;
    if (phase === "gone") return;
    this.body = null;
    this.destroy();
    if (phase === "head") {
      if (code !== "request_body") call?.body?.cancel();
      listener?.reject(new UpstreamFault(code, detail, bodyFault), !this.isTouched);
    } else if (phase === "body") {
      body?.fail(bodyFault ?? "peer_closed");
    }
  }

  /** Closes without a word to the call. */
  destroy(): void {
    if (this.phase === "gone") return;
    this.phase = "gone";
    this.call = null;
    this.listener = null;
    this.socket.terminate();
    this.owner.gone(this);
  }
}

/** A 204 that says it has a body: one may follow, and must not be read as the answer to the next call. */
function isBodyAnnounced(head: ResponseHead): boolean {
  if (head.status !== 204) return false;
  const { lower } = head.fields;
  return lower.includes("content-length") || lower.includes("transfer-encoding");
}

function decoderOf(framing: Framing): BodyDecoder {
  if (framing.kind === "length") return lengthDecoder(framing.length);
  return framing.kind === "chunked" ? chunkedDecoder() : untilCloseDecoder();
}
