/**
 * A socket after its HTTP life: plain bytes both ways, for tunnels.
 *
 * Invariant: nothing is read faster than the other side takes it, and `end` is passed on only after the last byte.
 */
import type { Outgoing, OwnedSocket, SocketOwner } from "./socket.ts";

/** A side that is to be closed and takes not a byte of what is queued for this long loses it. */
const STALL_MS = 60_000;

/** What a tunnel does with one of its ends. */
export interface RawListener {
  /** False: stop reading until `resume`. */
  data(chunk: Uint8Array): boolean;
  drain(): void;
  end(): void;
  close(): void;
}

/** One end of a tunnel. */
export class RawWire implements SocketOwner {
  private readonly socket: OwnedSocket;
  private readonly outgoing: Outgoing;
  private listener: RawListener | null = null;
  private early: Uint8Array[];
  private ended = false;
  private closed = false;
  private isFinishing = false;
  private stallTimer: ReturnType<typeof setInterval> | null = null;

  /** Takes the socket over. `early`: bytes that came after the head. */
  constructor(socket: OwnedSocket, outgoing: Outgoing, early: Uint8Array | null) {
    this.socket = socket;
    this.outgoing = outgoing;
    this.early = early === null || early.length === 0 ? [] : [early];
    socket.data = this;
  }

  /** Starts the flow with what came early. */
  start(listener: RawListener): void {
    this.listener = listener;
    const early = this.early;
    this.early = [];
    for (const chunk of early) if (!listener.data(chunk)) this.pause();
    if (this.ended) listener.end();
    if (this.closed) listener.close();
  }

  write(chunk: Uint8Array): boolean {
    return this.outgoing.write(chunk);
  }

  get queuedBytes(): number {
    return this.outgoing.queuedBytes;
  }

  pause(): void {
    if (!this.closed) this.socket.pause();
  }

  resume(): void {
    if (!this.closed) this.socket.resume();
  }

  /** Closes after the last queued byte. */
  end(): void {
    if (this.closed) return;
    this.outgoing.end();
    this.watchStall();
  }

  /** Says after the last queued byte that nothing more is sent; reading goes on. */
  finish(): void {
    if (this.closed) return;
    if (this.outgoing.queuedBytes === 0) this.socket.shutdown();
    else {
      this.isFinishing = true;
      this.watchStall();
    }
  }

  private watchStall(): void {
    if (this.closed || this.stallTimer !== null || this.outgoing.queuedBytes === 0) return;
    let lastBytes = this.outgoing.queuedBytes;
    this.stallTimer = setInterval(() => {
      const queued = this.outgoing.queuedBytes;
      if (queued > 0 && queued === lastBytes) this.destroy();
      lastBytes = queued;
    }, STALL_MS);
  }

  destroy(): void {
    if (!this.closed) this.socket.terminate();
  }

  onData(chunk: Buffer): void {
    if (this.listener === null) this.early.push(chunk);
    else if (!this.listener.data(chunk)) this.pause();
  }

  onDrain(): void {
    if (!this.outgoing.flush()) return;
    if (this.closed) return;
    if (this.isFinishing) this.socket.shutdown();
    this.listener?.drain();
  }

  onEnd(): void {
    this.ended = true;
    this.listener?.end();
  }

  onClose(): void {
    if (this.closed) return;
    this.closed = true;
    if (this.stallTimer !== null) clearInterval(this.stallTimer);
    this.listener?.close();
  }
}
