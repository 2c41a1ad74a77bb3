/**
 * docs/doctor.md names every code that `gatehouse doctor` can say, and no other.
 *
 * Invariant: codes are read out of the source text, so that a new one cannot be forgotten.
 */
import { expect, test } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

const ROOT = join(import.meta.dir, "..");

/** Codes in calls such as `error("key_lost", …)`; the two prefixes of database findings are spelled out. */
function codesIn(directory: string): Set<string> {
  const files = readdirSync(join(ROOT, directory)).filter(
    (name) => name.endsWith(".ts") && !name.endsWith(".test.ts"),
  );
  const text = files.map((name) => readFileSync(join(ROOT, directory, name), "utf8")).join("\n");
  const calls = [
    ...text.matchAll(/\b(?:ok|info|warning|error|make)\(\s*["`]([a-z0-9_${}]+)["`],/g),
  ];
  return new Set(
    calls.flatMap(([, code = ""]) =>
      code.startsWith("${prefix}")
        ? ["database", "other_database"].map((prefix) => code.replace("${prefix}", prefix))
        : [code],
    ),
  );
}

/** Codes in the first column of the tables below a heading. */
function codesBelow(heading: string): Set<string> {
  const docs = readFileSync(join(ROOT, "docs/doctor.md"), "utf8");
  const section = docs.split(/^## /m).find((one) => one.startsWith(heading)) ?? "";
  const rows = section.split("\n").filter((line) => line.startsWith("| `"));
  return new Set(
    rows.flatMap((row) =>
      [...(row.split("|")[1] ?? "").matchAll(/`([a-z0-9_]+)`/g)].map(([, code = ""]) => code),
    ),
  );
}

test.each([
  ["src/cli/doctor", "On the machine"],
  ["src/cli/probe", "From outside"],
])("every code of %s is in the table below %p", (directory, heading) => {
  const codes = codesIn(directory);
  expect(codes.size).toBeGreaterThan(50);
  expect([...codesBelow(heading)].sort()).toEqual([...codes].sort());
});
