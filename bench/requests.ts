/**
 * What an authenticated, proxied request costs the gateway, beside its peers: CPU time at 64 connections.
 *
 * Invariant: CPU time of all processes that a contender needs (for `auth_request` and `forward_auth` also the auth
 * service), read from the kernel around each round; throughput is only shown, because load and upstream share the
 * machine.
 */
import {
  bareProxy,
  caddyAllThreads,
  caddyDefaults,
  caddyForwardAuth,
  gatehouseSqlite,
  gatehouseStatic,
  haproxyAcl,
  nginxAuthRequest,
  nginxMap,
  startAll,
  startFixedUpstream,
  stopAll,
} from "./contenders.ts";
import { type Measured, measureRounds, ROUNDS } from "./rounds.ts";
import { type Lab, median, printTable, printTarget, ratios, spread } from "./support.ts";

export async function run(lab: Lab): Promise<void> {
  const upstream = await startFixedUpstream(lab);
  const options = { upstreamPort: upstream.port };
  const recipes = [
    gatehouseSqlite,
    gatehouseStatic,
    nginxAuthRequest,
    nginxMap,
    haproxyAcl,
    caddyForwardAuth,
    caddyAllThreads,
    caddyDefaults,
    bareProxy,
  ];
  const contenders = await startAll(
    lab,
    recipes.map((recipe) => [recipe, options]),
  );
  const measured = await measureRounds(contenders);
  await stopAll(contenders);
  await upstream.service.stop();
  report(measured);
}

function report(measured: readonly Measured[]): void {
  console.log(
    `${ROUNDS.rounds} rounds in turn, ${ROUNDS.requests} requests each, ${ROUNDS.connections} connections, answer of 165 bytes`,
  );
  console.log("median (lowest-highest); ratio: its CPU time to that of the first line\n");
  const first = measured[0];
  if (first === undefined) return;
  printTable(
    ["contender", "ratio", "CPU µs/request", "requests/s", "p50 ms", "p99 ms"],
    measured.map((one) => [
      one.name,
      spread(ratios(one.cpuUs, first.cpuUs), 2),
      spread(one.cpuUs, 1),
      median(one.perSecond).toFixed(0),
      median(one.medianMs).toFixed(1),
      median(one.p99Ms).toFixed(1),
    ]),
  );
  const ratioTo = (name: string): number | null => {
    const peer = measured.find((one) => one.name.startsWith(name));
    return peer === undefined ? null : median(ratios(first.cpuUs, peer.cpuUs));
  };
  printTarget(
    "CPU per request, Gatehouse : nginx auth_request + service",
    0.9,
    ratioTo("nginx auth_request"),
  );
  printTarget(
    "CPU per request, Gatehouse : Caddy forward_auth + service, one thread",
    0.2,
    ratioTo("Caddy forward_auth + service"),
  );
  printTarget(
    "CPU per request, Gatehouse : Caddy forward_auth + service, all threads",
    0.2,
    ratioTo("Caddy forward_auth + service, all"),
  );
  printTarget(
    "CPU per request, Gatehouse : Caddy forward_auth + service, its defaults",
    0.2,
    ratioTo("Caddy forward_auth + service, its"),
  );
}
