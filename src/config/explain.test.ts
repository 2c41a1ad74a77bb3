/** How issues look. The golden file is the whole output for a file with one mistake of every layer. */
import { expect, test } from "bun:test";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { loadText } from "../../test/support/config.ts";
import { issuesAsData, renderIssues } from "./explain.ts";

const GOLDEN = join(import.meta.dir, "../../test/golden");

test("an issue is one line that editors understand, with its hint below", () => {
  const issues = [
    { path: "b", line: 3, column: 7, message: "second", hint: "do this" },
    { path: "a", line: 2, column: 1, message: "first" },
    { path: "", line: 0, column: 0, message: "no place" },
  ];
  expect(renderIssues(issues, "c.yaml")).toBe(
    "c.yaml: no place\nc.yaml:2:1: a: first\nc.yaml:3:7: b: second\n  do this\n",
  );
  expect(renderIssues(issues.slice(2), null)).toBe("no place\n");
  for (const file of ["c.yaml", "./c.yaml", "/etc/my gate/c.yaml"]) {
    const message = "/etc/my gate/c.yaml does not exist";
    const missing = { path: "", line: 0, column: 0, message };
    expect(renderIssues([missing], file)).toBe(`${message}\n`);
    expect(renderIssues([missing], "other.yaml")).toBe(`other.yaml: ${message}\n`);
  }
  expect(issuesAsData(issues, "c.yaml").map(({ file, line }) => [file, line])).toEqual([
    ["c.yaml", 0],
    ["c.yaml", 2],
    ["c.yaml", 3],
  ]);
  expect(renderIssues([], "c.yaml")).toBe("");
});

// UPDATE_GOLDEN=1 writes the file anew; the difference is then reviewed.
test("the output for a file with mistakes of every layer is the golden one", async () => {
  const text = readFileSync(join(GOLDEN, "config.broken.yaml"), "utf8");
  const env = { GATEHOUSE_SERVER__LISTN: "x", GATEHOUSE_LOGGING__FORMAT: "xml", TOKEN_SALT: " " };
  const { issues } = await loadText(text, { env });
  const output = renderIssues(issues, "config.broken.yaml");
  const file = join(GOLDEN, "config.broken.txt");
  if (process.env.UPDATE_GOLDEN === "1") writeFileSync(file, output);
  expect(output).toBe(readFileSync(file, "utf8"));
});
