/**
 * Resident memory after many requests, beside the peers' workers.
 *
 * Invariant: read right after the load at 64 connections while these are still open; nothing is forced to be
 * collected first.
 */
import {
  type Contender,
  caddyForwardAuth,
  gatehouseSqlite,
  gatehouseStatic,
  haproxyAcl,
  loadTarget,
  nginxAuthRequest,
  nginxMap,
  type Recipe,
  startAll,
  startFixedUpstream,
  stopAll,
  WrongAnswer,
} from "./contenders.ts";
import { Load } from "./load.ts";
import { type Lab, type Memory, memoryOf, printTable, printTarget } from "./support.ts";

const STEP = 100_000;
const CONNECTIONS = 64;
const LIMIT_MB = 90;
/** What counts as flat: resident memory after a million to that after a hundred thousand. */
const FLAT = 1.1;

/** One contender and its memory: before the load, then after each step. */
interface Trace {
  readonly name: string;
  readonly before: Memory;
  readonly after: readonly Memory[];
  /** Its processes and the auth service, at the end. */
  readonly withHelpers: Memory;
}

/** Between the last request and the reading. */
const REST_MS = 2000;

/** After 100,000 requests, beside every peer. */
export async function run(lab: Lab): Promise<void> {
  const recipes = [
    gatehouseSqlite,
    gatehouseStatic,
    nginxAuthRequest,
    nginxMap,
    haproxyAcl,
    caddyForwardAuth,
  ];
  const traces = await traceAll(lab, recipes, 1);
  console.log(
    `MB (10^6 bytes) resident ${REST_MS / 1000} s after ${STEP} requests over ${CONNECTIONS} connections\n`,
  );
  printTable(
    ["contender", "ratio", "after", "of it anonymous", "peak", "before", "with auth service"],
    traces.map(({ name, before, after, withHelpers }) => [
      name,
      (last(after).residentMb / last(traces[0]?.after ?? []).residentMb).toFixed(2),
      last(after).residentMb.toFixed(1),
      last(after).anonymousMb.toFixed(1),
      last(after).peakMb.toFixed(1),
      before.residentMb.toFixed(1),
      withHelpers.residentMb.toFixed(1),
    ]),
  );
  const first = traces[0];
  if (first === undefined) return;
  const megabytes = last(first.after).residentMb;
  printTarget(`resident after ${STEP} requests`, LIMIT_MB, megabytes, " MB");
}

/** After 1,000,000 requests, read every 100,000. Caddy is left out: it alone would take minutes. */
export async function runMillion(lab: Lab): Promise<void> {
  const traces = await traceAll(lab, [gatehouseSqlite, nginxAuthRequest, haproxyAcl], 10);
  console.log("MB (10^6 bytes) resident after so many requests\n");
  printTable(
    ["contender", "before", ...Array.from({ length: 10 }, (_, index) => `${index + 1}00k`), "peak"],
    traces.map(({ name, before, after }) => [
      name,
      before.residentMb.toFixed(1),
      ...after.map((one) => one.residentMb.toFixed(1)),
      last(after).peakMb.toFixed(1),
    ]),
  );
  const first = traces[0];
  if (first === undefined) return;
  const growth = last(first.after).residentMb / last(first.after.slice(0, 1)).residentMb;
  printTarget("resident after 1,000,000 : after 100,000", FLAT, growth);
}

async function traceAll(lab: Lab, recipes: readonly Recipe[], steps: number): Promise<Trace[]> {
  const upstream = await startFixedUpstream(lab);
  const load = new Load();
  try {
    const traces: Trace[] = [];
    for (const recipe of recipes) {
      const contenders = await startAll(lab, [[recipe, { upstreamPort: upstream.port }]]);
      for (const contender of contenders) traces.push(await trace(load, contender, steps));
      await stopAll(contenders);
    }
    return traces;
  } finally {
    await load.close();
    await upstream.service.stop();
  }
}

async function trace(load: Load, contender: Contender, steps: number): Promise<Trace> {
  const before = memoryOf(contender.own());
  const after: Memory[] = [];
  await load.open(loadTarget(contender, CONNECTIONS));
  for (let step = 0; step < steps; step += 1) {
    const { wrong, complaint } = await load.go(STEP);
    if (wrong > 0) throw new WrongAnswer(`${contender.name}: ${wrong} wrong: ${complaint}`);
    // What a burst leaves is given back once nobody asks any more; every contender gets the same rest.
    await Bun.sleep(REST_MS);
    after.push(memoryOf(contender.own()));
  }
  return { name: contender.name, before, after, withHelpers: memoryOf(contender.all()) };
}

function last(values: readonly Memory[]): Memory {
  return values.at(-1) ?? { residentMb: Number.NaN, anonymousMb: Number.NaN, peakMb: Number.NaN };
}
