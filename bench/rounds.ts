/**
 * CPU time per request, in rounds: A B C, A B C, …
 *
 * Invariant: contenders take turns within a round, so that a slow moment of the machine hits all of them, and
 * ratios are taken within a round. One wrong answer and there is no number.
 */
import { type Contender, loadTarget, WrongAnswer } from "./contenders.ts";
import { Load } from "./load.ts";
import { cpuMs } from "./support.ts";

export interface RoundOptions {
  readonly rounds: number;
  /** Of each contender in each round. */
  readonly requests: number;
  readonly connections: number;
}

/** What was measured of one contender, a number a round. */
export interface Measured {
  readonly name: string;
  readonly cpuUs: number[];
  readonly perSecond: number[];
  readonly medianMs: number[];
  readonly p99Ms: number[];
}

export const ROUNDS: RoundOptions = { rounds: 7, requests: 20_000, connections: 64 };

export async function measureRounds(
  contenders: readonly Contender[],
  options: RoundOptions = ROUNDS,
): Promise<Measured[]> {
  const load = new Load();
  const measured = contenders.map(
    ({ name }): Measured => ({ name, cpuUs: [], perSecond: [], medianMs: [], p99Ms: [] }),
  );
  try {
    // The first rounds warm the compilers and the connections and are not counted.
    for (let round = -2; round < options.rounds; round += 1) {
      for (const [index, contender] of contenders.entries()) {
        await load.open(loadTarget(contender, options.connections));
        const pids = contender.all();
        const before = cpuMs(pids);
        const result = await load.go(options.requests);
        const usedMs = cpuMs(pids) - before;
        if (result.wrong > 0) {
          throw new WrongAnswer(`${contender.name}: ${result.wrong} wrong: ${result.complaint}`);
        }
        if (round < 0) continue;
        measured[index]?.cpuUs.push((usedMs * 1000) / result.requests);
        measured[index]?.perSecond.push(result.requests / result.seconds);
        measured[index]?.medianMs.push(result.medianMs);
        measured[index]?.p99Ms.push(result.p99Ms);
      }
    }
    return measured;
  } finally {
    await load.close();
  }
}
