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
import type { SharedState } from "../../src/contract/shared.ts";
import { createHost, type HostShared, lazyDatabase } from "../../src/host.ts";
import { createHostFetch } from "../../src/host-fetch.ts";
import { lazyValkey } from "../../src/valkey/connections.ts";

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

/** What a host is made with. */
export interface TestHostOptions {
  /** Default `test`. */
  readonly strategy?: string;
  readonly nowMs?: number;
  /** A state directory to begin with: it is copied. */
  readonly copyOf?: string;
  /** Makes the state that replicas have in common; default: in the host's own database. */
  readonly share?: (parts: HostShared) => SharedState;
}

/** A host with a state directory of its own. */
export function testHost(options: TestHostOptions = {}): TestHost {
  const directory = temporaryDirectory();
  const stateDir = join(directory, "state");
  if (options.copyOf === undefined) mkdirSync(stateDir, { mode: 0o700 });
  // By another process: to close a file of SQLite's drops the locks that this one holds on it.
  else Bun.spawnSync(["cp", "-r", options.copyOf, stateDir]);
  const log = collectingLog();
  const clock = settableClock(options.nowMs);
  const database = lazyDatabase(stateDir, clock);
  const shutdown = new AbortController();
  const { signal } = shutdown;
  const { fetch } = createHostFetch(signal);
  const env = process.env;
  const valkeys = lazyValkey(directory);
  const valkey = valkeys.open;
  const configDir = directory;
  const parts = { log, clock, stateDir, configDir, env, database, signal, fetch, valkey };
  const shared = options.share === undefined ? parts : { ...parts, state: options.share(parts) };
  return {
    host: createHost(options.strategy ?? "test", shared),
    log,
    clock,
    directory,
    breakDatabase: () => database.close(),
    dispose() {
      shutdown.abort();
      valkeys.close();
      database.close();
      rmSync(directory, { recursive: true, force: true });
    },
  };
}
