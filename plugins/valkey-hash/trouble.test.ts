/** What happens when Valkey is away, slow, full, read-only, locked or holds nonsense. */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { join } from "node:path";
import { tempDir } from "../../test/support/config.ts";
import { testHost } from "../../test/support/host.ts";
import { A_KEY, GOOD_CERTIFICATE } from "../../test/support/tls-fixtures.ts";
import {
  endStrategies,
  freePort,
  startOn,
  startValkey,
  TEST_SALT,
  type TestValkey,
  until,
  valkeyMissing,
} from "../../test/support/valkey.ts";
import plugin from "./index.ts";

const suite = valkeyMissing === null ? describe : describe.skip;
const key = (id: string) => `auth:token:${id}`;
const PASSWORD = "canary-password-0123456789";

async function messageOf(work: () => unknown): Promise<string> {
  try {
    await work();
  } catch (error) {
    return Bun.inspect(error);
  }
  throw new Error("it did not fail");
}

suite(`trouble${valkeyMissing === null ? "" : ` (${valkeyMissing})`}`, () => {
  let valkey: TestValkey;
  beforeEach(async () => {
    valkey = await startValkey();
  });
  afterEach(async () => {
    await endStrategies();
    await valkey.stop();
  });

  test("down is a fault at once, warm or cold, and it is back within three seconds", async () => {
    const started = await startOn(plugin, valkey.url);
    const { token } = await started.tokens.create({ name: "ci" });
    for (let round = 0; round < 20; round += 1) await started.ask(token);
    await valkey.kill();
    await until(() => started.instance.health?.()[0]?.code === "valkey_down");
    const startMs = performance.now();
    expect(await started.answer(token)).toBe("fault");
    expect(await started.answer("another-token")).toBe("fault");
    expect(performance.now() - startMs).toBeLessThan(100);
    expect(await messageOf(() => started.tokens.create({ name: "x" }))).toContain("(OFFLINE)");
    await Bun.sleep(1500);
    await valkey.restart();
    expect(await until(async () => (await started.answer(token)) === "unknown")).toBeLessThan(3000);
    const again = await started.tokens.create({ name: "ci" });
    expect(await started.answer(again.token)).toBe("accept");
    expect(started.instance.health?.().map(({ code }) => code)).not.toContain("valkey_down");
  });

  test("a server that accepts and says nothing costs one deadline, then nothing", async () => {
    const started = await startOn(plugin, valkey.url, { command_timeout: "300ms" });
    const { token } = await started.tokens.create({ name: "ci" });
    valkey.pause();
    expect(await started.answer("first")).toBe("fault");
    const startMs = performance.now();
    for (let n = 0; n < 20; n += 1) expect(await started.answer(`later-${n}`)).toBe("fault");
    expect(performance.now() - startMs).toBeLessThan(900);
    valkey.resume();
    expect(await until(async () => (await started.answer(token)) === "accept")).toBeLessThan(3000);
  });

  test("nobody there refuses the start in one line and with the system's code", async () => {
    await valkey.stop();
    const start = startOn(plugin, valkey.url);
    await expect(start).rejects.toMatchObject({ code: "ECONNREFUSED" });
    await expect(start).rejects.toThrow(
      `valkey at 127.0.0.1:${valkey.port}: nothing listens there`,
    );
  });

  test("a wrong or missing password refuses the start and is not shown; the right one is fine", async () => {
    const locked = await startValkey(["--requirepass", PASSWORD]);
    const wrong = `${PASSWORD}-wrong`;
    for (const [config, code] of [
      [{}, "NOAUTH"],
      [{ password: wrong }, "WRONGPASS"],
      [{ username: "nobody", password: PASSWORD }, "WRONGPASS"],
    ] as const) {
      const message = await messageOf(() => startOn(plugin, locked.url, config));
      expect(message).toContain(`(${code})`);
      expect(message).not.toContain(PASSWORD);
    }
    const { tokens, answer } = await startOn(plugin, locked.url, { password: PASSWORD });
    expect(await answer((await tokens.create({ name: "ci" })).token)).toBe("accept");
    await locked.stop();
  });

  test("a user with the documented rights is enough; without tracking it works without memory", async () => {
    const raw = valkey.client();
    const rights =
      "on >pw ~auth:* resetchannels &__redis__:invalidate -@all +auth +ping +info +hmget +hget +pttl +eval +exists +hset +hexists +pexpire +del +sadd +srem +smembers +scan +set +get".split(
        " ",
      );
    await raw.call(
      "acl",
      "setuser",
      "full",
      ...rights,
      "+client|id",
      "+client|tracking",
      "+subscribe",
    );
    await raw.call("acl", "setuser", "less", ...rights);
    for (const username of ["full", "less"]) {
      const started = await startOn(plugin, valkey.url, { username, password: "pw" });
      const { token } = await started.tokens.create({ name: username, expiresAtMs: 1e14 });
      await started.tokens.rotate(username, 1000);
      expect(await started.answer(token)).toBe("accept");
      await until(
        () =>
          (started.instance.health?.()[0]?.text ?? "").includes("NOPERM") === (username === "less"),
      );
      const isWarm = await until(() => !(started.ask(token) instanceof Promise), 300).then(
        () => true,
        () => false,
      );
      expect(isWarm).toBe(username === "full");
      await started.tokens.revoke(username, "");
      expect(await started.tokens.list()).toEqual([]);
    }
  });

  test("a key of another type is a fault for that token alone", async () => {
    const started = await startOn(plugin, valkey.url);
    const raw = valkey.client();
    const bad = await started.tokens.create({ name: "bad" });
    const good = await started.tokens.create({ name: "good" });
    await raw.del(key(bad.record.id));
    await raw.set(key(bad.record.id), "a string");
    expect(await started.answer(bad.token)).toBe("fault");
    expect(await messageOf(() => started.ask(bad.token))).toContain("(WRONGTYPE)");
    expect(await started.answer(good.token)).toBe("accept");
    expect((await started.tokens.list()).map(({ name }) => name)).toEqual(["good"]);
  });

  test("a half-written token is never accepted", async () => {
    const started = await startOn(plugin, valkey.url);
    const raw = valkey.client();
    const { token, record } = await started.tokens.create({ name: "ci" });
    await raw.hdel(key(record.id), "sub");
    expect(await started.answer(token)).toBe("invalid_token");
    await raw.hset(key(record.id), "sub", "bob", "expires_at", "never");
    expect(await started.answer(token)).toBe("invalid_token");
  });

  test("a read-only replica and a full memory answer requests and say why they do not write", async () => {
    const started = await startOn(plugin, valkey.url);
    const raw = valkey.client();
    const { token } = await started.tokens.create({ name: "ci" });
    const writes = [
      () => started.tokens.create({ name: "new" }),
      () => started.tokens.rotate("ci", 0),
      () => started.tokens.adopt("sk-imported-0123456789", { name: "old" }),
    ];
    await raw.config("SET", "maxmemory", "1");
    for (const write of writes) expect(await messageOf(write)).toContain("out of memory");
    expect(await started.answer(token)).toBe("accept");
    await raw.config("SET", "maxmemory", "0");
    await raw.config("SET", "repl-diskless-sync-delay", "0");
    const replica = await startValkey(["--replicaof", "127.0.0.1", String(valkey.port)]);
    const copy = await startOn(plugin, replica.url);
    await until(async () => (await copy.answer(token)) === "accept");
    expect(await messageOf(() => copy.tokens.revoke("ci", ""))).toContain("read-only replica");
    expect((await copy.tokens.list()).map(({ name }) => name)).toEqual(["ci"]);
    await replica.stop();
  });

  test("TLS is checked against the given certificates", async () => {
    const files = tempDir();
    const [cert, keyFile] = [
      files.write("cert.pem", GOOD_CERTIFICATE),
      files.write("key.pem", A_KEY),
    ];
    const port = await freePort();
    const args = ["--tls-port", String(port), "--tls-cert-file", cert, "--tls-key-file", keyFile];
    const secured = await startValkey([
      ...args,
      "--tls-ca-cert-file",
      cert,
      "--tls-auth-clients",
      "no",
    ]);
    const url = `rediss://localhost:${port}`;
    const { tokens, answer } = await startOn(plugin, url, { tls: { ca: cert } });
    expect(await answer((await tokens.create({ name: "ci" })).token)).toBe("accept");
    expect(await messageOf(() => startOn(plugin, url))).toMatch(/\((DEPTH_ZERO_)?SELF_SIGNED/);
    const check = plugin.check?.(
      plugin.config.parse({ url, salt: TEST_SALT, tls: { ca: "no.pem" } }),
      {
        env: {},
        configDir: files.path,
      },
    );
    expect(check).toEqual([`tls.ca: ${join(files.path, "no.pem")} cannot be read`]);
    await endStrategies();
    await secured.stop();
    files.remove();
  });

  test("a cluster works with one key a command, without memory", async () => {
    const node = await startValkey([
      "--cluster-enabled",
      "yes",
      "--cluster-announce-ip",
      "127.0.0.1",
    ]);
    const raw = node.client();
    await raw.call("cluster", "addslotsrange", "0", "16383");
    await until(async () => String(await raw.call("cluster", "info")).includes("cluster_state:ok"));
    const nodes = [`127.0.0.1:${node.port}`];
    const context = testHost();
    const instance = await plugin.init(
      plugin.config.parse({ cluster: { nodes }, salt: TEST_SALT }),
      context.host,
    );
    const first = await instance.tokens?.create({ name: "ci", owner: "bob", expiresAtMs: 1e14 });
    const second = await instance.tokens?.rotate("ci", 10_000);
    expect(await instance.tokens?.list()).toHaveLength(1);
    expect(second?.record.id).toBe(first?.record.id ?? "");
    expect(instance.health?.().map(({ code }) => code)).toEqual(["cache_off_in_cluster"]);
    await instance.tokens?.revoke("ci", "");
    expect(await raw.keys("auth:*")).toEqual([]);
    await instance.close?.();
    context.dispose();
    await node.stop();
  });

  test("sentinels name the primary", async () => {
    const files = tempDir();
    const config = files.write(
      "sentinel.conf",
      `sentinel monitor main 127.0.0.1 ${valkey.port} 1\n`,
    );
    const sentinel = await startValkey(["--sentinel"], config);
    const context = testHost();
    const settings = {
      sentinel: { name: "main", nodes: [`127.0.0.1:${sentinel.port}`] },
      salt: TEST_SALT,
    };
    const instance = await plugin.init(plugin.config.parse(settings), context.host);
    await instance.tokens?.create({ name: "ci" });
    expect(await valkey.client().keys("auth:token:*")).toHaveLength(1);
    await until(() => instance.health?.().length === 0);
    const unknown = { ...settings, sentinel: { ...settings.sentinel, name: "other" } };
    expect(
      await messageOf(() => plugin.init(plugin.config.parse(unknown), context.host)),
    ).toContain("other behind");
    await instance.close?.();
    context.dispose();
    await sentinel.stop();
    files.remove();
  }, 20_000);

  test("salt, password and tokens are in no log line, error, outcome or key", async () => {
    const locked = await startValkey(["--requirepass", PASSWORD]);
    const { tokens, instance, ask, context } = await startOn(plugin, locked.url, {
      password: PASSWORD,
      format: "checked",
    });
    const foreign = "sk-canary-0123456789abcdefghij";
    const issued = await tokens.create({ name: "ci" });
    const rotated = await tokens.rotate("ci", 60_000);
    await tokens.adopt(foreign, { name: "old" });
    const said: string[] = [];
    for (const token of [issued.token, rotated.token, foreign]) {
      said.push(JSON.stringify(await ask(token)));
      for (const work of [() => tokens.get(token), () => tokens.adopt(token, { name: "again" })]) {
        said.push(await messageOf(work));
      }
    }
    const raw = locked.client(PASSWORD);
    const stored = await Promise.all(
      (await raw.keys("*")).map(
        async (one) =>
          one + (one.startsWith("auth:token:") ? JSON.stringify(await raw.hgetall(one)) : ""),
      ),
    );
    await locked.kill();
    await until(() => instance.health?.()[0]?.code === "valkey_down");
    said.push(
      await messageOf(() => ask(foreign)),
      JSON.stringify(instance.health?.()),
      context.log.text(),
      ...stored,
    );
    await instance.close?.();
    said.push(context.log.text());
    for (const secret of [
      TEST_SALT,
      PASSWORD,
      foreign,
      issued.token.slice(18),
      rotated.token.slice(18),
    ]) {
      expect(said.filter((text) => text.includes(secret))).toEqual([]);
    }
    await locked.stop();
  });
});
