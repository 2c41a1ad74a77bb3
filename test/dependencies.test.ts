/**
 * What we depend on: every package is named in docs/decisions/002-dependencies.md with its licence, and is used.
 *
 * Invariant: the two lists are the same, so that neither a package can come in without a reason nor a reason outlive
 * its package.
 */
import { expect, test } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

const ROOT = join(import.meta.dir, "..");
const text = (path: string): string => readFileSync(join(ROOT, path), "utf8");

interface Manifest {
  readonly dependencies: Readonly<Record<string, string>>;
  readonly devDependencies: Readonly<Record<string, string>>;
}

const { dependencies, devDependencies } = JSON.parse(text("package.json")) as Manifest;
const DECISION = text("docs/decisions/002-dependencies.md");

/** Names and licences of the table under a heading. @param licenceFromEnd 1: the last column */
function table(heading: string, licenceFromEnd: number): readonly (readonly [string, string])[] {
  const section = DECISION.split(`## ${heading}\n`)[1]?.split("\n## ")[0] ?? "";
  return section.split("\n").flatMap((line) => {
    if (!line.startsWith("| `")) return [];
    const cells = line.split(/(?<!\\)\|/).slice(1, -1);
    const licence = cells.at(-licenceFromEnd)?.trim() ?? "";
    const names = [...(cells[0] ?? "").matchAll(/`([^`]+)`/g)].map((match) => match[1] ?? "");
    return names.map((name) => [name, licence] as const);
  });
}

const SHIPPED = table("In the executable", 2);
const TOOLS = table("Only to build and test", 1);

test("every package is named with its licence, and no other", () => {
  const shipped = SHIPPED.map(([name]) => name);
  // The runtime is installed to build and test with, and is in the executable.
  expect(shipped.toSorted()).toEqual(["bun", ...Object.keys(dependencies)].toSorted());
  const tools = Object.keys(devDependencies).filter((name) => name !== "bun");
  expect(TOOLS.map(([name]) => name).toSorted()).toEqual(tools.toSorted());
  const odd = [...SHIPPED, ...TOOLS].filter(
    ([, licence]) => !/\b(MIT|ISC|Apache-2\.0|BSD|Unlicense)\b/.test(licence),
  );
  expect(odd).toEqual([]);
});

test("every package is imported by what it is for", () => {
  const sources = (directories: readonly string[]): string =>
    directories
      .flatMap((directory) =>
        readdirSync(join(ROOT, directory), { recursive: true, encoding: "utf8" })
          .filter((name) => name.endsWith(".ts"))
          .map((name) => text(join(directory, name))),
      )
      .join("\n");
  const isImported = (name: string, code: string): boolean =>
    new RegExp(`(?:from|import\\()\\s*"${name}(?:/[^"]*)?"`).test(code);
  const ours = sources(["src", "plugins"]);
  expect(Object.keys(dependencies).filter((name) => !isImported(name, ours))).toEqual([]);
  const tests = ours + sources(["test", "bench"]);
  // Started rather than imported, or types of something that is.
  const isTool = (name: string): boolean => /^(@types\/|@biomejs\/|bun$|typescript$)/.test(name);
  const unused = Object.keys(devDependencies).filter(
    (name) => !isTool(name) && !isImported(name, tests),
  );
  expect(unused).toEqual([]);
});
