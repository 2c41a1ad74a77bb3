/**
 * The thin layer over Bun's sockets: who owns one, and writing with back-pressure.
 *
 * Invariant: bytes leave in the order they were written, none is lost when the kernel's buffer is full, and the
 * writer is told when to stop and when to go on. A socket that is gone swallows writes silently: its owner
 * hears of it through `onClose`, once.
 */
import type { Socket } from "bun";

/** Who gets a socket's events. Replaced when a connection becomes a tunnel. */
export interface SocketOwner {
  onData(chunk: Buffer): void;
  /** There is room again after a write that came back short. */
  onDrain(): void;
  /** The peer has sent its last byte. */
  onEnd(): void;
  /** The socket is gone; nothing follows. */
  onClose(): void;
}

export type OwnedSocket = Socket<SocketOwner>;

/** Handlers for `Bun.listen` and `Bun.connect` that pass every event to the socket's owner. */
export const ownedSocketHandlers = {
  data(socket: OwnedSocket, chunk: Buffer): void {
    socket.data.onData(chunk);
  },
  drain(socket: OwnedSocket): void {
    socket.data.onDrain();
  },
  end(socket: OwnedSocket): void {
    socket.data.onEnd();
  },
  close(socket: OwnedSocket): void {
    socket.data.onClose();
  },
  // A reset also comes with `close`, which is where it is handled; an exception in one of the handlers above comes
  // here alone, and must not leave a connection that nobody serves.
  error(socket: OwnedSocket): void {
    socket.terminate();
  },
};

/** Idle time after which the kernel starts to ask whether the peer is still there. */
const PROBE_MS = 60_000;

/**
 * Lets the kernel notice a peer that vanished without a word: streams and tunnels may be silent for ever, so no
 * deadline of ours would.
 */
export function probePeer(socket: OwnedSocket): void {
  socket.setKeepAlive(true, PROBE_MS);
}

/** Owner of a socket that has none yet, or will have none. */
export const NOBODY: SocketOwner = {
  onData(): void {},
  onDrain(): void {},
  onEnd(): void {},
  onClose(): void {},
};

/** Heads and small bodies on their way into the kernel; in use only inside one synchronous write. */
const SCRATCH = Buffer.allocUnsafeSlow(65_536);

/** The writing half of a socket. */
export class Outgoing {
  private readonly socket: OwnedSocket;
  private queue: Uint8Array[] = [];
  private ending = false;
  /** Bytes accepted but not yet taken by the kernel. */
  queuedBytes = 0;
  /** A write found the connection reset. After that the end of input says nothing: a reset can look like one. */
  hasFailed = false;

  constructor(socket: OwnedSocket) {
    this.socket = socket;
  }

  /** Sends or queues. False: something is queued, wait for the drain before writing more. */
  write(bytes: Uint8Array): boolean {
    if (bytes.length === 0) return this.queuedBytes === 0;
    if (this.queuedBytes > 0) {
      this.push(bytes);
      return false;
    }
    const sent = this.socket.write(bytes);
    if (sent < 0) this.hasFailed = true;
    if (sent >= bytes.length || sent < 0) return true;
    this.push(sent === 0 ? bytes : bytes.subarray(sent));
    return false;
  }

  /**
   * A head, and the first bytes after it, in one write. Both go through one buffer that all connections share, so
   * that a small answer allocates nothing; what the kernel does not take at once is copied out of it.
   */
  writeHead(text: string, body?: Uint8Array): boolean {
    const total = text.length + (body?.length ?? 0);
    if (this.queuedBytes > 0 || total > SCRATCH.length) {
      const isTaken = this.write(headBytes(text));
      return body === undefined ? isTaken : this.write(body);
    }
    SCRATCH.write(text, 0, "latin1");
    if (body !== undefined) SCRATCH.set(body, text.length);
    const sent = this.socket.write(SCRATCH, 0, total);
    if (sent < 0) this.hasFailed = true;
    if (sent >= total || sent < 0) return true;
    this.push(Uint8Array.prototype.slice.call(SCRATCH, sent, total));
    return false;
  }

  /** Call from `onDrain`. True when nothing is queued any more. */
  flush(): boolean {
    while (this.queue.length > 0) {
      const bytes = this.queue[0];
      if (bytes === undefined) break;
      const written = this.socket.write(bytes);
      if (written < 0) this.hasFailed = true;
      const sent = Math.max(0, written);
      this.queuedBytes -= sent;
      if (sent < bytes.length) {
        this.queue[0] = bytes.subarray(sent);
        return false;
      }
      this.queue.shift();
    }
    if (this.ending) this.socket.end();
    return true;
  }

  /** Closes after the last queued byte. */
  end(): void {
    this.ending = true;
    if (this.queuedBytes === 0) this.socket.end();
  }

  private push(bytes: Uint8Array): void {
    this.queue.push(bytes);
    this.queuedBytes += bytes.length;
  }
}

/** Bytes of a head: heads are latin1 on the wire. */
export function headBytes(text: string): Buffer {
  return Buffer.from(text, "latin1");
}
