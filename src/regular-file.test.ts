/** What is read, and what is refused instead of waiting for it. */
import { afterEach, beforeEach, expect, test } from "bun:test";
import { mkdirSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { temporaryDirectory } from "../test/support/host.ts";
import { readRegularFile } from "./regular-file.ts";

let directory: string;
beforeEach(() => {
  directory = temporaryDirectory();
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

test("gives the text of a file", () => {
  const path = join(directory, "file");
  writeFileSync(path, "tëxt\n");
  expect(readRegularFile(path)).toBe("tëxt\n");
});

test.each([
  ["nothing", () => {}, "ENOENT"],
  ["a directory", (path: string) => mkdirSync(path), "EISDIR"],
  ["a pipe", (path: string) => Bun.spawnSync(["mkfifo", path]), "not a regular file"],
  [
    "a file without an end in sight",
    (path: string) => {
      writeFileSync(path, "");
      truncateSync(path, 16_777_217);
    },
    "larger than 16 MiB",
  ],
])("%s is refused", (_, make, code) => {
  const path = join(directory, "it");
  make(path);
  expect(() => readRegularFile(path)).toThrow(expect.objectContaining({ code }));
});
