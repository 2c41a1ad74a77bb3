/** How long the store waits for the daemon, with a short patience. */
import { afterEach, beforeEach, expect, test } from "bun:test";
import { join } from "node:path";
import { type TestHost, testHost } from "../../test/support/host.ts";
import { type DaemonProcess, startDaemon, storedClient } from "./daemon.fixture.ts";
import { openStore, type Store } from "./store.ts";

let context: TestHost;
let daemon: DaemonProcess;
let store: Store;

beforeEach(async () => {
  context = testHost();
  const path = join(context.directory, "routstr.db");
  daemon = await startDaemon(path, "delete");
  await daemon.order({ do: "add", clients: [storedClient()] });
  await daemon.order({ do: "store", key: "routstr21Models", value: '["m"]' });
  store = openStore({ path, log: context.log, lockWaitMs: 300 });
});
afterEach(async () => {
  store.close();
  await daemon.stop();
  context.dispose();
});

test("beyond its patience a lock is a fault, each request with a patience of its own, said once", async () => {
  await store.snapshot();
  await daemon.order({ do: "lock", ms: 1500 });
  const began = performance.now();
  const first = Promise.resolve(store.snapshot());
  const waits: Promise<number>[] = [];
  // Not `expect().rejects`, which would hold up the others until this one is settled.
  const failed = async (asked: Promise<unknown>): Promise<number> => {
    const error: unknown = await asked.then(
      () => null,
      (reason) => reason,
    );
    expect(String(error)).toContain("locked by another process (SQLITE_BUSY)");
    return performance.now() - began;
  };
  waits.push(failed(first), failed(store.records()));
  await Bun.sleep(150);
  waits.push(failed(Promise.resolve(store.snapshot())));
  const [one = 0, two = 0, three = 0] = await Promise.all(waits);
  // The lock outlives all three; how late each is depends on the machine.
  expect(Math.min(one, two)).toBeGreaterThan(290);
  expect(three).toBeGreaterThan(440);
  expect(() => store.models()).toThrow("locked");
  expect(store.health()).toMatchObject([{ code: "database_locked", severity: "error" }]);
  expect(context.log.lines.map(({ event }) => event)).toEqual(["routstrd.database_locked"]);
  while (store.health().some(({ code }) => code === "database_locked")) await Bun.sleep(20);
  expect((await store.snapshot()).models).toEqual(["m"]);
  expect(context.log.lines.at(-1)?.event).toBe("routstrd.database_ok");
});

test("models are those of a moment ago while the file is locked, the clients are waited for", async () => {
  await store.snapshot();
  await daemon.order({ do: "lock", ms: 100 });
  expect(store.models()).toEqual(["m"]);
  expect(store.snapshot()).toBeInstanceOf(Promise);
  expect((await store.records()).entries).toHaveLength(1);
  expect(store.snapshot()).not.toBeInstanceOf(Promise);
});

test("closing ends the wait", async () => {
  await store.snapshot();
  await daemon.order({ do: "lock", ms: 500 });
  const asked = Promise.resolve(store.snapshot());
  store.close();
  await expect(asked).rejects.toThrow();
});
