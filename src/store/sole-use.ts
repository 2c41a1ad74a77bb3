/**
 * Having an SQLite file to oneself: how a restore knows that no gateway and no command uses the state.
 *
 * Invariant: the answer comes from the locks that the operating system keeps for a process as long as it lives, so
 * nothing stale can be in the way and nothing alive is overlooked.
 */
import { Database } from "bun:sqlite";
import { readFileSync, statSync } from "node:fs";
import { EXIT, errorCode, OperatorError } from "../errors.ts";
import { databaseProblem } from "./sqlite.ts";

/** Held until it is given back. */
export interface SoleUse {
  /** Idempotent. */
  release(): void;
}

/** A command that is about to end is waited for. */
const WAIT_MS = 1000;

/**
 * Takes the file at `path` for oneself. When it is given back, its log has been written back into it, so that it is
 * complete without the files beside it. A damaged file is taken as well when nobody holds a lock on it. Give it back
 * before it is moved: SQLite tidies up beside the name that it opened.
 * @throws OperatorError with EXIT.unavailable when another process has it open
 */
export function takeSoleUse(path: string): SoleUse {
  const database = new Database(path, { readwrite: true, create: false });
  try {
    database.run(`PRAGMA busy_timeout = ${WAIT_MS}`);
    // In WAL mode a connection holds a shared lock on the file all its life, also one that is idle.
    database.run("PRAGMA locking_mode = EXCLUSIVE");
    database.run("BEGIN EXCLUSIVE");
    return { release: () => database.close(false) };
  } catch (error) {
    database.close(false);
    const code = errorCode(error) ?? "";
    if (/^SQLITE_(BUSY|LOCKED|PROTOCOL)/.test(code)) throw inUse(path);
    if (!/^SQLITE_(NOTADB|CORRUPT)/.test(code)) throw databaseProblem(error, path) ?? error;
    // It is what a restore is for. Who has it open can then only be told from the list of locks.
    if (holders(path).length > 0) throw inUse(path);
    return { release() {} };
  }
}

function inUse(path: string): OperatorError {
  const pids = holders(path);
  const who = pids.length === 0 ? "another process" : `process ${pids.join(", ")}`;
  return new OperatorError(
    EXIT.unavailable,
    `${path} is in use by ${who}: a gateway is running on this state, or a command`,
    "Stop it first, for instance: systemctl stop gatehouse",
  );
}

/**
 * Processes with a lock on the file or on the index of its log, from /proc/locks (proc_locks(5)). Empty where there
 * is no such list; in a container it has the container's processes only.
 */
export function holders(path: string): readonly number[] {
  const inodes = [path, `${path}-shm`]
    .map((file) => statSync(file, { bigint: true, throwIfNoEntry: false })?.ino)
    .filter((ino) => ino !== undefined);
  const pids = lockList()
    .map((line) => /^\d+: +\S+ +\S+ +\S+ +(\d+) +[0-9a-f]+:[0-9a-f]+:(\d+) /.exec(line))
    .filter((match) => match !== null && inodes.includes(BigInt(match[2] ?? 0)))
    .map((match) => Number(match?.[1]));
  return [...new Set(pids)].filter((pid) => pid > 0 && pid !== process.pid);
}

function lockList(): readonly string[] {
  try {
    return readFileSync("/proc/locks", "utf8").split("\n");
  } catch {
    return [];
  }
}
