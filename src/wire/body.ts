/**
 * Bodies in motion: the push interface that both sides share, and the decoders of the two framings.
 *
 * Invariant: a body ends exactly once, by `end` when every byte that was promised has come, or by `fail`; a cut
 * body never looks complete. Chunk syntax is parsed strictly and never passed on: the other side is framed anew.
 */

/** Where a body goes. */
export interface BodySink {
  /** False: the sink is full; it calls `source.resume()` when it wants more. The chunk was taken anyway. */
  write(chunk: Uint8Array): boolean;
  end(): void;
  /** The source broke off; what came so far is not the whole. */
  fail(fault: BodyFault): void;
}

export type BodyFault =
  | "peer_closed"
  | "bad_chunk"
  | "too_large"
  | "too_slow"
  | "idle_timeout"
  | "cancelled";

/** Where a body comes from. */
export interface BodySource {
  /** Announced length in bytes, or `null` when the end is not known beforehand. */
  readonly length: number | null;
  /** Starts the flow. Once only. */
  pipe(sink: BodySink): void;
  /** Goes on after `write` gave false. */
  resume(): void;
  /** Nobody wants the rest. */
  cancel(): void;
}

/** A body that is in memory already. */
export function bytesSource(bytes: Uint8Array): BodySource {
  return {
    length: bytes.length,
    pipe(sink) {
      sink.write(bytes);
      sink.end();
    },
    resume() {},
    cancel() {},
  };
}

/** What one `push` did: how many bytes it used, and how the body stands after it. */
export interface Decoded {
  used: number;
  state: "more" | "done" | "bad";
}

export interface BodyDecoder {
  /** False: the body has no end of its own, it lasts until the connection closes. */
  readonly isFramed: boolean;
  /** Decodes what belongs to the body and gives the payload to `emit`; bytes after the body are left. */
  push(chunk: Buffer, emit: (payload: Buffer) => void): Decoded;
}

/** A body of a known number of bytes. */
export function lengthDecoder(length: number): BodyDecoder {
  let remaining = length;
  return {
    isFramed: true,
    push(chunk, emit) {
      const used = Math.min(remaining, chunk.length);
      if (used > 0) emit(used === chunk.length ? chunk : chunk.subarray(0, used));
      remaining -= used;
      return { used, state: remaining === 0 ? "done" : "more" };
    },
  };
}

/** A body that ends when the connection does. */
export function untilCloseDecoder(): BodyDecoder {
  return {
    isFramed: false,
    push(chunk, emit) {
      emit(chunk);
      return { used: chunk.length, state: "more" };
    },
  };
}

/** `1a2b` with an optional extension of visible characters; sizes over 48 bits are nonsense. */
const CHUNK_LINE = /^([0-9A-Fa-f]{1,12})(?:[ \t]*;[\t\x20-\x7e\x80-\xff]*)?$/;
const TRAILER_LINE = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[\t\x20-\x7e\x80-\xff]*$/;
/** Longest chunk-size line, and all trailers together. */
const MAX_LINE = 1024;
const MAX_TRAILERS = 8192;

type ChunkState = "size" | "data" | "data_end" | "trailer" | "done" | "bad";

/** RFC 9112 section 7.1: strict CRLF, trailers checked and dropped. */
class ChunkedDecoder implements BodyDecoder {
  readonly isFramed = true;
  private state: ChunkState = "size";
  private remaining = 0;
  private line = "";
  private trailerBytes = 0;

  push(chunk: Buffer, emit: (payload: Buffer) => void): Decoded {
    let at = 0;
    while (at < chunk.length && this.state !== "done" && this.state !== "bad") {
      at = this.state === "data" ? this.data(chunk, at, emit) : this.lineBytes(chunk, at);
    }
    const state = this.state === "done" || this.state === "bad" ? this.state : "more";
    return { used: at, state };
  }

  private data(chunk: Buffer, at: number, emit: (payload: Buffer) => void): number {
    const take = Math.min(this.remaining, chunk.length - at);
    emit(chunk.subarray(at, at + take));
    this.remaining -= take;
    if (this.remaining === 0) this.state = "data_end";
    return at + take;
  }

  /** Collects up to a LF; the line must end in CRLF. */
  private lineBytes(chunk: Buffer, at: number): number {
    const newline = chunk.indexOf(0x0a, at);
    const end = newline === -1 ? chunk.length : newline + 1;
    this.line += chunk.toString("latin1", at, end);
    if (this.line.length > MAX_LINE) this.state = "bad";
    else if (newline !== -1) this.finishLine();
    return end;
  }

  private finishLine(): void {
    const complete = this.line.endsWith("\r\n");
    const line = this.line.slice(0, -2);
    this.line = "";
    if (!complete) this.state = "bad";
    else if (this.state === "size") this.sizeLine(line);
    else if (this.state === "data_end") this.state = line === "" ? "size" : "bad";
    else this.trailerLine(line);
  }

  private sizeLine(line: string): void {
    const match = CHUNK_LINE.exec(line);
    if (match?.[1] === undefined) {
      this.state = "bad";
      return;
    }
    this.remaining = Number.parseInt(match[1], 16);
    this.state = this.remaining === 0 ? "trailer" : "data";
  }

  private trailerLine(line: string): void {
    this.trailerBytes += line.length;
    if (line === "") this.state = "done";
    else if (!TRAILER_LINE.test(line) || this.trailerBytes > MAX_TRAILERS) this.state = "bad";
  }
}

/** A chunked body. */
export function chunkedDecoder(): BodyDecoder {
  return new ChunkedDecoder();
}
