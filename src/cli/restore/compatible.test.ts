/** Which databases this version can work with. */
import { describe, expect, test } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { OperatorError } from "../../errors.ts";
import { bundledPlugins } from "../../registry.ts";
import { knownSteps, refuseNewer } from "./compatible.ts";

const MADE = { madeBy: "2.0.0", version: "1.0.0" };
const PLUGINS = join(import.meta.dir, "../../../plugins");

describe("refuseNewer", () => {
  const known = new Map([["own", ["001_a", "002_b"]]]);

  test.each([
    ["the same steps", { own: ["001_a", "002_b"] }],
    ["fewer steps, which are run at the start", { own: ["001_a"] }],
    ["no steps", {}],
    ["steps of an external plugin, which judges for itself", { magic: ["999_x"] }],
  ])("%s are fine", (_, steps) => {
    expect(() => refuseNewer(steps, known, MADE)).not.toThrow();
  });

  test.each([
    ["one more step", { own: ["001_a", "002_b", "003_c"] }, "own: 003_c"],
    ["another second step", { own: ["001_a", "002_x"] }, "own: 002_x"],
  ])("%s is refused with both versions", (_, steps, named) => {
    try {
      refuseNewer(steps, known, MADE);
      throw new Error("it was not refused");
    } catch (error) {
      expect(error).toBeInstanceOf(OperatorError);
      const { message } = error as OperatorError;
      expect(message).toContain(named);
      expect(message).toContain("2.0.0");
      expect(message).toContain("1.0.0");
    }
  });
});

test("every namespace that a bundled plugin asks the database for is known beforehand", () => {
  const sources = readdirSync(PLUGINS, { recursive: true, encoding: "utf8" }).filter(
    (name) => name.endsWith(".ts") && !name.endsWith(".test.ts"),
  );
  const asked = sources.flatMap((name) =>
    [...readFileSync(join(PLUGINS, name), "utf8").matchAll(/\bhost\.database\(\s*"(\w+)"/g)].map(
      (match) => match[1] ?? "",
    ),
  );
  expect(asked.length).toBeGreaterThan(0);
  const known = knownSteps(bundledPlugins);
  expect([...new Set(asked)].filter((namespace) => !known.has(namespace))).toEqual([]);
  expect(known.get("gatehouse")).toEqual(["000_history"]);
});
