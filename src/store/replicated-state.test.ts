/** State in a real Valkey that several gateways share: claims, revocations, and every way in which it can be lost. */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { randomBytes } from "node:crypto";
import { endReplica, endReplicas, openReplica } from "../../test/support/replicas.ts";
import {
  freePort,
  startValkey,
  type TestValkey,
  until,
  valkeyMissing,
} from "../../test/support/valkey.ts";
import type { SharedState } from "../contract/shared.ts";
import { lazyDatabase, ownState } from "../host.ts";
import { openShared } from "../open-shared.ts";

const suite = valkeyMissing === null ? describe : describe.skip;
const title = valkeyMissing === null ? "" : ` (${valkeyMissing})`;

let valkey: TestValkey;

function claim(bornMs: number, livesMs = 60_000) {
  const key = randomBytes(16).toString("hex");
  return { space: "nip98", key, bornMs, untilMs: bornMs + livesMs };
}

/** `new`, `used`, or the error's code or name. */
async function say(work: () => Promise<boolean>): Promise<string> {
  try {
    return (await work()) ? "new" : "used";
  } catch (error) {
    if (!(error instanceof Error)) throw error;
    return "code" in error ? String(error.code) : error.name;
  }
}

/** Whether it is revoked, or `asks` when that could not be said at once. */
function now(state: SharedState, id: string): boolean | "asks" {
  const said = state.isRevoked("x", id);
  if (typeof said === "boolean") return said;
  said.catch(() => {});
  return "asks";
}

/** Until "not revoked" is said without asking. */
function followed(state: SharedState): Promise<number> {
  return until(() => now(state, "nobody-asks-for-this") === false);
}

beforeEach(async () => {
  if (valkeyMissing === null) valkey = await startValkey();
});
afterEach(async () => {
  endReplicas();
  await valkey?.stop();
});

suite(`claims of replicas${title}`, () => {
  test("of 100 over two replicas exactly one is new, and Valkey keeps it as long as it was said", async () => {
    const [a, b] = [await openReplica(valkey.url), await openReplica(valkey.url)];
    const one = claim(a.clock.nowMs());
    const all = await Promise.all(
      Array.from({ length: 100 }, (_, n) => (n % 2 === 0 ? a : b).state.claim(one)),
    );
    expect(all.filter(Boolean)).toHaveLength(1);
    const key = `gatehouse:{claims}:nip98:${one.key}`;
    const left = await valkey.client().pttl(key);
    expect(left).toBeGreaterThan(50_000);
    expect(left).toBeLessThanOrEqual(60_000);
    expect(await a.state.claim({ ...one, space: "other" })).toBe(true);
  });

  test("of 60 over two processes on one state directory exactly one is new", async () => {
    const a = await openReplica(valkey.url);
    const { clock, log } = a;
    const { stateDir, env, configDir } = a.host;
    const database = lazyDatabase(stateDir, clock);
    const second = await openShared(
      { valkey: { url: valkey.url, command_timeout: "2s" }, prefix: "gatehouse:" },
      { database, clock, log, env, configDir, purpose: "serve", valkey: a.host.valkey },
    );
    for (let round = 0; round < 20; round += 1) {
      const one = claim(clock.nowMs());
      const all = await Promise.all(
        Array.from({ length: 60 }, (_, n) => (n % 2 === 0 ? a.state : second.state).claim(one)),
      );
      expect(all.filter(Boolean)).toHaveLength(1);
    }
    second.close();
    database.close();
  });

  test("clocks that differ by half a minute make no difference", async () => {
    const a = await openReplica(valkey.url);
    const b = await openReplica(valkey.url, { nowMs: a.clock.nowMs() + 30_000 });
    const c = await openReplica(valkey.url, { nowMs: a.clock.nowMs() - 30_000 });
    for (const [first, second] of [
      [a, b],
      [b, c],
      [c, a],
    ] as const) {
      const one = claim(a.clock.nowMs());
      expect(await first.state.claim(one)).toBe(true);
      expect(await second.state.claim(one)).toBe(false);
    }
  });

  test("two prefixes and two databases do not see each other", async () => {
    const a = await openReplica(valkey.url);
    const one = claim(a.clock.nowMs());
    expect(await a.state.claim(one)).toBe(true);
    await a.state.revoke("x", [{ id: "gone", untilMs: null }]);
    for (const other of [
      await openReplica(valkey.url, { prefix: "other:" }),
      await openReplica(`${valkey.url}/1`),
    ]) {
      expect(await other.state.claim({ ...one, bornMs: other.clock.nowMs() })).toBe(true);
      expect(await other.state.isRevoked("x", "gone")).toBe(false);
    }
  });

  test("what is over before it begins is not new", async () => {
    const { state, clock } = await openReplica(valkey.url);
    expect(await state.claim(claim(clock.nowMs(), 0))).toBe(false);
  });

  test("down is an error at once and uses nothing up; back, it is new within three seconds", async () => {
    const { state, clock, log } = await openReplica(valkey.url);
    const one = claim(clock.nowMs());
    await valkey.kill();
    await until(() => state.health()[0]?.code === "shared_down");
    const startMs = performance.now();
    expect(await say(() => state.claim(one))).toBe("OFFLINE");
    expect(performance.now() - startMs).toBeLessThan(100);
    await valkey.restart();
    clock.advance(5000);
    const fresh = () => state.claim(claim(clock.nowMs()));
    expect(await until(async () => (await say(fresh)) === "new")).toBeLessThan(3000);
    await until(() => state.health().length === 0);
    const events = log.lines.map(({ event }) => event);
    expect(events).toEqual(expect.arrayContaining(["shared.lost", "shared.back"]));
    expect(events).toContain("shared.memory_lost");
  });

  test("a Valkey that restarts empty: what a living replica knows is put back, so it is used everywhere", async () => {
    const [a, b] = [await openReplica(valkey.url), await openReplica(valkey.url)];
    const old = claim(a.clock.nowMs());
    // Signed by a clock that is ahead: younger than the new memory.
    const ahead = claim(a.clock.nowMs() + 30_000);
    expect([await a.state.claim(old), await a.state.claim(ahead)]).toEqual([true, true]);
    a.clock.advance(5000);
    b.clock.advance(5000);
    await valkey.restart();
    // Without being asked.
    await until(() => a.log.lines.filter(({ event }) => event === "shared.memory").length === 2);
    await until(async () => (await say(() => b.state.claim(old))) !== "OFFLINE");
    expect(await say(() => b.state.claim(old))).toBe("used");
    expect(await say(() => b.state.claim(ahead))).toBe("used");
    expect(await say(() => a.state.claim(old))).toBe("used");
    expect(await say(() => b.state.claim(claim(b.clock.nowMs())))).toBe("new");
  });

  test("a Valkey that restarts empty when nobody is left who knows: what was made before is refused, what is fresh is new", async () => {
    const [a, b] = [await openReplica(valkey.url), await openReplica(valkey.url)];
    const old = claim(a.clock.nowMs());
    expect(await a.state.claim(old)).toBe(true);
    endReplica(a);
    b.clock.advance(5000);
    await valkey.restart();
    await until(async () => (await say(() => b.state.claim(old))) !== "OFFLINE");
    expect(await say(() => b.state.claim(old))).toBe("UnknownToMemory");
    // Also by one that starts only now, and never saw the old memory.
    const c = await openReplica(valkey.url, { nowMs: b.clock.nowMs() + 1000 });
    expect(await say(() => c.state.claim(old))).toBe("UnknownToMemory");
    expect(await say(() => c.state.claim(claim(c.clock.nowMs())))).toBe("new");
    expect(await say(() => b.state.claim(claim(b.clock.nowMs())))).toBe("new");
  });

  test("emptied by hand is the same as restarted empty", async () => {
    const [a, b] = [await openReplica(valkey.url), await openReplica(valkey.url)];
    const [mine, theirs] = [claim(a.clock.nowMs()), claim(b.clock.nowMs())];
    expect([await a.state.claim(mine), await b.state.claim(theirs)]).toEqual([true, true]);
    endReplica(a);
    b.clock.advance(5000);
    await valkey.client().flushall();
    expect(await say(() => b.state.claim(mine))).toBe("UnknownToMemory");
    const c = await openReplica(valkey.url, { nowMs: b.clock.nowMs() });
    expect(await say(() => c.state.claim(theirs))).toBe("used");
  });

  test("a Valkey that comes back with an old snapshot is not believed about what came after it", async () => {
    const saving = await startValkey();
    const [a, b] = [await openReplica(saving.url), await openReplica(saving.url)];
    const [before, after] = [claim(a.clock.nowMs()), claim(a.clock.nowMs())];
    expect(await a.state.claim(before)).toBe(true);
    await saving.client().save();
    expect(await a.state.claim(after)).toBe(true);
    endReplica(a);
    b.clock.advance(5000);
    await saving.restart();
    await until(async () => (await say(() => b.state.claim(after))) !== "OFFLINE");
    // The mark of the memory was in the snapshot, too.
    expect(await saving.client().exists("gatehouse:{claims}")).toBe(1);
    expect(await say(() => b.state.claim(before))).toBe("used");
    expect(await say(() => b.state.claim(after))).toBe("UnknownToMemory");
    await saving.stop();
  });

  test("a replica of Valkey that takes over is not believed about what came before it", async () => {
    await valkey.client().config("SET", "repl-diskless-sync-delay", "0");
    const standby = await startValkey(["--replicaof", "127.0.0.1", String(valkey.port)]);
    const a = await openReplica(valkey.url);
    const old = claim(a.clock.nowMs());
    expect(await a.state.claim(old)).toBe(true);
    endReplica(a);
    await until(async () => (await standby.client().exists("gatehouse:{claims}")) === 1);
    await expect(openReplica(standby.url)).rejects.toThrow("read-only replica");
    await standby.client().call("replicaof", "no", "one");
    await valkey.kill();
    // Written in the last moment, and never sent on.
    await standby.client().del(`gatehouse:{claims}:nip98:${old.key}`);
    const b = await openReplica(standby.url, { nowMs: a.clock.nowMs() + 5000 });
    expect(await say(() => b.state.claim(old))).toBe("UnknownToMemory");
    await standby.stop();
  });

  test("out of memory, read-only or unable to save: an error, and nothing is used up", async () => {
    const { state, clock } = await openReplica(valkey.url);
    const raw = valkey.client();
    const one = claim(clock.nowMs());
    await raw.config("SET", "maxmemory", "1");
    expect(await say(() => state.claim(one))).toBe("OOM");
    await raw.config("SET", "maxmemory", "0");
    await raw.call("replicaof", "127.0.0.1", "1");
    expect(await say(() => state.claim(one))).toMatch(/^(READONLY|MASTERDOWN)$/);
    await raw.call("replicaof", "no", "one");
    expect(await say(() => state.claim(one))).toBe("new");
  });

  test("a Valkey that throws keys away is refused at the start", async () => {
    const options = ["--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"];
    const lossy = await startValkey(options);
    await expect(openReplica(lossy.url)).rejects.toMatchObject({ exitCode: 78 });
    await expect(openReplica(lossy.url)).rejects.toThrow("maxmemory-policy allkeys-lru");
    await lossy.stop();
  });

  test("a Valkey that accepts and says nothing is an error after its deadline, and is back", async () => {
    const { state, clock } = await openReplica(valkey.url, {
      settings: { command_timeout: "200ms" },
    });
    valkey.pause();
    // Its own deadline, or that of something else on the connection, which then ends for all of them.
    expect(await say(() => state.claim(claim(clock.nowMs())))).toMatch(/^(ETIMEDOUT|OFFLINE)$/);
    valkey.resume();
    const fresh = () => state.claim(claim(clock.nowMs()));
    expect(await until(async () => (await say(fresh)) === "new")).toBeLessThan(3000);
  });
});

suite(`revocations of replicas${title}`, () => {
  test("hold in every other replica on the next question, 1,000 times, most of them from memory", async () => {
    const [a, b] = [await openReplica(valkey.url), await openReplica(valkey.url)];
    await followed(b.state);
    let fromMemory = 0;
    for (let round = 0; round < 1000; round += 1) {
      const id = `token-${round}`;
      const before = b.state.isRevoked("x", id);
      if (before === false) fromMemory += 1;
      expect(await before).toBe(false);
      await a.state.revoke("x", [{ id, untilMs: null }]);
      expect(await b.state.isRevoked("x", id)).toBe(true);
    }
    expect(fromMemory).toBeGreaterThan(500);
  });

  test("also with TLS", async () => {
    const { A_KEY, GOOD_CERTIFICATE } = await import("../../test/support/tls-fixtures.ts");
    const { tempDir } = await import("../../test/support/config.ts");
    const files = tempDir();
    const [cert, key] = [files.write("cert.pem", GOOD_CERTIFICATE), files.write("key.pem", A_KEY)];
    const port = await freePort();
    const pair = ["--tls-port", String(port), "--tls-cert-file", cert, "--tls-key-file", key];
    const more = ["--tls-ca-cert-file", cert, "--tls-auth-clients", "no"];
    const secured = await startValkey([...pair, ...more]);
    const url = `rediss://localhost:${port}`;
    const settings = { tls: { ca: cert } };
    const a = await openReplica(url, { settings });
    const b = await openReplica(url, { settings });
    await followed(b.state);
    for (let round = 0; round < 300; round += 1) {
      const id = `token-${round}`;
      expect(await b.state.isRevoked("x", id)).toBe(false);
      await a.state.revoke("x", [{ id, untilMs: null }]);
      expect(await b.state.isRevoked("x", id)).toBe(true);
    }
    await secured.stop();
    files.remove();
  });

  test("what was revoked before a replica came is known to it, and what a command revokes as well", async () => {
    const a = await openReplica(valkey.url);
    await a.state.revoke("x", [
      { id: "ever", untilMs: null },
      { id: "for-a-day", untilMs: a.clock.nowMs() + 86_400_000 },
    ]);
    const command = await openReplica(valkey.url, { purpose: "command" });
    await command.state.revoke("x", [{ id: "by-command", untilMs: null }]);
    expect(await command.state.isRevoked("x", "ever")).toBe(true);
    const b = await openReplica(valkey.url);
    await followed(b.state);
    for (const id of ["ever", "for-a-day", "by-command"]) expect(now(b.state, id)).toBe(true);
    const left = await valkey.client().pttl("gatehouse:revoked:x:for-a-day");
    expect(left).toBeGreaterThan(86_000_000);
    expect(await valkey.client().pttl("gatehouse:revoked:x:ever")).toBe(-1);
    expect(now(b.state, "other")).toBe(false);
  });

  test("down is an error for what is not known to be revoked, never no", async () => {
    const [a, b] = [await openReplica(valkey.url), await openReplica(valkey.url)];
    await a.state.revoke("x", [{ id: "gone", untilMs: null }]);
    await followed(b.state);
    await valkey.kill();
    await until(() => now(b.state, "good") === "asks");
    await expect(b.state.isRevoked("x", "good")).rejects.toMatchObject({ code: "OFFLINE" });
    expect(now(b.state, "gone")).toBe(true);
    await valkey.restart();
    const isBack = async () => (await say(async () => b.state.isRevoked("x", "good"))) === "used";
    expect(await until(isBack)).toBeLessThan(3000);
  });

  test("a server that falls silent is not believed for longer than two seconds", async () => {
    const { state } = await openReplica(valkey.url, { settings: { command_timeout: "200ms" } });
    await followed(state);
    valkey.pause();
    const silent = async () => (await say(async () => state.isRevoked("x", "good"))) !== "used";
    expect(await until(silent, 2500)).toBeLessThan(2000);
    valkey.resume();
    await followed(state);
  });

  test("a Valkey that restarts empty is told again what is known, by whoever heard of it", async () => {
    const [a, b] = [await openReplica(valkey.url), await openReplica(valkey.url)];
    await followed(b.state);
    await a.state.revoke("x", [{ id: "gone", untilMs: null }]);
    await until(() => now(b.state, "gone") === true);
    endReplica(a);
    await valkey.restart();
    const raw = valkey.client();
    await until(async () => (await raw.exists("gatehouse:revoked:x:gone")) === 1);
    const c = await openReplica(valkey.url);
    expect(await c.state.isRevoked("x", "gone")).toBe(true);
    expect(now(b.state, "gone")).toBe(true);
  });

  test("one that is emptied by hand, too, and changes are followed again", async () => {
    const { state } = await openReplica(valkey.url);
    await followed(state);
    await state.revoke("x", [{ id: "gone", untilMs: null }]);
    const raw = valkey.client();
    await raw.flushall();
    await until(async () => (await raw.exists("gatehouse:revoked:x:gone")) === 1);
    await followed(state);
  });

  test("what cannot be told holds here, is said, and is told when it can be", async () => {
    const [a, b] = [await openReplica(valkey.url), await openReplica(valkey.url)];
    await followed(b.state);
    const raw = valkey.client();
    await raw.config("SET", "maxmemory", "1");
    const telling = a.state.revoke("x", [{ id: "gone", untilMs: null }]);
    await expect(telling).rejects.toThrow("revoked here, but the other replicas could not be told");
    await expect(telling).rejects.toMatchObject({ code: "OOM" });
    expect(now(a.state, "gone")).toBe(true);
    expect(await b.state.isRevoked("x", "gone")).toBe(false);
    await raw.config("SET", "maxmemory", "0");
    expect(await until(async () => b.state.isRevoked("x", "gone"))).toBeLessThan(3000);
  });

  test("what a command could not tell is told by the gateway of its database", async () => {
    const a = await openReplica(valkey.url);
    const b = await openReplica(valkey.url);
    // A command on the state of `a`, without a Valkey in its reach.
    const { stateDir } = a.host;
    const database = lazyDatabase(stateDir, a.clock);
    const command = ownState({ database, clock: a.clock, log: a.log });
    await command.revoke("x", [{ id: "gone", untilMs: null }]);
    database.close();
    expect(now(a.state, "gone")).toBe(true);
    expect(await until(async () => b.state.isRevoked("x", "gone"))).toBeLessThan(4000);
  });

  test("while changes cannot be followed each question is asked, and the answer is right", async () => {
    const [a, b] = [await openReplica(valkey.url), await openReplica(valkey.url)];
    await followed(b.state);
    const raw = valkey.client();
    await raw.call("client", "pause", "400", "write");
    await raw.call("client", "kill", "type", "pubsub");
    await until(() => now(b.state, "good") === "asks", 300);
    expect(await b.state.isRevoked("x", "good")).toBe(false);
    await a.state.revoke("x", [{ id: "gone", untilMs: null }]);
    expect(await b.state.isRevoked("x", "gone")).toBe(true);
    await followed(b.state);
  });

  test("a user with the documented rights is enough; without tracking each question is asked", async () => {
    const raw = valkey.client();
    const rights =
      "on >pw ~gatehouse:* resetchannels &__redis__:invalidate -@all +auth +ping +info +eval +hmget +hset +exists +set +pttl +scan".split(
        " ",
      );
    const follow = ["+client|id", "+client|tracking", "+subscribe"];
    await raw.call("acl", "setuser", "full", ...rights, ...follow);
    await raw.call("acl", "setuser", "less", ...rights);
    const of = (username: string) =>
      openReplica(valkey.url, { settings: { username, password: "pw" } });
    const [full, less] = [await of("full"), await of("less")];
    await followed(full.state);
    await less.state.revoke("x", [{ id: "gone", untilMs: null }]);
    expect(await full.state.isRevoked("x", "gone")).toBe(true);
    await full.state.revoke("x", [{ id: "too", untilMs: null }]);
    expect(await less.state.isRevoked("x", "too")).toBe(true);
    expect(now(less.state, "good")).toBe("asks");
    expect(await less.state.claim(claim(Date.now() + 60_000))).toBe(true);
    await until(() => less.state.health()[0]?.code === "shared_not_followed");
    expect(less.state.health()[0]?.text).toContain("NOPERM");
    expect(full.state.health()).toEqual([]);
  });

  test("a cluster works: claims on one node, each question about revocations asked", async () => {
    const announce = ["--cluster-announce-ip", "127.0.0.1"];
    const node = await startValkey(["--cluster-enabled", "yes", ...announce]);
    const raw = node.client();
    await raw.call("cluster", "addslotsrange", "0", "16383");
    await until(async () => String(await raw.call("cluster", "info")).includes("cluster_state:ok"));
    const settings = { url: undefined, cluster: { nodes: [`127.0.0.1:${node.port}`] } };
    const [a, b] = [await openReplica("", { settings }), await openReplica("", { settings })];
    const one = claim(Date.now() + 1000);
    expect([await a.state.claim(one), await b.state.claim(one)]).toEqual([true, false]);
    await a.state.revoke("x", [{ id: "gone", untilMs: null }]);
    expect(await b.state.isRevoked("x", "gone")).toBe(true);
    expect(now(b.state, "good")).toBe("asks");
    expect(await b.state.isRevoked("x", "good")).toBe(false);
    endReplicas();
    await node.stop();
  });
});
