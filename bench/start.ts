/**
 * From start to the first answer: how long after it was started a gateway accepts a connection and says 200.
 *
 * Invariant: the clock starts before the process is made; contenders take turns; the health path is asked, which
 * needs neither key nor upstream.
 */
import {
  askOnce,
  caddyForwardAuth,
  gatehouseSqlite,
  gatehouseStatic,
  haproxyAcl,
  nginxAuthRequest,
  type Prepared,
  startFixedUpstream,
} from "./contenders.ts";
import { rawRequest } from "./load.ts";
import { type Lab, median, printTable, printTarget, ratios, spread } from "./support.ts";

const STARTS = 20;
const PATIENCE_MS = 15_000;
const RECIPES = [gatehouseSqlite, gatehouseStatic, nginxAuthRequest, haproxyAcl, caddyForwardAuth];

interface Subject {
  readonly prepared: Prepared;
  readonly acceptsMs: number[];
  readonly answersMs: number[];
}

export async function run(lab: Lab): Promise<void> {
  const upstream = await startFixedUpstream(lab);
  const subjects: Subject[] = [];
  for (const recipe of RECIPES) {
    const prepared = await recipe(lab, { upstreamPort: upstream.port });
    if (prepared !== null) subjects.push({ prepared, acceptsMs: [], answersMs: [] });
  }
  // The first start reads the executable from disk and is not counted.
  for (let count = -1; count < STARTS; count += 1) {
    for (const { prepared, acceptsMs, answersMs } of subjects) {
      const times = await timeStart(prepared);
      if (count < 0) continue;
      acceptsMs.push(times.acceptsMs);
      answersMs.push(times.answersMs);
    }
  }
  await Promise.all(subjects.flatMap(({ prepared }) => prepared.helpers.map((one) => one.stop())));
  await upstream.service.stop();
  report(subjects);
}

async function timeStart(prepared: Prepared): Promise<{ acceptsMs: number; answersMs: number }> {
  const startMs = performance.now();
  const service = prepared.start();
  try {
    await firstConnection(prepared, startMs);
    const acceptsMs = performance.now() - startMs;
    const { status } = await askOnce(prepared, rawRequest("/healthz", null));
    if (status !== 200) throw new Error(`${prepared.name}: /healthz gave ${status}`);
    return { acceptsMs, answersMs: performance.now() - startMs };
  } finally {
    await service.stop();
  }
}

async function firstConnection(prepared: Prepared, startMs: number): Promise<void> {
  for (;;) {
    try {
      const { port } = prepared;
      const socket = await Bun.connect({ hostname: "127.0.0.1", port, socket: { data() {} } });
      socket.end();
      return;
    } catch {
      if (performance.now() - startMs > PATIENCE_MS) throw new Error(`${prepared.name}: no start`);
      await Bun.sleep(1);
    }
  }
}

function report(subjects: readonly Subject[]): void {
  console.log(`${STARTS} starts in turn, the executables in the page cache`);
  console.log("median (lowest-highest); ratio: its time to the first line's\n");
  const first = subjects[0];
  if (first === undefined) return;
  printTable(
    ["contender", "ratio", "200 on /healthz after ms", "accepts after ms"],
    subjects.map(({ prepared, acceptsMs, answersMs }) => [
      prepared.name,
      median(ratios(answersMs, first.answersMs)).toFixed(2),
      spread(answersMs, 1),
      spread(acceptsMs, 1),
    ]),
  );
  printTarget("from start to 200 on /healthz, median", 50, median(first.answersMs), " ms");
}
