/**
 * A consistent copy of an SQLite file while others write to it.
 *
 * Invariant: the copy is what one read transaction sees. Nothing of it lies on disk under a name that could stay behind
 * when the process is killed, unless it is too large for memory; then it is in a private file of the state directory
 * that loses its name as soon as SQLite is done with it.
 */
import { Database } from "bun:sqlite";
import { randomBytes } from "node:crypto";
import { closeSync, fchmodSync, fstatSync, openSync, readSync, rmSync, statSync } from "node:fs";
import { join } from "node:path";
import { errorCode } from "../errors.ts";
import { firstValue } from "./migrations.ts";
import { databaseProblem } from "./sqlite.ts";

/** Names of the schema steps in a file, oldest first, by namespace. */
export type Steps = Readonly<Record<string, readonly string[]>>;

/** The copy. */
export interface Snapshot {
  readonly bytes: number;
  /** Empty for a file that is not a state database. */
  readonly steps: Steps;
  /** From the beginning, each time. */
  chunks(): Iterable<Uint8Array>;
  /** Idempotent. */
  close(): void;
}

/** How the copy is made. */
export interface SnapshotOptions {
  /** Where a copy goes that is too large for memory. */
  readonly scratchDir: string;
  /** Default 128 MiB. */
  readonly maxMemoryBytes?: number;
}

/** How the names of copies in {@link SnapshotOptions.scratchDir} begin. */
export const SNAPSHOT_PREFIX = ".snapshot-";

const MAX_MEMORY_BYTES = 128 * 1024 * 1024;
const CHUNK_BYTES = 64 * 1024;
/** Only for files of others that are not in WAL mode; in WAL mode a reader waits for nobody. */
const BUSY_TIMEOUT_MS = 5000;
/** SQLITE_OPEN_READONLY | SQLITE_OPEN_URI */
const READ_ONLY_URI = 0x01 | 0x40;

/** @throws OperatorError when the file is damaged, locked or cannot be read */
export function takeSnapshot(path: string, options: SnapshotOptions): Snapshot {
  try {
    const { database, mustBeUntouched } = openForReading(path);
    try {
      const isSmall = sizeWithLog(path) <= (options.maxMemoryBytes ?? MAX_MEMORY_BYTES);
      const snapshot = isSmall ? inMemory(database) : onDisk(database, options.scratchDir);
      mustBeUntouched();
      return snapshot;
    } finally {
      database.close(false);
    }
  } catch (error) {
    throw databaseProblem(error, path) ?? error;
  }
}

/** The steps that the file behind `database` has been through. */
export function stepsOf(database: Database): Steps {
  const table = "type = 'table' AND name = 'gatehouse_migrations'";
  if (firstValue(database, `SELECT 1 FROM sqlite_schema WHERE ${table}`) === undefined) return {};
  const statement = database.prepare<{ namespace: string; name: string }, []>(
    "SELECT namespace, name FROM gatehouse_migrations ORDER BY namespace, position",
  );
  try {
    const steps = new Map<string, string[]>();
    for (const { namespace, name } of statement.all()) {
      steps.set(namespace, [...(steps.get(namespace) ?? []), name]);
    }
    return Object.fromEntries(steps);
  } finally {
    statement.finalize();
  }
}

interface Opened {
  readonly database: Database;
  /** @throws when somebody wrote to a file that was opened as one that nobody writes to */
  mustBeUntouched(): void;
}

/**
 * For writing, because a reader of a file in WAL mode has to make the files beside it. Where that is impossible (a
 * read-only disk, a full one) and nothing is in a log, the file is read as it lies there.
 */
function openForReading(path: string): Opened {
  try {
    const database = new Database(path, { readwrite: true, create: false });
    return { database: prepared(database), mustBeUntouched() {} };
  } catch (error) {
    const isNoPlace = /^SQLITE_(CANTOPEN|READONLY|FULL|IOERR)/.test(errorCode(error) ?? "");
    if (!isNoPlace || logBytes(path) > 0) throw error;
    const before = stamp(path);
    const name = encodeURI(path).replaceAll("?", "%3f").replaceAll("#", "%23");
    return {
      database: prepared(new Database(`file:${name}?immutable=1`, READ_ONLY_URI)),
      mustBeUntouched() {
        if (stamp(path) === before && logBytes(path) === 0) return;
        throw Object.assign(new Error("it was written to meanwhile"), { code: "SQLITE_BUSY" });
      },
    };
  }
}

function prepared(database: Database): Database {
  try {
    database.run(`PRAGMA busy_timeout = ${BUSY_TIMEOUT_MS}`);
    database.run("PRAGMA trusted_schema = OFF");
    // Opens the file, which the constructor does not do.
    firstValue(database, "PRAGMA schema_version");
    return database;
  } catch (error) {
    database.close(false);
    throw error;
  }
}

function inMemory(database: Database): Snapshot {
  database.run("BEGIN");
  try {
    const steps = stepsOf(database);
    const bytes = database.serialize();
    return {
      bytes: bytes.length,
      steps,
      *chunks() {
        for (let at = 0; at < bytes.length; at += CHUNK_BYTES) {
          yield bytes.subarray(at, at + CHUNK_BYTES);
        }
      },
      close() {},
    };
  } finally {
    database.run("ROLLBACK");
  }
}

function onDisk(database: Database, scratchDir: string): Snapshot {
  const path = join(scratchDir, `${SNAPSHOT_PREFIX}${randomBytes(8).toString("hex")}`);
  // Made by us, because SQLite would apply the umask to it. It takes an empty file as one that is not there.
  const file = openSync(path, "wx+", 0o600);
  try {
    fchmodSync(file, 0o600);
    database.run("VACUUM INTO ?", [path]);
    const copy = new Database(path, { readonly: true });
    const steps = stepsOf(copy);
    copy.close(false);
    return fromFile(file, steps);
  } catch (error) {
    closeSync(file);
    throw error;
  } finally {
    rmSync(path, { force: true });
  }
}

/** `file` has no name by now; it is gone once it is closed. */
function fromFile(file: number, steps: Steps): Snapshot {
  const bytes = fstatSync(file).size;
  let isOpen = true;
  return {
    bytes,
    steps,
    *chunks() {
      for (let at = 0; at < bytes; ) {
        const chunk = new Uint8Array(Math.min(CHUNK_BYTES, bytes - at));
        const count = readSync(file, chunk, 0, chunk.length, at);
        if (count === 0) throw new Error("the copy of the database is cut short");
        at += count;
        yield chunk.subarray(0, count);
      }
    },
    close() {
      if (isOpen) closeSync(file);
      isOpen = false;
    },
  };
}

function sizeWithLog(path: string): number {
  return (statSync(path, { throwIfNoEntry: false })?.size ?? 0) + logBytes(path);
}

function logBytes(path: string): number {
  return statSync(`${path}-wal`, { throwIfNoEntry: false })?.size ?? 0;
}

function stamp(path: string): string {
  const stats = statSync(path, { bigint: true, throwIfNoEntry: false });
  return stats === undefined ? "" : `${stats.ino}:${stats.size}:${stats.mtimeNs}`;
}
