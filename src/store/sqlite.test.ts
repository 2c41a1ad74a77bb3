/** The state database: who may open it, what it survives, and what it refuses. */
import { Database } from "bun:sqlite";
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { temporaryDirectory } from "../../test/support/host.ts";
import { inOtherProcess, inOtherProcesses } from "../../test/support/other-process.ts";
import { smallDisk } from "../../test/support/small-disk.ts";
import { EXIT, OperatorError } from "../errors.ts";
import { databaseProblem, openStateDatabase, type StateDatabase } from "./sqlite.ts";

const NOTES = [{ name: "001_notes", sql: "CREATE TABLE notes (text TEXT NOT NULL) STRICT" }];

let directory: string;
let stateDir: string;
let file: string;
const opened: { close(): void }[] = [];

beforeEach(() => {
  directory = temporaryDirectory();
  stateDir = join(directory, "state");
  file = join(stateDir, "gatehouse.db");
});
afterEach(() => {
  for (const one of opened.splice(0)) one.close();
  rmSync(directory, { recursive: true, force: true });
});

function open(dir = stateDir, busyTimeoutMs = 20): StateDatabase {
  const state = openStateDatabase(dir, { busyTimeoutMs });
  opened.push(state);
  return state;
}

function openOther(path = file): Database {
  const database = new Database(path);
  opened.push(database);
  return database;
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

function mode(path: string): string {
  return (statSync(path).mode & 0o777).toString(8);
}

function setting(state: StateDatabase, pragma: string): unknown {
  return state.database.prepare(`PRAGMA ${pragma}`).values()[0]?.[0];
}

describe("opening", () => {
  test.each(["000", "022", "077"])(
    "directory and files are closed to others whatever the umask is (%s)",
    (umask) => {
      const before = process.umask(Number.parseInt(umask, 8));
      try {
        open().migrate("notes", NOTES);
      } finally {
        process.umask(before);
      }
      expect(mode(stateDir)).toBe("700");
      expect(readdirSync(stateDir).sort()).toEqual([
        "gatehouse.db",
        "gatehouse.db-shm",
        "gatehouse.db-wal",
      ]);
      for (const name of readdirSync(stateDir)) expect(mode(join(stateDir, name))).toBe("600");
    },
  );

  test("the settings that the promises rest on are in force", () => {
    const state = open(stateDir, 1000);
    expect(setting(state, "journal_mode")).toBe("wal");
    expect(setting(state, "synchronous")).toBe(2);
    expect(setting(state, "foreign_keys")).toBe(1);
    expect(setting(state, "trusted_schema")).toBe(0);
    expect(setting(state, "mmap_size")).toBe(0);
    expect(setting(state, "busy_timeout")).toBe(1000);
  });

  test.each(["750", "705", "777"])("a directory of mode %s is refused", (bits) => {
    mkdirSync(stateDir);
    chmodSync(stateDir, Number.parseInt(bits, 8));
    const { exitCode, hint } = refusal(() => open());
    expect(exitCode).toBe(EXIT.permission);
    expect(hint).toContain("chmod 700");
    expect(readdirSync(stateDir)).toEqual([]);
  });

  test.each(["gatehouse.db", "gatehouse.db-wal", "gatehouse.db-shm"])(
    "a file that others may read is refused: %s",
    (name) => {
      mkdirSync(stateDir, { mode: 0o700 });
      writeFileSync(join(stateDir, name), "", { mode: 0o640 });
      expect(refusal(() => open()).exitCode).toBe(EXIT.permission);
    },
  );

  test("a symbolic link in place of the file is refused, one to the directory is followed", () => {
    const real = join(directory, "real");
    openStateDatabase(real).close();
    symlinkSync(real, stateDir);
    open().migrate("notes", NOTES);
    const other = join(directory, "other");
    mkdirSync(other, { mode: 0o700 });
    symlinkSync(join(real, "gatehouse.db"), join(other, "gatehouse.db"));
    expect(refusal(() => open(other)).exitCode).toBe(EXIT.permission);
  });

  test.if(process.geteuid?.() === 0)("another user's directory or file is refused", () => {
    open().close();
    chownSync(file, 65_533, 65_533);
    expect(refusal(() => open()).message).toContain("65533");
    chownSync(stateDir, 65_533, 65_533);
    expect(refusal(() => open()).exitCode).toBe(EXIT.permission);
  });

  test("a state directory that is a file is refused", () => {
    writeFileSync(stateDir, "");
    expect(refusal(() => open()).exitCode).toBe(EXIT.cannotCreate);
  });

  test("processes that create the same database at once all succeed and each step runs once", async () => {
    const code = `
      import { openStateDatabase } from "./src/store/sqlite.ts";
      const state = openStateDatabase(Bun.argv[1]);
      state.migrate("race", [
        { name: "001", sql: "CREATE TABLE race (n INTEGER)" },
        { name: "002", sql: "INSERT INTO race VALUES (1)" },
      ]);
      console.log(JSON.stringify(state.database.query("SELECT n FROM race").values()));
      state.close();
    `;
    const answers = await inOtherProcesses(6, code, stateDir);
    expect(answers).toEqual(Array(6).fill("[[1]]"));
  }, 60_000);

  test("closing twice is fine, writes the log back, and ends statements that were left open", () => {
    const state = open();
    state.migrate("notes", NOTES);
    const left = state.database.prepare("SELECT count(*) FROM notes");
    left.get();
    state.close();
    state.close();
    expect(readdirSync(stateDir)).toEqual(["gatehouse.db"]);
    expect(() => left.get()).toThrow();
    expect(() => state.database.run("SELECT 1")).toThrow();
  });
});

describe("damage", () => {
  test.each<[string, () => void]>([
    ["noise", () => writeFileSync(file, "x".repeat(8192))],
    ["a header that was overwritten", () => overwrite(0, 100)],
    ["a schema page that was overwritten", () => overwrite(100, 3996)],
    ["a file cut in the middle of a page", () => truncateSync(file, 5000)],
    ["a file that lost its last pages", () => truncateSync(file, statSync(file).size - 4096)],
  ])("%s is refused with advice and left as it is", (_, damage) => {
    const state = open();
    state.migrate("notes", NOTES);
    state.close();
    damage();
    const before = readFileSync(file);
    const { exitCode, message, hint } = refusal(() => open().migrate("notes", NOTES));
    expect(exitCode).toBe(EXIT.failure);
    expect(message).toMatch(/damaged|another program/);
    expect(hint).toBeDefined();
    expect(readFileSync(file).equals(before)).toBe(true);
  });

  test("damage in a page of data is an error of the read that meets it, and other reads go on", () => {
    const state = open();
    state.migrate("notes", NOTES);
    state.migrate("more", [{ name: "001", sql: "CREATE TABLE more (text TEXT)" }]);
    state.database.run("INSERT INTO notes VALUES ('kept')");
    state.database.run("INSERT INTO more VALUES ('lost')");
    state.close();
    const pages = statSync(file).size / 4096;
    overwrite((pages - 1) * 4096, 4096);
    const again = open();
    const lost = again.database.prepare("SELECT text FROM more");
    const kept = again.database.prepare("SELECT text FROM notes");
    for (const _ of [1, 2]) {
      expect(problemOf(() => lost.values())?.message).toContain("damaged");
      expect(kept.values()).toEqual([["kept"]]);
    }
  });

  test("the database of another program is refused", () => {
    mkdirSync(stateDir, { mode: 0o700 });
    const other = new Database(file);
    other.run("CREATE TABLE theirs (a)");
    other.close();
    chmodSync(file, 0o600);
    expect(refusal(() => open()).message).toContain("another program");
  });

  test("an empty file, as a crash at the first start leaves it, is taken into use", () => {
    mkdirSync(stateDir, { mode: 0o700 });
    writeFileSync(file, "", { mode: 0o600 });
    open().migrate("notes", NOTES);
  });

  function overwrite(from: number, length: number): void {
    const bytes = readFileSync(file);
    bytes.fill(0xa5, from, from + length);
    writeFileSync(file, bytes);
  }
});

describe("schema steps", () => {
  const ONE = { name: "001_one", sql: "CREATE TABLE t (a INTEGER); INSERT INTO t VALUES (1);" };
  const TWO = { name: "002_two", sql: "INSERT INTO t VALUES (2)" };

  test("steps run in order, once, and new ones are added at the next start", () => {
    open().migrate("t", [ONE]);
    open().migrate("t", [ONE]);
    const state = open();
    state.migrate("t", [ONE, TWO]);
    state.migrate("t", [ONE, TWO]);
    expect(state.database.prepare("SELECT a FROM t").values()).toEqual([[1], [2]]);
  });

  test("a step that fails leaves nothing behind and runs at the next start", () => {
    const state = open();
    const broken = {
      name: "002_two",
      sql: "INSERT INTO t VALUES (2); INSERT INTO nowhere VALUES (1)",
    };
    expect(() => state.migrate("t", [ONE, broken])).toThrow();
    expect(state.database.inTransaction).toBe(false);
    state.migrate("t", [ONE, TWO]);
    expect(state.database.prepare("SELECT a FROM t").values()).toEqual([[1], [2]]);
  });

  test("a database with steps that this program does not know is refused", () => {
    const state = open();
    state.migrate("t", [ONE, TWO]);
    for (const known of [[ONE], [], [TWO, ONE], [{ ...ONE, name: "001_renamed" }, TWO]]) {
      const { exitCode, message } = refusal(() => state.migrate("t", known));
      expect(exitCode).toBe(EXIT.failure);
      expect(message).toContain("newer version");
    }
  });

  test("namespaces do not see each other's steps", () => {
    const state = open();
    state.migrate("a", [{ name: "001", sql: "CREATE TABLE a (x)" }]);
    state.migrate("b", [{ name: "001", sql: "CREATE TABLE b (x)" }]);
  });

  test.each(["", "Upper", "has-dash", "gatehouse", "x'y"])(
    "a namespace that is no word of its own is a mistake of the caller: %p",
    (namespace) => {
      const state = open();
      expect(() => state.migrate(namespace, [])).toThrow(TypeError);
    },
  );
});

describe("another process holds the lock", () => {
  test("reads go on, writes fail clearly, and writes work again afterwards", () => {
    const state = open();
    state.migrate("notes", NOTES);
    state.database.run("INSERT INTO notes VALUES ('before')");
    const other = openOther();
    other.run("BEGIN EXCLUSIVE");
    other.run("INSERT INTO notes VALUES ('not committed')");
    expect(state.database.prepare("SELECT text FROM notes").values()).toEqual([["before"]]);
    const problem = problemOf(() => state.database.run("INSERT INTO notes VALUES ('mine')"));
    expect(problem?.exitCode).toBe(EXIT.unavailable);
    expect(problem?.message).toContain("locked by another process");
    other.run("ROLLBACK");
    state.database.run("INSERT INTO notes VALUES ('mine')");
  });

  test("a start without news does not wait for a writer", () => {
    open().migrate("notes", NOTES);
    const other = openOther();
    other.run("BEGIN IMMEDIATE");
    open().migrate("notes", NOTES);
    other.run("ROLLBACK");
  });

  test("what another process committed is seen by the next read of a prepared statement", () => {
    const state = open();
    state.migrate("notes", NOTES);
    const count = state.database.prepare<{ n: number }, []>("SELECT count(*) AS n FROM notes");
    const code = `
      import { Database } from "bun:sqlite";
      new Database(Bun.argv[1]).run("INSERT INTO notes VALUES ('theirs')");
    `;
    for (const expected of [1, 2]) {
      inOtherProcess(code, file);
      expect(count.get()?.n).toBe(expected);
    }
  });
});

describe("a full disk", () => {
  test("reads go on, writes fail clearly, and nothing is lost when there is space again", () => {
    const disk = smallDisk(2 * 1024 * 1024);
    const state = open(disk === null ? stateDir : join(disk.path, "state"));
    try {
      state.migrate("notes", NOTES);
      const insert = state.database.prepare("INSERT INTO notes VALUES (?)");
      const count = state.database.prepare<{ n: number }, []>("SELECT count(*) AS n FROM notes");
      if (disk === null) {
        console.warn(
          "no tmpfs can be mounted here: PRAGMA max_page_count stands in for a full disk",
        );
        state.database.run("PRAGMA max_page_count = 20");
      } else {
        disk.fill();
      }
      let acknowledged = 0;
      const problem = problemOf(() => {
        for (; acknowledged < 10_000; acknowledged += 1) insert.run("x".repeat(1000));
      });
      expect(problem?.exitCode).toBe(EXIT.unavailable);
      expect(problem?.message).toContain("the disk is full");
      expect(count.get()?.n).toBe(acknowledged);
      if (disk === null) state.database.run("PRAGMA max_page_count = 4294967294");
      else disk.free();
      insert.run("after");
      expect(count.get()?.n).toBe(acknowledged + 1);
    } finally {
      state.close();
      disk?.dispose();
    }
  });

  test("a start without news works and reads while the disk is full", () => {
    const disk = smallDisk(2 * 1024 * 1024);
    if (disk === null) {
      console.warn("no tmpfs can be mounted here: not tested");
      return;
    }
    const first = open(join(disk.path, "state"));
    try {
      first.migrate("notes", NOTES);
      first.database.run("INSERT INTO notes VALUES ('kept')");
      disk.fill();
      const second = open(join(disk.path, "state"));
      second.migrate("notes", NOTES);
      expect(second.database.prepare("SELECT text FROM notes").values()).toEqual([["kept"]]);
      second.close();
    } finally {
      first.close();
      disk.dispose();
    }
  });

  test("a database that cannot be created on a full disk is said to be so", () => {
    const disk = smallDisk(1024 * 1024);
    if (disk === null) {
      console.warn("no tmpfs can be mounted here: not tested");
      return;
    }
    try {
      mkdirSync(join(disk.path, "state"), { mode: 0o700 });
      disk.fill();
      const { message } = refusal(() => open(join(disk.path, "state")));
      expect(message).toMatch(/disk is full|ENOSPC|disk reports an error/);
    } finally {
      disk.dispose();
    }
  });
});

describe("databaseProblem", () => {
  test.each([
    ["SQLITE_CORRUPT_INDEX", EXIT.failure],
    ["SQLITE_NOTADB", EXIT.failure],
    ["SQLITE_BUSY_SNAPSHOT", EXIT.unavailable],
    ["SQLITE_FULL", EXIT.unavailable],
    ["SQLITE_IOERR_READ", EXIT.unavailable],
    ["SQLITE_READONLY_DBMOVED", EXIT.permission],
    ["SQLITE_MISUSE", EXIT.failure],
  ])("%s ends a command with exit code %d", (code, exitCode) => {
    expect(databaseProblem(Object.assign(new Error("x"), { code }), "F")?.exitCode).toBe(exitCode);
  });

  test("what is not SQLite's is left to others", () => {
    expect(databaseProblem(new Error("x"), "F")).toBeNull();
    expect(databaseProblem(Object.assign(new Error("x"), { code: "ENOENT" }), "F")).toBeNull();
  });
});

function problemOf(work: () => unknown): OperatorError | null {
  try {
    work();
  } catch (error) {
    return databaseProblem(error, existsSync(file) ? file : "the database");
  }
  return null;
}
