/**
 * What the answer to a proxy's forward-auth question costs, beside the cheapest answer that this runtime can give:
 * CPU time at 64 connections, tokens in Valkey, answers from the warm cache.
 *
 * Invariant: everybody is sent the same bytes; the bare service looks at one header and nothing else.
 */
import { randomBytes } from "node:crypto";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { type Prepared, type Question, startContender, stopAll } from "./contenders.ts";
import { type Measured, measureRounds, ROUNDS } from "./rounds.ts";
import {
  freePort,
  installed,
  type Lab,
  listening,
  median,
  printTable,
  printTarget,
  ratios,
  type Service,
  spread,
  startScript,
  startService,
} from "./support.ts";

const SALT = "5a".repeat(32);
const KEYS = 64;

/** As Traefik asks about a request for a model list. */
const QUESTION: Question = {
  request(key) {
    const credential = key === null ? "" : `Authorization: Bearer ${key}\r\n`;
    return `GET /auth/traefik HTTP/1.1\r\nHost: gate.example\r\nUser-Agent: bench\r\nAccept: */*\r\n${credential}X-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Host: llm.example.com\r\nX-Forwarded-Method: GET\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Uri: /v1/models\r\n\r\n`;
  },
  body: "",
};

export async function run(lab: Lab): Promise<void> {
  const valkey = await startValkey(lab);
  if (valkey === null) {
    console.log("not measured: no valkey-server (apt-get install valkey-server or redis-server)\n");
    return;
  }
  const key = newKey();
  const recipes = [
    await bare(lab, key),
    await gatehouse(lab, {
      label: "static-env",
      strategy: "{ use: static-env, env: KEY }",
      keys: [key],
    }),
    await withTokens(lab, valkey.port, 0, 100),
    await withTokens(lab, valkey.port, 1, 100_000),
    await withTokens(lab, valkey.port, 0, 0, "own access, "),
  ];
  const contenders = [];
  for (const recipe of recipes) contenders.push(await startContender(recipe));
  const measured = await measureRounds(contenders);
  await stopAll(contenders);
  await valkey.service.stop();
  report(measured);
}

const newKey = (): string => `sk-bench-${randomBytes(24).toString("hex")}`;

async function startValkey(lab: Lab): Promise<{ port: number; service: Service } | null> {
  const program = installed("valkey-server") ?? installed("redis-server");
  if (program === null) return null;
  const port = await freePort();
  const options = ["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"];
  const service = startService(lab, "valkey", [program, "--port", String(port), ...options]);
  await listening(port, service);
  return { port, service };
}

async function bare(lab: Lab, key: string): Promise<Prepared> {
  const port = await freePort();
  return {
    name: "bare Bun.serve",
    port,
    isTls: false,
    keys: [key],
    question: QUESTION,
    helpers: [],
    start: () => startScript(lab, "auth-service.ts", { PORT: String(port), KEY: key }),
  };
}

interface Made {
  readonly label: string;
  readonly strategy: string;
  readonly keys: readonly string[];
  readonly check?: string;
}

async function gatehouse(lab: Lab, { label, strategy, keys, check }: Made): Promise<Prepared> {
  const port = await freePort();
  const directory = lab.makeDirectory(`forward-auth-${port}`);
  const config = join(directory, "config.yaml");
  writeFileSync(
    config,
    `version: 1
server: { listen: "127.0.0.1:${port}", trusted_proxies: [127.0.0.1/32] }
strategies: { keys: ${strategy} }
logging: { access: false }
routes:
  - { match: { path: /auth/traefik }, ${check ?? "check: traefik"} }
  - { match: { path: /v1/** }, access: [keys], upstream: proxy }
`,
  );
  const env = { KEY: keys[0] ?? "", SALT };
  return {
    name: `Gatehouse, ${label}`,
    port,
    isTls: false,
    keys,
    question: QUESTION,
    helpers: [],
    start: () =>
      startService(lab, label, [lab.gatehouse, "serve", "-c", config], { cwd: directory, env }),
  };
}

/** So many tokens in one database of Valkey; each connection presents one of its own. */
async function withTokens(
  lab: Lab,
  port: number,
  database: number,
  count: number,
  which = "",
): Promise<Prepared> {
  const strategy = `{ use: valkey-hash, url: "redis://127.0.0.1:${port}/${database}", salt: "\${env:SALT}" }`;
  const keys = Array.from({ length: KEYS }, newKey);
  const all = [...keys, ...Array.from({ length: Math.max(0, count - KEYS) }, newKey)];
  await load(lab, strategy, all);
  const label = `valkey-hash, ${which}${count === 0 ? 164 : count} tokens`;
  const check = which === "" ? {} : { check: "access: [keys], check: traefik" };
  return gatehouse(lab, { label, strategy, keys, ...check });
}

async function load(lab: Lab, strategy: string, tokens: readonly string[]): Promise<void> {
  const directory = lab.makeDirectory(`import-${tokens[0]?.slice(-8)}`);
  const config = join(directory, "config.yaml");
  const route = "{ match: { path: /** }, access: [keys], upstream: proxy }";
  writeFileSync(config, `version: 1\nstrategies: { keys: ${strategy} }\nroutes: [${route}]\n`);
  const lines = tokens.map((token, n) =>
    JSON.stringify({ token, name: `token ${n}`, owner: "bench" }),
  );
  const command = [lab.gatehouse, "token", "import", "--json-lines", "-c", config];
  const child = Bun.spawn(command, {
    cwd: directory,
    env: { SALT },
    stdin: Buffer.from(lines.join("\n")),
    stdout: "ignore",
    stderr: "pipe",
  });
  const said = await new Response(child.stderr).text();
  if ((await child.exited) !== 0) throw new Error(`token import: ${said}`);
}

function report(measured: readonly Measured[]): void {
  const [first, ...others] = measured;
  if (first === undefined) return;
  console.log(
    `${ROUNDS.rounds} rounds in turn, ${ROUNDS.requests} questions each, ${ROUNDS.connections} connections`,
  );
  console.log("median (lowest-highest); ratio: its CPU time to that of the first line\n");
  printTable(
    ["", "ratio", "CPU µs/question", "questions/s", "p50 ms", "p99 ms"],
    measured.map((one) => [
      one.name,
      spread(ratios(one.cpuUs, first.cpuUs), 2),
      spread(one.cpuUs, 1),
      median(one.perSecond).toFixed(0),
      median(one.medianMs).toFixed(1),
      median(one.p99Ms).toFixed(1),
    ]),
  );
  const [, few, many] = others;
  if (few === undefined || many === undefined) return;
  printTarget(
    "CPU per answer, warm cache : bare Bun.serve",
    1.6,
    median(ratios(few.cpuUs, first.cpuUs)),
  );
  printTarget("CPU per answer, 100,000 : 100 tokens", 1.1, median(ratios(many.cpuUs, few.cpuUs)));
}
