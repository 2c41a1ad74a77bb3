/**
 * What a gateway adds to each event of a stream: 200 streams at once, an event each 50 ms on every one.
 *
 * Invariant: the same client reads the same upstream directly and through each contender, in turn; what is added
 * is the difference to the direct reading of the same round.
 */
import {
  type Contender,
  caddyForwardAuth,
  gatehouseSqlite,
  haproxyAcl,
  nginxAuthRequest,
  startAll,
  startStreamUpstream,
  stopAll,
} from "./contenders.ts";
import { rawRequest } from "./load.ts";
import { StreamClient } from "./stream-client.ts";
import {
  canReadProcesses,
  cpuMs,
  type Lab,
  median,
  printTable,
  printTarget,
  spread,
} from "./support.ts";

const STREAMS = 200;
const EVERY_MS = 50;
/** Four seconds. */
const EVENTS = 80;
const ROUNDS = 5;
const LIMIT_MS = 1;

interface Subject {
  readonly name: string;
  /** `null`: no gateway between. */
  readonly contender: Contender | null;
  readonly port: number;
  readonly medianMs: number[];
  readonly p99Ms: number[];
  readonly cpuUs: number[];
}

export async function run(lab: Lab): Promise<void> {
  const upstream = await startStreamUpstream(lab);
  const options = { upstreamPort: upstream.port };
  const recipes = [gatehouseSqlite, nginxAuthRequest, haproxyAcl, caddyForwardAuth];
  const contenders = await startAll(
    lab,
    recipes.map((recipe) => [recipe, options]),
  );
  const subjects = [
    subject("direct", null, upstream.port),
    ...contenders.map((one) => subject(one.name, one, one.port)),
  ];
  const client = new StreamClient();
  try {
    // The first round warms the compilers and is not counted.
    for (let round = -1; round < ROUNDS; round += 1) {
      for (const one of subjects) await measure(client, one, round >= 0);
    }
  } finally {
    await client.close();
  }
  await stopAll(contenders);
  await upstream.service.stop();
  report(subjects);
}

function subject(name: string, contender: Contender | null, port: number): Subject {
  return { name, contender, port, medianMs: [], p99Ms: [], cpuUs: [] };
}

async function measure(client: StreamClient, one: Subject, isCounted: boolean): Promise<void> {
  const { contender, port } = one;
  const keys = contender?.keys ?? [];
  const requests = Array.from({ length: STREAMS }, (_, index) =>
    rawRequest(`/stream/${EVERY_MS}/${EVENTS}`, keys[index % keys.length] ?? null),
  );
  const pids = canReadProcesses ? (contender?.all() ?? []) : [];
  const before = cpuMs(pids);
  const result = await client.read({ port, requests, events: EVENTS });
  const usedMs = cpuMs(pids) - before;
  if (!isCounted) return;
  one.medianMs.push(result.medianMs);
  one.p99Ms.push(result.p99Ms);
  one.cpuUs.push((usedMs * 1000) / result.events);
}

function report(subjects: readonly Subject[]): void {
  console.log(
    `${STREAMS} streams, an event each ${EVERY_MS} ms on each, ${ROUNDS} rounds in turn of ${STREAMS * EVENTS} events`,
  );
  console.log("ms added to an event over reading the upstream directly; median (lowest-highest)\n");
  const [direct, ...others] = subjects;
  if (direct === undefined) return;
  const added = (of: readonly number[], to: readonly number[]) =>
    of.map((ms, round) => ms - (to[round] ?? Number.NaN));
  printTable(
    ["contender", "added at the median", "added at p99", "CPU µs/event"],
    others.map(({ name, medianMs, p99Ms, cpuUs }) => [
      name,
      spread(added(medianMs, direct.medianMs), 3),
      spread(added(p99Ms, direct.p99Ms), 3),
      canReadProcesses ? spread(cpuUs, 1) : "",
    ]),
  );
  const [first] = others;
  if (first === undefined) return;
  const ms = median(added(first.medianMs, direct.medianMs));
  printTarget(`added to an event at the median with ${STREAMS} streams`, LIMIT_MS, ms, " ms");
}
