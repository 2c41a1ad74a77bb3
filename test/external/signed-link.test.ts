/** The external example, loaded as an operator's file is: through the loader. */
import { afterEach, beforeAll, beforeEach, describe, expect, test } from "bun:test";
import { createHash, createHmac } from "node:crypto";
import type { Outcome } from "../../src/contract/outcome.ts";
import type { Plugin, StrategyInstance } from "../../src/contract/plugin.ts";
import { pluginLoader } from "../../src/loader.ts";
import { bundledPlugins } from "../../src/registry.ts";
import { contractSuite } from "../contract.suite.ts";
import { TEST_NOW_MS, type TestHost, testHost } from "../support/host.ts";
import { authRequest, type RequestDescription } from "../support/request.ts";

const KEY = "canary-key-3f9d2c41b7a8e6055d1c77";
const OTHER_KEY = "another-key-90ab12cd34ef5678901288";
const NOW_SECONDS = TEST_NOW_MS / 1000;

const load = (): Promise<Plugin> =>
  pluginLoader(bundledPlugins)("./signed-link.ts", null, import.meta.dir);

interface Signing {
  readonly keyId?: string;
  readonly key?: string;
  readonly seconds?: number;
  readonly method?: string;
  readonly path?: string;
  readonly query?: string;
  readonly body?: string;
}

function sign(signing: Signing = {}): string {
  const { keyId = "robot", key = KEY, seconds = NOW_SECONDS } = signing;
  const { method = "GET", path = "/v1/models", query = "", body = "" } = signing;
  const digest = createHash("sha256").update(body).digest("hex");
  const text = `v1\n${method}\n${path}${query}\n${seconds}\n${digest}\n`;
  const sig = createHmac("sha256", key).update(text).digest("hex");
  return `keyId=${keyId},ts=${seconds},sig=${sig}`;
}

/** A request signed as `signing` says; `actual` is what arrives instead. */
function signed(signing: Signing = {}, actual: RequestDescription = {}): RequestDescription {
  const { method = "GET", path = "/v1/models", query = "", body } = signing;
  const length = body === undefined ? {} : { "content-length": String(body.length) };
  return {
    ...{ method, path, query },
    ...(body === undefined ? {} : { body }),
    headers: { "x-signature": sign(signing), ...length },
    ...actual,
  };
}

let plugin: Plugin;
beforeAll(async () => {
  plugin = await load();
});

let made = 0;
contractSuite("signed-link, an external file", async () => ({
  plugin: await load(),
  config: { keys: `robot:${KEY}` },
  carrier: "x-signature",
  hasStore: true,
  secretsOf: (value) => [KEY, value.slice(value.indexOf("sig=") + 4)],
  accept() {
    made += 1;
    return signed({ query: `?n=${made}` });
  },
}));

describe("signed-link", () => {
  let context: TestHost;
  let instance: StrategyInstance;
  beforeEach(async () => {
    context = testHost({ strategy: "links" });
    const settings = plugin.config.parse({ keys: `robot:${KEY}\nother:${OTHER_KEY}` });
    instance = await plugin.init(settings, context.host);
  });
  afterEach(async () => {
    await instance.close?.();
    context.dispose();
  });
  const ask = async (description: RequestDescription): Promise<Outcome> =>
    await instance.authenticate(authRequest(description));
  const refused = (reason: string) => ({ outcome: "reject", reason, credentialId: "robot" });
  const accepted = { outcome: "accept", identity: { id: "robot", role: "user" } };

  test("a signature over method, path, query, time and body is accepted", async () => {
    const request = signed({
      method: "POST",
      path: "/v1/a%2Fb",
      query: "?x=1&y=%20",
      body: "hello",
    });
    expect(await ask(request)).toEqual(accepted as Outcome);
  });

  test("each key signs for its own id alone", async () => {
    expect((await ask(signed({ keyId: "other", key: OTHER_KEY }))).outcome).toBe("accept");
    expect(await ask(signed({ key: OTHER_KEY }))).toEqual(refused("signature_invalid") as Outcome);
    expect(await ask(signed({ keyId: "nobody" }))).toEqual({
      outcome: "reject",
      reason: "not_registered",
    });
  });

  test.each<[string, RequestDescription]>([
    ["method", { method: "DELETE" }],
    ["path", { path: "/v1/model" }],
    ["query", { query: "?admin=1" }],
    ["body", { body: "jello" }],
  ])("another %s than the one signed is refused", async (_, actual) => {
    const request = signed({ method: "POST", body: "hello" }, actual);
    expect(await ask(request)).toEqual(refused("signature_invalid") as Outcome);
  });

  test("a body beyond the cap is refused", async () => {
    const request = signed({ method: "POST", body: "x".repeat(1024 * 1024 + 1) });
    expect(await ask(request)).toEqual(refused("signature_invalid") as Outcome);
  });

  test.each([
    ["one second older than the window", -61, "stale_proof"],
    ["exactly as old as the window", -60, null],
    ["exactly as far ahead as the window", 60, null],
    ["one second further ahead", 61, "stale_proof"],
  ])("a signature %s is judged by the clock of the host", async (_, offset, reason) => {
    const outcome = await ask(signed({ seconds: NOW_SECONDS + offset }));
    expect(outcome).toEqual((reason === null ? accepted : refused(reason)) as Outcome);
  });

  test("a signature is accepted once, also when it is sent many times at once", async () => {
    const request = signed({ method: "POST", body: "once" });
    const outcomes = await Promise.all(Array.from({ length: 20 }, () => ask(request)));
    expect(outcomes.filter(({ outcome }) => outcome === "accept").length).toBe(1);
    expect(outcomes.filter((one) => "reason" in one && one.reason === "replayed").length).toBe(19);
  });

  test("a signature from the future cannot be replayed as long as its time is in the window", async () => {
    const request = signed({ seconds: NOW_SECONDS + 60 });
    await ask(request);
    for (const [seconds, reason] of [
      [60, "replayed"],
      [60, "replayed"],
      [1, "stale_proof"],
    ] as const) {
      context.clock.advance(seconds * 1000);
      await ask(signed({ seconds: context.clock.nowMs() / 1000 }));
      expect(await ask(request)).toEqual(refused(reason) as Outcome);
    }
  });

  test("a restart does not forget what was used", async () => {
    await ask(signed());
    await instance.close?.();
    const settings = plugin.config.parse({ keys: `robot:${KEY}` });
    instance = await plugin.init(settings, context.host);
    expect(await ask(signed())).toEqual(refused("replayed") as Outcome);
  });

  test.each(["", "robot", "robot:short", `robot:${KEY} robot:${OTHER_KEY}`])(
    "keys that cannot be read refuse to start without being shown",
    async (keys) => {
      const start = async (): Promise<unknown> =>
        await plugin.init({ ...plugin.config.parse({ keys: "x" }), keys }, context.host);
      const message = await start().then(
        () => "started",
        (error: Error) => error.message,
      );
      expect(message).toMatch(/^(key \d|two keys)/);
      expect(message).not.toContain(KEY);
    },
  );
});
