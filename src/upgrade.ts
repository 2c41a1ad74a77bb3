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

/** Connects two sockets until one of them ends. */
export function relay(client: RawWire, upstream: RawWire, options: RelayOptions): Tunnel {
  const boundary = new FrameBoundary();
  let bytesToClient = 0;
  let isOver = false;
  let ended = 0;
  let lastMs = performance.now();
  const timer = options.idleMs === null ? null : setInterval(checkIdle, 1000);
  const over = (): void => {
    if (isOver) return;
    isOver = true;
    if (timer !== null) clearInterval(timer);
    options.onEnd({ bytesToClient });
  };
  const pipe = (from: RawWire, to: RawWire, seen: (chunk: Uint8Array) => void): void => {
    from.start({
      data(chunk) {
        lastMs = performance.now();
        seen(chunk);
        to.write(chunk);
        return to.queuedBytes < HIGH_WATER;
      },
      drain: () => to.resume(),
      // A half-close, and after the last byte: a full one while the peer still sends would be a reset.
      end() {
        to.finish();
        ended += 1;
        if (ended === 2) {
          from.end();
          to.end();
          over();
        }
      },
      close() {
        to.end();
        over();
      },
    });
  };
  function checkIdle(): void {
    if (options.idleMs !== null && performance.now() - lastMs > options.idleMs)
      stop(CLOSE.goingAway);
  }
  function stop(code: number): void {
    if (boundary.isBetweenFrames && client.queuedBytes === 0) client.write(closeFrame(code));
    upstream.destroy();
    client.end();
    over();
  }
  pipe(upstream, client, (chunk) => {
    bytesToClient += chunk.length;
    boundary.see(chunk);
  });
  pipe(client, upstream, () => {});
  return { stop };
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
