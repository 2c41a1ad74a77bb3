/**
 * What the access log costs: the same gateway with `logging.access` off and on, beside nginx with its own.
 *
 * Invariant: both write to a file in the same directory; nothing else differs.
 */
import {
  gatehouseStatic,
  nginxAuthRequest,
  type Options,
  type Recipe,
  startAll,
  startFixedUpstream,
  stopAll,
} from "./contenders.ts";
import { measureRounds } from "./rounds.ts";
import { type Lab, median, printTable, ratios, spread } from "./support.ts";

export async function run(lab: Lab): Promise<void> {
  const upstream = await startFixedUpstream(lab);
  const off = { upstreamPort: upstream.port, label: "log off" };
  const on = { upstreamPort: upstream.port, label: "log on", hasAccessLog: true };
  await comparePairs(lab, [gatehouseStatic, nginxAuthRequest], off, on);
  await upstream.service.stop();
}

/** Each recipe in two ways, all in turn; what the second way adds to the first. */
export async function comparePairs(
  lab: Lab,
  recipes: readonly Recipe[],
  plain: Options,
  changed: Options,
): Promise<void> {
  const wanted = recipes.flatMap((recipe) => [
    [recipe, plain] as const,
    [recipe, changed] as const,
  ]);
  const contenders = await startAll(lab, wanted);
  const measured = await measureRounds(contenders);
  await stopAll(contenders);
  console.log("median (lowest-highest); ratio: its CPU time to that of the line before\n");
  printTable(
    ["contender", "ratio", "CPU µs/request", "added µs", "requests/s"],
    measured.map((one, index) => {
      const before = index % 2 === 1 ? measured[index - 1] : undefined;
      const added = one.cpuUs.map((us, round) => us - (before?.cpuUs[round] ?? 0));
      return [
        one.name,
        before === undefined ? "" : spread(ratios(one.cpuUs, before.cpuUs), 2),
        spread(one.cpuUs, 1),
        before === undefined ? "" : spread(added, 1),
        median(one.perSecond).toFixed(0),
      ];
    }),
  );
}
