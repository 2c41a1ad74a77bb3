/**
 * Where a backup is written to: a file, or standard output.
 *
 * Invariant: a file appears under its name when it is complete and on the disk, or not at all; another file of that
 * name is not lost unless that was asked for.
 */
import { randomBytes } from "node:crypto";
import {
  closeSync,
  fchmodSync,
  fsyncSync,
  linkSync,
  lstatSync,
  openSync,
  renameSync,
  rmSync,
  statSync,
  writeSync,
} from "node:fs";
import { basename, dirname, join } from "node:path";
import { EXIT, type ExitCode, errorCode, errorMessage, OperatorError } from "../../errors.ts";

/** Takes a backup. */
export interface Output {
  /** @throws OperatorError when it cannot be written */
  write(chunk: Uint8Array): void;
  /** Makes it durable and gives it its name. @throws OperatorError */
  commit(): void;
  /** Takes back what was not committed. Idempotent. */
  dispose(): void;
}

/**
 * A file at `path`, mode 0600.
 * @param isReplaced a file that is there may be replaced
 * @throws OperatorError when there is one and it may not, or none can be made there
 */
export function fileOutput(path: string, isReplaced: boolean): Output {
  if (!isReplaced && explaining(path, () => isThere(path))) throw taken(path);
  const draft = join(dirname(path), `.${basename(path)}.${randomBytes(6).toString("hex")}.part`);
  const file = explaining(path, () => openSync(draft, "wx", 0o600));
  let isOpen = true;
  const close = (): void => {
    if (isOpen) closeSync(file);
    isOpen = false;
  };
  return {
    write: (chunk) => explaining(path, () => writeAll(file, chunk)),
    commit() {
      explaining(path, () => {
        // Whatever the umask says.
        fchmodSync(file, 0o600);
        fsyncSync(file);
        close();
        name(draft, path, isReplaced);
        syncDirectory(dirname(path));
      });
    },
    dispose() {
      close();
      rmSync(draft, { force: true });
    },
  };
}

/** Standard output. Nothing can be taken back, so an error must reach whoever reads it by the exit code. */
export function standardOutput(): Output {
  return {
    write: (chunk) => explaining("standard output", () => writeAll(1, chunk)),
    commit() {},
    dispose() {},
  };
}

/** Makes what was renamed in a directory survive a power cut. */
export function syncDirectory(path: string): void {
  const directory = openSync(path, "r");
  try {
    fsyncSync(directory);
  } catch (error) {
    // Some file systems cannot, and are then as durable as they are.
    if (errorCode(error) !== "EINVAL") throw error;
  } finally {
    closeSync(directory);
  }
}

/** A link fails when the name is taken, where a rename would replace what is there. */
function name(draft: string, path: string, isReplaced: boolean): void {
  if (!isReplaced) {
    try {
      linkSync(draft, path);
      rmSync(draft);
      return;
    } catch {
      // Taken by now, or a file system without links, such as that of a USB stick.
      if (isThere(path)) throw taken(path);
    }
  }
  renameSync(draft, path);
}

function isThere(path: string): boolean {
  return lstatSync(path, { throwIfNoEntry: false }) !== undefined;
}

/** Whether `path` is a directory, links followed; false when that cannot be told. */
export function isDirectory(path: string): boolean {
  try {
    return statSync(path).isDirectory();
  } catch {
    return false;
  }
}

function writeAll(file: number, chunk: Uint8Array): void {
  for (let rest = chunk; rest.length > 0; ) {
    try {
      rest = rest.subarray(writeSync(file, rest));
    } catch (error) {
      if (errorCode(error) !== "EAGAIN") throw error;
      // The other end made the pipe non-blocking and reads slowly.
      Bun.sleepSync(1);
    }
  }
}

function taken(path: string): OperatorError {
  return new OperatorError(
    EXIT.cannotCreate,
    `${path} is there already; it is not written over`,
    "Choose another name, or say --force.",
  );
}

const REASONS: Readonly<Record<string, readonly [ExitCode, string]>> = {
  ENOSPC: [EXIT.unavailable, "the disk is full"],
  EDQUOT: [EXIT.unavailable, "the quota is used up"],
  EACCES: [EXIT.permission, "this user may not write there"],
  EPERM: [EXIT.permission, "this user may not write there"],
  EROFS: [EXIT.cannotCreate, "the file system is read-only"],
  ENOENT: [EXIT.cannotCreate, "its directory does not exist"],
  ENOTDIR: [EXIT.cannotCreate, "its directory does not exist"],
  EISDIR: [EXIT.cannotCreate, "it is a directory"],
  EPIPE: [EXIT.failure, "nobody reads it any more"],
};

function explaining<T>(path: string, work: () => T): T {
  try {
    return work();
  } catch (error) {
    if (error instanceof OperatorError) throw error;
    const [exitCode, why] = REASONS[errorCode(error) ?? ""] ?? [
      EXIT.failure,
      errorCode(error) ?? errorMessage(error),
    ];
    throw new OperatorError(exitCode, `the backup cannot be written to ${path}: ${why}`);
  }
}
