/**
 * Two compiled gateways on one real Valkey: what is used up, revoked or lost at one counts at the other.
 *
 * Invariant: every refusal also means that the upstream saw nothing; the password of Valkey is in no output.
 */
import { afterAll, afterEach, beforeEach, describe, expect, test } from "bun:test";
import { createHash } from "node:crypto";
import { mkdirSync, mkdtempSync, readFileSync, realpathSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Finished, type Running, runBinary, startBinary } from "../support/binary.ts";
import { newKey, type SignedRequest, signed } from "../support/nostr.ts";
import { openRaw, type RawUpstream, rawUpstream } from "../support/raw.ts";
import { startValkey, type TestValkey, until, valkeyMissing } from "../support/valkey.ts";

const suite = valkeyMissing === null ? describe : describe.skip;
const PASSWORD = "canary-valkey-password-0123456789";
const ENV = { VALKEY_PASSWORD: PASSWORD, DEBUG: "*" };
const ORIGIN = "https://llm.example.com";
const ALICE = newKey();
const SSE =
  "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";

/** A gateway with a directory of its own. */
interface Gateway {
  readonly dir: string;
  readonly running: Running;
}

const said: string[] = [];
let valkey: TestValkey;
let upstream: RawUpstream;
let root: string;
let gateways: Gateway[] = [];

function config(more = ""): string {
  return `version: 1
server: { listen: "127.0.0.1:0", public_url: "${ORIGIN}" }
shared: { url: "${valkey.url}", password: "\${env:VALKEY_PASSWORD}", command_timeout: 1s }
strategies:
  nostr: { use: nip98, admins: ["${ALICE.npub}"] }
  team: { use: bearer-sqlite }
upstreams: { api: { url: "http://${upstream.address}" } }
routes: [{ match: { path: /** }, access: [nostr, team], upstream: api }]
${more}`;
}

function lay(name: string, text = config()): string {
  const dir = join(root, name);
  mkdirSync(join(dir, "state"), { recursive: true, mode: 0o700 });
  writeFileSync(join(dir, "gatehouse.yaml"), text, { mode: 0o600 });
  return dir;
}

async function start(name: string): Promise<Gateway> {
  const dir = lay(name);
  const args = ["serve", "-c", "gatehouse.yaml"];
  const gateway = { dir, running: await startBinary(args, { cwd: dir, env: ENV }) };
  gateways.push(gateway);
  return gateway;
}

async function end({ running }: Gateway, how: "stop" | "kill"): Promise<void> {
  const { stdout, stderr } = how === "stop" ? await running.stop() : await running.kill();
  said.push(stdout, stderr);
  gateways = gateways.filter((gateway) => gateway.running !== running);
}

async function cli(dir: string, ...args: string[]): Promise<Finished> {
  const finished = await runBinary([...args, "-c", "gatehouse.yaml"], { cwd: dir, env: ENV });
  said.push(finished.stdout, finished.stderr);
  return finished;
}

/** Two gateways, the second with a copy of the first one's tokens; and one such token. */
async function twins(): Promise<{ a: Gateway; b: Gateway; token: string }> {
  const made = await cli(lay("a"), "token", "create", "--name", "ci", "--strategy", "team");
  expect(made.code).toBe(0);
  mkdirSync(join(root, "b"));
  Bun.spawnSync(["cp", "-r", join(root, "a", "state"), join(root, "b", "state")]);
  const [a, b] = [await start("a"), await start("b")];
  return { a, b, token: made.stdout.trim() };
}

function proof(request: SignedRequest = {}): string {
  return signed(ALICE, { method: "POST", url: `${ORIGIN}/x`, ...request });
}

async function status({ running }: Gateway, authorization: string, method = "POST") {
  const answer = await fetch(`${running.url}/x`, { method, headers: { authorization } });
  said.push(await answer.text());
  return answer.status;
}

/** Until a fresh proof and the token pass. Gives how long it took. */
function works(gateway: Gateway, token: string): Promise<number> {
  return until(
    async () =>
      (await status(gateway, proof())) === 200 &&
      (await status(gateway, `Bearer ${token}`)) === 200,
  );
}

beforeEach(async () => {
  root = realpathSync(mkdtempSync(join(tmpdir(), "gatehouse-replicas-")));
  upstream = rawUpstream((request, write) => {
    if (request.line.includes("/sse")) write(SSE);
    else write("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
  });
  if (valkeyMissing === null) valkey = await startValkey(["--requirepass", PASSWORD]);
});
afterEach(async () => {
  for (const gateway of [...gateways]) await end(gateway, "kill");
  await valkey?.stop();
  upstream.stop();
  rmSync(root, { recursive: true, force: true });
});
afterAll(() => {
  if (valkeyMissing !== null) return;
  expect(said.join("").length).toBeGreaterThan(1000);
  expect(said.filter((text) => text.includes(PASSWORD))).toEqual([]);
});

suite(`replicas${valkeyMissing === null ? "" : ` (${valkeyMissing})`}`, () => {
  test("one signed event is good once, at either; of a storm over both exactly one passes", async () => {
    const { a, b } = await twins();
    // The memory begins when the first gateway starts.
    await until(async () => (await status(a, proof())) === 200);
    const before = upstream.seen.length;
    const one = proof();
    expect([await status(a, one), await status(b, one)]).toEqual([200, 401]);
    expect(upstream.seen.length).toBe(before + 1);
    const storm = proof();
    const all = await Promise.all(
      Array.from({ length: 40 }, (_, n) => status(n % 2 === 0 ? a : b, storm)),
    );
    expect(all.toSorted()).toEqual([200, ...Array.from({ length: 39 }, () => 401)]);
    expect(upstream.seen.length).toBe(before + 2);
    expect(b.running.stdout()).toContain('"reason":"replayed"');
    // What may be repeated may be repeated at either.
    const get = signed(ALICE, { url: `${ORIGIN}/x` });
    expect([await status(a, get, "GET"), await status(b, get, "GET")]).toEqual([200, 200]);
  });

  test("a token revoked at one is refused by the other on the next request, its streams there end", async () => {
    const { a, b, token } = await twins();
    const other = (await cli(a.dir, "token", "create", "--name", "two", "--strategy", "team"))
      .stdout;
    expect(await status(b, `Bearer ${token}`)).toBe(200);
    const stream = await openRaw(b.running.address);
    stream.send(`GET /sse HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer ${token}\r\n\r\n`);
    await stream.read({ until: (text) => text.includes("hello") });
    const before = upstream.seen.length;
    expect((await cli(a.dir, "token", "revoke", "ci", "--strategy", "team")).code).toBe(0);
    expect(await status(b, `Bearer ${token}`)).toBe(401);
    expect(await status(a, `Bearer ${token}`)).toBe(401);
    expect(upstream.seen.length).toBe(before);
    expect((await stream.read({ timeoutMs: 4000 })).closed).toBe(true);
    expect(await status(a, `Bearer ${other.trim()}`)).toBe(200);
    // Tokens themselves are not shared: what was made at one alone is not known to the other.
    expect(await status(b, `Bearer ${other.trim()}`)).toBe(401);
    // What is known to be revoked is refused without Valkey too, as often as somebody tries.
    await valkey.kill();
    await until(async () => (await status(a, `Bearer ${other.trim()}`)) === 503);
    const seen = upstream.seen.length;
    for (let times = 0; times < 5; times += 1) expect(await status(b, `Bearer ${token}`)).toBe(401);
    expect(upstream.seen.length).toBe(seen);
  });

  test("a rotation without grace ends the old secret at the other on the next request", async () => {
    const { a, b, token } = await twins();
    expect(await status(b, `Bearer ${token}`)).toBe(200);
    const rotated = await cli(a.dir, "token", "rotate", "ci", "--strategy", "team");
    expect(await status(b, `Bearer ${token}`)).toBe(401);
    expect(await status(a, `Bearer ${token}`)).toBe(401);
    expect(await status(a, `Bearer ${rotated.stdout.trim()}`)).toBe(200);
  });

  test("without Valkey both answer 503 and forward nothing; both are back within three seconds", async () => {
    const { a, b, token } = await twins();
    await works(a, token);
    await works(b, token);
    const old = proof();
    expect(await status(a, old)).toBe(200);
    await valkey.kill();
    // Until the end of the connection has been noticed the answer may come from memory.
    await until(async () => (await status(a, `Bearer ${token}`)) === 503);
    await until(async () => (await status(b, `Bearer ${token}`)) === 503);
    const before = upstream.seen.length;
    for (const gateway of [a, b]) {
      expect(await status(gateway, proof())).toBe(503);
      expect(await status(gateway, `Bearer ${token}`)).toBe(503);
    }
    // Neither claims nor revocations are asked about a request that may be repeated.
    const get = signed(ALICE, { url: `${ORIGIN}/x` });
    expect(await status(a, get, "GET")).toBe(200);
    expect(upstream.seen.length).toBe(before + 1);
    const failed = await cli(a.dir, "token", "revoke", "ci", "--strategy", "team");
    expect([failed.code, failed.stderr]).toEqual([69, expect.stringContaining("revoked here")]);
    const other = (await cli(a.dir, "token", "create", "--name", "two", "--strategy", "team"))
      .stdout;
    await valkey.restart();
    expect(await works(a, other.trim())).toBeLessThan(3000);
    const startMs = performance.now();
    await until(async () => (await status(b, proof())) === 200);
    expect(performance.now() - startMs).toBeLessThan(3000);
    const seen = upstream.seen.length;
    // It restarted empty: the one that knows has put back what it knew, and told what it could not.
    expect([await status(a, old), await status(b, old)]).toEqual([401, 401]);
    await until(async () => (await status(b, `Bearer ${token}`)) === 401);
    expect(upstream.seen.length).toBe(seen);
  });

  test("a Valkey that restarts empty while nobody is left who knows: the old event is refused all the same", async () => {
    const { a, b, token } = await twins();
    await works(a, token);
    const old = proof();
    expect(await status(a, old)).toBe(200);
    await end(a, "kill");
    await valkey.restart();
    expect(await works(b, token)).toBeLessThan(3000);
    const before = upstream.seen.length;
    expect(await status(b, old)).toBe(503);
    const c = await start("c");
    expect(await status(c, old)).toBe(503);
    expect(upstream.seen.length).toBe(before);
    expect(b.running.stdout()).toContain("UnknownToMemory");
    expect(await until(async () => (await status(c, proof())) === 200)).toBeLessThan(3000);
  });

  test("a wrong password or nobody there refuses the start in one line; validate connects to nobody", async () => {
    const dir = lay("a");
    const wrong = { ...ENV, VALKEY_PASSWORD: `${PASSWORD}-wrong` };
    const refused = await runBinary(["serve", "-c", "gatehouse.yaml"], { cwd: dir, env: wrong });
    said.push(refused.stdout, refused.stderr);
    const place = `valkey at 127.0.0.1:${valkey.port}`;
    expect([refused.code, refused.stderr]).toEqual([
      78,
      `error: shared: ${place}: the user name or the password is wrong (WRONGPASS)\n`,
    ]);
    await valkey.kill();
    const alone = await cli(dir, "serve");
    expect([alone.code, alone.stderr]).toEqual([
      69,
      `error: shared: ${place}: nothing listens there (ECONNREFUSED)\n`,
    ]);
    expect((await cli(dir, "config", "validate")).code).toBe(0);
    const shown = await cli(dir, "config", "show");
    expect(shown.stdout).toContain("${env:VALKEY_PASSWORD}");
    // Commands that tell nobody anything work without it.
    const made = await cli(dir, "token", "create", "--name", "ci", "--strategy", "team");
    expect(made.code).toBe(0);
    expect((await cli(dir, "token", "list", "--strategy", "team")).stdout).toContain("ci");
    const verb = ["token", "revoke", "ci", "--strategy", "team", "-c", "gatehouse.yaml"];
    const bare = await runBinary(verb, { cwd: dir, env: {} });
    expect([bare.code, bare.stderr]).toEqual([
      69,
      expect.stringContaining("could not be told: password: environment variable VALKEY_PASSWORD"),
    ]);
    const unset = await runBinary(["serve", "-c", "gatehouse.yaml"], { cwd: dir, env: {} });
    expect([unset.code, unset.stderr]).toEqual([
      78,
      expect.stringContaining("environment variable VALKEY_PASSWORD is not set"),
    ]);
  });

  test("a strategy of one's own, a file beside the config, uses Valkey in the executable as well", async () => {
    const guide = readFileSync(join(import.meta.dir, "../../docs/plugin-guide.md"), "utf8");
    const source = /<!-- file: guests\.ts -->\n```ts\n([\s\S]*?)```/.exec(guide)?.[1] ?? "";
    const text = config()
      .replace(
        "strategies:",
        `strategies:\n  guests: { use: ./guests.ts, url: "${valkey.url}", password: "\${env:VALKEY_PASSWORD}" }`,
      )
      .replace("access: [nostr, team]", "access: [guests]");
    const dir = lay("a", text);
    writeFileSync(join(dir, "guests.ts"), source, { mode: 0o600 });
    const args = ["serve", "-c", "gatehouse.yaml"];
    const gateway = { dir, running: await startBinary(args, { cwd: dir, env: ENV }) };
    gateways.push(gateway);
    const key = `guest:${createHash("sha256").update("a-guest").digest("hex")}`;
    await valkey.client(PASSWORD).set(key, "Ada");
    expect(await status(gateway, "Bearer a-guest")).toBe(200);
    expect(await status(gateway, "Bearer a-stranger")).toBe(401);
    expect(upstream.seen.length).toBe(1);
    await valkey.kill();
    await until(async () => (await status(gateway, "Bearer a-guest")) === 503);
    await end(gateway, "stop");
  });
});
