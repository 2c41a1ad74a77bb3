/**
 * What a NIP-98 signature costs: how many a second one thread verifies, beside `nostr-tools/pure`, and how long short
 * bearer requests take while a thousand signed requests a second are verified.
 *
 * Invariant: both verifiers see the same events in the same run, round by round in turn, each parsed fresh so that no
 * earlier answer is attached to it. Signed requests are made before the clock starts, and each is used once.
 */
import { randomBytes } from "node:crypto";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { npubEncode } from "nostr-tools/nip19";
import {
  finalizeEvent,
  generateSecretKey,
  getPublicKey,
  type NostrEvent,
  verifyEvent,
} from "nostr-tools/pure";
import { finalizeEvent as finalizeFast } from "nostr-tools/wasm";
import { findProof, type Proof } from "../plugins/nip98/proof.ts";
import { loadVerifier, type Verify } from "../plugins/nip98/signatures.ts";
import { startFixedUpstream } from "./contenders.ts";
import { rawRequest } from "./load.ts";
import type { PacedJob, PacedResult } from "./nip98-client.ts";
import {
  freePort,
  type Lab,
  listening,
  median,
  printTable,
  quantile,
  ratios,
  type Service,
  spread,
  startService,
} from "./support.ts";

const ROUNDS = 41;
const EVENTS_PER_ROUND = 150;

const LATENCY_ROUNDS = 5;
const SHORT_PER_SECOND = 200;
const SIGNED_PER_SECOND = 1000;
const SECONDS = 4;
const TOKEN = "bench-token-0123456789-abcdefghijklmnop";

const secret = generateSecretKey();
const pubkey = getPublicKey(secret);

/** Part of `npm run bench`. */
export async function run(lab: Lab): Promise<void> {
  const verify = await loadVerifier();
  reportThroughput(verify);
  await reportDelay(lab);
}

function tagsOf(method: string, url: string): string[][] {
  return [
    ["u", url],
    ["method", method],
    ["nonce", randomBytes(8).toString("hex")],
  ];
}

function reportThroughput(verify: Verify): void {
  const created_at = Math.floor(Date.now() / 1000);
  const texts = Array.from({ length: EVENTS_PER_ROUND }, () =>
    JSON.stringify(
      finalizeEvent(
        { kind: 27_235, created_at, tags: tagsOf("GET", "https://llm.example.com/"), content: "" },
        secret,
      ),
    ),
  );
  const wasm: number[] = [];
  const pure: number[] = [];
  for (let round = -3; round < ROUNDS; round += 1) {
    const ours = perSecond(texts.map(parsedProof), verify);
    const theirs = perSecond(texts.map(parsedEvent), verifyEvent);
    if (round < 0) continue;
    wasm.push(ours);
    pure.push(theirs);
  }
  console.log(`${ROUNDS} rounds in turn, ${EVENTS_PER_ROUND} events each, one thread\n`);
  printTable(
    ["verifier", "signatures/s"],
    [
      ["Gatehouse (nostr-tools/wasm)", spread(wasm, 0)],
      ["nostr-tools/pure", spread(pure, 0)],
    ],
  );
  const ratio = median(ratios(wasm, pure));
  const verdict = ratio >= 1.8 ? "met" : "missed";
  console.log(`target ratio >= 1.8: measured ${ratio.toFixed(2)}: ${verdict}\n`);
}

function parsedProof(text: string): Proof {
  const header = `Nostr ${Buffer.from(text).toString("base64")}`;
  const found = findProof({ get: () => header, all: () => [header] });
  if (found.found !== "one") throw new Error("an event was not read");
  return found.proof;
}

function parsedEvent(text: string): NostrEvent {
  const value: unknown = JSON.parse(text);
  return value as NostrEvent;
}

function perSecond<T>(events: readonly T[], verify: (event: T) => boolean): number {
  const start = Bun.nanoseconds();
  for (const event of events) if (!verify(event)) throw new Error("a good signature was refused");
  return events.length / ((Bun.nanoseconds() - start) / 1e9);
}

interface Row {
  readonly name: string;
  /** Requests beside the short ones; empty: none. */
  beside(port: number, count: number): readonly string[];
  readonly p50: number[];
  readonly p99: number[];
  readonly max: number[];
  readonly signedP99: number[];
}

async function reportDelay(lab: Lab): Promise<void> {
  const upstream = await startFixedUpstream(lab);
  const { port, service } = await startGatehouse(lab, upstream.port);
  const none = { p50: [], p99: [], max: [], signedP99: [] };
  const rows: Row[] = [
    { name: "alone", beside: () => [], ...structuredClone(none) },
    { name: "beside 1,000 bearer/s", beside: bearerRequests, ...structuredClone(none) },
    { name: "beside 1,000 signed GET/s", beside: signedRequests("GET"), ...structuredClone(none) },
    {
      name: "beside 1,000 signed POST/s",
      beside: signedRequests("POST"),
      ...structuredClone(none),
    },
  ];
  for (let round = -1; round < LATENCY_ROUNDS; round += 1) {
    for (const row of rows) await measure(row, port, round >= 0);
  }
  await service.stop();
  await upstream.service.stop();
  console.log(
    `${LATENCY_ROUNDS} rounds in turn of ${SECONDS} s, ${SHORT_PER_SECOND} short bearer requests/s; ms; median (lowest-highest)\n`,
  );
  printTable(
    ["short requests", "p50", "p99", "max", "the others' p99"],
    rows.map(({ name, p50, p99, max, signedP99 }) => [
      name,
      spread(p50, 2),
      spread(p99, 2),
      spread(max, 2),
      signedP99.length === 0 ? "-" : spread(signedP99, 2),
    ]),
  );
  const [, bearer, ...signed] = rows;
  for (const row of signed) {
    const added = median(row.p99) - median(bearer?.p99 ?? []);
    const verdict = added <= 5 ? "met" : "missed";
    console.log(
      `target: signature checks ${row.name} add <= 5 ms at p99: measured ${added.toFixed(2)} ms: ${verdict}`,
    );
  }
}

async function startGatehouse(
  lab: Lab,
  upstreamPort: number,
): Promise<{ port: number; service: Service }> {
  const port = await freePort();
  const directory = lab.makeDirectory("gatehouse-nip98");
  writeFileSync(
    join(directory, "config.yaml"),
    `version: 1
server: { listen: "127.0.0.1:${port}", public_url: http://gate.example }
strategies:
  nostr: { use: nip98, users: ["${npubEncode(pubkey)}"], max_age: 10m }
  team: { use: static-env, env: BENCH_KEY }
upstreams:
  app: { url: "http://127.0.0.1:${upstreamPort}" }
logging: { access: false }
routes:
  - match: { path: /** }
    access: [team, nostr]
    upstream: app
`,
  );
  const command = [lab.gatehouse, "serve", "-c", join(directory, "config.yaml")];
  const service = startService(lab, "gatehouse-nip98", command, {
    cwd: directory,
    env: { BENCH_KEY: TOKEN },
  });
  await listening(port, service);
  return { port, service };
}

function bearerRequests(_port: number, count: number): readonly string[] {
  return Array.from({ length: count }, () => rawRequest("/v1/models", TOKEN));
}

function signedRequests(method: string): Row["beside"] {
  return (_port, count) => {
    const created_at = Math.floor(Date.now() / 1000);
    return Array.from({ length: count }, () => {
      const tags = tagsOf(method, "http://gate.example/v1/models");
      const event = finalizeFast({ kind: 27_235, created_at, tags, content: "" }, secret);
      const value = Buffer.from(JSON.stringify(event)).toString("base64");
      const length = method === "GET" ? "" : "Content-Length: 0\r\n";
      return `${method} /v1/models HTTP/1.1\r\nHost: gate.example\r\n${length}Authorization: Nostr ${value}\r\nAccept: */*\r\n\r\n`;
    });
  };
}

async function measure(row: Row, port: number, isCounted: boolean): Promise<void> {
  const others = row.beside(port, SIGNED_PER_SECOND * SECONDS);
  const short = bearerRequests(port, SHORT_PER_SECOND * SECONDS);
  const [result, beside] = await Promise.all([
    paced({ port, perSecond: SHORT_PER_SECOND, connections: 8, requests: short }),
    others.length === 0
      ? null
      : paced({ port, perSecond: SIGNED_PER_SECOND, connections: 64, requests: others }),
  ]);
  if (!isCounted) return;
  row.p50.push(quantile(result.latenciesMs, 0.5));
  row.p99.push(quantile(result.latenciesMs, 0.99));
  row.max.push(Math.max(...result.latenciesMs));
  if (beside !== null) row.signedP99.push(quantile(beside.latenciesMs, 0.99));
}

/** In a process of its own, so that clients do not delay one another. */
async function paced(job: PacedJob): Promise<PacedResult> {
  const { promise, resolve, reject } = Promise.withResolvers<PacedResult>();
  const child = Bun.spawn([process.execPath, join(import.meta.dir, "nip98-client.ts")], {
    stdio: ["ignore", "inherit", "inherit"],
    ipc: (message: PacedResult) => resolve(message),
    onExit: () => reject(new Error("the client process ended")),
  });
  try {
    child.send(job);
    const result = await promise;
    if (result.wrong > 0) throw new Error(`${result.wrong} wrong answers: ${result.complaint}`);
    return result;
  } finally {
    child.kill();
    await child.exited;
  }
}
