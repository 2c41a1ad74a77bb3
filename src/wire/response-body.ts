/**
 * The body of an upstream's response on its way out.
 *
 * Invariant: a bounded piece is held while nobody takes it; a body that breaks off fails its sink.
 */
import type { BodyFault, BodySink, BodySource } from "./body.ts";

/** What is held before anyone reads; the reader is a microtask away, so this is seldom more than one read. */
const MAX_HELD_BYTES = 65_536;

/** What the body needs from its connection. */
export interface ResponseFeed {
  pause(): void;
  resume(): void;
  /** The reader has left: close the connection. */
  cancel(): void;
}

export class ResponseBody implements BodySource {
  readonly length: number | null;
  private readonly feed: ResponseFeed;
  private sink: BodySink | null = null;
  private held: Uint8Array[] = [];
  private heldBytes = 0;
  private ending: "open" | "ended" | BodyFault = "open";
  /** The reader does not take more at the moment. */
  isPaused = false;

  constructor(length: number | null, feed: ResponseFeed) {
    this.length = length;
    this.feed = feed;
  }

  pipe(sink: BodySink): void {
    this.sink = sink;
    const held = this.held;
    this.held = [];
    this.isPaused = false;
    for (const chunk of held) if (!sink.write(chunk)) this.isPaused = true;
    if (this.ending === "ended") sink.end();
    else if (this.ending !== "open") sink.fail(this.ending);
    else if (this.isPaused) this.feed.pause();
    else this.feed.resume();
  }

  resume(): void {
    if (!this.isPaused || this.ending !== "open") return;
    this.isPaused = false;
    this.feed.resume();
  }

  cancel(): void {
    if (this.ending !== "open") return;
    this.ending = "cancelled";
    this.feed.cancel();
  }

  /** A piece from the upstream. */
  deliver(payload: Uint8Array): void {
    if (this.ending !== "open") return;
    if (this.take(payload) || this.isPaused) return;
    this.isPaused = true;
    this.feed.pause();
  }

  private take(payload: Uint8Array): boolean {
    if (this.sink !== null) return this.sink.write(payload);
    this.held.push(payload);
    this.heldBytes += payload.length;
    return this.heldBytes <= MAX_HELD_BYTES;
  }

  end(): void {
    if (this.ending !== "open") return;
    this.ending = "ended";
    this.sink?.end();
  }

  fail(fault: BodyFault): void {
    if (this.ending !== "open") return;
    this.ending = fault;
    this.sink?.fail(fault);
  }
}
