/** The capabilities that a strategy is given. */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { type TestHost, testHost } from "../test/support/host.ts";
import { createHost, lazyDatabase, secretEquals } from "./host.ts";

let context: TestHost;
beforeEach(() => {
  context = testHost({ strategy: "team" });
});
afterEach(() => context.dispose());

describe("the log of a host", () => {
  test("names the strategy in every line, and a field cannot hide it", () => {
    const { log } = context.host;
    log.debug("a.b");
    log.info("a.b", { id: "x" });
    log.warn("a.b", { strategy: "other" });
    log.error("a.b", {});
    expect(context.log.lines).toEqual([
      { level: "debug", event: "a.b", fields: { strategy: "team" } },
      { level: "info", event: "a.b", fields: { id: "x", strategy: "team" } },
      { level: "warn", event: "a.b", fields: { strategy: "team" } },
      { level: "error", event: "a.b", fields: { strategy: "team" } },
    ]);
  });
});

describe("the state of a host", () => {
  const steps = [{ name: "001_x", sql: "CREATE TABLE x_rows (id INTEGER PRIMARY KEY) STRICT" }];

  test("a database file appears only when it is asked for, once for all hosts", () => {
    const { stateDir } = context.host;
    const shared = {
      log: context.log,
      clock: context.clock,
      stateDir,
      configDir: context.directory,
      env: {},
      database: lazyDatabase(stateDir, context.clock),
      signal: new AbortController().signal,
    };
    const [one, two] = [createHost("one", shared), createHost("two", shared)];
    expect(existsSync(join(stateDir, "gatehouse.db"))).toBe(false);
    expect(one.database("x", steps)).toBe(two.database("x", steps));
    expect(existsSync(join(stateDir, "gatehouse.db"))).toBe(true);
    shared.database.close();
    shared.database.close();
    expect(() => one.database("x", steps)).toThrow("shutting down");
  });

  test("a key is the same for every host of the gateway and another for another name", () => {
    const { host } = context;
    expect(host.key("pepper")).toEqual(host.key("pepper"));
    expect(host.key("pepper")).not.toEqual(host.key("salt"));
    expect(host.key("pepper").length).toBe(32);
  });
});

describe("secretEquals", () => {
  test.each([
    ["the same text", "hush", "hush", true],
    ["two empty texts", "", "", true],
    ["another case", "hush", "Hush", false],
    ["a prefix", "hus", "hush", false],
    ["nothing", "", "hush", false],
    ["another normal form of one letter", "\u00e9", "e\u0301", false],
    ["texts beyond ASCII", "\u{1f511}", "\u{1f511}", true],
  ])("%s", (_, a, b, expected) => {
    expect(secretEquals(a, b)).toBe(expected);
  });
});

describe("host.fetch", () => {
  const server = Bun.serve({
    hostname: "127.0.0.1",
    port: 0,
    fetch(request) {
      if (new URL(request.url).pathname === "/hang") return new Promise<Response>(() => {});
      return new Response("moved", { status: 302, headers: { location: "/elsewhere" } });
    },
  });
  const url = (path: string): string => `http://127.0.0.1:${server.port}${path}`;
  afterEach(() => server.unref());

  test("does not follow a redirect, even when asked to", async () => {
    const response = await context.host.fetch(url("/"), { redirect: "follow" });
    expect(response.status).toBe(302);
  });

  test("has no ceiling on calls in flight: six hundred that wait do not hold up the next", async () => {
    const stop = new AbortController();
    const waiting = Array.from({ length: 600 }, () =>
      context.host.fetch(url("/hang"), { signal: stop.signal }).catch(() => "ended"),
    );
    expect((await context.host.fetch(url("/"))).status).toBe(302);
    stop.abort();
    expect(new Set(await Promise.all(waiting))).toEqual(new Set(["ended"]));
  });

  test("sends a body and reads the whole answer", async () => {
    const response = await context.host.fetch(url("/"), { method: "POST", body: "x=1" });
    expect([response.status, await response.text()]).toEqual([302, "moved"]);
  });

  test("takes http and https only", async () => {
    await expect(context.host.fetch("file:///etc/passwd")).rejects.toThrow("http and https");
  });

  test("ends when the gateway does", async () => {
    const pending = context.host.fetch(url("/hang"));
    context.dispose();
    await expect(pending).rejects.toThrow();
  });

  test("ends when the caller's own signal does", async () => {
    const own = new AbortController();
    const pending = context.host.fetch(url("/hang"), { signal: own.signal });
    own.abort();
    await expect(pending).rejects.toThrow();
  });
});
