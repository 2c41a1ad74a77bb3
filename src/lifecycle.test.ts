/** Order of start and close, failures on the way, and what a reload keeps. */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { existsSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import {
  type CollectingLog,
  collectingLog,
  settableClock,
  temporaryDirectory,
} from "../test/support/host.ts";
import type { GatewayConfig, StrategyConfig } from "./config/model.ts";
import { definePlugin, type Host, secret, z } from "./contract/gatehouse.ts";
import type { Plugin, StrategyInstance } from "./contract/plugin.ts";
import { EXIT, OperatorError } from "./errors.ts";
import { type RunningStrategies, type StartOptions, startStrategies } from "./lifecycle.ts";
import { pluginLoader } from "./loader.ts";

let directory: string;
let log: CollectingLog;
/** What the probes did, in order. */
let events: string[];
beforeEach(() => {
  directory = temporaryDirectory();
  log = collectingLog();
  events = [];
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

const absent: StrategyInstance = { authenticate: () => ({ outcome: "absent" }) };

/** A plugin that writes down when it is started and closed. */
function probe(name: string, make: (host: Host) => StrategyInstance = () => absent): Plugin {
  return definePlugin({
    name,
    contract: 1,
    config: z.strictObject({ word: secret("a word").optional(), deep: z.unknown().optional() }),
    init(_, host) {
      events.push(`init ${host.strategy}`);
      const instance = make(host);
      return {
        ...instance,
        close() {
          events.push(`close ${host.strategy}`);
          return instance.close?.();
        },
      };
    },
  });
}

function strategy(name: string, use: string, settings: Record<string, unknown> = {}) {
  return { name, use, sha256: null, settings };
}

function config(strategies: readonly StrategyConfig[]): GatewayConfig {
  return {
    file: join(directory, "gatehouse.yaml"),
    configDir: directory,
    stateDir: join(directory, "state"),
    shared: null,
    server: {
      listen: [],
      tls: [],
      publicUrls: [],
      trustedProxies: [],
      healthPath: null,
      drainMs: 0,
      limits: {
        headBytes: 1,
        headTimeoutMs: 1,
        keepAliveMs: 1,
        sendTimeoutMs: 1,
        bodyTimeoutMs: 1,
        bodyMinBytesPerSecond: 1,
        maxConnections: 1,
      },
    },
    strategies,
    upstreams: [],
    logging: { level: "info", access: false, format: "json" },
    routes: [],
  };
}

function start(
  plugins: readonly Plugin[],
  strategies: readonly StrategyConfig[],
  more: Partial<StartOptions> = {},
): Promise<RunningStrategies> {
  return startStrategies({
    config: config(strategies),
    loadPlugin: pluginLoader(plugins),
    env: {},
    log,
    clock: settableClock(),
    ...more,
  });
}

async function refusal(work: Promise<unknown>): Promise<OperatorError> {
  const error = await work.then(
    () => null,
    (reason: unknown) => reason,
  );
  if (error instanceof OperatorError) return error;
  throw new Error(`not refused as it should be: ${String(error)}`);
}

describe("startStrategies", () => {
  test("starts in config order and closes in reverse order", async () => {
    const running = await start(
      [probe("a"), probe("b")],
      [strategy("one", "a"), strategy("two", "b"), strategy("three", "a")],
    );
    expect([...running.byName.keys()]).toEqual(["one", "two", "three"]);
    expect(running.byName.get("two")?.plugin.name).toBe("b");
    await running.close(100);
    expect(events).toEqual([
      ...["init one", "init two", "init three"],
      ...["close three", "close two", "close one"],
    ]);
  });

  test("starts only the strategies that are asked for", async () => {
    const strategies = [strategy("one", "a"), strategy("two", "a")];
    const running = await start([probe("a")], strategies, { only: ["two"] });
    expect([...running.byName.keys()]).toEqual(["two"]);
    await running.close(100);
    expect(events).toEqual(["init two", "close two"]);
  });

  test("resolves references before the plugin sees its config", async () => {
    let seen: unknown;
    const plugin = definePlugin({
      name: "seer",
      contract: 1,
      config: z.strictObject({ word: secret("a word") }),
      init(settings) {
        seen = settings.word;
        return absent;
      },
    });
    const running = await start([plugin], [strategy("s", "seer", { word: "${env:WORD}" })], {
      env: { WORD: "sesame" },
    });
    expect(seen).toBe("sesame");
    await running.close(100);
  });

  test("a strategy that fails to start is named, and those before it are closed in reverse", async () => {
    const failing = probe("bad", () => {
      throw new Error("no luck");
    });
    const error = await refusal(
      start(
        [probe("a"), failing],
        [
          strategy("one", "a"),
          strategy("two", "a"),
          strategy("three", "bad"),
          strategy("four", "a"),
        ],
      ),
    );
    expect(error.message).toBe("strategy three (bad) cannot start: no luck");
    expect(error.exitCode).toBe(EXIT.config);
    expect(events.slice(2)).toEqual(["init three", "close two", "close one"]);
  });

  test("a dependency that is down has an exit code of its own, so that a retry makes sense", async () => {
    const failing = probe("bad", () => {
      throw Object.assign(new Error("connection refused"), { code: "ECONNREFUSED" });
    });
    const error = await refusal(start([failing], [strategy("one", "bad")]));
    expect(error.exitCode).toBe(EXIT.unavailable);
  });

  test("an unknown plugin keeps the hint of the loader", async () => {
    const error = await refusal(start([probe("probe")], [strategy("one", "prob")]));
    expect(error.message).toContain(
      'strategy one (prob) cannot start: there is no bundled plugin "prob"',
    );
    expect(error.hint).toBe("Did you mean probe?");
  });

  test("settings that do not parse are named by path", async () => {
    const strategies = [strategy("one", "a", { word: 7, wrod: "x" })];
    const { message } = await refusal(start([probe("a")], strategies));
    expect(message).toContain("strategy one (a) cannot start: word: ");
    expect(message).toContain("wrod");
  });

  test("a plugin that quotes its secret does not get it into the message", async () => {
    const plugin = definePlugin({
      name: "leaky",
      contract: 1,
      config: z.strictObject({ url: z.string(), list: z.array(z.string()) }),
      init(settings): StrategyInstance {
        throw new Error(`cannot reach ${settings.url} with ${settings.list.join("+")} and s3cret`);
      },
    });
    const settings = { url: "redis://u:${env:PW}@db", list: ["plain", "${env:OTHER}"] };
    const error = await refusal(
      start([plugin], [strategy("one", "leaky", settings)], {
        env: { PW: "s3cret", OTHER: "hush-hush" },
      }),
    );
    expect(error.message).toBe(
      "strategy one (leaky) cannot start: cannot reach [redacted] with plain+[redacted] and [redacted]",
    );
  });

  test("an instance of the wrong shape is refused by what is wrong", async () => {
    const plugin = definePlugin({
      name: "odd",
      contract: 1,
      config: z.strictObject({}),
      // As plain JavaScript would: no type check stands between this and the gateway.
      init: () => JSON.parse('{"credentialHeaders":["X-Bad"]}'),
    });
    const { message } = await refusal(start([plugin], [strategy("one", "odd")]));
    expect(message).toContain("`authenticate` is not a function");
    expect(message).toContain("`credentialHeaders` is not a list of lower-case header names");
  });

  test("what came up but cannot be used, or comes up when nobody waits any more, is closed", async () => {
    const odd = definePlugin({
      name: "odd",
      contract: 1,
      config: z.strictObject({}),
      init: () => Object.assign(JSON.parse("{}"), { close: () => void events.push("close odd") }),
    });
    await refusal(start([odd], [strategy("one", "odd")]));
    expect(events).toEqual(["close odd"]);

    const up = Promise.withResolvers<StrategyInstance>();
    const late = definePlugin({
      name: "late",
      contract: 1,
      config: z.strictObject({}),
      init: (_, host) => {
        host.signal.addEventListener("abort", () => events.push("late is told"));
        return up.promise;
      },
    });
    const stopping = new AbortController();
    const more = { givenUp: stopping.signal };
    const wanted = [strategy("one", "a"), strategy("two", "late")];
    events = [];
    const refused = refusal(start([probe("a"), late], wanted, more));
    await Promise.resolve();
    stopping.abort();
    expect((await refused).message).toContain("the gateway is stopping");
    expect(events).toContain("close one");
    up.resolve({ ...absent, close: () => void events.push("close late") });
    await new Promise((resolve) => setImmediate(resolve));
    expect(events.at(-1)).toBe("close late");
  });

  test("no database file is made when no strategy asks for one", async () => {
    const running = await start([probe("a")], [strategy("one", "a")]);
    await running.close(100);
    expect(existsSync(join(directory, "state"))).toBe(false);
  });

  test("strategies share one database, which is closed after the last of them", async () => {
    const connections: unknown[] = [];
    let isOpenAtClose = false;
    const plugin = probe("db", (host) => {
      const database = host.database("probe", [
        { name: "001_probe", sql: "CREATE TABLE probe_rows (id INTEGER PRIMARY KEY) STRICT" },
      ]);
      connections.push(database);
      return {
        ...absent,
        close() {
          isOpenAtClose = database.query("SELECT 1 AS one").get() !== null;
        },
      };
    });
    const running = await start([plugin], [strategy("one", "db"), strategy("two", "db")]);
    expect(connections[0]).toBe(connections[1]);
    await running.close(100);
    expect(isOpenAtClose).toBe(true);
    const database = connections[0] as { query(sql: string): { get(): unknown } };
    expect(() => database.query("SELECT 2 AS two").get()).toThrow();
  });
});

describe("closing", () => {
  test("twice is once", async () => {
    const running = await start([probe("a")], [strategy("one", "a")]);
    await Promise.all([running.close(100), running.close(100)]);
    await running.close(100);
    expect(events).toEqual(["init one", "close one"]);
  });

  test("aborts the signal of the hosts before it closes the first strategy", async () => {
    let wasAborted: boolean | null = null;
    const plugin = probe("a", ({ signal }) => ({
      ...absent,
      close() {
        wasAborted = signal.aborted;
      },
    }));
    const running = await start([plugin], [strategy("one", "a")]);
    await running.close(100);
    expect(wasAborted).toBe(true as never);
  });

  test.each([
    [
      "throws",
      () => {
        throw new Error("stuck on hush-hush");
      },
    ],
    ["rejects", () => Promise.reject(new Error("stuck on hush-hush"))],
  ])(
    "a close that %s is logged without its secret, and the others are still closed",
    async (_, close) => {
      const running = await start(
        [probe("a"), probe("bad", () => ({ ...absent, close }))],
        [strategy("one", "a"), strategy("two", "bad", { word: "${env:WORD}" })],
        { env: { WORD: "hush-hush" } },
      );
      await running.close(100);
      expect(events.slice(2)).toEqual(["close two", "close one"]);
      expect(log.lines).toEqual([
        {
          level: "error",
          event: "strategy.close_failed",
          fields: { strategy: "two", error: "stuck on [redacted]" },
        },
      ]);
    },
  );

  test("a close that never ends is left behind after its deadline", async () => {
    const stuck = probe("stuck", () => ({ ...absent, close: () => new Promise<void>(() => {}) }));
    const running = await start(
      [probe("a"), stuck],
      [strategy("one", "a"), strategy("two", "stuck")],
    );
    await running.close(1);
    expect(events.slice(2)).toEqual(["close two", "close one"]);
    expect(log.lines[0]?.event).toBe("strategy.close_timeout");
  });
});

describe("the next configuration", () => {
  const kept = probe("kept", () => ({ ...absent, isKeptOnReload: true }));
  const remade = probe("remade");
  const plugins = [kept, remade];

  /** Goes over from one to the other, as a reload does. */
  async function over(
    before: readonly StrategyConfig[],
    after: readonly StrategyConfig[],
    env: { before?: Record<string, string>; after?: Record<string, string> } = {},
  ) {
    const first = await start(plugins, before, { env: env.before ?? {} });
    events = [];
    const loadPlugin = pluginLoader(plugins);
    const options = { config: config(after), loadPlugin, env: env.after ?? {}, log };
    const second = await first.next({ ...options, clock: settableClock() });
    return { first, second };
  }

  test("keeps what is the same and says that it may be kept, until nobody has it", async () => {
    const same = [strategy("one", "kept", { word: "${env:W}" }), strategy("two", "remade")];
    const { first, second } = await over(same, same, { before: { W: "w" }, after: { W: "w" } });
    expect(events).toEqual(["init two"]);
    expect(second.byName.get("one")).toBe(first.byName.get("one") as never);
    expect(second.byName.get("two")).not.toBe(first.byName.get("two") as never);
    await first.close(100);
    expect(events).toEqual(["init two", "close two"]);
    await second.close(100);
    expect(events).toEqual(["init two", "close two", "close two", "close one"]);
  });

  test.each([
    ["a setting is another", { deep: [1, 2] }, { deep: [2, 1] }],
    ["a secret is another", { word: "${env:W}" }, { word: "${env:W}" }],
  ])("starts one anew when %s", async (_, before, after) => {
    const { first, second } = await over(
      [strategy("one", "kept", before)],
      [strategy("one", "kept", after)],
      { before: { W: "first" }, after: { W: "second" } },
    );
    await first.close(100);
    await second.close(100);
    expect(events).toEqual(["init one", "close one", "close one"]);
  });

  test("a name that another plugin has now is another strategy, and one that is gone is closed", async () => {
    const { first, second } = await over(
      [strategy("one", "kept"), strategy("two", "kept")],
      [strategy("one", "remade")],
    );
    await first.close(100);
    expect(events).toEqual(["init one", "close two", "close one"]);
    await second.close(100);
  });

  test("one that cannot start takes nothing from those that run", async () => {
    const failing = probe("bad", () => {
      throw new Error("no luck");
    });
    const first = await start(plugins, [strategy("one", "kept")]);
    const wanted = [strategy("one", "kept"), strategy("new", "remade"), strategy("bad", "bad")];
    const options = { config: config(wanted), loadPlugin: pluginLoader([...plugins, failing]) };
    const { message } = await refusal(
      first.next({ ...options, env: {}, log, clock: settableClock() }),
    );
    expect(message).toContain("no luck");
    expect(events).toEqual(["init one", "init new", "init bad", "close new"]);
    await first.close(100);
    expect(events.at(-1)).toBe("close one");
  });

  test("keeps nothing when the authorities of the shared Valkey are others", async () => {
    const wanted = [strategy("one", "kept")];
    const tls = { ca: "ca.pem" };
    const valkey = { url: "rediss://127.0.0.1:1", tls, command_timeout: "1s" };
    const parts = {
      config: { ...config(wanted), shared: { valkey, prefix: "gate" } },
      loadPlugin: pluginLoader(plugins),
      env: {},
      log,
      clock: settableClock(),
      // Which reaches for it only when it needs it.
      purpose: "command" as const,
    };
    writeFileSync(join(directory, "ca.pem"), "first");
    const first = await startStrategies(parts);
    const second = await first.next(parts);
    expect(events).toEqual(["init one"]);
    writeFileSync(join(directory, "ca.pem"), "second");
    const third = await second.next(parts);
    expect(events).toEqual(["init one", "init one"]);
    for (const running of [first, second, third]) await running.close(100);
    expect(events.slice(2)).toEqual(["close one", "close one"]);
  });

  test("the database stays open for those that are kept, and each signal ends with its strategy", async () => {
    const seen: { signal: AbortSignal; read(): unknown }[] = [];
    const make = (isKeptOnReload: boolean) => (host: Host) => {
      const database = host.database("probe", []);
      seen.push({ signal: host.signal, read: () => database.query("SELECT 1 AS one").get() });
      return { ...absent, isKeptOnReload };
    };
    const both = [probe("stays", make(true)), probe("goes", make(false))];
    const wanted = [strategy("one", "stays"), strategy("two", "goes")];
    const first = await start(both, wanted);
    const second = await first.next({
      config: config(wanted),
      loadPlugin: pluginLoader(both),
      env: {},
      log,
      clock: settableClock(),
    });
    await first.close(100);
    expect(seen.map(({ signal }) => signal.aborted)).toEqual([false, true, false]);
    expect(seen[0]?.read()).toEqual({ one: 1 });
    await second.close(100);
    expect(seen.map(({ signal }) => signal.aborted)).toEqual([true, true, true]);
    expect(() => seen[0]?.read()).toThrow();
  });
});
