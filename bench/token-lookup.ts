/**
 * What it costs to look a token up among a thousand and among a million.
 *
 * Invariant: both databases are measured in the same run, round by round in turn, through the strategy's own
 * `authenticate`, so what slows the machine down slows both. Three questions: the same number of tokens in use, however
 * many there are; any of all tokens at random, so that of a million nearly each is read from the file; unknown ones.
 */
import { mkdtempSync, rmSync, statSync } from "node:fs";
import { cpus, tmpdir } from "node:os";
import { join } from "node:path";
import plugin from "../plugins/bearer-sqlite/index.ts";
import { newId, tokenForm } from "../plugins/bearer-sqlite/token.ts";
import { MIGRATIONS, openTokensTable } from "../plugins/bearer-sqlite/tokens-table.ts";
import { systemClock } from "../src/clock.ts";
import type { AuthRequest, Host, StrategyInstance } from "../src/contract/gatehouse.ts";
import { createHost, lazyDatabase } from "../src/host.ts";

const SIZES = [1000, 1_000_000];
const ROUNDS = 60;
const LOOKUPS_PER_ROUND = 2000;
/** Tokens kept to be presented: more than there are pages in any cache of ours. */
const PRESENTED = 200_000;
/** Tokens that are in use at a time. */
const IN_USE = 1000;

interface Subject {
  readonly size: number;
  readonly tokens: readonly string[];
  readonly inUse: readonly string[];
  readonly strategy: StrategyInstance;
  readonly fileBytes: number;
  readonly buildMs: number;
  /** Nanoseconds per lookup, one number a round. */
  readonly used: number[];
  readonly accepted: number[];
  readonly unknown: number[];
  close(): Promise<void>;
}

const log = { debug() {}, info() {}, warn() {}, error() {} };

function openHost(directory: string): { host: Host; close(): void } {
  const stateDir = join(directory, "state");
  const database = lazyDatabase(stateDir, systemClock);
  const { signal } = new AbortController();
  const shared = {
    log,
    clock: systemClock,
    stateDir,
    configDir: directory,
    env: {},
    database,
    signal,
  };
  return { host: createHost("team", shared), close: () => database.close() };
}

/** Rows go in by the order of their ids, so that building takes seconds; they are asked for at random. */
function fill(host: Host, size: number): string[] {
  const table = openTokensTable(host.database("bearer_sqlite", MIGRATIONS), host.strategy);
  const pepper = new Bun.CryptoHasher("sha256", host.key("pepper"));
  const form = tokenForm("gate");
  const ids = Array.from({ length: size }, newId).sort();
  const every = Math.max(1, Math.floor(size / PRESENTED));
  const tokens: string[] = [];
  table.transaction(() => {
    for (const [index, id] of ids.entries()) {
      const token = form.issue(id);
      if (index % every === 0) tokens.push(token);
      table.insert({
        id,
        name: `token number ${index}`,
        owner: "somebody",
        role: "user",
        scopes: ["models:read"],
        digest: pepper.copy().update(token).digest(),
        foreignDigest: null,
        createdAtMs: systemClock.nowMs(),
        createdBy: "cli",
        notBeforeMs: null,
        expiresAtMs: null,
      });
    }
  });
  table.close();
  return tokens;
}

function requestWith(token: string): AuthRequest {
  const lines = [`Bearer ${token}`];
  const none: readonly string[] = [];
  return {
    method: "GET",
    path: "/",
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

async function build(size: number): Promise<Subject> {
  const directory = mkdtempSync(join(tmpdir(), "gatehouse-bench-"));
  const start = Bun.nanoseconds();
  const { host, close } = openHost(directory);
  const tokens = fill(host, size);
  const buildMs = (Bun.nanoseconds() - start) / 1e6;
  close();
  const reopened = openHost(directory);
  const strategy = await plugin.init(
    plugin.config.parse({ last_used_interval: "1s" }),
    reopened.host,
  );
  return {
    size,
    tokens,
    inUse: tokens.filter(
      (_, index) => index % Math.max(1, Math.floor(tokens.length / IN_USE)) === 0,
    ),
    strategy,
    fileBytes: statSync(join(directory, "state", "gatehouse.db")).size,
    buildMs,
    used: [],
    accepted: [],
    unknown: [],
    async close() {
      await strategy.close?.();
      reopened.close();
      rmSync(directory, { recursive: true, force: true });
    },
  };
}

/**
 * Nanoseconds per lookup over one round. The requests are made before the clock starts and from fresh copies of
 * the tokens, as a server would: otherwise the cost of fetching old strings from memory would be measured too.
 */
function round(subject: Subject, tokens: readonly string[], expected: string): number {
  const chosen = Array.from({ length: LOOKUPS_PER_ROUND }, () => {
    const token = tokens[Math.floor(Math.random() * tokens.length)];
    return requestWith(Buffer.from(token ?? "").toString("latin1"));
  });
  let right = 0;
  const start = Bun.nanoseconds();
  for (const request of chosen) {
    const outcome = subject.strategy.authenticate(request);
    if (!(outcome instanceof Promise) && outcome.outcome === expected) right += 1;
  }
  const ns = (Bun.nanoseconds() - start) / LOOKUPS_PER_ROUND;
  if (right !== LOOKUPS_PER_ROUND) throw new Error(`${LOOKUPS_PER_ROUND - right} wrong answers`);
  return ns;
}

function quantile(values: readonly number[], share: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.floor((sorted.length - 1) * share)] ?? Number.NaN;
}

function report(subjects: readonly Subject[]): void {
  const us = (ns: number) => (ns / 1000).toFixed(2);
  console.log(`Bun ${Bun.version}, ${process.platform} ${process.arch}, ${cpus()[0]?.model}`);
  console.log(`${ROUNDS} rounds of ${LOOKUPS_PER_ROUND} lookups each, in turn; µs per lookup`);
  console.log("tokens     file MB  build s  in use p50  any p50   p90   unknown p50");
  for (const { size, fileBytes, buildMs, used, accepted, unknown } of subjects) {
    const cells = [
      String(size).padEnd(9),
      (fileBytes / 1e6).toFixed(1).padStart(8),
      (buildMs / 1000).toFixed(1).padStart(8),
      us(quantile(used, 0.5)).padStart(11),
      us(quantile(accepted, 0.5)).padStart(8),
      us(quantile(accepted, 0.9)).padStart(6),
      us(quantile(unknown, 0.5)).padStart(13),
    ];
    console.log(cells.join(" "));
  }
  const [small, large] = subjects;
  if (small === undefined || large === undefined) return;
  const ratio = (of: (subject: Subject) => readonly number[]) =>
    (quantile(of(large), 0.5) / quantile(of(small), 0.5)).toFixed(2);
  console.log(`ratio ${large.size} : ${small.size}`);
  console.log(`  ${IN_USE} in use  ${ratio(({ used }) => used)}`);
  console.log(`  any of all   ${ratio(({ accepted }) => accepted)}`);
  console.log(`  unknown      ${ratio(({ unknown }) => unknown)}`);
}

const subjects: Subject[] = [];
try {
  for (const size of SIZES) subjects.push(await build(size));
  const form = tokenForm("gate");
  const strangers = Array.from({ length: 5000 }, () => form.issue(newId()));
  // The first rounds warm the compiler and the caches and are not counted.
  for (let count = -10; count < ROUNDS; count += 1) {
    // Between the rounds the times of last use are written, as in a running gateway.
    await Bun.sleep(20);
    for (const subject of subjects) {
      const used = round(subject, subject.inUse, "accept");
      const accepted = round(subject, subject.tokens, "accept");
      const unknown = round(subject, strangers, "unknown");
      if (count < 0) continue;
      subject.used.push(used);
      subject.accepted.push(accepted);
      subject.unknown.push(unknown);
    }
  }
  report(subjects);
} finally {
  for (const subject of subjects) await subject.close();
}
