/**
 * Where members live: in the state database, or in routstrd's own file.
 *
 * Invariant: nothing here creates routstrd's file, changes its journal mode or loses a row in it; a lock that the
 * daemon holds makes the one request wait that needs the file, not all the others.
 */
import { Database } from "bun:sqlite";
import { statSync } from "node:fs";
import type { Host } from "gatehouse";
import { type Member, type MembersTable, openMembersTable } from "./members-table.ts";
import { migrateRoutstrd } from "./routstrd-schema.ts";
import { codeOf, isBusy } from "./sqlite-code.ts";

/** One place with members. */
export interface MembersPlace {
  readonly table: MembersTable;
  /** The word for members that the configuration lists, in the column `source`. */
  readonly configSource: "config" | "env";
  /** On the way of a request. */
  find(pubkey: string): Member | null | Promise<Member | null>;
  /** Runs `work`, waiting for other processes. @throws an Error that says what is wrong with the file */
  read<T>(work: () => T): T;
  /** The same in one transaction that nobody else can write beside. */
  write<T>(work: () => T): T;
  /** Idempotent. */
  close(): void;
}

/** The daemon may hold its file for 3 s. */
const BUSY_TIMEOUT_MS = 5000;
const BUSY_RETRY_MS = 5;

/** Members in the state database, those of this strategy alone. */
export function ownPlace(database: Database, host: Host): MembersPlace {
  const table = openMembersTable(database, { table: "nip98_members", strategy: host.strategy });
  return {
    table,
    configSource: "config",
    find(pubkey) {
      host.checkDatabase();
      return table.find(pubkey);
    },
    read: (work) => work(),
    write: (work) => database.transaction(work).immediate(),
    close: () => table.close(),
  };
}

/**
 * Members in routstrd's file at `path`, migrated as every version of its proxy does it.
 * @throws an Error with the path and what to do
 */
export function routstrdPlace(path: string, host: Host): MembersPlace {
  const database = openFile(path);
  try {
    explaining(path, () => {
      database.run(`PRAGMA busy_timeout = ${BUSY_TIMEOUT_MS}`);
      migrateRoutstrd(database, host.log);
      database.run("PRAGMA busy_timeout = 0");
    });
    return placeIn(path, database, host);
  } catch (error) {
    database.close(false);
    throw error;
  }
}

function placeIn(path: string, database: Database, host: Host): MembersPlace {
  const table = explaining(path, () =>
    openMembersTable(database, { table: "routstr_auth_npubs", strategy: host.strategy }),
  );
  const waiting = <T>(work: () => T): T =>
    explaining(path, () => {
      try {
        database.run(`PRAGMA busy_timeout = ${BUSY_TIMEOUT_MS}`);
        return work();
      } finally {
        database.run("PRAGMA busy_timeout = 0");
      }
    });
  const opened = fileAt(path);
  let isOpen = true;
  return {
    table,
    configSource: "env",
    find(pubkey) {
      host.checkDatabase();
      if (fileAt(path) !== opened) {
        throw new Error(`database ${path} is not the file that was opened: restart the gateway`);
      }
      return findNow(table, pubkey);
    },
    read: waiting,
    write: (work) => waiting(() => database.transaction(work).immediate()),
    close() {
      if (!isOpen) return;
      isOpen = false;
      table.close();
      database.close(false);
    },
  };
}

/** Device and number of the file; empty when there is none. */
function fileAt(path: string): string {
  const status = statSync(path, { throwIfNoEntry: false });
  return status === undefined ? "" : `${status.dev}:${status.ino}`;
}

/** At once when nobody holds the lock, else later, without standing in the way of others. */
function findNow(table: MembersTable, pubkey: string): Member | null | Promise<Member | null> {
  try {
    return table.find(pubkey);
  } catch (error) {
    if (!isBusy(error)) throw error;
    return findLater(table, pubkey);
  }
}

async function findLater(table: MembersTable, pubkey: string): Promise<Member | null> {
  const giveUpMs = performance.now() + BUSY_TIMEOUT_MS;
  for (;;) {
    await Bun.sleep(BUSY_RETRY_MS);
    try {
      return table.find(pubkey);
    } catch (error) {
      if (!isBusy(error) || performance.now() > giveUpMs) throw error;
    }
  }
}

function openFile(path: string): Database {
  let isFile: boolean;
  try {
    isFile = statSync(path).isFile();
  } catch (error) {
    if (codeOf(error) !== "ENOENT") throw new Error(`database ${path}: ${codeOf(error)}`);
    throw new Error(
      `database ${path} is not there; routstrd creates it: start the daemon once, or correct \`database\``,
    );
  }
  if (!isFile) throw new Error(`database ${path} is not a file`);
  return explaining(
    path,
    () => new Database(path, { readwrite: true, create: false, strict: true }),
  );
}

const PROBLEMS: readonly (readonly [RegExp, string])[] = [
  [/^SQLITE_(NOTADB|CORRUPT)/, "is damaged or no SQLite file; restore it from a backup"],
  [/^SQLITE_(BUSY|LOCKED)/, "is locked by another process; try again"],
  [/^SQLITE_READONLY/, "is read-only; it and its directory must be writable for this user"],
  [/^SQLITE_(CANTOPEN|PERM|AUTH)/, "cannot be opened by this user"],
  [/^SQLITE_FULL/, "cannot grow: the disk is full"],
];

function explaining<T>(path: string, work: () => T): T {
  try {
    return work();
  } catch (error) {
    const code = codeOf(error);
    if (!code.startsWith("SQLITE_")) throw error;
    const text = PROBLEMS.find(([codes]) => codes.test(code))?.[1] ?? "cannot be used";
    throw new Error(`database ${path} ${text} (${code})`, { cause: error });
  }
}
