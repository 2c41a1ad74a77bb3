/** What is put into a configuration, and that everything else stays byte for byte. */
import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { parse } from "yaml";
import { difference } from "../service/difference.ts";
import { addEntry, addItem, setValue } from "./splice.ts";

const HAND_WRITTEN = `# mine
version: 1      # the first
server: { listen: 127.0.0.1:8008 } # here


upstreams:
    # the big one
    api:   { url: "http://127.0.0.1:9000" }   # nine thousand
    # about what follows

routes:
  # first of all
  - match:
      path: /health   # open
    access: public
    upstream: api
  # everything
  - { match: { path: /** }, access: [team], upstream: api }
# the end
strategies: {team: {use: bearer-sqlite}}
`;

/** Lines that came and went; nothing may go unless it is said. */
function changes(before: string, after: string): readonly string[] {
  return difference(before, after);
}

describe("an entry of a map", () => {
  test("goes below the last one, as far in as the others", () => {
    const after = addEntry(HAND_WRITTEN, "upstreams", [
      "more",
      { url: "http://127.0.0.1:1", timeouts: { response: "none" } },
    ]);
    expect(changes(HAND_WRITTEN, after)).toEqual([
      "+    more:",
      "+      url: http://127.0.0.1:1",
      "+      timeouts:",
      "+        response: none",
    ]);
    expect(parse(after).upstreams.more).toEqual({
      url: "http://127.0.0.1:1",
      timeouts: { response: "none" },
    });
  });

  test("goes into brackets where there are brackets", () => {
    const after = addEntry(HAND_WRITTEN, "strategies", ["ops", { use: "static-env", env: "X" }]);
    expect(changes(HAND_WRITTEN, after)).toEqual([
      "-strategies: {team: {use: bearer-sqlite}}",
      "+strategies: {team: {use: bearer-sqlite}, ops: { use: static-env, env: X }}",
    ]);
  });

  test("makes the map when there is none, or an empty one", () => {
    for (const text of [
      "version: 1\n",
      "version: 1\nupstreams:\n",
      "version: 1\nupstreams: {}\n",
      "upstreams: {} # none\nversion: 1\n",
    ]) {
      const after = addEntry(text, "upstreams", ["a", { url: "http://a" }]);
      expect(parse(after)).toEqual({ version: 1, upstreams: { a: { url: "http://a" } } });
    }
  });

  test("a value cannot break out of its place", () => {
    const hostile = 'x\n  evil: "1"\n# {} [] : &a *b !c';
    const after = addEntry(HAND_WRITTEN, "upstreams", ["a", { url: hostile }]);
    expect(parse(after).upstreams.a.url).toBe(hostile);
    expect(Object.keys(parse(after).upstreams)).toEqual(["api", "a"]);
  });

  test("where something else stands it is left to an editor", () => {
    expect(() => addEntry("upstreams: [a]\n", "upstreams", ["b", {}])).toThrow(
      "not changed safely",
    );
    expect(() => addEntry("upstreams: 1\n", "upstreams", ["b", {}])).toThrow("not changed safely");
  });
});

describe("an item of a list", () => {
  const item = { preset: "ollama", with: { upstream: "o", access: ["team"] } };

  test("at the top, directly below the heading", () => {
    const after = addItem(HAND_WRITTEN, "routes", { item, at: 0 });
    expect(changes(HAND_WRITTEN, after)).toEqual([
      "+  - preset: ollama",
      "+    with:",
      "+      upstream: o",
      "+      access: [team]",
    ]);
    expect(parse(after).routes[0]).toEqual(item);
    expect(after.indexOf("- preset")).toBeLessThan(after.indexOf("# first of all"));
  });

  test("behind another one", () => {
    const after = addItem(HAND_WRITTEN, "routes", { item, at: 1 });
    expect(parse(after).routes[1]).toEqual(item);
    expect(after.indexOf("# everything")).toBeGreaterThan(after.indexOf("- preset"));
    expect(parse(addItem(HAND_WRITTEN, "routes", { item, at: 2 })).routes[2]).toEqual(item);
  });

  test("in brackets, and in a list that is not there", () => {
    const flow = "routes: [{ match: { path: / }, access: public }] # all\n";
    expect(parse(addItem(flow, "routes", { item, at: 0 })).routes).toHaveLength(2);
    expect(addItem(flow, "routes", { item, at: 1 })).toEndWith("] # all\n");
    expect(parse(addItem("version: 1\nroutes: []\n", "routes", { item, at: 0 })).routes).toEqual([
      item,
    ]);
    expect(parse(addItem("version: 1", "routes", { item, at: 0 })).routes).toEqual([item]);
  });
});

describe("one value", () => {
  test("is set where it stands, its remark stays", () => {
    const after = setValue(HAND_WRITTEN, ["server", "listen"], "0.0.0.0:80");
    expect(changes(HAND_WRITTEN, after)).toEqual([
      "-server: { listen: 127.0.0.1:8008 } # here",
      "+server: { listen: 0.0.0.0:80 } # here",
    ]);
  });

  test("is added where there is none", () => {
    expect(parse(setValue("version: 1\n", ["server", "listen"], "a:1"))).toEqual({
      version: 1,
      server: { listen: "a:1" },
    });
    expect(parse(setValue("server:\n  drain: 1s\n", ["server", "listen"], "a:1")).server).toEqual({
      drain: "1s",
      listen: "a:1",
    });
    expect(() => setValue("server: { listen: [a:1, b:2] }\n", ["server", "listen"], "c:3")).toThrow(
      "not changed safely",
    );
  });
});

test("the example that comes along takes all of it", () => {
  const text = readFileSync(join(import.meta.dir, "../../../config.example.yaml"), "utf8");
  const listening = setValue(text, ["server", "listen"], "127.0.0.1:1");
  const more = addEntry(listening, "upstreams", ["more", { url: "http://127.0.0.1:2" }]);
  const after = addItem(more, "routes", {
    item: { preset: "generic", with: { upstream: "more", access: ["team"], host: "b.localhost" } },
    at: 0,
  });
  const gone = difference(text, after).filter((line) => line.startsWith("-"));
  expect(gone).toEqual(["-  listen: 127.0.0.1:8008"]);
  expect(parse(after)).toMatchObject({
    server: { listen: "127.0.0.1:1" },
    upstreams: { api: {}, more: { url: "http://127.0.0.1:2" } },
    routes: [{ preset: "generic" }, {}],
  });
});
