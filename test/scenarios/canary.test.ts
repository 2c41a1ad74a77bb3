/**
 * Canaries: a secret of its own is fed through every way in, and then looked for in everything that comes out: logs,
 * answers, state files, standard error (design section 11).
 *
 * Invariant: each way in has its own canary, so that a leak says which way it took. The one thing that may hold one
 * is the logged path, as docs/threat-model.md says, and a test here keeps that sentence true.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type Finished, runBinary, startBinary } from "../support/binary.ts";
import { describeBoth, type GatewayUnderTest, scratch } from "../support/gateway.ts";
import {
  eventually,
  OK_RESPONSE,
  openRaw,
  type RawUpstream,
  raw,
  rawUpstream,
} from "../support/raw.ts";

/** A canary with a name: long enough for a token, and recognisable in part. */
const canary = (name: string) => `canary-${name}-0123456789abcdef`;
const TOKEN = canary("valid");
const UPSTREAM_KEY = canary("upstream-key");
const ENV = { CANARY_TOKEN: TOKEN, CANARY_UPSTREAM: UPSTREAM_KEY };

/** The upstream under test does not see where a chunked body ends: one request per connection. */
const OK_AND_CLOSE = OK_RESPONSE.replace("\r\n", "\r\nConnection: close\r\n");

/** Quotes the credential wherever a plugin can say something. */
const TALKATIVE = `import { definePlugin, z } from "gatehouse";
export default definePlugin({
  name: "talkative",
  contract: 1,
  config: z.strictObject({}),
  init: () => ({
    credentialHeaders: ["x-said"],
    authenticate(request) {
      const said = request.headers.get("x-said");
      if (said === null) return { outcome: "absent" };
      if (said.includes("object")) throw { credential: said };
      if (said.includes("string")) throw said;
      const error = new Error("cannot check " + said);
      error.cause = new Error("because of " + said);
      if (said.includes("reject")) return Promise.reject(error);
      throw error;
    },
  }),
});
`;

const CONFIG = (upstream: string) => `version: 1
server: { listen: 127.0.0.1:0 }
logging: { level: debug }
strategies:
  ops: { use: static-env, env: CANARY_TOKEN }
  team: { use: bearer-sqlite }
  talkative: { use: ./talkative.ts }
upstreams:
  api:
    url: "http://${upstream}"
    headers: { authorization: "Bearer \${env:CANARY_UPSTREAM}" }
    max_body: 1KiB
routes:
  - { match: { path: /metrics }, access: [ops], surface: metrics }
  - { match: { path: /public/** }, access: public, upstream: api }
  - { match: { path: /** }, access: [talkative, ops, team], upstream: api }
`;

const get = (lines: string, target = "/x") => `GET ${target} HTTP/1.1\r\nHost: a\r\n${lines}\r\n`;
const post = (lines: string, body: string) =>
  `POST /public/x HTTP/1.1\r\nHost: a\r\n${lines}\r\n${body}`;
const base64 = (text: string) => Buffer.from(text).toString("base64");

/** Way in to bytes. Each holds \`canary(name)\`, plain or in base64. */
const WAYS: Readonly<Record<string, (secret: string) => string>> = {
  bearer: (secret) => get(`Authorization: Bearer ${secret}\r\n`),
  "bearer-that-looks-like-ours": (secret) =>
    get(`Authorization: Bearer gate_000000000000_${secret}\r\n`),
  "api-key": (secret) => get(`X-Api-Key: ${secret}\r\n`),
  malformed: (secret) => get(`Authorization: Bearer a ${secret}\r\n`),
  joined: (secret) => get(`Authorization: Bearer ${secret}, Bearer ${TOKEN}\r\n`),
  twice: (secret) => get(`Authorization: Bearer ${TOKEN}\r\nAuthorization: Bearer ${secret}\r\n`),
  oversized: (secret) => get(`Authorization: Bearer ${secret}${"x".repeat(9000)}\r\n`),
  scheme: (secret) => get(`Authorization: ${secret} x\r\n`),
  basic: (secret) => get(`Authorization: Basic ${base64(`user:${secret}`)}\r\n`),
  "proxy-authorization": (secret) => get(`Proxy-Authorization: Bearer ${secret}\r\n`),
  cookie: (secret) => get(`Cookie: session=${secret}\r\n`),
  "other-header": (secret) =>
    get(`X-Goog-Api-Key: ${secret}\r\nUser-Agent: ${secret}\r\nReferer: ${secret}\r\n`),
  "header-name": (secret) => get(`${secret}: x\r\n`),
  "identity-header": (secret) => get(`X-Gatehouse-Identity: ${secret}\r\n`),
  "request-id": (secret) => get(`X-Request-Id: ${secret}\r\n`),
  "forwarded-for": (secret) => get(`X-Forwarded-For: ${secret}\r\nX-Forwarded-Host: ${secret}\r\n`),
  expect: (secret) => get(`Expect: ${secret}\r\n`),
  "transfer-encoding": (secret) => get(`Transfer-Encoding: ${secret}\r\n`),
  "content-length": (secret) => get(`Content-Length: ${secret}\r\n`),
  query: (secret) => get("", `/x?q=${secret}`),
  "query-on-public": (secret) => get("", `/public/x?access_token=${secret}`),
  "access-token": (secret) => get("", `/x?access_token=${secret}`),
  "query-of-a-bad-path": (secret) => get("", `/x%00?token=${secret}`),
  fragment: (secret) => get("", `/x#${secret}`),
  "user-info": (secret) => get("", `http://user:${secret}@a/x`),
  "unread-head": (secret) => `GET /x HTTP/1.1\r\nHost: a\r\nX: ${secret}\0\r\n\r\n`,
  "unread-line": (secret) => `${secret} /x HTTP/1.1\r\nHost: a\r\n\r\n`,
  "bad-method": (secret) => `get_${secret} /x HTTP/1.1\r\nHost: a\r\n\r\n`,
  "bad-version": (secret) => `GET /x HTTP/${secret}\r\nHost: a\r\n\r\n`,
  body: (secret) => post(`Content-Length: ${secret.length}\r\n`, secret),
  "refused-body": (secret) => get(`Content-Length: ${secret.length}\r\n`) + secret,
  "chunk-extension": (secret) =>
    post("Transfer-Encoding: chunked\r\n", `1;${secret}\r\na\r\n0\r\n\r\n`),
  trailer: (secret) => post("Transfer-Encoding: chunked\r\n", `0\r\nX-Secret: ${secret}\r\n\r\n`),
  "broken-body": (secret) => post("Transfer-Encoding: chunked\r\n", `${secret}\r\n`),
  "too-large-body": (secret) => post("Content-Length: 100000\r\n", secret),
  subprotocol: (secret) =>
    get(
      `Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: ${secret}\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n`,
    ),
  fault: (secret) => get(`X-Said: ${secret}\r\n`),
  "fault-reject": (secret) => get(`X-Said: ${secret}\r\n`),
  "fault-string": (secret) => get(`X-Said: ${secret}\r\n`),
  "fault-object": (secret) => get(`X-Said: ${secret}\r\n`),
};

/** What an upstream may say that ends as 502; it quotes what it was sent. */
const UPSTREAM_FAULTS = [
  "HTTP/1.1 200 %\0\r\n\r\n",
  "% nonsense\r\n\r\n",
  "HTTP/1.1 200 OK\r\nX-A: %\nX: b\r\n\r\n",
];

/**
 * Every file below a directory, as latin1. Read by another process: to close a file of SQLite's drops the locks that
 * this process holds on it (sqlite.org/howtocorrupt.html, 2.2), and a revocation would then not be seen.
 */
function bytesBelow(dir: string): string {
  const found = Bun.spawnSync(["find", dir, "-type", "f", "-exec", "cat", "{}", "+"]);
  expect([found.exitCode, found.stdout.length > 1000]).toEqual([0, true]);
  return found.stdout.toString("latin1");
}

/** The canaries in a text, whole or in base64 as they were sent. */
function canariesIn(text: string): string[] {
  const found = new Set(text.match(/canary-[a-z-]*0123456789/g));
  for (const name of Object.keys(WAYS)) {
    if (text.includes(base64(`user:${canary(name)}`))) found.add(`base64 of ${name}`);
  }
  return [...found];
}

/** Feeds every way in; the result is everything that came back, with the way named where a canary did. */
async function feed(address: string, upstream: RawUpstream): Promise<string[]> {
  const leaks: string[] = [];
  const ask = async (name: string, bytes: string): Promise<void> => {
    const connection = await openRaw(address);
    connection.send(bytes);
    const answer = await connection.read({
      until: (text) => /\r\n\r\n(?:ok|\{.*\}\n)$/s.test(text),
    });
    connection.kill();
    if (answer.statuses.length === 0) leaks.push(`${name}: no answer`);
    if (canariesIn(answer.text).length > 0) leaks.push(`${name}: ${answer.text}`);
  };
  upstream.respond = (_, write) => write(OK_AND_CLOSE);
  for (const [name, bytes] of Object.entries(WAYS)) await ask(name, bytes(canary(name)));
  await ask("valid", get(`Authorization: Bearer ${TOKEN}\r\n`));
  await ask("valid api key", get(`X-Api-Key: ${TOKEN}\r\n`));
  for (const fault of UPSTREAM_FAULTS) {
    upstream.respond = ({ head }, write) =>
      write(fault.replace("%", head.match(/canary-[\w-]+/)?.[0] ?? ""));
    await ask("upstream fault", get(`X-Echo: ${canary("echo")}\r\n`, "/public/x"));
  }
  upstream.respond = (_, write) => write(OK_AND_CLOSE);
  return leaks;
}

/** What Prometheus would read, once it has something to say. */
async function metricsOf(address: string): Promise<string> {
  const fields = `Authorization: Bearer ${TOKEN}\r\nConnection: close\r\n`;
  const { statuses, text } = await raw(address, get(fields, "/metrics"));
  expect(statuses).toEqual([200]);
  expect(text).toMatch(/^gatehouse_auth_decisions_total\{.+\} [1-9]/m);
  return text;
}

async function createToken(configFile: string): Promise<string> {
  const made = await runBinary(
    ["token", "create", "-c", configFile, "--name", "laptop", "--strategy", "team"],
    { env: ENV },
  );
  expect([made.code, made.stderr.includes(made.stdout.trim())]).toEqual([0, false]);
  return made.stdout.trim();
}

describeBoth("canaries", (start) => {
  let upstream: RawUpstream;
  let gateway: GatewayUnderTest;
  beforeAll(async () => {
    upstream = rawUpstream();
    gateway = await start({
      config: CONFIG(upstream.address),
      env: ENV,
      files: { "talkative.ts": TALKATIVE },
    });
  });
  afterAll(async () => {
    upstream.stop();
    await gateway.stop();
  });

  test("none comes back in an answer, gets into the log, the metrics or the state directory", async () => {
    expect(await feed(gateway.address, upstream)).toEqual([]);
    const marker = await raw(gateway.address, get("Connection: close\r\n", "/public/last"));
    expect(marker.statuses).toEqual([200]);
    await eventually("the last one is logged", () => gateway.logs().includes("/public/last"));
    expect(canariesIn(gateway.logs())).toEqual([]);
    expect(canariesIn(await metricsOf(gateway.address))).toEqual([]);
    expect(canariesIn(bytesBelow(join(gateway.dir, "state")))).toEqual([]);
  });

  test("a token that we made is in no log and no file, valid, mistyped or revoked", async () => {
    const token = await createToken(gateway.configFile);
    const [, id = "", secret = ""] = token.split("_");
    const use = (text: string) =>
      raw(gateway.address, get(`Authorization: Bearer ${text}\r\nConnection: close\r\n`));
    expect((await use(token)).statuses).toEqual([200]);
    expect((await use(`${token.slice(0, -1)}${token.endsWith("a") ? "b" : "a"}`)).statuses).toEqual(
      [401],
    );
    const revoked = await runBinary(["token", "revoke", id, "-c", gateway.configFile], {
      env: ENV,
    });
    expect(revoked.code).toBe(0);
    expect((await use(token)).statuses).toEqual([401]);
    await eventually("it is logged", () => gateway.logs().includes("token_revoked"));
    expect(gateway.logs()).toContain(id);
    const metrics = await metricsOf(gateway.address);
    expect(metrics).toContain('reason="token_revoked"');
    for (const one of [id, "laptop", "127.0.0.1"]) expect(metrics).not.toContain(one);
    const everything =
      metrics +
      gateway.logs() +
      bytesBelow(join(gateway.dir, "state")) +
      revoked.stdout +
      revoked.stderr;
    expect(secret.length).toBeGreaterThan(30);
    expect(everything.includes(secret.slice(0, 20))).toBe(false);
    expect(everything.includes(secret.slice(-20))).toBe(false);
  });

  test("a path segment is logged as it is: the documented limit, and the only one", async () => {
    const secret = canary("path");
    const answer = await raw(gateway.address, get("Connection: close\r\n", `/private/${secret}`));
    expect(answer.statuses).toEqual([401]);
    expect(answer.text).not.toContain(secret);
    await eventually("it is logged", () => gateway.logs().includes(secret));
    const lines = gateway
      .logs()
      .split("\n")
      .filter((line) => line.includes(secret));
    expect(canariesIn(await metricsOf(gateway.address))).toEqual([]);
    for (const line of lines) expect(JSON.parse(line).path).toBe(`/private/${secret}`);
    const model = readFileSync(join(import.meta.dir, "../../docs/threat-model.md"), "utf8");
    expect(model).toMatch(/path of a request is logged \(never its query\)/);
  });
});

describe("canaries and the executable", () => {
  test("nothing reaches standard error, in text logs and with GATEHOUSE_DEBUG", async () => {
    const dir = scratch();
    const upstream = rawUpstream();
    const file = join(dir, "gatehouse.yaml");
    writeFileSync(file, CONFIG(upstream.address), { mode: 0o600 });
    writeFileSync(join(dir, "talkative.ts"), TALKATIVE, { mode: 0o600 });
    const env = { ...ENV, GATEHOUSE_DEBUG: "1" };
    const running = await startBinary(["serve", "-c", file], { cwd: dir, env });
    expect(await feed(running.address, upstream)).toEqual([]);
    const finished = await running.stop();
    upstream.stop();
    expect(finished.code).toBe(0);
    expect(canariesIn(finished.stdout + finished.stderr)).toEqual([]);
    expect(finished.stderr).toBe("");
  });

  /** Each is wrong in its own way and holds a canary where the mistake is. */
  const MISTAKES: Readonly<Record<string, string>> = {
    "a literal secret in a header":
      'upstreams: { api: { url: "http://127.0.0.1:1", headers: { authorization: "Bearer CANARY" } } }',
    "a secret in a URL": 'upstreams: { api: { url: "http://user:CANARY@127.0.0.1:1" } }',
    "a secret instead of a variable's name":
      "strategies: { ops: { use: static-env, env: CANARY } }",
    "an unset variable beside a secret":
      'upstreams: { api: { url: "http://127.0.0.1:1", headers: { x-key: "CANARY ${env:UNSET_HERE}" } } }',
    "a secret of the wrong shape in a variable":
      'upstreams: { api: { url: "http://127.0.0.1:1", headers: { x-key: "${env:CANARY_BROKEN}" } } }',
    "a secret that is too short, from a variable":
      "strategies: { ops: { use: static-env, env: CANARY_SHORT } }",
    "a secret for a setting that does not take one":
      'strategies: { ops: { use: static-env, env: CANARY_TOKEN, role: "${env:CANARY_TOKEN}" } }',
  };
  const secret = canary("mistake");
  const env = { ...ENV, CANARY_BROKEN: `${secret}\nX-Evil: 1`, CANARY_SHORT: secret.slice(0, 12) };
  const said = ({ stdout, stderr }: Finished) => stdout + stderr;

  test.each(Object.entries(MISTAKES))("%s is refused without a word of it", async (_, text) => {
    const dir = scratch();
    const file = join(dir, "gatehouse.yaml");
    const rest = text.startsWith("upstreams") ? "strategies: {}" : "upstreams: {}";
    const routes = "routes: [{ match: { path: /x }, access: public }]";
    writeFileSync(
      file,
      `version: 1\n${text.replace("CANARY@", `${secret}@`).replace(/CANARY(?![_@])/, secret)}\n${rest}\n${routes}\n`,
      { mode: 0o600 },
    );
    for (const command of [["serve"], ["config", "validate"], ["config", "validate", "--json"]]) {
      const finished = await runBinary([...command, "-c", file], { cwd: dir, env });
      expect(finished.code).toBe(78);
      expect(canariesIn(said(finished))).toEqual([]);
      expect(said(finished)).not.toContain(secret.slice(0, 12));
    }
  });

  test("config show keeps references and shows no value", async () => {
    const dir = scratch();
    const file = join(dir, "gatehouse.yaml");
    writeFileSync(file, CONFIG("127.0.0.1:1"), { mode: 0o600 });
    writeFileSync(join(dir, "talkative.ts"), TALKATIVE, { mode: 0o600 });
    for (const more of [[], ["--json"]]) {
      const finished = await runBinary(["config", "show", "-c", file, ...more], { cwd: dir, env });
      expect(finished.code).toBe(0);
      expect(finished.stdout).toContain("${env:CANARY_UPSTREAM}");
      expect(canariesIn(said(finished))).toEqual([]);
    }
  });

  test.each([
    [["token", "import", secret]],
    [["token", "import", "--token", secret]],
    [["token", `--token=${secret}`]],
    [["token", "create", "--name", "x", secret]],
    [["serve", "--secret", secret]],
    [["serve", secret]],
    [[secret]],
    [[`--token=${secret}`]],
    [["healthcheck", "--url", `http://user:${secret}@127.0.0.1:1/`]],
  ])("a secret in the arguments is refused and not repeated: %j", async (args) => {
    const finished = await runBinary(args, { cwd: scratch(), env });
    expect(finished.code).not.toBe(0);
    expect(canariesIn(said(finished))).toEqual([]);
  });
});
