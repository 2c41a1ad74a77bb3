/**
 * The one connection to the daemon's SQLite file.
 *
 * Invariant: nothing of the file changes through it (it is opened read-only, never creates a file and never sets a
 * journal mode), and what is read was committed to the file that the path names at that moment, not to one that
 * was there before.
 */
import { Database, type Statement } from "bun:sqlite";
import { statSync } from "node:fs";

/** Why the file cannot be asked. Each is also the code of a health condition. */
export type FaultCode =
  | "database_missing"
  | "database_locked"
  | "database_unreadable"
  | "storage_table_missing";

const FAULT_TEXT: Readonly<Record<FaultCode, string>> = {
  database_missing: "the daemon's database is not there",
  database_locked: "the daemon's database is locked by another process",
  database_unreadable: "the daemon's database cannot be read",
  storage_table_missing: "the daemon's database has no table sdk_storage",
};

/** The file cannot be asked: a fault, never an answer about a key. Holds nothing that was read. */
export class DatabaseFault extends Error {
  readonly code: FaultCode;
  /** SQLite's own code, or the code of the system error. */
  readonly detail: string;
  constructor(code: FaultCode, detail: string) {
    super(`${FAULT_TEXT[code]} (${detail})`);
    this.name = "DatabaseFault";
    this.code = code;
    this.detail = detail;
  }
}

/** A value as it is in the file, so that two can be compared before either is decoded. */
export interface StoredValue {
  readonly bytes: Uint8Array;
  /** `utf-8`, `utf-16le` or `utf-16be`; null when the value is no text. */
  readonly encoding: string | null;
}

/** What we look at, from one moment. Nothing of it has been checked yet. */
export interface DaemonRows {
  /** Value of `client_ids`; null when there is no such row or nothing in it. */
  readonly clients: StoredValue | null;
  /** Value of `routstr21Models`, likewise. */
  readonly models: StoredValue | null;
  /** `npub` of every row of `routstr_auth_npubs`; null when there is no such table. */
  readonly memberNpubs: readonly unknown[] | null;
}

/** Both calls throw {@link DatabaseFault}, at once: waiting for a lock is the caller's business. */
export interface DaemonDatabase {
  /** Another number whenever somebody has committed to the file, or the path names another file. */
  version(): number;
  rows(): DaemonRows;
  /** Idempotent; afterwards every call is a fault. */
  close(): void;
}

interface Connection {
  /** Device and inode of the file that is open. */
  readonly device: number;
  readonly inode: number;
  readonly database: Database;
  readonly version: Statement<{ data_version: number }, []>;
  readonly encoding: Statement<{ encoding: string }, []>;
  readonly tables: Statement<{ name: string }, []>;
  /** Prepared when their tables are there. */
  value: Statement<{ type: string; bytes: Uint8Array | null }, [string]> | null;
  members: Statement<{ npub: unknown }, []> | null;
}

/** As bytes: comparing them with the last ones costs a third of making a text. */
const VALUE =
  "SELECT typeof(value) AS type, CAST(value AS BLOB) AS bytes FROM sdk_storage WHERE key = ?";
const TABLES = "SELECT name FROM sqlite_schema WHERE name IN ('sdk_storage', 'routstr_auth_npubs')";

/** Opens nothing yet. */
export function daemonDatabase(path: string): DaemonDatabase {
  let connection: Connection | null = null;
  let opened = 0;
  let isClosed = false;

  /** A restored backup is another file under the same name; the connection would go on reading the old one. */
  const current = (): Connection => {
    if (isClosed) throw new DatabaseFault("database_unreadable", "closed");
    const file = fileAt(path);
    if (connection?.inode === file.ino && connection.device === file.dev) return connection;
    if (connection !== null) disconnect(connection);
    connection = null;
    connection = connect(path, file.dev, file.ino);
    opened += 1;
    return connection;
  };

  return {
    version: () =>
      explaining(() => {
        const { version } = current();
        return opened * 2 ** 32 + (version.get()?.data_version ?? 0);
      }),
    rows: () => explaining(() => readRows(current())),
    close() {
      isClosed = true;
      if (connection !== null) disconnect(connection);
      connection = null;
    },
  };
}

/** Never opened by us directly: closing any descriptor of the file would drop SQLite's POSIX locks on it. */
function fileAt(path: string): { readonly dev: number; readonly ino: number } {
  try {
    return statSync(path);
  } catch (error) {
    const code = errorCode(error);
    const isGone = code === "ENOENT" || code === "ENOTDIR";
    throw new DatabaseFault(isGone ? "database_missing" : "database_unreadable", code);
  }
}

function connect(path: string, device: number, inode: number): Connection {
  const database = new Database(path, { readonly: true, strict: true });
  try {
    // Not SQLite's own wait: it would hold up every other request of the process for as long.
    database.run("PRAGMA busy_timeout = 0");
    database.run("PRAGMA query_only = ON");
    // The schema is data: functions and virtual tables with side effects are not run because a file says so.
    database.run("PRAGMA trusted_schema = OFF");
    // Damage is reported as such instead of being read as a row.
    database.run("PRAGMA cell_size_check = ON");
    // With a mapped file a cut file is the end of the process.
    database.run("PRAGMA mmap_size = 0");
    const version = database.prepare<{ data_version: number }, []>("PRAGMA data_version");
    const encoding = database.prepare<{ encoding: string }, []>("PRAGMA encoding");
    const tables = database.prepare<{ name: string }, []>(TABLES);
    return { device, inode, database, version, encoding, tables, value: null, members: null };
  } catch (error) {
    database.close(false);
    throw error;
  }
}

function disconnect(connection: Connection): void {
  const { version, encoding, tables, value, members } = connection;
  for (const statement of [version, encoding, tables, value, members]) statement?.finalize();
  connection.database.close(false);
}

/** In one read transaction, so that keys and members are of the same moment. */
function readRows(connection: Connection): DaemonRows {
  const { database } = connection;
  const read = database.transaction((): DaemonRows => {
    const tables = connection.tables.all().map(({ name }) => name);
    if (!tables.includes("sdk_storage")) {
      throw new DatabaseFault("storage_table_missing", "no such table");
    }
    const clients = storedValue(connection, "client_ids");
    const models = storedValue(connection, "routstr21Models");
    if (!tables.includes("routstr_auth_npubs")) return { clients, models, memberNpubs: null };
    connection.members ??= database.prepare("SELECT npub FROM routstr_auth_npubs");
    return { clients, models, memberNpubs: connection.members.all().map(({ npub }) => npub) };
  });
  return read.deferred();
}

function storedValue(connection: Connection, key: string): StoredValue | null {
  connection.value ??= connection.database.prepare(VALUE);
  const row = connection.value.get(key);
  if (row === null || row.bytes === null) return null;
  const encoding = connection.encoding.get()?.encoding.toLowerCase() ?? "utf-8";
  return { bytes: row.bytes, encoding: row.type === "text" ? encoding : null };
}

/** What a value is in JavaScript: a text, null when there is none, the bytes of anything else. */
export function decoded(value: StoredValue | null): string | Uint8Array | null {
  if (value === null || value.encoding === null) return value?.bytes ?? null;
  const bytes = Buffer.from(value.bytes);
  if (value.encoding === "utf-8") return bytes.toString("utf8");
  return (value.encoding === "utf-16be" ? bytes.swap16() : bytes).toString("utf16le");
}

/** Whether nobody has changed the value. */
export function isSameValue(a: StoredValue | null, b: StoredValue | null): boolean {
  if (a === null || b === null) return a === b;
  return a.encoding === b.encoding && Buffer.compare(a.bytes, b.bytes) === 0;
}

function explaining<T>(work: () => T): T {
  try {
    return work();
  } catch (error) {
    if (error instanceof DatabaseFault) throw error;
    const code = errorCode(error);
    const isLocked = /^SQLITE_(BUSY|LOCKED|PROTOCOL)/.test(code);
    throw new DatabaseFault(isLocked ? "database_locked" : "database_unreadable", code);
  }
}

function errorCode(error: unknown): string {
  const code = error instanceof Error && "code" in error ? error.code : undefined;
  return typeof code === "string" ? code : "error";
}
