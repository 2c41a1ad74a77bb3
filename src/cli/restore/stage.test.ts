/** New state on its way: what goes wrong in the middle leaves the directory as it was. */
import { afterEach, beforeEach, expect, test } from "bun:test";
import { existsSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { tree } from "../../../test/support/backups.ts";
import { temporaryDirectory } from "../../../test/support/host.ts";
import { smallDisk } from "../../../test/support/small-disk.ts";
import { EXIT, OperatorError } from "../../errors.ts";
import { openStateDatabase } from "../../store/sqlite.ts";
import type { ManifestFile } from "../backup/manifest.ts";
import { openStage } from "./stage.ts";

let directory: string;
beforeEach(() => {
  directory = temporaryDirectory();
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

function file(name: string): ManifestFile {
  return { name, bytes: 0, sha256: "", mode: "600", isDatabase: false };
}

test("a disk that fills up while the new state is written: the old state is as it was", () => {
  const disk = smallDisk(3 * 1024 * 1024);
  if (disk === null) {
    console.log("not run: this user may not mount a small disk");
    return;
  }
  try {
    const stateDir = join(disk.path, "state");
    openStateDatabase(stateDir).close();
    const before = tree(stateDir);
    const stage = openStage(stateDir, 0);
    const sink = stage.sink(file("state/large.bin"));
    let caught: unknown = null;
    try {
      for (let count = 0; count < 80; count++) sink.write(new Uint8Array(65_536));
    } catch (error) {
      caught = error;
    }
    expect(caught).toBeInstanceOf(OperatorError);
    expect((caught as OperatorError).exitCode).toBe(EXIT.unavailable);
    expect((caught as OperatorError).message).toContain("the disk is full");
    stage.dispose();
    stage.dispose();
    expect(tree(stateDir)).toEqual(before);
    // And it can be opened: nobody holds it any more.
    openStateDatabase(stateDir).close();
  } finally {
    disk.dispose();
  }
});

test("a directory that was made for it, and its parents, are gone again", () => {
  const stateDir = join(directory, "a/b/state");
  const stage = openStage(stateDir, 10);
  const sink = stage.sink(file("state/sub/x"));
  sink.write(Buffer.from("x"));
  sink.end();
  expect(existsSync(stateDir)).toBe(true);
  stage.dispose();
  expect(tree(directory)).toEqual([]);
});

test("after the swap it can still be taken back, until it is confirmed", () => {
  const stateDir = join(directory, "state");
  openStateDatabase(stateDir).close();
  const before = tree(stateDir);
  for (const isConfirmed of [false, true]) {
    const stage = openStage(stateDir, 10);
    const sink = stage.sink(file("state/own.txt"));
    sink.write(Buffer.from("new"));
    sink.end();
    expect(stage.swap()).toBe(join(stateDir, stage.aside));
    expect(readFileSync(join(stateDir, "own.txt"), "utf8")).toBe("new");
    if (isConfirmed) stage.confirm();
    stage.dispose();
    if (!isConfirmed) expect(tree(stateDir)).toEqual(before);
  }
  expect(existsSync(join(stateDir, "own.txt"))).toBe(true);
  expect(existsSync(join(stateDir, "gatehouse.db"))).toBe(false);
});
