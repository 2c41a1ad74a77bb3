/**
 * What it costs to look a routstrd key up among 1, 10, 1,000 and 10,000 clients.
 *
 * Invariant: all files are measured in the same run, round by round in turn, through the strategy's own
 * `authenticate`, with keys taken at random; so what slows the machine down slows all of them.
 */
import { Database } from "bun:sqlite";
import { mkdtempSync, rmSync } from "node:fs";
import { cpus, tmpdir } from "node:os";
import { join } from "node:path";
import {
  createDatabase,
  type JournalMode,
  newKey,
  storedClient,
} from "../plugins/routstrd/daemon.fixture.ts";
import plugin from "../plugins/routstrd/index.ts";
import { systemClock } from "../src/clock.ts";
import type { AuthRequest, StrategyInstance } from "../src/contract/gatehouse.ts";
import { createHost, lazyDatabase } from "../src/host.ts";

const SIZES = [1, 10, 1000, 10_000];
const ROUNDS = 100;
const LOOKUPS_PER_ROUND = 1000;
/** Lookups before the first counted round, so that compiler and caches are warm. */
const WARM_LOOKUPS = 50_000;

interface Subject {
  readonly size: number;
  readonly keys: readonly string[];
  readonly strategy: StrategyInstance;
  /** The daemon's own connection. */
  readonly daemon: Database;
  readonly fileBytes: number;
  /** Nanoseconds per lookup, one number a round. */
  readonly accepted: number[];
  readonly unknown: number[];
  /** The first lookup after the daemon has written something else, or the list itself. */
  readonly afterUsage: number[];
  readonly afterChange: number[];
}

const log = { debug() {}, info() {}, warn() {}, error() {} };

async function build(directory: string, mode: JournalMode, size: number): Promise<Subject> {
  const path = join(directory, `${mode}-${size}.db`);
  const clients = Array.from({ length: size }, (_, n) =>
    storedClient({ clientId: `client-${n}-abcdefg`, lastUsed: null }),
  );
  createDatabase(path, { clients, mode });
  const { signal } = new AbortController();
  const stateDir = join(directory, "state");
  const host = createHost("keys", {
    log,
    clock: systemClock,
    stateDir,
    configDir: directory,
    env: {},
    database: lazyDatabase(stateDir, systemClock),
    signal,
  });
  const strategy = await plugin.init(plugin.config.parse({ database: path }), host);
  return {
    size,
    keys: clients.map(({ apiKey }) => apiKey),
    strategy,
    daemon: new Database(path),
    fileBytes: Bun.file(path).size,
    accepted: [],
    unknown: [],
    afterUsage: [],
    afterChange: [],
  };
}

function requestWith(key: string): AuthRequest {
  const lines = [`Bearer ${key}`];
  const none: readonly string[] = [];
  return {
    method: "POST",
    path: "/v1/chat/completions",
    query: "",
    urls: [],
    headers: {
      get: (name) => (name === "authorization" ? (lines[0] ?? null) : null),
      all: (name) => (name === "authorization" ? lines : none),
    },
    clientAddress: "127.0.0.1",
    requestId: "bench",
    bodyHash: () => Promise.reject(new Error("nobody asks")),
  };
}

/** Nanoseconds per lookup. A wrong answer ends the run. */
function time(
  { strategy }: Subject,
  keys: readonly string[],
  count: number,
  expected: "accept" | "unknown",
): number {
  const chosen = Array.from({ length: count }, () =>
    // A text of its own, as one that came from a socket.
    requestWith(
      Buffer.from(keys[Math.floor(Math.random() * keys.length)] ?? "").toString("latin1"),
    ),
  );
  let right = 0;
  const start = Bun.nanoseconds();
  for (const request of chosen) {
    const outcome = strategy.authenticate(request);
    if (!(outcome instanceof Promise) && outcome.outcome === expected) right += 1;
  }
  const ns = (Bun.nanoseconds() - start) / count;
  if (right !== count) throw new Error(`${count - right} wrong answers`);
  return ns;
}

function measureLookups(subject: Subject, strangers: readonly string[]): void {
  subject.accepted.push(time(subject, subject.keys, LOOKUPS_PER_ROUND, "accept"));
  subject.unknown.push(time(subject, strangers, LOOKUPS_PER_ROUND, "unknown"));
}

/** In rounds of their own: a changed list is a cold one, which the lookups after it would pay for. */
function measureWrites(subject: Subject): void {
  subject.daemon.run("UPDATE usage_tracking SET timestamp = timestamp + 1");
  subject.afterUsage.push(time(subject, subject.keys, 1, "accept"));
  const change = "iif(value LIKE ' %', substr(value, 2), ' ' || value)";
  subject.daemon.run(`UPDATE sdk_storage SET value = ${change}`);
  subject.afterChange.push(time(subject, subject.keys, 1, "accept"));
}

function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.floor((sorted.length - 1) / 2)] ?? Number.NaN;
}

/** Median of the ratios within each round. */
function ratio(a: readonly number[], b: readonly number[]): string {
  return median(a.map((value, round) => value / (b[round] ?? Number.NaN))).toFixed(2);
}

function report(mode: JournalMode, subjects: readonly Subject[]): void {
  const us = (values: readonly number[]) => (median(values) / 1000).toFixed(1);
  const [one] = subjects;
  if (one === undefined) return;
  console.log(`journal mode ${mode}; µs, median; in brackets against 1 client`);
  console.log("clients  file kB      accepted       unknown   after usage  after change");
  for (const subject of subjects) {
    const cell = (of: (subject: Subject) => readonly number[], width: number) =>
      `${us(of(subject))} (${ratio(of(subject), of(one))})`.padStart(width);
    const cells = [
      String(subject.size).padEnd(7),
      (subject.fileBytes / 1000).toFixed(0).padStart(8),
      cell(({ accepted }) => accepted, 13),
      cell(({ unknown }) => unknown, 13),
      us(subject.afterUsage).padStart(13),
      us(subject.afterChange).padStart(13),
    ];
    console.log(cells.join(" "));
  }
}

/** Measures and prints; throws on a wrong answer. */
export async function run(): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), "gatehouse-bench-"));
  console.log(`Bun ${Bun.version}, ${process.platform} ${process.arch}, ${cpus()[0]?.model}`);
  console.log(`${ROUNDS} rounds of ${LOOKUPS_PER_ROUND} lookups each, in turn`);
  try {
    for (const mode of ["wal", "delete"] as const) {
      const subjects: Subject[] = [];
      for (const size of SIZES) subjects.push(await build(directory, mode, size));
      const strangers = Array.from({ length: 2000 }, newKey);
      for (const subject of subjects) {
        time(subject, subject.keys, WARM_LOOKUPS, "accept");
        time(subject, strangers, WARM_LOOKUPS, "unknown");
      }
      for (let round = 0; round < ROUNDS; round += 1) {
        for (const subject of subjects) measureLookups(subject, strangers);
      }
      for (let round = 0; round < ROUNDS; round += 1) {
        for (const subject of subjects) measureWrites(subject);
      }
      report(mode, subjects);
      for (const { strategy, daemon } of subjects) {
        await strategy.close?.();
        daemon.close();
      }
    }
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

if (import.meta.main) await run();
