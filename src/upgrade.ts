/**
 * WebSocket relay (RFC 6455): who may ask for one, and the tunnel after the upstream has said 101.
 *
 * Invariant: bytes pass as they are, both ways, in order and with back-pressure, so subprotocols, extensions, pings
 * and close codes need no code here. Nothing of the client passes before the upstream's 101 (RFC 9931), and only
 * `websocket` is ever upgraded: h2c and the like are not forwarded.
 */

import { allValues, firstValue, listMembers } from "./wire/fields.ts";
import type { RequestHead } from "./wire/head.ts";
import type { RawWire } from "./wire/raw.ts";

/** Close codes of RFC 6455 section 7.4.1 that we send. */
export const CLOSE = { goingAway: 1001, policy: 1008 } as const;

/** A well-formed WebSocket handshake (RFC 6455 section 4.1); anything less is forwarded as a plain request. */
export function isWebSocketHandshake(head: RequestHead): boolean {
  const { fields } = head;
  if (!fields.lower.includes("upgrade")) return false;
  const upgrades = allValues(fields, "upgrade");
  const keys = allValues(fields, "sec-websocket-key");
  return (
    head.method === "GET" &&
    head.minor === 1 &&
    head.framing.kind === "none" &&
    upgrades.length === 1 &&
    upgrades[0]?.toLowerCase() === "websocket" &&
    listMembers(fields, "connection").includes("upgrade") &&
    firstValue(fields, "sec-websocket-version") === "13" &&
    keys.length === 1 &&
    /^[A-Za-z0-9+/]{22}==$/.test(keys[0] ?? "")
  );
}

/** How a tunnel ended. */
export interface TunnelEnd {
  readonly bytesToClient: number;
}

/** A running tunnel. */
export interface Tunnel {
  /** Ends it: with a close frame where a frame may stand, else by closing both sides. */
  stop(code: number): void;
}

/** What a relay needs to know. */
export interface RelayOptions {
  /** Longest silence in both directions; `null`: none. */
  readonly idleMs: number | null;
  onEnd(end: TunnelEnd): void;
}

/** Bytes that may wait for a slow side before the other is paused. */
const HIGH_WATER = 65_536;
/** How long a side may be silent when the other has said that nothing more comes. */
const HALF_CLOSED_MS = 60_000;
/** How long a client gets to take a close frame of ours and to close. */
const STOP_MS = 2000;
const TICK_MS = 1000;

/** Connects two sockets until both have ended or one of them is gone. */
export function relay(client: RawWire, upstream: RawWire, options: RelayOptions): Tunnel {
  return new Relay(client, upstream, options);
}

class Relay implements Tunnel {
  private readonly client: RawWire;
  private readonly upstream: RawWire;
  private readonly options: RelayOptions;
  private readonly boundary = new FrameBoundary();
  private readonly timer: ReturnType<typeof setInterval>;
  private bytesToClient = 0;
  private endedSides = 0;
  private lastMs = performance.now();
  private stoppedMs: number | null = null;
  private isOver = false;

  constructor(client: RawWire, upstream: RawWire, options: RelayOptions) {
    this.client = client;
    this.upstream = upstream;
    this.options = options;
    this.timer = setInterval(() => this.tick(), TICK_MS);
    this.pipe(upstream, client, (chunk) => {
      this.bytesToClient += chunk.length;
      this.boundary.see(chunk);
    });
    this.pipe(client, upstream, () => {});
  }

  private pipe(from: RawWire, to: RawWire, see: (chunk: Uint8Array) => void): void {
    from.start({
      data: (chunk) => {
        // What still comes from the client is read away, so that our close frame is not lost in a reset.
        if (this.stoppedMs !== null) return true;
        this.lastMs = performance.now();
        see(chunk);
        to.write(chunk);
        return to.queuedBytes < HIGH_WATER;
      },
      drain: () => {
        this.lastMs = performance.now();
        to.resume();
      },
      // A half-close, and after the last byte: a full one while the peer still sends would be a reset.
      end: () => {
        to.finish();
        this.endedSides += 1;
        if (this.endedSides === 2 || this.stoppedMs !== null) this.close();
      },
      close: () => {
        if (this.stoppedMs === null || from === this.client) this.close();
      },
    });
  }

  stop(code: number): void {
    if (this.stoppedMs !== null || this.isOver) return;
    this.stoppedMs = performance.now();
    if (this.boundary.isBetweenFrames) this.client.write(closeFrame(code));
    this.upstream.destroy();
    this.client.finish();
    this.client.resume();
  }

  private tick(): void {
    const nowMs = performance.now();
    const quietMs = nowMs - this.lastMs;
    const { idleMs } = this.options;
    if (this.stoppedMs !== null) {
      if (nowMs - this.stoppedMs > STOP_MS) this.client.destroy();
    } else if (this.endedSides > 0 && quietMs > HALF_CLOSED_MS) this.close();
    else if (idleMs !== null && quietMs > idleMs) this.stop(CLOSE.goingAway);
  }

  /** Both sides, each after what is queued for it. */
  private close(): void {
    if (this.isOver) return;
    this.isOver = true;
    clearInterval(this.timer);
    this.client.end();
    this.upstream.end();
    this.options.onEnd({ bytesToClient: this.bytesToClient });
  }
}

function closeFrame(code: number): Uint8Array {
  return Uint8Array.of(0x88, 2, code >> 8, code & 0xff);
}

/** Follows the frames of one direction (RFC 6455 section 5.2) to know where one of ours may be put. */
export class FrameBoundary {
  private header: number[] = [];
  private payloadLeft = 0;

  /** No frame has begun and not ended. */
  get isBetweenFrames(): boolean {
    return this.header.length === 0 && this.payloadLeft === 0;
  }

  see(chunk: Uint8Array): void {
    let at = 0;
    while (at < chunk.length) {
      if (this.payloadLeft > 0) {
        const skipped = Math.min(this.payloadLeft, chunk.length - at);
        this.payloadLeft -= skipped;
        at += skipped;
      } else {
        this.header.push(chunk[at] ?? 0);
        at += 1;
        this.finishHeader();
      }
    }
  }

  private finishHeader(): void {
    const second = this.header[1];
    if (second === undefined) return;
    const short = second & 0x7f;
    const extended = short === 126 ? 2 : short === 127 ? 8 : 0;
    const mask = (second & 0x80) === 0 ? 0 : 4;
    if (this.header.length < 2 + extended + mask) return;
    let length = extended === 0 ? short : 0;
    for (const byte of this.header.slice(2, 2 + extended)) length = length * 256 + byte;
    this.payloadLeft = length;
    this.header = [];
  }
}
