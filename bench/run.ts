/**
 * `npm run bench [-- NAME...]`: every number that is said about Gatehouse's speed, beside its peers in the same run.
 *
 * Invariant: exit code 0 whatever the numbers are, 1 when a contender gave a wrong answer or could not be run.
 */

import { cpus, loadavg, release, totalmem } from "node:os";
import { join } from "node:path";
import { missingPeers } from "./contenders.ts";
import { run as forwardAuth } from "./forward-auth.ts";
import { run as logging } from "./logging.ts";
import { run as memory, runMillion as memoryMillion } from "./memory.ts";
import { run as nip98 } from "./nip98.ts";
import { run as oidc } from "./oidc.ts";
import { run as openStreams } from "./open-streams.ts";
import { run as requests } from "./requests.ts";
import { run as routstrd } from "./routstrd.ts";
import { run as start } from "./start.ts";
import { run as streams } from "./streams.ts";
import { canReadProcesses, installed, type Lab, openLab } from "./support.ts";
import { run as tls } from "./tls.ts";
import { run as valkeyHash } from "./valkey-hash.ts";

interface Bench {
  readonly name: string;
  readonly about: string;
  /** Reads CPU time or memory of other processes. */
  readonly isLinuxOnly: boolean;
  run(lab: Lab): Promise<void>;
}

const BENCHES: readonly Bench[] = [
  {
    name: "requests",
    about: "CPU time per authenticated, proxied request",
    isLinuxOnly: true,
    run: requests,
  },
  { name: "start", about: "from start to the first answer", isLinuxOnly: false, run: start },
  {
    name: "streams",
    about: "what is added to a streamed chunk",
    isLinuxOnly: false,
    run: streams,
  },
  {
    name: "open-streams",
    about: "short requests beside 2,000 open streams",
    isLinuxOnly: false,
    run: openStreams,
  },
  { name: "logging", about: "what the access log costs", isLinuxOnly: true, run: logging },
  { name: "tls", about: "what TLS costs", isLinuxOnly: true, run: tls },
  { name: "memory", about: "after 100,000 requests", isLinuxOnly: true, run: memory },
  {
    name: "memory-million",
    about: "after 1,000,000 requests; takes minutes",
    isLinuxOnly: true,
    run: memoryMillion,
  },
  {
    name: "valkey-hash",
    about: "a token kept in Valkey, warm and cold, among few and many",
    isLinuxOnly: false,
    run: valkeyHash,
  },
  {
    name: "forward-auth",
    about: "CPU time per answer to a proxy's question",
    isLinuxOnly: true,
    run: forwardAuth,
  },
  {
    name: "oidc",
    about: "a token of an issuer, cold, warm and refused, beside jose alone",
    isLinuxOnly: false,
    run: oidc,
  },
  {
    name: "token-lookup",
    about: "a token among a thousand and among a million",
    isLinuxOnly: false,
    run: runTokenLookup,
  },
  {
    name: "nip98",
    about: "signatures a second, and short requests beside a thousand of them",
    isLinuxOnly: false,
    run: nip98,
  },
  {
    name: "routstrd",
    about: "a client key among one and among ten thousand",
    isLinuxOnly: false,
    run: () => routstrd(),
  },
];

async function main(names: readonly string[]): Promise<number> {
  const unknown = names.filter((name) => !BENCHES.some((bench) => bench.name === name));
  if (unknown.length > 0) {
    console.error(`unknown: ${unknown.join(", ")}\n\nusage: npm run bench [-- NAME...]\n`);
    for (const { name, about } of BENCHES) console.error(`  ${name.padEnd(16)}${about}`);
    return 2;
  }
  const lab = openLab();
  let code = 0;
  try {
    describeMachine(lab);
    for (const bench of BENCHES) {
      if (names.length > 0 && !names.includes(bench.name)) continue;
      console.log(`\n## ${bench.name}: ${bench.about}\n`);
      console.log(
        `load average before: ${loadavg()[0]?.toFixed(1)} on ${cpus().length} processors`,
      );
      if (bench.isLinuxOnly && !canReadProcesses) {
        console.log("reads /proc, so it runs on Linux only");
        continue;
      }
      try {
        await bench.run(lab);
      } catch (error) {
        code = 1;
        console.error(`failed: ${error instanceof Error ? error.message : String(error)}`);
      }
    }
  } finally {
    await lab.close();
  }
  return code;
}

function describeMachine(lab: Lab): void {
  const [cpu] = cpus();
  const model = cpu?.model.trim() ?? "unknown processor";
  console.log(`${cpus().length} x ${model}, ${(totalmem() / 1e9).toFixed(0)} GB`);
  console.log(`${process.platform} ${release()} ${process.arch}, Bun ${Bun.version}`);
  console.log(firstLine([lab.gatehouse, "version"]));
  for (const [name, flag] of [
    ["nginx", "-v"],
    ["haproxy", "-v"],
    ["caddy", "version"],
  ] as const) {
    const program = installed(name);
    if (program === null) continue;
    const line = firstLine([program, flag]);
    console.log(line.toLowerCase().includes(name) ? line : `${name} ${line}`);
  }
  const missing = missingPeers();
  if (missing !== null) console.log(missing);
}

function firstLine(command: readonly string[]): string {
  const { stdout, stderr } = Bun.spawnSync([...command], { stderr: "pipe" });
  return `${stdout}${stderr}`.split("\n", 1)[0] ?? "";
}

async function runTokenLookup(): Promise<void> {
  const script = join(import.meta.dir, "token-lookup.ts");
  const child = Bun.spawn([process.execPath, script], { stdio: ["ignore", "inherit", "inherit"] });
  if ((await child.exited) !== 0) throw new Error("token-lookup.ts ended with an error");
}

process.exitCode = await main(process.argv.slice(2));
