/** Who uses a database, as far as the operating system's locks tell. */
import { Database } from "bun:sqlite";
import { afterEach, beforeEach, expect, test } from "bun:test";
import { readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { temporaryDirectory } from "../../test/support/host.ts";
import { EXIT, OperatorError } from "../errors.ts";
import { holders, takeSoleUse } from "./sole-use.ts";
import { openStateDatabase } from "./sqlite.ts";

const ROOT = join(import.meta.dir, "../..");

let directory: string;
beforeEach(() => {
  directory = temporaryDirectory();
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

/** A process that has the state open, as an idle gateway has it. */
async function holder(): Promise<Bun.Subprocess> {
  const code = `
    import { openStateDatabase } from "./src/store/sqlite.ts";
    const opened = openStateDatabase(Bun.argv[1]);
    opened.database.run("CREATE TABLE IF NOT EXISTS t (a)");
    console.log("open");
    setInterval(() => opened.path, 1000);`;
  const child = Bun.spawn([process.execPath, "-e", code, directory], { cwd: ROOT, stdout: "pipe" });
  await child.stdout.getReader().read();
  return child;
}

function refusal(work: () => unknown): OperatorError {
  try {
    work();
  } catch (error) {
    if (error instanceof OperatorError) return error;
    throw error;
  }
  throw new Error("it was not refused");
}

test("a file that another process has open is refused with that process, and free once it was killed", async () => {
  const child = await holder();
  const path = join(directory, "gatehouse.db");
  const { exitCode, message, hint } = refusal(() => takeSoleUse(path));
  expect(exitCode).toBe(EXIT.unavailable);
  expect(message).toContain(`process ${child.pid}`);
  expect(hint).toContain("Stop it first");
  child.kill("SIGKILL");
  await child.exited;
  takeSoleUse(path).release();
});

test("while it is held nobody opens it; afterwards it is what it was, without a log", () => {
  const opened = openStateDatabase(directory);
  opened.database.run("CREATE TABLE t (a)");
  opened.close();
  const path = join(directory, "gatehouse.db");
  const before = readFileSync(path);
  const held = takeSoleUse(path);
  const code = `
    import { Database } from "bun:sqlite";
    const database = new Database(Bun.argv[1], { readwrite: true, create: false });
    try { database.query("SELECT * FROM t").all(); console.log("read"); } catch (e) { console.log(e.code); }`;
  const other = () => Bun.spawnSync([process.execPath, "-e", code, path]).stdout.toString();
  expect(other()).toBe("SQLITE_BUSY\n");
  held.release();
  held.release();
  expect(readdirSync(directory)).toEqual(["gatehouse.db"]);
  expect(readFileSync(path).equals(before)).toBe(true);
  expect(other()).toBe("read\n");
});

test("the log that a killed process left is written back when the file is given back", async () => {
  const child = await holder();
  child.kill("SIGKILL");
  await child.exited;
  expect(readdirSync(directory)).toContain("gatehouse.db-wal");
  takeSoleUse(join(directory, "gatehouse.db")).release();
  expect(readdirSync(directory)).not.toContain("gatehouse.db-wal");
  const opened = openStateDatabase(directory);
  expect(opened.database.query("SELECT * FROM t").all()).toEqual([]);
  opened.close();
});

test("a damaged file is taken, but not from a process that has it open", async () => {
  const path = join(directory, "gatehouse.db");
  const child = await holder();
  try {
    expect(holders(path)).toEqual([child.pid]);
    // Whatever damaged it: the process still holds its locks.
    new Database(path).close();
    truncateSync(path, 100);
    expect(refusal(() => takeSoleUse(path)).exitCode).toBe(EXIT.unavailable);
  } finally {
    child.kill("SIGKILL");
    await child.exited;
  }
  writeFileSync(path, `SQLite format 3\0${"x".repeat(5000)}`);
  takeSoleUse(path).release();
});
