/** Strategies that never answer, alone and while they wait for a body. */
import { expect, test } from "bun:test";
import { authRequest } from "../test/support/request.ts";
import { authenticate } from "./authenticate.ts";
import type { Outcome } from "./contract/outcome.ts";
import type { AuthRequest } from "./contract/request.ts";

const silent = {
  name: "silent",
  plugin: { name: "silent" },
  instance: { authenticate: () => new Promise<Outcome>(() => {}) },
};
const open = {
  name: "open",
  plugin: { name: "open" },
  instance: { authenticate: () => ({ outcome: "accept", identity: { id: "x" } }) as const },
};

test("a strategy that never answers is a fault, and nobody else is asked", async () => {
  const said = await authenticate([silent, open], authRequest(), 5);
  expect(said).toMatchObject({ kind: "fault", strategy: "silent" });
});

test("the time in which a strategy waits for the client's body does not count", async () => {
  const request = Object.assign(Object.create(authRequest()) as AuthRequest, {
    isReadingBody: true,
  });
  const pending = Promise.resolve(authenticate([silent], request, 5));
  const first = await Promise.race([pending, Bun.sleep(40).then(() => "waiting")]);
  expect(first).toBe("waiting");
  Object.assign(request, { isReadingBody: false });
  expect(await pending).toMatchObject({ kind: "fault" });
});
