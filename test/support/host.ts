/**
 * A real host for tests: a state directory and database in a temporary directory, a log that is kept, a clock
 * that is set by hand.
 *
 * Invariant: nothing here stands in for our own code; only time and the place of the state are chosen.
 */
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Clock, Host, Log, LogFields } from "../../src/contract/host.ts";
import { createHost, lazyDatabase } from "../../src/host.ts";
import { createHostFetch } from "../../src/host-fetch.ts";

/** One line of a {@link CollectingLog}. */
export interface LogLine {
  readonly level: "debug" | "info" | "warn" | "error";
  readonly event: string;
  readonly fields: LogFields;
}

/** A log that keeps what it is told. */
export interface CollectingLog extends Log {
  readonly lines: readonly LogLine[];
  /** Everything that was logged, as one text to search in. */
  text(): string;
}

/** A clock that moves only when told to. */
export interface SettableClock extends Clock {
  set(nowMs: number): void;
  advance(ms: number): void;
}

/** A host with what a test needs to look behind it. */
export interface TestHost {
  readonly host: Host;
  readonly log: CollectingLog;
  readonly clock: SettableClock;
  /** Holds `state/` and is the directory of the config file. */
  readonly directory: string;
  /** Closes the database as a fault would: every later use of it throws. */
  breakDatabase(): void;
  /** Aborts the signal, closes the database, removes the directory. */
  dispose(): void;
}

/** 2026-01-01T00:00:00Z. */
export const TEST_NOW_MS = 1_767_225_600_000;

/** @param nowMs default {@link TEST_NOW_MS} */
export function settableClock(nowMs: number = TEST_NOW_MS): SettableClock {
  let now = nowMs;
  return {
    nowMs: () => now,
    set(value) {
      now = value;
    },
    advance(ms) {
      now += ms;
    },
  };
}

/** A log that starts empty. */
export function collectingLog(): CollectingLog {
  const lines: LogLine[] = [];
  const at = (level: LogLine["level"]) => (event: string, fields?: LogFields) => {
    lines.push({ level, event, fields: fields ?? {} });
  };
  return {
    lines,
    text: () => lines.map((line) => JSON.stringify(line)).join("\n"),
    debug: at("debug"),
    info: at("info"),
    warn: at("warn"),
    error: at("error"),
  };
}

/** A new directory under the system's temporary one, mode 0700. */
export function temporaryDirectory(): string {
  return mkdtempSync(join(tmpdir(), "gatehouse-test-"));
}

/** A host for a strategy called `strategy` (default `test`) with a state directory of its own. */
export function testHost(options: { strategy?: string; nowMs?: number } = {}): TestHost {
  const directory = temporaryDirectory();
  const stateDir = join(directory, "state");
  mkdirSync(stateDir, { mode: 0o700 });
  const log = collectingLog();
  const clock = settableClock(options.nowMs);
  const database = lazyDatabase(stateDir, clock);
  const shutdown = new AbortController();
  const { signal } = shutdown;
  const { fetch } = createHostFetch(signal);
  const env = process.env;
  const shared = { log, clock, stateDir, configDir: directory, env, database, signal, fetch };
  return {
    host: createHost(options.strategy ?? "test", shared),
    log,
    clock,
    directory,
    breakDatabase: () => database.close(),
    dispose() {
      shutdown.abort();
      database.close();
      rmSync(directory, { recursive: true, force: true });
    },
  };
}
