/** Copies of a database that others write to, hold, or that nobody can write beside. */
import { Database } from "bun:sqlite";
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { readdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { temporaryDirectory } from "../../test/support/host.ts";
import { smallDisk } from "../../test/support/small-disk.ts";
import { EXIT, OperatorError } from "../errors.ts";
import { type Snapshot, takeSnapshot } from "./snapshot.ts";
import { openStateDatabase } from "./sqlite.ts";

const ROOT = join(import.meta.dir, "../..");

let directory: string;
beforeEach(() => {
  directory = temporaryDirectory();
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

function bytesOf(snapshot: Snapshot): Buffer {
  const bytes = Buffer.concat([...snapshot.chunks()]);
  expect(bytes).toHaveLength(snapshot.bytes);
  return bytes;
}

/** Opens the copy as a file of its own. */
function open(snapshot: Snapshot): Database {
  const path = join(directory, "copy.db");
  rmSync(path, { force: true });
  writeFileSync(path, bytesOf(snapshot));
  return new Database(path, { readwrite: true, create: false });
}

function state(rows = 3) {
  const opened = openStateDatabase(join(directory, "state"));
  opened.migrate("own", [{ name: "001_own", sql: "CREATE TABLE own (n INTEGER, x BLOB)" }]);
  const insert = opened.database.prepare("INSERT INTO own VALUES (?, randomblob(1000))");
  opened.database.transaction(() => {
    for (let n = 1; n <= rows; n++) insert.run(n);
  })();
  insert.finalize();
  return opened;
}

describe.each([
  ["in memory", 128 * 1024 * 1024],
  ["on disk", 0],
])("a copy %s", (_, maxMemoryBytes) => {
  const options = () => ({ scratchDir: join(directory, "state"), maxMemoryBytes });

  test("has what is committed, also what only the log has, and the steps", () => {
    const opened = state(50);
    expect(statSync(`${opened.path}-wal`).size).toBeGreaterThan(0);
    const snapshot = takeSnapshot(opened.path, options());
    expect(snapshot.steps).toEqual({ gatehouse: ["000_history"], own: ["001_own"] });
    const copy = open(snapshot);
    expect(copy.query("SELECT count(*) AS count FROM own").get()).toEqual({ count: 50 });
    expect(copy.query("PRAGMA integrity_check").get()).toEqual({ integrity_check: "ok" });
    copy.close();
    snapshot.close();
    opened.close();
  });

  test("leaves nothing in the directory, and stays what it was when others write on", () => {
    const opened = state();
    const before = readdirSync(join(directory, "state")).sort();
    const snapshot = takeSnapshot(opened.path, options());
    const first = bytesOf(snapshot);
    opened.database.run("INSERT INTO own VALUES (99, NULL)");
    expect(bytesOf(snapshot).equals(first)).toBe(true);
    expect(readdirSync(join(directory, "state")).sort()).toEqual(before);
    snapshot.close();
    snapshot.close();
    opened.close();
  });

  test("is consistent while another process commits pairs as fast as it can", async () => {
    const opened = state(0);
    const code = `
      import { openStateDatabase } from "./src/store/sqlite.ts";
      const { database } = openStateDatabase(Bun.argv[1]);
      console.log("ready");
      for (let n = 1; ; n++) database.transaction(() => {
        database.run("INSERT INTO own VALUES (?, NULL)", [n]);
        database.run("INSERT INTO own VALUES (?, NULL)", [-n]);
      })();`;
    const writer = Bun.spawn([process.execPath, "-e", code, join(directory, "state")], {
      cwd: ROOT,
      stdout: "pipe",
    });
    try {
      await writer.stdout.getReader().read();
      const counts: number[] = [];
      // Until the writer got somewhere between copies; each one must be sound.
      while (new Set(counts).size < 3) {
        const snapshot = takeSnapshot(opened.path, options());
        const copy = open(snapshot);
        const { count, total } = copy
          .query<{ count: number; total: number }, []>(
            "SELECT count(*) AS count, coalesce(sum(n), 0) AS total FROM own",
          )
          .get()!;
        expect(total).toBe(0);
        counts.push(count);
        copy.close();
        snapshot.close();
      }
    } finally {
      writer.kill("SIGKILL");
      await writer.exited;
      opened.close();
    }
  });

  test("does not make the gateway's connection lose its locks", () => {
    const opened = state();
    takeSnapshot(opened.path, options()).close();
    // Another process that finds no lock would write the log back and remove it under us.
    const code = `
      import { Database } from "bun:sqlite";
      const database = new Database(Bun.argv[1], { readwrite: true, create: false });
      try { database.run("PRAGMA journal_mode = DELETE"); console.log("alone"); } catch { console.log("not alone"); }`;
    const { stdout } = Bun.spawnSync([process.execPath, "-e", code, opened.path]);
    expect(stdout.toString()).toBe("not alone\n");
    opened.close();
  });
});

test("a file that nobody has open is read, and nothing stays beside it", () => {
  const opened = state();
  opened.close();
  const snapshot = takeSnapshot(opened.path, { scratchDir: join(directory, "state") });
  expect(snapshot.steps.own).toEqual(["001_own"]);
  expect(readdirSync(join(directory, "state"))).toEqual(["gatehouse.db"]);
});

test("a database of another program has no steps", () => {
  const path = join(directory, "other.db");
  const other = new Database(path, { create: true });
  other.run("CREATE TABLE t (a)");
  other.close();
  expect(takeSnapshot(path, { scratchDir: directory }).steps).toEqual({});
});

test("a damaged file is an error for the operator", () => {
  const path = join(directory, "broken.db");
  writeFileSync(path, `SQLite format 3\0${"x".repeat(5000)}`);
  try {
    takeSnapshot(path, { scratchDir: directory });
    throw new Error("it was not refused");
  } catch (error) {
    expect(error).toBeInstanceOf(OperatorError);
    expect((error as OperatorError).exitCode).toBe(EXIT.failure);
    expect((error as OperatorError).message).toContain("is damaged");
  }
});

test("on a read-only disk it is read as it lies there; a full one has no room for a large copy", () => {
  const disk = smallDisk(4 * 1024 * 1024);
  if (disk === null) {
    console.log("not run: this user may not mount a small disk");
    return;
  }
  try {
    const stateDir = join(disk.path, "state");
    const opened = openStateDatabase(stateDir);
    opened.migrate("own", [{ name: "001_own", sql: "CREATE TABLE own (n INTEGER)" }]);
    opened.close();
    disk.fill();
    expect(takeSnapshot(opened.path, { scratchDir: stateDir }).steps.own).toEqual(["001_own"]);
    const large = () => takeSnapshot(opened.path, { scratchDir: stateDir, maxMemoryBytes: 0 });
    expect(large).toThrow(/full/);
    expect(readdirSync(stateDir).filter((name) => name.startsWith("."))).toEqual([]);
    disk.free();
    Bun.spawnSync(["mount", "-o", "remount,ro", disk.path]);
    const snapshot = takeSnapshot(opened.path, { scratchDir: stateDir });
    expect(snapshot.steps.own).toEqual(["001_own"]);
    expect(bytesOf(snapshot).subarray(0, 15).toString()).toBe("SQLite format 3");
  } finally {
    disk.dispose();
  }
});
