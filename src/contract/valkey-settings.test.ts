/** The keys that say where a Valkey is: what they parse to and what is refused. */
import { describe, expect, test } from "bun:test";
import { z } from "zod";
import {
  checkValkeySettings,
  readValkeyAddress,
  readValkeyNode,
  valkeyPlace,
  valkeyShape,
} from "./valkey-settings.ts";

const schema = z
  .strictObject({ ...valkeyShape(), mine: z.string().optional() })
  .superRefine(checkValkeySettings);

/** Every issue as `path: message`. */
function problems(config: Record<string, unknown>): string[] {
  const { error } = schema.safeParse({ url: "redis://127.0.0.1:6379", ...config });
  return error?.issues.map(({ path, message }) => `${path.join(".")}: ${message}`) ?? [];
}

describe("what is accepted", () => {
  test.each([
    [{}, "127.0.0.1:6379"],
    [{ mine: "x", url: "rediss://[::1]:7000/3" }, "[::1]:7000"],
    [{ username: "gate", password: "x" }, "127.0.0.1:6379"],
    [
      { url: undefined, sentinel: { name: "main", nodes: ["a:1", "[::1]:2"] } },
      "main behind a:1, [::1]:2",
    ],
    [{ url: undefined, cluster: { nodes: ["a:1"] } }, "cluster a:1"],
  ])("%j is at %s", (config, place) => {
    expect(problems(config)).toEqual([]);
    const settings = schema.parse({ url: "redis://127.0.0.1:6379", ...config });
    expect(valkeyPlace(settings)).toBe(place);
  });

  test("an address is taken apart", () => {
    expect(readValkeyAddress("valkeys://[::1]/3")).toEqual({
      host: "::1",
      port: 6379,
      database: 3,
      isTls: true,
    });
    expect(readValkeyNode("[::1]:2")).toEqual({ host: "::1", port: 2 });
    expect(() => readValkeyAddress("http://x")).toThrow(TypeError);
    expect(() => readValkeyNode("x")).toThrow(TypeError);
  });
});

test.each([
  ["a password in the address", { url: "redis://:canary-pw@localhost:6379" }, "url"],
  ["a user in the address", { url: "redis://canary-pw@localhost" }, "url"],
  ["another scheme", { url: "http://canary-pw" }, "url"],
  ["a query", { url: "redis://localhost?x=canary-pw" }, "url"],
  ["no host", { url: "redis:///3" }, "url"],
  ["a path that is no number", { url: "redis://localhost/canary-pw" }, "url"],
  ["two ways", { cluster: { nodes: ["a:1"] } }, "url"],
  ["no way", { url: undefined }, "url"],
  [
    "a node without a port",
    { url: undefined, cluster: { nodes: ["canary-pw"] } },
    "cluster.nodes.0",
  ],
  ["a port that is none", { url: undefined, cluster: { nodes: ["a:70000"] } }, "cluster.nodes.0"],
  ["a user without a password", { username: "canary-pw" }, "username"],
  ["a deadline of nothing", { command_timeout: "0s" }, "command_timeout"],
  ["a deadline of hours", { command_timeout: "2h" }, "command_timeout"],
])("%s is refused by its name and not repeated", (_, config, path) => {
  const found = problems(config);
  expect(found.map((text) => text.split(":")[0])).toContain(path);
  expect(found.join()).not.toContain("canary-pw");
});
