/** What is kept in memory, and that it is never kept for too long. */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { inOtherProcess } from "../../test/support/other-process.ts";
import {
  endStrategies,
  type Started,
  startOn,
  startValkey,
  type TestValkey,
  until,
  valkeyMissing,
} from "../../test/support/valkey.ts";
import plugin from "./index.ts";

const suite = valkeyMissing === null ? describe : describe.skip;
const key = (id: string) => `auth:token:${id}`;

suite(`memory${valkeyMissing === null ? "" : ` (${valkeyMissing})`}`, () => {
  let valkey: TestValkey;
  beforeEach(async () => {
    valkey = await startValkey();
  });
  afterEach(async () => {
    await endStrategies();
    await valkey.stop();
  });

  /** Whether it is answered without asking Valkey. */
  const isWarm = (started: Started, token: string): boolean =>
    !(started.ask(token) instanceof Promise);
  const warm = (started: Started, token: string): Promise<number> =>
    until(async () => {
      await started.ask(token);
      return isWarm(started, token);
    });

  test("a token that was used is answered in the same turn, and one that is unknown is asked for again", async () => {
    const started = await startOn(plugin, valkey.url);
    const { token } = await started.tokens.create({ name: "ci" });
    await warm(started, token);
    expect(await started.ask(token)).toMatchObject({ identity: { name: "ci" } });
    expect(await started.answer("nobody-holds-this")).toBe("unknown");
    expect(isWarm(started, "nobody-holds-this")).toBe(false);
  });

  test("with cache: false each request asks", async () => {
    const started = await startOn(plugin, valkey.url, { cache: false });
    const { token } = await started.tokens.create({ name: "ci" });
    for (let round = 0; round < 20; round += 1) {
      await started.ask(token);
      await Bun.sleep(1);
      expect(isWarm(started, token)).toBe(false);
    }
  });

  test("a DEL by another program holds on the next request, 2,000 times", async () => {
    const started = await startOn(plugin, valkey.url);
    const raw = valkey.client();
    const { token, record } = await started.tokens.create({ name: "ci" });
    const fields = await raw.hgetall(key(record.id));
    await warm(started, token);
    let wasWarm = 0;
    for (let round = 0; round < 2000; round += 1) {
      await started.ask(token);
      if (isWarm(started, token)) wasWarm += 1;
      await raw.del(key(record.id));
      expect(await started.answer(token)).toBe("unknown");
      await raw.hset(key(record.id), fields);
      expect(await started.answer(token)).toBe("accept");
    }
    expect(wasWarm).toBeGreaterThan(1000);
  });

  test("a DEL while the event loop is busy holds, although nothing of it was delivered yet", async () => {
    const started = await startOn(plugin, valkey.url);
    const { token, record } = await started.tokens.create({ name: "ci" });
    await warm(started, token);
    const code = `
      const done = Promise.withResolvers();
      const data = () => done.resolve();
      const socket = await Bun.connect({ hostname: "127.0.0.1", port: Number(Bun.argv[1]), socket: { data } });
      socket.write("DEL " + Bun.argv[2] + "\\r\\n");
      await done.promise;
      socket.end();
    `;
    inOtherProcess(code, String(valkey.port), key(record.id));
    // Still in the turn in which the token was warm.
    expect(await started.answer(token)).toBe("unknown");
  });

  test("an HSET by another program is seen on the next request", async () => {
    const started = await startOn(plugin, valkey.url);
    const raw = valkey.client();
    const { token, record } = await started.tokens.create({ name: "ci" });
    await warm(started, token);
    await raw.hset(key(record.id), "role", "admin");
    expect(await started.ask(token)).toMatchObject({ identity: { role: "admin" } });
    await raw.pexpire(key(record.id), 5000);
    expect(await started.ask(token)).toMatchObject({
      identity: { expiresAtMs: expect.any(Number) },
    });
    await raw.hdel(key(record.id), "sub");
    expect(await started.answer(token)).toBe("invalid_token");
    await raw.flushall();
    expect(await started.answer(token)).toBe("unknown");
  });

  test("what another gateway revokes or rotates holds on the next request", async () => {
    const [one, two] = [await startOn(plugin, valkey.url), await startOn(plugin, valkey.url)];
    const { token } = await one.tokens.create({ name: "ci" });
    await warm(one, token);
    await warm(two, token);
    const { token: fresh } = await two.tokens.rotate("ci", 0);
    expect([await one.answer(token), await one.answer(fresh)]).toEqual(["unknown", "accept"]);
    await warm(one, fresh);
    await two.tokens.revoke("ci", "");
    expect(await one.answer(fresh)).toBe("unknown");
  });

  test("a change between a look-up and its answer is never overwritten by the answer", async () => {
    const started = await startOn(plugin, valkey.url);
    const raw = valkey.client();
    const { token, record } = await started.tokens.create({ name: "ci" });
    const fields = await raw.hgetall(key(record.id));
    await warm(started, token);
    for (let round = 0; round < 500; round += 1) {
      await raw.hset(key(record.id), fields);
      // On two connections at once, so either may be first.
      const looks = Array.from({ length: 8 }, () => started.answer(token));
      await Promise.all([raw.del(key(record.id)), ...looks]);
      expect(await started.answer(token)).toBe("unknown");
    }
  });

  test("while the invalidation connection is gone nothing is answered from memory, and later again", async () => {
    const started = await startOn(plugin, valkey.url);
    const raw = valkey.client();
    const { token } = await started.tokens.create({ name: "ci" });
    await warm(started, token);
    await raw.call("client", "pause", "400", "write");
    await raw.call("client", "kill", "type", "pubsub");
    await until(() => !isWarm(started, token), 300);
    expect(await started.answer(token)).toBe("accept");
    await warm(started, token);
    expect(started.instance.health?.()).toEqual([]);
  });

  test("a server that falls silent is not believed for longer than two seconds", async () => {
    const started = await startOn(plugin, valkey.url, { command_timeout: "200ms" });
    const { token } = await started.tokens.create({ name: "ci" });
    await warm(started, token);
    valkey.pause();
    const ms = await until(async () => (await started.answer(token)) === "fault", 2000);
    expect(ms).toBeLessThan(1800);
    valkey.resume();
    expect(await until(async () => (await started.answer(token)) === "accept")).toBeLessThan(3000);
  });

  test("64 callers with 10,000 tokens never get another's identity, also across a restart", async () => {
    const started = await startOn(plugin, valkey.url);
    const adopted = Array.from({ length: 10_000 }, (_, index) => ({
      token: `sk-caller-${index}-${"x".repeat(20)}`,
      draft: { name: `n${index}`, owner: `owner-${index}` },
    }));
    const isLoaded = async (): Promise<boolean> => {
      try {
        await started.tokens.adoptAll(adopted);
        return true;
      } catch {
        return false;
      }
    };
    await until(isLoaded);
    const seen = { accept: 0, unknown: 0, fault: 0, wrong: 0 };
    let isOver = false;
    const caller = async (): Promise<void> => {
      while (!isOver) {
        const index = Math.floor(Math.random() * adopted.length);
        try {
          const outcome = await started.ask(adopted[index]?.token ?? "");
          if (outcome.outcome === "unknown") seen.unknown += 1;
          else if (outcome.outcome !== "accept") seen.wrong += 1;
          else if (outcome.identity.owner === `owner-${index}`) seen.accept += 1;
          else seen.wrong += 1;
        } catch {
          seen.fault += 1;
          await Bun.sleep(1);
        }
        await Bun.sleep(0);
      }
    };
    const callers = Array.from({ length: 64 }, caller);
    for (let round = 0; round < 2; round += 1) {
      await Bun.sleep(150);
      await valkey.restart();
      await until(isLoaded);
    }
    await Bun.sleep(150);
    isOver = true;
    await Promise.all(callers);
    expect(seen.wrong).toBe(0);
    expect(seen.accept).toBeGreaterThan(1000);
    expect(seen.fault).toBeGreaterThan(0);
  }, 60_000);
});
