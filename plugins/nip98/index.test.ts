/** The strategy as a whole: the order of its questions, replay, payload, and what other processes do meanwhile. */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { renameSync } from "node:fs";
import { join } from "node:path";
import type { Outcome, RejectReason, StrategyInstance } from "gatehouse";
import { getToken } from "nostr-tools/nip98";
import { type EventTemplate, finalizeEvent } from "nostr-tools/pure";
import { createHost, lazyDatabase } from "../../src/host.ts";
import { type TestHost, testHost } from "../../test/support/host.ts";
import {
  newKey,
  nostrHeader,
  type SignedRequest,
  sha256,
  signEvent,
  signed,
  tagsOf,
} from "../../test/support/nostr.ts";
import { inOtherProcess } from "../../test/support/other-process.ts";
import { authRequest, type RequestDescription } from "../../test/support/request.ts";
import { startNip98 } from "./index.ts";
import { MIGRATIONS } from "./members-table.ts";
import { settingsSchema } from "./settings.ts";
import { loadVerifier } from "./signatures.ts";

const ALICE = newKey();
const STRANGER = newKey();
const verify = await loadVerifier();

let context: TestHost;
let checks = 0;
const running: StrategyInstance[] = [];

beforeEach(() => {
  context = testHost({ strategy: "nostr" });
  checks = 0;
});
afterEach(async () => {
  for (const instance of running.splice(0)) await instance.close?.();
  context.dispose();
});

function start(config: Record<string, unknown> = {}, host = context.host): StrategyInstance {
  const settings = settingsSchema().parse({ admins: [ALICE.npub], ...config });
  const instance = startNip98(settings, host, (proof) => {
    checks += 1;
    return verify(proof);
  });
  running.push(instance);
  return instance;
}

async function ask(
  instance: StrategyInstance,
  authorization: string,
  more: RequestDescription = {},
): Promise<Outcome> {
  return await instance.authenticate(authRequest({ ...more, headers: { authorization } }));
}

/** `accept`, or why not. */
async function said(
  instance: StrategyInstance,
  authorization: string,
  more: RequestDescription = {},
): Promise<string> {
  const outcome = await ask(instance, authorization, more);
  return outcome.outcome === "reject" ? outcome.reason : outcome.outcome;
}

function by(key: typeof ALICE, request: SignedRequest = {}): string {
  return signed(key, { clock: context.clock, ...request });
}

const POST = { method: "POST" };

describe("a registered key", () => {
  test("is accepted with everything a route may need to know", async () => {
    const instance = start();
    await instance.members?.update(ALICE.npub, { name: "Alice" });
    expect(await ask(instance, by(ALICE))).toEqual({
      outcome: "accept",
      identity: {
        id: ALICE.pubkey,
        name: "Alice",
        role: "admin",
        attributes: {
          pubkey: ALICE.pubkey,
          npub: ALICE.npub,
          client_id: `nostr:${ALICE.pubkey}`,
        },
      },
    });
  });

  test("signs with nostr-tools as the client", async () => {
    const instance = start();
    context.clock.set(Date.now());
    const sign = async (event: EventTemplate) => finalizeEvent(event, ALICE.secret);
    const url = "http://127.0.0.1:8008/v1/chat?x=%2F";
    const place = { path: "/v1/chat", query: "?x=%2F" };
    expect(await said(instance, await getToken(url, "get", sign, true), place)).toBe("accept");
    const body = { model: "m", messages: ["ÿ"] };
    const token = await getToken(url, "post", sign, true, body);
    const request = { ...place, method: "POST", body: JSON.stringify(body) };
    expect(await said(instance, token, { ...request, body: `${request.body} ` })).toBe(
      "signature_invalid",
    );
    expect(await said(instance, token, request)).toBe("accept");
  });

  test("is current until it is removed or has another role", async () => {
    const instance = start();
    const outcome = await ask(instance, by(ALICE));
    if (outcome.outcome !== "accept") throw new Error("not accepted");
    expect(await instance.isCurrent?.(outcome.identity)).toBe(true);
    instance.members?.add({ key: STRANGER.npub, role: "admin", source: "cli" });
    instance.members?.update(ALICE.npub, { role: "user" });
    expect(await instance.isCurrent?.(outcome.identity)).toBe(false);
    instance.members?.remove(ALICE.npub);
    expect(await instance.isCurrent?.(outcome.identity)).toBe(false);
    expect(await said(instance, by(ALICE))).toBe("not_registered");
  });
});

describe("the order of the questions", () => {
  const wrong: readonly [string, () => string, RequestDescription, RejectReason][] = [
    ["form", () => "Nostr x", {}, "malformed_credential"],
    ["time", () => by(ALICE, { offsetSeconds: 61 }), {}, "stale_proof"],
    ["URL", () => by(ALICE, { url: "http://127.0.0.1:8008/x" }), {}, "wrong_audience"],
    ["method", () => by(ALICE), POST, "wrong_audience"],
    ["registration", () => by(STRANGER), {}, "not_registered"],
    [
      "payload",
      () => by(ALICE, { ...POST, body: "a" }),
      { ...POST, body: "b" },
      "signature_invalid",
    ],
    ["no payload", () => by(ALICE, POST), { ...POST, body: "b" }, "signature_invalid"],
  ];

  test.each(wrong)("a wrong %s costs no signature check", async (_, header, request, reason) => {
    const instance = start();
    expect(await said(instance, header(), request)).toBe(reason);
    expect(checks).toBe(0);
    expect(await said(instance, by(ALICE))).toBe("accept");
    expect(checks).toBe(1);
  });

  test("a replay costs no signature check, and the key that was refused is named", async () => {
    const instance = start();
    const header = by(ALICE, POST);
    expect(await said(instance, header, POST)).toBe("accept");
    expect(await ask(instance, header, POST)).toEqual({
      outcome: "reject",
      reason: "replayed",
      credentialId: ALICE.pubkey,
    });
    expect(checks).toBe(1);
  });

  test("a forged proof does not use up the real one", async () => {
    const instance = start();
    const event = signEvent(ALICE, { ...POST, clock: context.clock });
    const forged = { ...event, content: "x" };
    expect(await said(instance, nostrHeader(forged), POST)).toBe("signature_invalid");
    expect(await said(instance, nostrHeader(event), POST)).toBe("accept");
  });
});

describe("every single change of a good event", () => {
  const event = signEvent(ALICE, {
    method: "POST",
    body: "{}",
    clock: { nowMs: () => 1_767_225_600_000 },
  });
  const request = { method: "POST", body: "{}" };
  const other = signEvent(STRANGER);
  const tag = (name: string, value: string) =>
    event.tags.map(([key = "", own = ""]) => (key === name ? [key, value] : [key, own]));

  test.each<[string, object]>([
    ["another id", { id: other.id }],
    ["another key", { pubkey: other.pubkey }],
    ["another signature", { sig: other.sig }],
    ["another second", { created_at: event.created_at + 1 }],
    ["another kind", { kind: 1 }],
    ["other content", { content: "x" }],
    ["another URL", { tags: tag("u", "http://127.0.0.1:8008/admin") }],
    ["another method", { tags: tag("method", "DELETE") }],
    ["another payload", { tags: tag("payload", sha256("[]")) }],
    ["another nonce", { tags: tag("nonce", "x") }],
    ["no tags", { tags: [] }],
    ["one tag more", { tags: [...event.tags, ["x"]] }],
    ["the method in lower case", { tags: tag("method", "post") }],
    ["the host in upper case", { tags: tag("u", "HTTP://127.0.0.1:8008/") }],
  ])("%s is refused", async (_, change) => {
    const instance = start({ users: [other.pubkey] });
    expect(await said(instance, nostrHeader({ ...event, ...change }), request)).not.toBe("accept");
    expect(await said(instance, nostrHeader(event), request)).toBe("accept");
  });
});

describe("the body", () => {
  test("without a body no payload tag is needed, and one that is there must be of nothing", async () => {
    const instance = start();
    expect(await said(instance, by(ALICE, POST), POST)).toBe("accept");
    expect(await said(instance, by(ALICE, { ...POST, body: "" }), POST)).toBe("accept");
    expect(await said(instance, by(ALICE, { ...POST, body: "{}" }), POST)).toBe(
      "signature_invalid",
    );
  });

  test("optional lets a body without a tag and a tag without a body pass, but never a wrong tag", async () => {
    const instance = start({ payload: "optional" });
    const request = { ...POST, body: "{}" };
    expect(await said(instance, by(ALICE, POST), request)).toBe("accept");
    expect(await said(instance, by(ALICE, request), request)).toBe("accept");
    // In forward-auth the proxy keeps the body.
    expect(await said(instance, by(ALICE, request), POST)).toBe("accept");
    const wrong = by(ALICE, { ...POST, body: "[]" });
    expect(await said(instance, wrong, request)).toBe("signature_invalid");
    const tags = [...tagsOf(POST), ["payload", "x"]];
    expect(await said(instance, by(ALICE, { ...POST, tags }), request)).toBe("signature_invalid");
  });

  test("a body over the cap is refused and logged, at the cap it is hashed", async () => {
    const instance = start({ max_body: "1KiB" });
    const at = { ...POST, body: "x".repeat(1024) };
    const over = { ...POST, body: "x".repeat(1025) };
    expect(await said(instance, by(ALICE, at), at)).toBe("accept");
    expect(await said(instance, by(ALICE, over), over)).toBe("signature_invalid");
    expect(context.log.text()).toContain("nip98.body_too_large");
  });

  test("a body that cannot be read is the body's fault, not the credential's", async () => {
    const instance = start();
    const request = authRequest({ method: "POST", headers: { authorization: by(ALICE, POST) } });
    const broken = {
      ...request,
      bodyHash: () => Promise.reject(new Error("the client went away")),
    };
    await expect(Promise.resolve(instance.authenticate(broken))).rejects.toThrow("went away");
    // And the proof was not used up by it.
    expect((await instance.authenticate(request)).outcome).toBe("accept");
  });
});

describe("replay", () => {
  test.each(["POST", "PUT", "PATCH", "DELETE", "PROPPATCH"])("%s works once", async (method) => {
    const instance = start();
    const header = by(ALICE, { method });
    expect(await said(instance, header, { method })).toBe("accept");
    expect(await said(instance, header, { method })).toBe("replayed");
  });

  test("GET and HEAD work again unless all is said", async () => {
    for (const method of ["GET", "HEAD"]) {
      const header = by(ALICE, { method });
      const unsafe = start();
      expect(await said(unsafe, header, { method })).toBe("accept");
      expect(await said(unsafe, header, { method })).toBe("accept");
      const all = start({ replay: "all" });
      expect(await said(all, header, { method })).toBe("accept");
      expect(await said(all, header, { method })).toBe("replayed");
    }
  });

  test.each<[string, (text: string, event: object) => string]>([
    [
      "hex in upper case",
      (text) =>
        nostrHeader(
          text.replace(/"(id|sig|pubkey)":"[^"]+"/g, (s) =>
            s.replace(/:".*/, (v) => v.toUpperCase()),
          ),
        ),
    ],
    ["the other alphabet", (text) => `Nostr ${Buffer.from(text).toString("base64url")}`],
    ["no padding", (text) => nostrHeader(text).replace(/=+$/, "")],
    [
      "keys in another order",
      (_, event) => nostrHeader(Object.fromEntries(Object.entries(event).reverse())),
    ],
    ["white space", (_, event) => nostrHeader(JSON.stringify(event, null, 2))],
    ["escapes", (text) => nostrHeader(text.replace('"nonce"', '"\\u006eonce"'))],
    ["another scheme case", (text) => nostrHeader(text).replace("Nostr", "NOSTR  ")],
  ])("the same proof with %s is a replay", async (_, dress) => {
    const instance = start();
    // With characters that the alphabets write differently, and a length that needs padding.
    const event = [1, 2, 3]
      .map((count) => `${"\u00ff?>~".repeat(6)}${"x".repeat(count)}`)
      .map((content) => signEvent(ALICE, { ...POST, content, clock: context.clock }))
      .find((candidate) => nostrHeader(candidate).endsWith("="));
    if (event === undefined) throw new Error("none needs padding");
    const dressed = dress(JSON.stringify(event), event);
    expect(dressed).not.toBe(nostrHeader(event));
    expect(await said(instance, nostrHeader(event), POST)).toBe("accept");
    expect(await said(instance, dressed, POST)).toBe("replayed");
    expect(checks).toBe(1);
  });

  test("in other clothes first it is good once, too", async () => {
    const instance = start();
    const event = signEvent(ALICE, { ...POST, clock: context.clock });
    const upper = { ...event, sig: event.sig.toUpperCase(), id: event.id.toUpperCase() };
    expect(await said(instance, nostrHeader(upper), POST)).toBe("accept");
    expect(await said(instance, nostrHeader(event), POST)).toBe("replayed");
  });

  test("the same id with another signature is another proof", async () => {
    const instance = start();
    const tags = [
      ["u", "http://127.0.0.1:8008/"],
      ["method", "POST"],
    ];
    const first = signEvent(ALICE, { tags, clock: context.clock });
    const second = signEvent(ALICE, { tags, clock: context.clock });
    expect(second.id).toBe(first.id);
    expect(second.sig).not.toBe(first.sig);
    expect(await said(instance, nostrHeader(first), POST)).toBe("accept");
    expect(await said(instance, nostrHeader(second), POST)).toBe("accept");
  });

  test("of 50 at once exactly one passes, at the price of one signature check", async () => {
    const instance = start();
    const header = by(ALICE, { ...POST, body: "{}" });
    const all = await Promise.all(
      Array.from({ length: 50 }, () => said(instance, header, { ...POST, body: "{}" })),
    );
    expect(all.filter((text) => text === "accept")).toHaveLength(1);
    expect(all.filter((text) => text === "replayed")).toHaveLength(49);
    expect(checks).toBe(1);
  });

  test("of 50 at once over two instances of one database exactly one passes", async () => {
    const second = secondHost();
    const instances = [start(), start({}, second.host)];
    const header = by(ALICE, POST);
    const all = await Promise.all(
      Array.from({ length: 50 }, (_, index) => said(instances[index % 2]!, header, POST)),
    );
    expect(all.filter((text) => text === "accept")).toHaveLength(1);
    second.close();
  });

  test("it is refused after a restart, and in another process", async () => {
    const header = by(ALICE, POST);
    const first = start();
    expect(await said(first, header, POST)).toBe("accept");
    await first.close?.();
    expect(await said(start(), header, POST)).toBe("replayed");
    expect(inProcess(header)).toBe("replayed");
  });

  test("what another process accepted is refused here", async () => {
    const instance = start();
    const header = by(ALICE, POST);
    expect(inProcess(header)).toBe("accept");
    expect(await said(instance, header, POST)).toBe("replayed");
    expect(checks).toBe(0);
  });

  test("a proof from the future is remembered until it is old", async () => {
    const instance = start();
    const header = by(ALICE, { ...POST, offsetSeconds: 60 });
    expect(await said(instance, header, POST)).toBe("accept");
    for (const seconds of [0, 60, 60, 1]) {
      context.clock.advance(seconds * 1000);
      expect(await said(instance, header, POST)).toBe(seconds === 1 ? "stale_proof" : "replayed");
    }
  });

  test("a proof whose body took longer than others are remembered is stale", async () => {
    const instance = start();
    const base = authRequest({ ...POST, headers: { authorization: by(ALICE, POST) } });
    const slow = {
      ...base,
      bodyHash: (maxBytes: number) => {
        context.clock.advance(240_000);
        return base.bodyHash(maxBytes);
      },
    };
    expect(await instance.authenticate(slow)).toMatchObject({ reason: "stale_proof" });
  });
});

describe("troubles", () => {
  test("a write lock of another process does not stop the others, and ends in time", async () => {
    const instance = start();
    const blocker = secondHost();
    const database = blocker.host.database("nip98", MIGRATIONS);
    database.run("BEGIN IMMEDIATE");
    const waiting = said(instance, by(ALICE, POST), POST);
    await Bun.sleep(20);
    const startMs = performance.now();
    expect(await said(instance, by(ALICE))).toBe("accept");
    expect(performance.now() - startMs).toBeLessThan(100);
    database.run("ROLLBACK");
    expect(await waiting).toBe("accept");
    blocker.close();
  });

  test("a lock that does not end is a fault", async () => {
    const instance = start();
    const blocker = secondHost();
    const database = blocker.host.database("nip98", MIGRATIONS);
    database.run("BEGIN IMMEDIATE");
    const header = by(ALICE, POST);
    await expect(said(instance, header, POST)).rejects.toThrow();
    database.run("ROLLBACK");
    expect(await said(instance, header, POST)).toBe("accept");
    blocker.close();
  });
});

/** Another connection to the same state, as another process would have it. */
function secondHost() {
  const { stateDir } = context.host;
  const database = lazyDatabase(stateDir, context.clock);
  const shared = {
    log: context.log,
    clock: context.clock,
    stateDir,
    configDir: context.directory,
    env: {},
    database,
    signal: new AbortController().signal,
  };
  return { host: createHost("nostr", shared), close: () => database.close() };
}

/** Asks an instance in a process of its own about a POST. */
function inProcess(header: string): string {
  return inOtherProcess(
    `import { createHost, lazyDatabase } from "./src/host.ts";
     import plugin from "./plugins/nip98/index.ts";
     import { authRequest } from "./test/support/request.ts";
     const [stateDir, nowMs, authorization, admin] = Bun.argv.slice(-4);
     const clock = { nowMs: () => Number(nowMs) };
     const log = { debug() {}, info() {}, warn() {}, error() {} };
     const database = lazyDatabase(stateDir, clock);
     const shared = { log, clock, stateDir, configDir: stateDir, env: {}, database, signal: new AbortController().signal };
     const instance = await plugin.init(plugin.config.parse({ admins: [admin] }), createHost("nostr", shared));
     const outcome = await instance.authenticate(authRequest({ method: "POST", headers: { authorization } }));
     console.log(outcome.reason ?? outcome.outcome);
     instance.close();
     database.close();`,
    context.host.stateDir,
    String(context.clock.nowMs()),
    header,
    ALICE.npub,
  );
}

test("a state database that was replaced or removed is a fault until it is back", async () => {
  const instance = start();
  expect(await said(instance, by(ALICE))).toBe("accept");
  const file = join(context.host.stateDir, "gatehouse.db");
  renameSync(file, `${file}.kept`);
  // It is looked for at most every 200 ms.
  await Bun.sleep(250);
  for (let n = 0; n < 2; n += 1) {
    await expect(said(instance, by(ALICE))).rejects.toThrow("restart the gateway");
  }
  renameSync(`${file}.kept`, file);
  expect(await said(instance, by(ALICE))).toBe("accept");
});
