/**
 * Structured logs to standard output: JSON lines, or text for a terminal.
 *
 * Invariant: a slow or gone reader never blocks a request; lines that cannot be kept are counted and said. Values
 * are escaped so that a client cannot write a line or move a terminal's cursor.
 */
import { write, writeSync } from "node:fs";
import pino from "pino";
import type { Log, LogFields } from "./contract/host.ts";
import { errorCode } from "./errors.ts";

export type LogLevel = "debug" | "info" | "warn" | "error";

export interface LogSink {
  /** One line with its newline. */
  write(line: string): void;
  /** Resolves when all is written out, or nobody takes it; called at the end. */
  flush(): Promise<void>;
}

/** A log that writes JSON lines (`format: "json"`) or readable text to the sink. */
export function createLog(options: {
  level: LogLevel;
  format: "json" | "text";
  sink: LogSink;
}): Log {
  const isText = options.format === "text";
  const logger = pino(
    {
      level: options.level,
      base: null,
      messageKey: "event",
      timestamp: () => `,"time":"${new Date().toISOString()}"`,
      formatters: { level: (level) => ({ level }) },
    },
    { write: (line: string) => options.sink.write(isText ? asText(line) : escapeUnsafe(line)) },
  );
  const at =
    (level: LogLevel) =>
    (event: string, fields?: LogFields): void =>
      logger[level](fields ?? {}, event);
  return { debug: at("debug"), info: at("info"), warn: at("warn"), error: at("error") };
}

/** A log that those who hold it need not be given again when it is made anew, with another level or format. */
export function replaceableLog(first: Log): { readonly log: Log; replace(next: Log): void } {
  let current = first;
  return {
    log: {
      debug: (event, fields) => current.debug(event, fields),
      info: (event, fields) => current.info(event, fields),
      warn: (event, fields) => current.warn(event, fields),
      error: (event, fields) => current.error(event, fields),
    },
    replace(next) {
      current = next;
    },
  };
}

/** JSON leaves C1 controls and bidirectional marks as they are; terminals and readers do not. */
function escapeUnsafe(line: string): string {
  return line.replace(
    /[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]/g,
    (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}

function asText(line: string): string {
  const parsed: unknown = JSON.parse(line);
  const { time, level, event, ...rest } = parsed as Record<string, unknown>;
  const fields = Object.entries(rest)
    .filter(([, value]) => value !== null && value !== undefined)
    .map(([key, value]) => `${key}=${textValue(value)}`);
  const clock = String(time).slice(11, 23);
  const said = `${clock} ${String(level).padEnd(5)} ${event} ${fields.join(" ")}`.trimEnd();
  return `${escapeUnsafe(said)}\n`;
}

function textValue(value: unknown): string {
  const text = String(value);
  return /^[\w./:@+%-]+$/.test(text) ? text : JSON.stringify(text);
}

/** Most characters held for a reader that does not read. */
const MAX_BUFFER = 4_194_304;

/** How long the end waits for a write that was begun before. */
const LAST_WRITE_MS = 1000;

/** How long lines are gathered into one write. */
const GATHER_MS = 5;

/**
 * Standard output, written in batches off the main thread, so that a reader that stops reading stops the log and
 * nothing else.
 */
export function stdoutSink(fd = 1): LogSink {
  let buffered = "";
  let dropped = 0;
  let isBusy = false;
  /** What the kernel was handed and has not answered yet. */
  let underWay: Promise<void> = Promise.resolve();
  const pump = (): void => {
    const bytes = take();
    if (bytes.length === 0) {
      isBusy = false;
      return;
    }
    const rest = (error: unknown, written: number): void => {
      // A full non-blocking pipe is tried again; a closed one swallows everything.
      const isFull = errorCode(error) === "EAGAIN";
      const left = error && !isFull ? Buffer.alloc(0) : bytes.subarray(written);
      buffered = left.toString("utf8") + buffered;
      setTimeout(pump, isFull ? 50 : GATHER_MS);
    };
    underWay = new Promise((resolve) => {
      write(fd, bytes, (error, written) => {
        rest(error, written ?? 0);
        resolve();
      });
    });
  };
  const take = (): Buffer => {
    if (dropped > 0 && buffered.length < MAX_BUFFER) {
      buffered += `${JSON.stringify({ level: "warn", event: "log.dropped", lines: dropped })}\n`;
      dropped = 0;
    }
    const bytes = Buffer.from(buffered, "utf8");
    buffered = "";
    return bytes;
  };
  return {
    write(line) {
      if (buffered.length > MAX_BUFFER) dropped += 1;
      else buffered += line;
      if (isBusy) return;
      isBusy = true;
      setTimeout(pump, GATHER_MS);
    },
    async flush() {
      // First things first. A reader that has stopped reading is not waited for, and would not read the rest either.
      const stuck = Bun.sleep(LAST_WRITE_MS).then(() => true);
      if (await Promise.race([underWay.then(() => false), stuck])) return;
      try {
        let bytes = take();
        while (bytes.length > 0) bytes = bytes.subarray(writeSync(fd, bytes));
      } catch {
        // The reader is gone or full, and this is the end: there is nobody to tell.
      }
    },
  };
}
