/**
 * What a token of an issuer costs: cold (its signature is checked), warm (it was), and refused, beside `jose` alone.
 *
 * Invariant: all measurements of a run take turns in one process, so what slows the machine down slows all. Tokens
 * and requests are made before the clock starts; a token that is to be cold was never shown before.
 */
import { cpuUsage } from "node:process";
import {
  type CryptoKey,
  createLocalJWKSet,
  exportJWK,
  generateKeyPair,
  type JWK,
  jwtVerify,
  SignJWT,
} from "jose";
import plugin from "../plugins/oidc/index.ts";
import { systemClock } from "../src/clock.ts";
import type { AuthRequest, Outcome, StrategyInstance } from "../src/contract/gatehouse.ts";
import { createHost, lazyDatabase } from "../src/host.ts";
import { createHostFetch } from "../src/host-fetch.ts";
import { type Lab, printTable, ratios, spread } from "./support.ts";

const ALGORITHMS = ["RS256", "ES256", "EdDSA"];
const ROUNDS = 11;
const WARM = 20_000;
/** Distinct tokens that are warm. */
const HELD = 5000;
const COLD = 400;
const TOGETHER = 64;
const AUDIENCE = "https://api.example.com";

interface Subject {
  readonly alg: string;
  readonly strategy: StrategyInstance;
  readonly peer: (token: string) => Promise<unknown>;
  readonly sign: (subject: string, kid?: string) => Promise<string>;
  readonly warm: readonly string[];
  /** Microseconds a token, one number a round. */
  readonly times: Record<
    "warm" | "cold" | "together" | "cpu" | "peer" | "forged" | "unknown",
    number[]
  >;
  close(): Promise<void>;
}

export async function run(lab: Lab): Promise<void> {
  const subjects: Subject[] = [];
  try {
    for (const alg of ALGORITHMS) subjects.push(await build(lab, alg));
    for (let round = -2; round < ROUNDS; round += 1) {
      for (const subject of subjects) await measure(subject, round);
    }
    report(subjects);
  } finally {
    for (const subject of subjects) await subject.close();
  }
}

async function build(lab: Lab, alg: string): Promise<Subject> {
  const { publicKey, privateKey } = await generateKeyPair(alg);
  const jwk: JWK = { ...(await exportJWK(publicKey)), kid: "bench", alg, use: "sig" };
  const server = Bun.serve({
    hostname: "127.0.0.1",
    port: 0,
    fetch: () => Response.json({ keys: [jwk] }),
  });
  const issuer = `http://127.0.0.1:${server.port}`;
  const directory = lab.makeDirectory(`oidc-${alg}`);
  const ending = new AbortController();
  const outside = createHostFetch(ending.signal);
  const host = createHost("login", {
    log: { debug() {}, info() {}, warn() {}, error() {} },
    clock: systemClock,
    stateDir: directory,
    configDir: directory,
    env: {},
    database: lazyDatabase(directory, systemClock),
    signal: ending.signal,
    fetch: outside.fetch,
  });
  const settings = plugin.config.parse({ issuer, audience: AUDIENCE, jwks_url: `${issuer}/keys` });
  const strategy = await plugin.init(settings, host);
  const sign = signer(privateKey, alg, issuer);
  const warm = await Promise.all(Array.from({ length: HELD }, (_, n) => sign(`held-${n}`)));
  const keys = createLocalJWKSet({ keys: [jwk] });
  return {
    alg,
    strategy,
    peer: (token) => jwtVerify(token, keys, { algorithms: [alg], issuer, audience: AUDIENCE }),
    sign,
    warm,
    times: { warm: [], cold: [], together: [], cpu: [], peer: [], forged: [], unknown: [] },
    async close() {
      await strategy.close?.();
      ending.abort();
      outside.close();
      await server.stop(true);
    },
  };
}

/** About as large as an access token with a few claims is. */
function signer(key: CryptoKey, alg: string, issuer: string): Subject["sign"] {
  const exp = Math.floor(Date.now() / 1000) + 3600;
  return (subject, kid = "bench") =>
    new SignJWT({
      preferred_username: subject,
      email: `${subject}@example.com`,
      email_verified: true,
      scope: "openid profile email read write",
      groups: ["staff", "engineering", "on-call"],
      azp: "web",
      jti: crypto.randomUUID(),
    })
      .setProtectedHeader({ alg, kid, typ: "at+jwt" })
      .setIssuer(issuer)
      .setAudience(AUDIENCE)
      .setSubject(subject)
      .setExpirationTime(exp)
      .sign(key);
}

async function measure(subject: Subject, round: number): Promise<void> {
  const fresh = (name: string, kid?: string): Promise<string[]> =>
    Promise.all(Array.from({ length: COLD }, (_, n) => subject.sign(`${name}-${round}-${n}`, kid)));
  const { strategy, times } = subject;
  const ask = (token: string) => strategy.authenticate(requestWith(token));
  // Cold ones of the round before may have taken the place of some.
  for (const token of subject.warm) await mustBe("accept", ask(token));
  const warm = warmRound(subject);
  const cold = await each(await fresh("cold"), (token) => mustBe("accept", ask(token)));
  const many = await fresh("together");
  const before = cpuUsage();
  const together = await atOnce(many, (token) => mustBe("accept", ask(token)));
  const { user, system } = cpuUsage(before);
  const peer = await each(await fresh("peer"), subject.peer);
  const forged = (await fresh("forged")).map((token) => `${token.slice(0, -12)}AAAAAAAAAAAA`);
  const forgedTime = await each(forged, (token) => mustBe("reject", ask(token)));
  const strangers = await fresh("unknown", "nobody");
  const unknown = await each(strangers, (token) => mustBe("reject", ask(token)));
  if (round < 0) return;
  times.warm.push(warm);
  times.cold.push(cold);
  times.together.push(together);
  times.cpu.push((user + system) / COLD);
  times.peer.push(peer);
  times.forged.push(forgedTime);
  times.unknown.push(unknown);
}

function warmRound({ warm, strategy }: Subject): number {
  const requests = Array.from({ length: WARM }, () =>
    requestWith(warm[Math.floor(Math.random() * warm.length)] ?? ""),
  );
  const startNs = Bun.nanoseconds();
  for (const request of requests) {
    const outcome = strategy.authenticate(request);
    if (outcome instanceof Promise || outcome.outcome !== "accept") throw new Error("not warm");
  }
  return (Bun.nanoseconds() - startNs) / WARM / 1000;
}

async function mustBe(wanted: string, asked: Outcome | Promise<Outcome>): Promise<void> {
  const outcome = await asked;
  if (outcome.outcome !== wanted) throw new Error(`a wrong answer: ${outcome.outcome}`);
}

async function each(tokens: readonly string[], work: (token: string) => Promise<unknown>) {
  const startNs = Bun.nanoseconds();
  for (const token of tokens) await work(token);
  return (Bun.nanoseconds() - startNs) / tokens.length / 1000;
}

async function atOnce(tokens: readonly string[], work: (token: string) => Promise<unknown>) {
  let next = 0;
  const startNs = Bun.nanoseconds();
  const caller = async (): Promise<void> => {
    for (;;) {
      const token = tokens[next];
      next += 1;
      if (token === undefined) return;
      await work(token);
    }
  };
  await Promise.all(Array.from({ length: TOGETHER }, caller));
  return (Bun.nanoseconds() - startNs) / tokens.length / 1000;
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

function report(subjects: readonly Subject[]): void {
  const size = subjects.map(({ alg, warm }) => `${alg} ${warm[0]?.length}`).join(", ");
  console.log(`${ROUNDS} rounds in turn; µs a token; median (lowest-highest)`);
  console.log(`characters a token: ${size}; ${HELD} tokens are warm\n`);
  printTable(
    [
      "",
      "warm",
      "cold",
      `cold, ${TOGETHER} at once`,
      "their CPU",
      "jose alone",
      "forged",
      "unknown key",
    ],
    subjects.map(({ alg, times }) => [
      alg,
      spread(times.warm, 2),
      spread(times.cold, 0),
      spread(times.together, 0),
      spread(times.cpu, 0),
      spread(times.peer, 0),
      spread(times.forged, 0),
      spread(times.unknown, 0),
    ]),
  );
  for (const { alg, times } of subjects) {
    console.log(`${alg}, cold : jose alone: ${spread(ratios(times.cold, times.peer), 2)}`);
  }
  console.log("");
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
