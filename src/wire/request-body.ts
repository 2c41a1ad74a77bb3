/**
 * The body of a request on its way in: decoding, back-pressure to the client's socket, size and speed limits.
 *
 * Invariant: at most one chunk is held while nobody reads; a body over its limit, cut, broken or too slow fails
 * its sink and never ends it.
 */
import type { BodyDecoder, BodyFault, BodySink, BodySource } from "./body.ts";

/** What the body needs from its connection. */
export interface BodyFeed {
  pause(): void;
  resume(): void;
  /** Called once, before the first byte is wanted: the place for `100 Continue`. */
  wanted(): void;
  /** The last byte has come, or the body is broken and the connection cannot be used again. */
  settled(intact: boolean): void;
}

/** How slow a client may be. */
export interface BodyPace {
  /** Longest pause, and grace before the rate counts. */
  readonly timeoutMs: number;
  readonly minBytesPerSecond: number;
}

export class RequestBody implements BodySource {
  readonly length: number | null;
  /** Payload bytes so far. */
  received = 0;
  /** Every byte has come. */
  complete = false;
  private readonly decoder: BodyDecoder;
  private readonly feed: BodyFeed;
  private sink: BodySink | null = null;
  private held: Uint8Array[] = [];
  private limitBytes = Number.POSITIVE_INFINITY;
  private fault: BodyFault | null = null;
  private paused = false;
  private discarding = false;
  private asked = false;
  private readonly emit = (payload: Buffer): void => this.deliver(payload);
  /** Time spent waiting for the client, without the time in which we did not want more. */
  private waitedMs = 0;
  private waitingSinceMs = 0;

  constructor(length: number | null, decoder: BodyDecoder, feed: BodyFeed) {
    this.length = length;
    this.decoder = decoder;
    this.feed = feed;
  }

  /** A body over this many bytes fails with `too_large`, also when they have come already. Set before `pipe`. */
  limit(bytes: number): void {
    this.limitBytes = bytes;
    if (this.received > bytes) this.exceed();
  }

  /** Why the body will never be whole, or `null`. */
  get brokenBy(): BodyFault | null {
    return this.fault;
  }

  /** No more bytes are needed from the client: it ended or failed. */
  get settled(): boolean {
    return this.complete || this.fault !== null;
  }

  /** Takes bytes from the socket; returns how many belonged to the body. */
  accept(chunk: Buffer, nowMs: number): number {
    if (this.asked) this.waitedMs += nowMs - this.waitingSinceMs;
    this.waitingSinceMs = nowMs;
    const decoded = this.decoder.push(chunk, this.emit);
    if (decoded.state === "bad") this.break("bad_chunk");
    else if (decoded.state === "done") this.finish();
    return decoded.used;
  }

  pipe(sink: BodySink): void {
    this.sink = sink;
    this.ask();
    const held = this.held;
    this.held = [];
    for (const chunk of held) if (!sink.write(chunk)) this.hold();
    if (this.fault !== null) sink.fail(this.fault);
    else if (this.complete) sink.end();
    else if (!this.paused) this.feed.resume();
  }

  resume(): void {
    if (!this.paused || this.settled) return;
    this.paused = false;
    this.waitingSinceMs = performance.now();
    this.feed.resume();
  }

  /** The rest is read and thrown away. */
  cancel(): void {
    this.sink = null;
    this.held = [];
    this.discarding = true;
    this.ask();
    this.paused = false;
    if (!this.settled) this.feed.resume();
  }

  /** A complete body can be over a limit that was set only then. */
  private exceed(): void {
    if (!this.complete) this.break("too_large");
    else this.fault ??= "too_large";
    this.held = [];
  }

  /** The connection broke, or a limit was hit. */
  break(fault: BodyFault): void {
    if (this.settled) return;
    this.fault = fault;
    this.held = [];
    this.feed.settled(false);
    this.sink?.fail(fault);
  }

  /** Whether the client is slower than allowed. Looked at by the connection's tick. */
  isTooSlow(nowMs: number, pace: BodyPace): boolean {
    if (this.settled || this.paused || !this.asked) return false;
    const pauseMs = nowMs - this.waitingSinceMs;
    if (pauseMs > pace.timeoutMs) return true;
    const allowedMs = pace.timeoutMs + (this.received * 1000) / pace.minBytesPerSecond;
    return this.waitedMs + pauseMs > allowedMs;
  }

  private ask(): void {
    if (this.asked) return;
    this.asked = true;
    this.waitingSinceMs = performance.now();
    if (!this.settled) this.feed.wanted();
  }

  private deliver(payload: Buffer): void {
    this.received += payload.length;
    if (this.fault !== null || this.discarding) return;
    if (this.received > this.limitBytes) {
      this.break("too_large");
      return;
    }
    if (this.sink === null) {
      this.held.push(payload);
      this.feed.pause();
    } else if (!this.sink.write(payload)) {
      this.hold();
    }
  }

  private hold(): void {
    if (this.paused || this.settled) return;
    this.paused = true;
    this.feed.pause();
  }

  private finish(): void {
    if (this.settled) return;
    this.complete = true;
    this.feed.settled(true);
    this.sink?.end();
  }
}
