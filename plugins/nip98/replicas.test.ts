/** Signed requests at two gateways that share a Valkey: one passes, and what cannot be told is a fault. */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import type { StrategyInstance } from "gatehouse";
import {
  newKey,
  nostrHeader,
  type SignedRequest,
  signEvent,
  signed,
} from "../../test/support/nostr.ts";
import { endReplica, endReplicas, openReplica, type Replica } from "../../test/support/replicas.ts";
import { authRequest } from "../../test/support/request.ts";
import { startValkey, type TestValkey, until, valkeyMissing } from "../../test/support/valkey.ts";
import { startNip98 } from "./index.ts";
import { settingsSchema } from "./settings.ts";
import { loadVerifier } from "./signatures.ts";

const suite = valkeyMissing === null ? describe : describe.skip;
const ALICE = newKey();
const POST = { method: "POST" };
const verify = await loadVerifier();
const running: StrategyInstance[] = [];
let valkey: TestValkey;

interface Started {
  readonly replica: Replica;
  readonly instance: StrategyInstance;
  by(request?: SignedRequest): string;
  said(authorization: string): Promise<string>;
  checks(): number;
}

async function start(nowMs = Date.now()): Promise<Started> {
  const replica = await openReplica(valkey.url, { strategy: "nostr", nowMs });
  let checks = 0;
  const settings = settingsSchema().parse({ admins: [ALICE.npub] });
  const instance = startNip98(settings, replica.host, (proof) => {
    checks += 1;
    return verify(proof);
  });
  running.push(instance);
  return {
    replica,
    instance,
    by: (request = {}) => signed(ALICE, { clock: replica.clock, ...POST, ...request }),
    async said(authorization) {
      const request = authRequest({ ...POST, headers: { authorization } });
      try {
        const outcome = await instance.authenticate(request);
        return outcome.outcome === "reject" ? outcome.reason : outcome.outcome;
      } catch (error) {
        return error instanceof Error ? error.name : "fault";
      }
    },
    checks: () => checks,
  };
}

beforeEach(async () => {
  if (valkeyMissing === null) valkey = await startValkey();
});
afterEach(async () => {
  for (const instance of running.splice(0)) await instance.close?.();
  endReplicas();
  await valkey?.stop();
});

suite(`nip98 among replicas${valkeyMissing === null ? "" : ` (${valkeyMissing})`}`, () => {
  test("of 50 copies at once over two gateways exactly one passes, at one signature check each at most", async () => {
    const [a, b] = [await start(), await start()];
    a.replica.clock.advance(2000);
    const header = a.by();
    const all = await Promise.all(
      Array.from({ length: 50 }, (_, n) => (n % 2 ? a : b).said(header)),
    );
    expect(all.filter((text) => text === "accept")).toHaveLength(1);
    expect(all.filter((text) => text === "replayed")).toHaveLength(49);
    expect([a.checks(), b.checks()]).toEqual([1, 1]);
    // Known to be used it costs no check, and none of Valkey's time.
    await valkey.kill();
    for (const one of [a, b]) expect(await one.said(header)).toBe("replayed");
    expect([a.checks(), b.checks()]).toEqual([1, 1]);
  });

  test("a forged proof is not written anywhere, and does not use up the real one", async () => {
    const a = await start();
    a.replica.clock.advance(2000);
    const event = signEvent(ALICE, { ...POST, clock: a.replica.clock });
    const forged = { ...event, content: "x" };
    expect(await a.said(nostrHeader(forged))).toBe("signature_invalid");
    expect(await valkey.client().keys("gatehouse:{claims}:*")).toEqual([]);
    expect(await a.said(nostrHeader(event))).toBe("accept");
    expect(await valkey.client().keys("gatehouse:{claims}:*")).toHaveLength(1);
  });

  test("what the replicas have forgotten is a fault, and a fresh proof is good", async () => {
    const [a, b] = [await start(), await start()];
    for (const { replica } of [a, b]) replica.clock.advance(2000);
    const header = a.by();
    expect(await a.said(header)).toBe("accept");
    endReplica(a.replica);
    b.replica.clock.advance(5000);
    await valkey.restart();
    await until(async () => (await b.said(header)) !== "ValkeyError");
    expect(await b.said(header)).toBe("UnknownToMemory");
    b.replica.clock.advance(1000);
    expect(await b.said(b.by())).toBe("accept");
    // It is the gateway that does not know, not the proof that is wrong: until it is too old.
    b.replica.clock.advance(60_000);
    expect(await b.said(header)).toBe("stale_proof");
  });

  test("without Valkey what may be repeated is answered, what may not is a fault, and health says so", async () => {
    const a = await start();
    await until(() => a.instance.health?.().length === 0);
    await valkey.kill();
    await until(() => a.instance.health?.()[0]?.code === "shared_down");
    expect(await a.said(a.by())).toBe("ValkeyError");
    const headers = { authorization: signed(ALICE, { clock: a.replica.clock }) };
    expect(await a.instance.authenticate(authRequest({ headers }))).toMatchObject({
      outcome: "accept",
    });
  });
});
