/** Connections as plugins get them: loaded when needed, ended by the gateway, and following changes without a gap. */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { tempDir } from "../../test/support/config.ts";
import { inOtherProcess } from "../../test/support/other-process.ts";
import { A_KEY, GOOD_CERTIFICATE } from "../../test/support/tls-fixtures.ts";
import {
  freePort,
  startValkey,
  type TestValkey,
  until,
  valkeyMissing,
} from "../../test/support/valkey.ts";
import type { Valkey } from "../contract/valkey.ts";
import { lazyValkey, type ValkeyConnections } from "./connections.ts";

const suite = valkeyMissing === null ? describe : describe.skip;
const files = tempDir();

let valkey: TestValkey;
let connections: ValkeyConnections;

beforeEach(async () => {
  connections = lazyValkey(files.path);
  if (valkeyMissing === null) valkey = await startValkey();
});
afterEach(async () => {
  connections.close();
  await valkey?.stop();
});

function open(more: Readonly<Record<string, unknown>> = {}): Promise<Valkey> {
  return connections.open({ url: valkey.url, command_timeout: "2s", ...more });
}

/** What a plugin would remember: keys that were seen and have not changed since. */
function memoryOn(client: Valkey) {
  const seen = new Set<string>();
  const tracking = client.track({
    prefix: "k:",
    onChange(keys) {
      if (keys === null) seen.clear();
      else for (const key of keys) seen.delete(key);
    },
  });
  if (tracking === null) throw new Error("no tracking");
  return { seen, tracking };
}

/** Whether a change that was answered is never taken for not having happened. Gives how often memory was used. */
async function changesHold(client: Valkey, writer: Valkey, rounds: number): Promise<number> {
  const { seen, tracking } = memoryOn(client);
  await until(() => tracking.isLive());
  let used = 0;
  for (let round = 0; round < rounds; round += 1) {
    const key = `k:${round % 7}`;
    seen.add(key);
    if (tracking.isLive()) used += 1;
    await writer.command("set", key, "x");
    expect(seen.has(key) && tracking.isLive()).toBe(false);
    await until(() => !seen.has(key));
  }
  return used;
}

test("the client is loaded by the first connection and by nothing else", () => {
  const code = `
    await import("./src/registry.ts");
    await import("./src/lifecycle.ts");
    const { lazyValkey } = await import("./src/valkey/connections.ts");
    const loaded = () => Object.keys(require.cache).filter((name) => /node_modules.iovalkey/.test(name)).length > 0;
    const before = loaded();
    await lazyValkey("/").open({ url: "redis://127.0.0.1:1", command_timeout: "2s" }).catch(() => {});
    console.log(before, loaded());
    process.exit(0);`;
  expect(inOtherProcess(code)).toBe("false true");
});

test("settings that nobody checked are refused before anything is connected", async () => {
  for (const url of ["redis://:canary-pw@127.0.0.1:1", "http://127.0.0.1:1", undefined]) {
    const opening = connections.open({ url, command_timeout: "2s" });
    await expect(opening).rejects.toThrow(TypeError);
    await expect(opening).rejects.not.toThrow("canary-pw");
  }
});

suite(`a connection${valkeyMissing === null ? "" : ` (${valkeyMissing})`}`, () => {
  test("sends commands, several in one go, and scans to the end", async () => {
    const client = await open();
    expect(client.place).toBe(`127.0.0.1:${valkey.port}`);
    for (let n = 0; n < 2500; n += 1) await client.command("set", `a:${n}`, "x");
    expect(
      await client.together([
        ["get", "a:1"],
        ["get", "none"],
      ]),
    ).toEqual(["x", null]);
    expect(new Set(await client.scan("a:*")).size).toBe(2500);
    await expect(client.command("hget", "a:1", "x")).rejects.toMatchObject({ code: "WRONGTYPE" });
  });

  test("is ended by the gateway, and none is opened any more", async () => {
    const client = await open();
    const opening = open();
    connections.close();
    await expect(opening).rejects.toThrow("shutting down");
    await expect(client.command("ping")).rejects.toMatchObject({ code: "OFFLINE" });
    await expect(open()).rejects.toThrow("shutting down");
    const raw = valkey.client();
    await until(
      async () =>
        String(await raw.client("LIST"))
          .trim()
          .split("\n").length === 1,
    );
  });

  test("a change that was answered on another connection is told, or seen to wait: 5,000 times", async () => {
    expect(await changesHold(await open(), await open(), 5000)).toBeGreaterThan(2000);
  });

  test("the same with TLS", async () => {
    const [cert, key] = [files.write("cert.pem", GOOD_CERTIFICATE), files.write("key.pem", A_KEY)];
    const port = await freePort();
    const pair = ["--tls-port", String(port), "--tls-cert-file", cert, "--tls-key-file", key];
    const more = ["--tls-ca-cert-file", cert, "--tls-auth-clients", "no"];
    const secured = await startValkey([...pair, ...more]);
    const tls = { url: `rediss://localhost:${port}`, tls: { ca: "cert.pem" } };
    const plain = { url: secured.url };
    expect(await changesHold(await open(tls), await open(tls), 2000)).toBeGreaterThan(800);
    expect(await changesHold(await open(tls), await open(plain), 2000)).toBeGreaterThan(800);
    connections.close();
    await secured.stop();
  });

  test("nothing is live while the connection is away, and the listener is told to forget", async () => {
    const client = await open();
    const { seen, tracking } = memoryOn(client);
    await until(() => tracking.isLive());
    seen.add("k:1");
    await valkey.kill();
    await until(() => !tracking.isOn());
    expect([seen.size, tracking.isLive(), tracking.problem()]).toEqual([0, false, "OFFLINE"]);
    await valkey.restart();
    expect(await until(() => tracking.isLive())).toBeLessThan(3000);
    expect(tracking.problem()).toBeNull();
  });

  test("a listener that throws is never called live again", async () => {
    const client = await open();
    const tracking = client.track({
      prefix: "k:",
      onChange(keys) {
        if (keys !== null) throw new Error("a mistake of the plugin");
      },
    });
    await until(() => tracking?.isLive() === true);
    await client.command("set", "k:1", "x");
    await until(() => tracking?.problem() === "LISTENER");
    expect([tracking?.isLive(), tracking?.isOn()]).toEqual([false, false]);
    expect(await client.command("get", "k:1")).toBe("x");
  });
});
