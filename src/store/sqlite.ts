/**
 * The state database: one file, one connection a process, one history of schema steps.
 *
 * Invariant: a commit that was reported has reached the disk, what another process committed is seen by the next
 * read, and a file that is damaged, foreign, newer than this program or open to others is refused.
 */
import { Database } from "bun:sqlite";
import { closeSync, constants, fchmodSync, openSync } from "node:fs";
import { join } from "node:path";
import { systemClock } from "../clock.ts";
import type { Clock, Migration } from "../contract/host.ts";
import { EXIT, errorCode, errorMessage, OperatorError } from "../errors.ts";
import { firstValue, migrate, takeIntoUse } from "./migrations.ts";
import { sameFile } from "./same-file.ts";
import { checkPrivateFile, prepareStateDir } from "./state-dir.ts";

/** The open state database. */
export interface StateDatabase {
  /** Absolute path of the file. */
  readonly path: string;
  /** The one connection. Prepare a fixed set of statements on it and finalize them. */
  readonly database: Database;
  /**
   * Runs the steps of `namespace` that have not been run, each in a transaction, and returns the connection.
   * Writes nothing when there is nothing to do, so that it also works on a full disk.
   * @throws OperatorError when the file has steps that are not in `migrations`
   */
  migrate(namespace: string, migrations: readonly Migration[]): Database;
  /** @throws StateDatabaseReplaced when another file, or none, lies at the path by now */
  mustBeSameFile(): void;
  /** Idempotent. */
  close(): void;
}

/** Settings for tests. */
export interface OpenOptions {
  readonly clock?: Clock;
  /** How long a statement waits for another process's lock, in ms. Default 1000. */
  readonly busyTimeoutMs?: number;
}

/** Opening may have to wait for another process that is creating or migrating the same file. */
const OPEN_TIMEOUT_MS = 5000;

/**
 * The call is synchronous, so a wait stops every request. Readers never wait for writers in WAL mode; a writer
 * waits for another one, and writers hold the lock for milliseconds.
 */
const BUSY_TIMEOUT_MS = 1000;

/**
 * Opens `<stateDir>/gatehouse.db`, creating directory (0700) and file (0600) when they are not there.
 * @throws OperatorError: EXIT.permission for a wrong owner or mode, EXIT.failure for a damaged, foreign or newer
 * file, EXIT.unavailable for a locked one or a full disk
 */
export function openStateDatabase(stateDir: string, options: OpenOptions = {}): StateDatabase {
  prepareStateDir(stateDir);
  const path = join(stateDir, "gatehouse.db");
  prepareFiles(path);
  const clock = options.clock ?? systemClock;
  const database = openConnection(path, clock, options.busyTimeoutMs ?? BUSY_TIMEOUT_MS);
  let isOpen = true;
  return {
    path,
    database,
    mustBeSameFile: sameFile(database),
    migrate(namespace, migrations) {
      explaining(path, () => migrate(database, clock, namespace, migrations));
      return database;
    },
    close() {
      if (!isOpen) return;
      isOpen = false;
      closeConnection(database);
    },
  };
}

/**
 * What an error of SQLite means to the operator, or null when it is none of SQLite's.
 * For commands; on the way of a request every one of them is a fault.
 */
export function databaseProblem(error: unknown, path: string): OperatorError | null {
  const code = errorCode(error);
  if (code === undefined || !code.startsWith("SQLITE_")) return null;
  const found = PROBLEMS.find((problem) => problem.codes.test(code));
  if (found === undefined) {
    return new OperatorError(
      EXIT.failure,
      `state database ${path}: ${errorMessage(error)} (${code})`,
    );
  }
  return new OperatorError(
    found.exitCode,
    `state database ${path} ${found.text} (${code})`,
    found.hint,
  );
}

const PROBLEMS = [
  {
    codes: /^SQLITE_(NOTADB|CORRUPT)/,
    exitCode: EXIT.failure,
    text: "is damaged",
    hint: "Keep a copy of the file with its -wal beside it, then put a backup in its place.",
  },
  {
    codes: /^SQLITE_(BUSY|LOCKED|PROTOCOL)/,
    exitCode: EXIT.unavailable,
    text: "is locked by another process",
    hint: "Try again; if it stays locked, see who holds it: fuser -v FILE",
  },
  {
    codes: /^SQLITE_(FULL|IOERR_SHMSIZE)/,
    exitCode: EXIT.unavailable,
    text: "cannot grow: the disk is full",
    hint: "Free some space and try again; what was acknowledged before is kept.",
  },
  {
    codes: /^SQLITE_IOERR/,
    exitCode: EXIT.unavailable,
    text: "cannot be read or written: the disk reports an error",
    hint: "Look at the kernel log (dmesg) and at the free space (df).",
  },
  {
    codes: /^SQLITE_(READONLY|CANTOPEN|PERM|AUTH)/,
    exitCode: EXIT.permission,
    text: "cannot be opened for writing",
    hint: "The directory and the file must be writable for the user that runs gatehouse.",
  },
] as const;

/**
 * The main file is made by us, because SQLite would apply the umask to it; -wal and -shm get its mode from SQLite,
 * whatever the umask. An existing file is only looked at: opening and closing it here would drop the
 * locks of a connection that this process already has (POSIX locks belong to the process, not the descriptor).
 */
function prepareFiles(path: string): void {
  for (const companion of ["-wal", "-shm"]) checkPrivateFile(path + companion);
  if (checkPrivateFile(path)) return;
  const flags = constants.O_RDWR | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW;
  try {
    const file = openSync(path, flags, 0o600);
    try {
      fchmodSync(file, 0o600);
    } finally {
      closeSync(file);
    }
  } catch (error) {
    const code = errorCode(error);
    // Another process made it in the meantime.
    if (code === "EEXIST" && checkPrivateFile(path)) return;
    throw new OperatorError(
      code === "EACCES" ? EXIT.permission : EXIT.cannotCreate,
      `cannot create ${path}: ${code ?? errorMessage(error)}`,
    );
  }
}

function openConnection(path: string, clock: Clock, busyTimeoutMs: number): Database {
  return explaining(path, () => {
    const database = new Database(path, { readwrite: true, create: false, strict: true });
    try {
      configure(database, path);
      takeIntoUse(database, path, clock);
      database.run(`PRAGMA busy_timeout = ${Math.trunc(busyTimeoutMs)}`);
      return database;
    } catch (error) {
      database.close(false);
      throw error;
    }
  });
}

function configure(database: Database, path: string): void {
  // First, because each of the following may meet another process's lock.
  database.run(`PRAGMA busy_timeout = ${OPEN_TIMEOUT_MS}`);
  // Reads the header: a file that is not a database or is cut short fails here. `quick_check` would read it all.
  firstValue(database, "PRAGMA schema_version");
  enableWal(database, path);
  // Every commit reaches the disk before it is reported. With NORMAL a power cut could bring a revoked
  // token back to life.
  database.run("PRAGMA synchronous = FULL");
  database.run("PRAGMA foreign_keys = ON");
  // The schema is data: functions and virtual tables with side effects are not run because a file says so.
  database.run("PRAGMA trusted_schema = OFF");
  // Damage is reported as such instead of being read as a row.
  database.run("PRAGMA cell_size_check = ON");
  // Off on purpose: with a mapped file a bad block or a cut file is SIGBUS, the end of the process, where a
  // plain read is an error and one 503.
  database.run("PRAGMA mmap_size = 0");
  // At most 64 MiB, taken only as the file needs it: holds the inner pages of millions of rows.
  database.run("PRAGMA cache_size = -65536");
  // After a burst of writes the log shrinks again.
  database.run("PRAGMA journal_size_limit = 67108864");
}

/**
 * Readers and a writer of different processes do not wait for each other. The switch itself needs the file alone,
 * and SQLite does not wait for that when it could deadlock, so two processes that create a file together retry.
 */
function enableWal(database: Database, path: string): void {
  const deadline = Bun.nanoseconds() + OPEN_TIMEOUT_MS * 1e6;
  for (;;) {
    try {
      const mode = firstValue(database, "PRAGMA journal_mode = WAL");
      if (mode === "wal") return;
      throw new OperatorError(
        EXIT.failure,
        `state database ${path} cannot use a write-ahead log (journal mode ${mode})`,
        "Put state_dir on a local file system.",
      );
    } catch (error) {
      const isBusy = errorCode(error)?.startsWith("SQLITE_BUSY") === true;
      if (!isBusy || Bun.nanoseconds() > deadline) throw error;
      Bun.sleepSync(5);
    }
  }
}

function closeConnection(database: Database): void {
  try {
    // The last one to close writes the log back into the file.
    database.close(true);
  } catch {
    // Someone left a statement open; the connection then ends with the last statement.
    database.close(false);
  }
}

function explaining<T>(path: string, work: () => T): T {
  try {
    return work();
  } catch (error) {
    throw databaseProblem(error, path) ?? error;
  }
}
