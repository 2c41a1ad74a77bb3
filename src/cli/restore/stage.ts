/**
 * The new state while it is not yet in its place: written, checked, then swapped in.
 *
 * Invariant: everything below the state directory is done as its owner, in files of mode 0600 and directories of mode
 * 0700; whoever uses the old state keeps this from happening; and what does not end well leaves the directory as it was.
 */

import { Database } from "bun:sqlite";
import {
  chmodSync,
  closeSync,
  existsSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readdirSync,
  rmdirSync,
  rmSync,
  statfsSync,
  writeSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { systemClock } from "../../clock.ts";
import { EXIT, OperatorError } from "../../errors.ts";
import { firstValue } from "../../store/migrations.ts";
import { type Steps, stepsOf } from "../../store/snapshot.ts";
import { type SoleUse, takeSoleUse } from "../../store/sole-use.ts";
import { databaseProblem } from "../../store/sqlite.ts";
import { asOwnerOf } from "../backup/as-owner.ts";
import { isDatabase } from "../backup/entry.ts";
import { type ManifestFile, refused } from "../backup/manifest.ts";
import type { FileSink } from "../backup/unpack.ts";
import { sizeText } from "../backup/words.ts";
import { type Attempt, explaining } from "./explaining.ts";
import {
  asideName,
  confirm,
  type Move,
  makeStage,
  stateEntries,
  swap,
  takeBack,
  unfinishedMove,
} from "./swap.ts";

/** New state on its way. */
export interface Stage {
  /** Name of the directory for the old state, below the state directory. */
  readonly aside: string;
  /** Where the content of an entry `state/…` goes. */
  sink(file: ManifestFile): FileSink;
  /** Reads every database from end to end. @throws OperatorError when one is damaged or too new */
  check(databases: readonly string[], mustBeKnown: (steps: Steps) => void): void;
  /** Puts it in place; the old state, if there was any, is then in the directory that is returned. */
  swap(): string | null;
  /** It stays. */
  confirm(): void;
  /** Takes back whatever was done, unless it was confirmed. Idempotent. */
  dispose(): void;
}

/** Room that is left over on the disk, for the database's own files. */
const SPARE_BYTES = 1024 * 1024;

/**
 * Makes room for `bytes` of new state in `stateDir`, which is made when it is not there.
 * @throws OperatorError: the old state is in use, or there is no space, or no right to write there
 */
export function openStage(stateDir: string, bytes: number): Stage {
  return asOwnerOf(stateDir, () =>
    explaining(writing(stateDir), () => makeStageIn(stateDir, bytes)),
  );
}

/**
 * Brings back what an interrupted restore moved away. Returns the name of the directory that it was in, null when no
 * restore was interrupted.
 * @throws OperatorError when it cannot be moved, or the mark is damaged
 */
export function undoUnfinished(stateDir: string): string | null {
  return asOwnerOf(stateDir, () =>
    explaining(writing(stateDir), () => {
      const move = existsSync(stateDir) ? unfinishedMove(stateDir) : null;
      if (move === null) return null;
      takeBack(stateDir, move);
      return move.aside;
    }),
  );
}

function makeStageIn(stateDir: string, bytes: number): Stage {
  const made = mkdirSync(stateDir, { recursive: true, mode: 0o700 });
  // Parents that were missing as well have the umask's mode; the directory itself is private whatever it says.
  if (made !== undefined) chmodSync(stateDir, 0o700);
  const held: SoleUse[] = [];
  try {
    mustFit(stateDir, bytes);
    held.push(...holdAll(stateDir));
    const move = { staged: makeStage(stateDir), aside: asideName(stateDir, systemClock.nowMs()) };
    return stageIn(stateDir, move, { held, made });
  } catch (error) {
    for (const one of held) one.release();
    removeMade(stateDir, made);
    throw error;
  }
}

function stageIn(
  stateDir: string,
  { staged, aside }: Omit<Move, "entries">,
  { held, made }: { readonly held: readonly SoleUse[]; readonly made: string | undefined },
): Stage {
  let state: "staged" | "swapped" | "done" = "staged";
  const moveNow = (): Move => ({ staged, aside, entries: readdirSync(join(stateDir, staged)) });
  let move: Move | null = null;
  const here = <T>(work: () => T): T =>
    asOwnerOf(stateDir, () => explaining(writing(stateDir), work));
  return {
    aside,
    sink: ({ name }) => here(() => fileSink(join(stateDir, staged, ownName(name)), stateDir)),
    check: (databases, mustBeKnown) =>
      here(() => {
        for (const name of databases) {
          mustBeKnown(checkDatabase(join(stateDir, staged, ownName(name)), name));
        }
      }),
    swap: () =>
      here(() => {
        const hadState = stateEntries(stateDir).length > 0;
        move = moveNow();
        state = "swapped";
        // The mark keeps others away from here on. SQLite must let go before the files move.
        swap(stateDir, move, () => {
          for (const one of held) one.release();
        });
        return hadState ? join(stateDir, aside) : null;
      }),
    confirm: () =>
      here(() => {
        if (move !== null) confirm(stateDir, move);
        state = "done";
      }),
    dispose: () =>
      here(() => {
        for (const one of held) one.release();
        if (state === "swapped" && move !== null) takeBack(stateDir, move);
        if (state !== "done") {
          rmSync(join(stateDir, staged), { recursive: true, force: true });
          removeMade(stateDir, made);
        }
        state = "done";
      }),
  };
}

/** `state/a/b` -> `a/b`. */
function ownName(name: string): string {
  return name.slice("state/".length);
}

function fileSink(path: string, stateDir: string): FileSink {
  mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
  const file = openSync(path, "wx", 0o600);
  let isOpen = true;
  const close = (): void => {
    if (isOpen) closeSync(file);
    isOpen = false;
  };
  return {
    write(chunk) {
      try {
        explaining(writing(stateDir), () => {
          for (let rest = chunk; rest.length > 0; ) rest = rest.subarray(writeSync(file, rest));
        });
      } catch (error) {
        close();
        throw error;
      }
    },
    end() {
      explaining(writing(stateDir), () => fsyncSync(file));
      close();
    },
  };
}

function checkDatabase(path: string, name: string): Steps {
  const database = new Database(path, { readwrite: true, create: false });
  try {
    // Without the index beside it, and the only one anyway.
    database.run("PRAGMA locking_mode = EXCLUSIVE");
    database.run("PRAGMA trusted_schema = OFF");
    const found = firstValue(database, "PRAGMA integrity_check(1)");
    if (found !== "ok") throw refused(`${name} is a damaged database`);
    return stepsOf(database);
  } catch (error) {
    if (databaseProblem(error, path) === null) throw error;
    throw refused(`${name} is a damaged database`);
  } finally {
    database.close(false);
    rmSync(`${path}-wal`, { force: true });
  }
}

/** Every database of the old state, held so that nobody opens it meanwhile. */
function holdAll(directory: string): SoleUse[] {
  const held: SoleUse[] = [];
  try {
    for (const path of databasesIn(directory)) held.push(takeSoleUse(path));
    return held;
  } catch (error) {
    for (const one of held) one.release();
    throw error;
  }
}

function databasesIn(directory: string): readonly string[] {
  if (!existsSync(directory)) return [];
  return readdirSync(directory, { withFileTypes: true })
    .filter((item) => item.isFile())
    .map(({ name }) => join(directory, name))
    .filter((path) => isDatabase(path));
}

function mustFit(stateDir: string, bytes: number): void {
  const { bavail, bsize } = statfsSync(stateDir);
  const free = bavail * bsize;
  if (free >= bytes + SPARE_BYTES) return;
  throw new OperatorError(
    EXIT.unavailable,
    `${stateDir} has ${sizeText(free)} free, and the backup needs ${sizeText(bytes)}`,
    "The old state stays beside the new one until you remove it.",
  );
}

/** Only what we made, and only while nothing is in it. `made` is the topmost directory that was missing. */
function removeMade(stateDir: string, made: string | undefined): void {
  if (made === undefined) return;
  for (let directory = stateDir; directory.length >= made.length; directory = dirname(directory)) {
    try {
      rmdirSync(directory);
    } catch {
      return;
    }
  }
}

function writing(stateDir: string): Attempt {
  return {
    failed: `the state cannot be written to ${stateDir}`,
    exitCode: EXIT.unavailable,
    hint: "Nothing was changed.",
  };
}
