/**
 * What a token of the strategy `valkey-hash` costs: cold (one round trip), warm, and among 100 or 100,000.
 *
 * Invariant: all measurements of a run use one server and take turns, so what slows the machine down slows all. The
 * requests are made anew, as a server would, before the clock starts.
 */
import plugin from "../plugins/valkey-hash/index.ts";
import { systemClock } from "../src/clock.ts";
import type { AuthRequest, StrategyInstance } from "../src/contract/gatehouse.ts";
import { createHost, lazyDatabase } from "../src/host.ts";
import { lazyValkey } from "../src/valkey/connections.ts";
import {
  freePort,
  installed,
  type Lab,
  listening,
  printTable,
  ratios,
  spread,
  startService,
} from "./support.ts";

const SIZES = [100, 100_000];
const ROUNDS = 15;
const WARM = 20_000;
const COLD = 1000;
const TOGETHER = 64;
const SALT = "5a".repeat(32);

interface Subject {
  readonly size: number;
  readonly tokens: readonly string[];
  readonly cached: StrategyInstance;
  readonly uncached: StrategyInstance;
  /** Nanoseconds a look-up, one number a round. */
  readonly warm: number[];
  readonly cold: number[];
  readonly coldTogether: number[];
  close(): Promise<void>;
}

export async function run(lab: Lab): Promise<void> {
  const program = installed("valkey-server") ?? installed("redis-server");
  if (program === null) {
    console.log("not measured: no valkey-server (apt-get install valkey-server or redis-server)\n");
    return;
  }
  const port = await freePort();
  const options = [
    "--port",
    String(port),
    "--bind",
    "127.0.0.1",
    "--save",
    "",
    "--appendonly",
    "no",
  ];
  const service = startService(lab, "valkey", [program, ...options]);
  await listening(port, service);
  const subjects: Subject[] = [];
  const ping: number[] = [];
  const { Redis } = await import("iovalkey");
  const client = new Redis({ port, host: "127.0.0.1" });
  try {
    for (const [database, size] of SIZES.entries()) {
      subjects.push(await build(lab, `redis://127.0.0.1:${port}/${database}`, size));
    }
    for (let round = -3; round < ROUNDS; round += 1) {
      const pingNs = await each(COLD, () => client.ping());
      for (const subject of subjects) await measure(subject, round >= 0);
      if (round >= 0) ping.push(pingNs);
    }
    report(program, subjects, ping);
  } finally {
    client.disconnect();
    for (const subject of subjects) await subject.close();
    await service.stop();
  }
}

async function build(lab: Lab, url: string, size: number): Promise<Subject> {
  const directory = lab.makeDirectory(`valkey-hash-${size}`);
  const database = lazyDatabase(directory, systemClock);
  const log = { debug() {}, info() {}, warn() {}, error() {} };
  const shared = {
    log,
    clock: systemClock,
    stateDir: directory,
    configDir: directory,
    env: {},
    database,
    signal: new AbortController().signal,
    valkey: lazyValkey(directory).open,
  };
  const open = async (cache: boolean) =>
    plugin.init(plugin.config.parse({ url, salt: SALT, cache }), createHost("keys", shared));
  const [cached, uncached] = [await open(true), await open(false)];
  const tokens = Array.from({ length: size }, (_, n) => `sk-bench-${size}-${n}-${"x".repeat(24)}`);
  await cached.tokens?.adoptAll?.(
    tokens.map((token, n) => ({
      token,
      draft: { name: `token ${n}`, owner: `owner ${n % 1000}` },
    })),
  );
  await Bun.sleep(100);
  for (let from = 0; from < size; from += 1000) {
    await Promise.all(
      tokens.slice(from, from + 1000).map((token) => cached.authenticate(requestWith(token))),
    );
  }
  return {
    size,
    tokens,
    cached,
    uncached,
    warm: [],
    cold: [],
    coldTogether: [],
    async close() {
      await cached.close?.();
      await uncached.close?.();
      database.close();
    },
  };
}

async function measure(subject: Subject, isCounted: boolean): Promise<void> {
  const warm = await warmRound(subject);
  const requests = chosen(subject, COLD);
  const ask = async (request: AuthRequest | undefined): Promise<void> => {
    const outcome = await subject.uncached.authenticate(request ?? requestWith(""));
    if (outcome.outcome !== "accept") throw new Error("a wrong answer");
  };
  const cold = await each(COLD, (n) => ask(requests[n]));
  const again = chosen(subject, COLD);
  let next = 0;
  const startNs = Bun.nanoseconds();
  const caller = async (): Promise<void> => {
    while (next < COLD) {
      next += 1;
      await ask(again[next - 1]);
    }
  };
  await Promise.all(Array.from({ length: TOGETHER }, caller));
  const together = (Bun.nanoseconds() - startNs) / COLD;
  if (!isCounted) return;
  subject.warm.push(warm);
  subject.cold.push(cold);
  subject.coldTogether.push(together);
}

/** In portions of a turn each, as under load. */
async function warmRound(subject: Subject): Promise<number> {
  const requests = chosen(subject, WARM);
  let spentNs = 0;
  let answered = 0;
  for (let from = 0; from < WARM; from += TOGETHER) {
    const portion = requests.slice(from, from + TOGETHER);
    const startNs = Bun.nanoseconds();
    const outcomes = portion.map((request) => subject.cached.authenticate(request));
    const portionNs = Bun.nanoseconds() - startNs;
    // While a message waits to be read the turn is not answered from memory: twice a second, after a PING.
    if (outcomes.some((outcome) => outcome instanceof Promise)) await Promise.all(outcomes);
    else [spentNs, answered] = [spentNs + portionNs, answered + portion.length];
    await new Promise((resolve) => setImmediate(resolve));
  }
  if (answered < WARM / 2) throw new Error("most were not warm");
  return spentNs / answered;
}

async function each(count: number, work: (n: number) => Promise<unknown>): Promise<number> {
  const startNs = Bun.nanoseconds();
  for (let n = 0; n < count; n += 1) await work(n);
  return (Bun.nanoseconds() - startNs) / count;
}

function chosen({ tokens }: Subject, count: number): AuthRequest[] {
  return Array.from({ length: count }, () =>
    requestWith(
      Buffer.from(tokens[Math.floor(Math.random() * tokens.length)] ?? "").toString("latin1"),
    ),
  );
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

function report(program: string, subjects: readonly Subject[], ping: readonly number[]): void {
  const us = (values: readonly number[]) =>
    spread(
      values.map((ns) => ns / 1000),
      2,
    );
  console.log(`${program}; ${ROUNDS} rounds in turn; µs a token; median (lowest-highest)\n`);
  printTable(
    ["", "warm", "cold, one at a time", `cold, ${TOGETHER} at once`],
    subjects.map(({ size, warm, cold, coldTogether }) => [
      `${size} tokens`,
      us(warm),
      us(cold),
      us(coldTogether),
    ]),
  );
  console.log(`a PING, one at a time: ${us(ping)}\n`);
  const [small, large] = subjects;
  if (small === undefined || large === undefined) return;
  for (const which of ["warm", "cold"] as const) {
    console.log(
      `${which}, ${large.size} : ${small.size} tokens: ${spread(ratios(large[which], small[which]), 2)}`,
    );
  }
  console.log(`cold : PING: ${spread(ratios(small.cold, ping), 2)}\n`);
}

if (import.meta.main) {
  const { openLab } = await import("./support.ts");
  const lab = openLab();
  try {
    await run(lab);
  } finally {
    await lab.close();
  }
}
