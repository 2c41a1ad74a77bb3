/**
 * How long short requests take while 2,000 streams are open, and how long without.
 *
 * Invariant: the same pace of requests with and without streams, contenders one after the other; the load is light,
 * so that what is measured is waiting behind streams and not a busy machine.
 */
import {
  type Contender,
  caddyForwardAuth,
  gatehouseSqlite,
  haproxyAcl,
  loadTarget,
  nginxAuthRequest,
  startAll,
  startStreamUpstream,
  stopAll,
  WrongAnswer,
} from "./contenders.ts";
import { Load, rawRequest } from "./load.ts";
import { StreamClient } from "./stream-client.ts";
import { canReadProcesses, type Lab, median, memoryOf, printTable, spread } from "./support.ts";

const STREAMS = 2000;
/** One event a second on each. */
const EVERY_MS = 1000;
/** More than the benchmark lasts. */
const EVENTS = 600;
const ROUNDS = 5;
const REQUESTS = 1000;
const CONNECTIONS = 4;
const PAUSE_MS = 4;

interface Latency {
  readonly medianMs: number[];
  readonly p99Ms: number[];
}

interface Row {
  readonly name: string;
  readonly without: Latency;
  readonly beside: Latency;
  readonly kilobytesPerStream: number;
}

export async function run(lab: Lab): Promise<void> {
  const upstream = await startStreamUpstream(lab);
  const options = { upstreamPort: upstream.port };
  const rows: Row[] = [];
  for (const recipe of [gatehouseSqlite, nginxAuthRequest, haproxyAcl, caddyForwardAuth]) {
    const contenders = await startAll(lab, [[recipe, options]]);
    for (const contender of contenders) rows.push(await measure(contender));
    await stopAll(contenders);
  }
  await upstream.service.stop();
  report(rows);
}

async function measure(contender: Contender): Promise<Row> {
  const load = new Load();
  const client = new StreamClient();
  try {
    await load.open(loadTarget(contender, CONNECTIONS));
    await load.go(10 * REQUESTS);
    const without = await latency(load, contender);
    const before = residentMb(contender);
    const { port, keys } = contender;
    const requests = Array.from({ length: STREAMS }, (_, index) =>
      rawRequest(`/stream/${EVERY_MS}/${EVENTS}`, keys[index % keys.length] ?? null),
    );
    await client.hold({ port, requests, events: null });
    const beside = await latency(load, contender);
    const kilobytesPerStream = ((residentMb(contender) - before) * 1000) / STREAMS;
    return { name: contender.name, without, beside, kilobytesPerStream };
  } finally {
    await client.close();
    await load.close();
  }
}

async function latency(load: Load, contender: Contender): Promise<Latency> {
  const found: Latency = { medianMs: [], p99Ms: [] };
  for (let round = 0; round < ROUNDS; round += 1) {
    const result = await load.go(REQUESTS, PAUSE_MS);
    if (result.wrong > 0) {
      throw new WrongAnswer(`${contender.name}: ${result.wrong} wrong: ${result.complaint}`);
    }
    found.medianMs.push(result.medianMs);
    found.p99Ms.push(result.p99Ms);
  }
  return found;
}

function residentMb(contender: Contender): number {
  return canReadProcesses ? memoryOf(contender.own()).residentMb : Number.NaN;
}

function report(rows: readonly Row[]): void {
  console.log(
    `${ROUNDS} rounds of ${REQUESTS} short requests at a light pace, with 0 and with ${STREAMS} open streams`,
  );
  console.log("ms; median (lowest-highest) of the rounds\n");
  printTable(
    ["contender", "p50, 0 open", "p50, 2,000 open", "p99, 0 open", "p99, 2,000 open", "kB/stream"],
    rows.map(({ name, without, beside, kilobytesPerStream }) => [
      name,
      spread(without.medianMs, 2),
      spread(beside.medianMs, 2),
      spread(without.p99Ms, 2),
      spread(beside.p99Ms, 2),
      kilobytesPerStream.toFixed(1),
    ]),
  );
  const [first] = rows;
  if (first === undefined) return;
  const ratio = median(first.beside.medianMs) / median(first.without.medianMs);
  console.log(`Gatehouse, p50 with ${STREAMS} open : with none: ${ratio.toFixed(2)}`);
}
