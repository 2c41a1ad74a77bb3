/** Valkey in more than one place: a primary that sentinels replace, and a cluster of three nodes. */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import type { Socket } from "bun";
import { type TempDir, tempDir } from "../../test/support/config.ts";
import {
  endStrategies,
  startOn,
  startValkey,
  type TestValkey,
  until,
  valkeyMissing,
} from "../../test/support/valkey.ts";
import plugin from "./index.ts";

const suite = valkeyMissing === null ? describe : describe.skip;
const key = (id: string) => `auth:token:${id}`;

suite(`several servers${valkeyMissing === null ? "" : ` (${valkeyMissing})`}`, () => {
  const servers: TestValkey[] = [];
  let files: TempDir;

  async function server(options: readonly string[] = [], file?: string): Promise<TestValkey> {
    const started = await startValkey(options, file);
    servers.push(started);
    return started;
  }

  beforeEach(() => {
    files = tempDir();
  });
  afterEach(async () => {
    await endStrategies();
    await Promise.all(servers.splice(0).map((one) => one.stop()));
    files.remove();
  });

  test("when the primary dies its tokens go on at the one that sentinels name, and memory follows it", async () => {
    const primary = await server(["--repl-diskless-sync-delay", "0"]);
    const standby = await server(["--replicaof", "127.0.0.1", String(primary.port)]);
    const lines = [
      `sentinel monitor main 127.0.0.1 ${primary.port} 1`,
      "sentinel down-after-milliseconds main 300",
      "sentinel failover-timeout main 2000",
    ];
    const sentinel = await server(["--sentinel"], files.write("s.conf", `${lines.join("\n")}\n`));
    const knows = async () =>
      String(await sentinel.client().call("sentinel", "replicas", "main")).includes(
        "slave-repl-offset",
      );
    await until(knows);
    const nodes = [`127.0.0.1:${sentinel.port}`];
    const config = { url: undefined, sentinel: { name: "main", nodes }, command_timeout: "500ms" };
    const started = await startOn(plugin, "", config);
    const { token, record } = await started.tokens.create({ name: "ci" });
    const isWarm = async (): Promise<boolean> => {
      const said = started.ask(token);
      const isAtOnce = !(said instanceof Promise);
      await Promise.resolve(said).catch(() => {});
      return isAtOnce;
    };
    await until(isWarm);
    const copy = standby.client();
    await until(async () => (await copy.exists(key(record.id))) === 1);

    await primary.kill();
    const said = new Set<string>();
    await until(async () => {
      said.add(await started.answer(token));
      return said.has("fault") && (await started.answer(token)) === "accept";
    }, 20_000);
    expect([...said].filter((one) => one !== "accept" && one !== "fault")).toEqual([]);
    // What is changed at the new primary holds on the next request, from memory as well.
    await until(isWarm);
    const fields = await copy.hgetall(key(record.id));
    // The news of the failover may still end the connection once: a fault, and never an old answer.
    const later = async (): Promise<string> => {
      let answer = "fault";
      await until(async () => {
        answer = await started.answer(token);
        return answer !== "fault";
      });
      return answer;
    };
    for (let round = 0; round < 200; round += 1) {
      await copy.del(key(record.id));
      expect(await later()).toBe("unknown");
      await copy.hset(key(record.id), fields);
      expect(await later()).toBe("accept");
    }
    await until(isWarm);
    await started.tokens.revoke("ci", "");
    expect(await copy.exists(key(record.id))).toBe(0);
  }, 30_000);

  /** Three primaries and two that copy the first two of them; whole when it is given. */
  async function startCluster() {
    const options = ["--cluster-enabled", "yes", "--cluster-announce-ip", "127.0.0.1"];
    const quick = ["--cluster-node-timeout", "600", "--repl-diskless-sync-delay", "0"];
    const five = [0, 1, 2, 3, 4].map(() => server([...options, ...quick]));
    const nodes = await Promise.all(five);
    const raws = nodes.map((node) => node.client());
    const primaries = raws.slice(0, 3);
    for (const [index, raw] of primaries.entries()) {
      const [from, to] = [index * 5462, Math.min(16_383, index * 5462 + 5461)];
      await raw.call("cluster", "addslotsrange", String(from), String(to));
    }
    for (const { port } of nodes.slice(1)) {
      await raws[0]?.call("cluster", "meet", "127.0.0.1", String(port));
    }
    const isWhole = async (raw: (typeof raws)[number]): Promise<boolean> => {
      const info = String(await raw.call("cluster", "info"));
      return /cluster_state:ok[\s\S]*cluster_known_nodes:5/.test(info);
    };
    const all = (are: readonly boolean[]) => are.every(Boolean);
    await until(async () => all(await Promise.all(raws.map(isWhole))));
    for (const index of [0, 1]) {
      const id = String(await raws[index]?.call("cluster", "myid"));
      await raws[index + 3]?.call("cluster", "replicate", id);
      await until(async () => String(await raws[index + 3]?.info()).includes("link_status:up"));
    }
    return { nodes, raws, primaries };
  }

  test("in a cluster tokens are made, listed, rotated and revoked wherever their keys lie", async () => {
    const { nodes, raws, primaries } = await startCluster();
    // One of them is enough to find the others.
    const cluster = { nodes: [`127.0.0.1:${nodes[2]?.port}`] };
    const settings = { url: undefined, cluster, command_timeout: "500ms" };
    const started = await startOn(plugin, "", settings);
    const make = (name: string, n: number) =>
      started.tokens.create({ name, owner: `owner-${n % 3}` });
    const made = await Promise.all(Array.from({ length: 30 }, (_, n) => make(`n${n}`, n)));
    const places = await Promise.all(primaries.map((raw) => raw.keys("auth:token:*")));
    expect(places.filter((keys) => keys.length === 0)).toEqual([]);
    expect(await started.tokens.list()).toHaveLength(30);
    expect(await started.tokens.list({ owner: "owner-1" })).toHaveLength(10);
    for (const { token, record } of made.slice(0, 20)) {
      expect(await started.answer(token)).toBe("accept");
      const { token: fresh } = await started.tokens.rotate(record.id, 60_000);
      const both = async () => [await started.answer(token), await started.answer(fresh)];
      expect(await both()).toEqual(["accept", "accept"]);
      await started.tokens.revoke(record.id, "");
      expect(await both()).toEqual(["unknown", "unknown"]);
    }
    for (const { record } of made.slice(20)) await started.tokens.revoke(record.id, "");
    const left = await Promise.all(primaries.map((raw) => raw.keys("auth:*")));
    expect(left.flat()).toEqual([]);

    const holders = await Promise.all(Array.from({ length: 24 }, (_, n) => make(`h${n}`, n)));
    for (const [index, end] of [
      [0, () => nodes[0]?.kill()],
      // As without power: it keeps its connections and says nothing.
      [1, () => nodes[1]?.pause()],
    ] as const) {
      const there = new Set(await primaries[index]?.keys("auth:token:*"));
      const isThere = ({ record }: (typeof holders)[number]) => there.has(key(record.id));
      const [lost, other] = [holders.find(isThere), holders.findLast((one) => !isThere(one))];
      if (lost === undefined || other === undefined) throw new Error("all tokens on one node");
      await until(async () => {
        const copied = (await raws[index + 3]?.keys("auth:token:*")) ?? [];
        return copied.includes(key(lost.record.id));
      });
      await end();
      const said: string[] = [];
      await until(async () => {
        said.push(await started.answer(lost.token));
        return said.includes("fault") && said.at(-1) === "accept";
      });
      expect(new Set(said)).toEqual(new Set(["fault", "accept"]));
      // The other nodes may not have heard yet that all keys have a place again.
      await until(async () => (await started.answer(other.token)) === "accept");
    }
    nodes[1]?.resume();
  }, 30_000);

  test("a node of a cluster that is gone is tried once for each question, and each is a fault", async () => {
    const announce = ["--cluster-enabled", "yes", "--cluster-announce-ip", "127.0.0.1"];
    const [one, two] = [await server(announce), await server(announce)];
    const [first, second] = [one.client(), two.client()];
    await first.call("cluster", "addslotsrange", "0", "8191");
    await second.call("cluster", "addslotsrange", "8192", "16383");
    await first.call("cluster", "meet", "127.0.0.1", String(two.port));
    const isWhole = async () =>
      /cluster_state:ok[\s\S]*nodes:2/.test(String(await first.call("cluster", "info"))) &&
      /cluster_state:ok[\s\S]*nodes:2/.test(String(await second.call("cluster", "info")));
    await until(isWhole);
    const cluster = { nodes: [`127.0.0.1:${one.port}`] };
    const started = await startOn(plugin, "", { url: undefined, cluster });
    const names = Array.from({ length: 20 }, (_, n) => `n${n}`);
    const made = await Promise.all(names.map((name) => started.tokens.create({ name })));
    const there = new Set(await second.keys("auth:token:*"));
    const lost = made.filter(({ record }) => there.has(key(record.id)));
    expect(lost.length).toBeGreaterThan(0);
    await two.kill();
    // In its place somebody who hangs up, and counts how often it is tried.
    let tries = 0;
    const open = (socket: Socket): void => {
      tries += 1;
      socket.end();
    };
    const hostname = "127.0.0.1";
    const listener = Bun.listen({ hostname, port: two.port, socket: { open, data() {} } });
    for (const { token } of lost) expect(await started.answer(token)).toBe("fault");
    // Once for the question, and perhaps once to ask where the keys are.
    expect(tries).toBeLessThanOrEqual(2 * lost.length);
    listener.stop(true);
  }, 30_000);
});
