/**
 * The state directory and what may lie in it: who owns it and who may read it.
 *
 * Invariant: nothing secret is read from or written to a place that another user could have prepared or can
 * read. A wrong mode is reported, never mended in silence: whoever could read the file may have done so.
 */
import { chmodSync, lstatSync, mkdirSync, type Stats, statSync } from "node:fs";
import { EXIT, errorCode, errorMessage, OperatorError } from "../errors.ts";
import { refuseUnfinishedRestore } from "./unfinished-restore.ts";

/** Bits of a mode that give anything to the group or to others. */
const OTHERS = 0o077;

/**
 * Creates the directory with mode 0700 (parents too) or checks the one that is there.
 * A symbolic link to a directory is followed: systemd makes one for `DynamicUser=`.
 * @throws OperatorError when it cannot be made, belongs to another user, is open to others, or a restore of it was
 * interrupted
 */
export function prepareStateDir(dir: string): void {
  const existing = statOrNull(dir, statSync);
  if (existing === null) {
    makeDir(dir);
    return;
  }
  if (!existing.isDirectory()) {
    throw new OperatorError(EXIT.cannotCreate, `state directory ${dir} is not a directory`);
  }
  refuseOthers(dir, "state directory", existing, "700");
  refuseUnfinishedRestore(dir);
}

/**
 * Checks a file that may or may not be there: regular, ours, closed to others.
 * @returns whether it is there
 * @throws OperatorError with EXIT.permission
 */
export function checkPrivateFile(path: string): boolean {
  // lstat: a link in here could only have been made by ourselves, and we make none.
  const found = statOrNull(path, lstatSync);
  if (found === null) return false;
  refuseOpenFile(path, found);
  return true;
}

/** The same check on what was already looked at, for instance with fstat. */
export function refuseOpenFile(path: string, stats: Stats): void {
  if (!stats.isFile()) throw new OperatorError(EXIT.permission, `${path} is not a regular file`);
  refuseOthers(path, "file", stats, "600");
}

function makeDir(dir: string): void {
  try {
    mkdirSync(dir, { recursive: true, mode: 0o700 });
    // A umask may have taken bits away that the owner needs.
    chmodSync(dir, 0o700);
  } catch (error) {
    throw new OperatorError(
      errorCode(error) === "EACCES" ? EXIT.permission : EXIT.cannotCreate,
      `cannot create the state directory ${dir}: ${errorCode(error) ?? errorMessage(error)}`,
      "Choose another place with state_dir, or create it: install -d -m 700 -o USER DIR",
    );
  }
}

function refuseOthers(path: string, what: string, stats: Stats, mode: string): void {
  const user = process.geteuid?.();
  if (user !== undefined && stats.uid !== user) {
    throw new OperatorError(
      EXIT.permission,
      `${what} ${path} belongs to user ${stats.uid}, but this process runs as user ${user}`,
      isDynamicUser(stats.uid)
        ? "It belongs to a systemd service: `gatehouse service status` prints how commands on it begin."
        : `Run the command as its owner: sudo -u '#${stats.uid}' gatehouse …`,
    );
  }
  if ((stats.mode & OTHERS) !== 0) {
    throw new OperatorError(
      EXIT.permission,
      `${what} ${path} is accessible to others (mode ${(stats.mode & 0o777).toString(8)}, expected ${mode})`,
      `Find out who could read it, then: chmod ${mode} ${path}`,
    );
  }
}

/** systemd.exec(5), DynamicUser=: nobody else can enter the directory above such a one, also with sudo -u. */
function isDynamicUser(uid: number): boolean {
  return uid >= 61_184 && uid <= 65_519;
}

function statOrNull(path: string, look: (path: string) => Stats): Stats | null {
  try {
    return look(path);
  } catch (error) {
    if (errorCode(error) === "ENOENT") return null;
    throw new OperatorError(
      EXIT.permission,
      `cannot look at ${path}: ${errorCode(error) ?? errorMessage(error)}`,
    );
  }
}
