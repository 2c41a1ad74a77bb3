/**
 * What of the state directory goes into a backup.
 *
 * Invariant: every regular file does, whatever strategy made it, and databases as a consistent copy; what does not is
 * listed with the reason. Nothing is written here but a copy that is too large for memory.
 */
import { type Dirent, readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { EXIT, errorCode, OperatorError } from "../../errors.ts";
import { refuseUnfinishedRestore } from "../../store/unfinished-restore.ts";
import { databaseEntry, type Entry, fileEntry, isDatabase } from "./entry.ts";
import { isName, MAX_FILES } from "./manifest.ts";

/** Entries, and one line for each thing that is not among them. */
export interface Collected {
  readonly entries: Entry[];
  readonly leftOut: string[];
}

/** Made by Gatehouse itself and of no use elsewhere: its socket, drafts of keys, copies under way, replaced state. */
const DISPOSABLE =
  /^(?:control\.sock|\.key-[0-9a-f]+|\.snapshot-[0-9a-f]+|\.restore-[0-9a-f]+|replaced-.*|lost\+found)$/;
/** Beside a database they are part of the copy already. */
const COMPANION = /-(?:wal|shm|journal)$/;

interface Found {
  /** Below the state directory, with slashes. */
  readonly name: string;
  readonly path: string;
}

/**
 * Reads the state directory; one that is not there has nothing in it. Run it as the owner of the directory.
 * @throws OperatorError when something in it cannot be read, or a restore of it was interrupted
 */
export function collectState(stateDir: string): Collected {
  const collected: Collected = { entries: [], leftOut: [] };
  if (!isDirectory(stateDir)) return collected;
  refuseUnfinishedRestore(stateDir);
  const found: Found[] = [];
  walk(stateDir, "", { found, leftOut: collected.leftOut });
  // Asked of all of them first: it must not happen while one of them is open.
  const names = new Set(found.map(({ name }) => name));
  // One that is new has all it holds in its log.
  const isOne = ({ name, path }: Found): boolean => names.has(`${name}-wal`) || isDatabase(path);
  const databases = new Set(found.filter(isOne).map(({ name }) => name));
  // A database names its key, so the key is there by the time the database was copied; not the other way round.
  const isFirst = ({ name }: Found): number => (databases.has(name) ? 0 : 1);
  try {
    for (const { name, path } of found.toSorted((a, b) => isFirst(a) - isFirst(b))) {
      if (COMPANION.test(name) && databases.has(name.replace(COMPANION, ""))) continue;
      addOne(collected, { name, path }, { stateDir, isDatabase: databases.has(name) });
    }
  } catch (error) {
    for (const entry of collected.entries) entry.close();
    throw error;
  }
  return collected;
}

function addOne(
  { entries, leftOut }: Collected,
  { name, path }: Found,
  file: { readonly stateDir: string; readonly isDatabase: boolean },
): void {
  const entryName = `state/${name}`;
  if (!isName(entryName)) {
    leftOut.push(`${JSON.stringify(path)}: a name that cannot be restored`);
    return;
  }
  const entry = file.isDatabase
    ? databaseEntry(entryName, path, file.stateDir)
    : fileEntry(entryName, path);
  // Gone since: a temporary file of a strategy.
  if (entry !== null) entries.push(entry);
}

interface Walk {
  readonly found: Found[];
  readonly leftOut: string[];
}

function walk(directory: string, prefix: string, into: Walk): void {
  for (const item of list(directory)) {
    const path = join(directory, item.name);
    if (prefix === "" && DISPOSABLE.test(item.name)) continue;
    if (item.isDirectory()) walk(path, `${prefix}${item.name}/`, into);
    else if (item.isFile()) into.found.push({ name: prefix + item.name, path });
    else into.leftOut.push(`${JSON.stringify(path)}: ${kindOf(item)}`);
    if (into.found.length > MAX_FILES) {
      throw new OperatorError(
        EXIT.failure,
        `${directory} has more than ${MAX_FILES} files`,
        "Is state_dir a directory of its own?",
      );
    }
  }
}

function list(directory: string): Dirent[] {
  try {
    return readdirSync(directory, { withFileTypes: true }).toSorted((a, b) =>
      a.name < b.name ? -1 : 1,
    );
  } catch (error) {
    throw new OperatorError(EXIT.permission, `${directory} cannot be read (${errorCode(error)})`);
  }
}

function kindOf(item: Dirent): string {
  if (item.isSymbolicLink()) return "a symbolic link";
  return item.isSocket() ? "a socket" : "no regular file";
}

function isDirectory(path: string): boolean {
  try {
    return statSync(path).isDirectory();
  } catch (error) {
    if (errorCode(error) === "ENOENT") return false;
    throw new OperatorError(EXIT.permission, `${path} cannot be looked at (${errorCode(error)})`);
  }
}
