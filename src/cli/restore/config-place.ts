/**
 * Putting files of the configuration in their place, beside whatever else is in that directory.
 *
 * Invariant: a file is replaced in one step, what it replaces is kept aside, and until the end everything can be taken
 * back. Links below the directory are not followed: a backup chooses names, not places.
 */

import { randomBytes } from "node:crypto";
import {
  chownSync,
  closeSync,
  copyFileSync,
  existsSync,
  fchmodSync,
  fsyncSync,
  linkSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmdirSync,
  rmSync,
  type Stats,
  statSync,
  writeSync,
} from "node:fs";
import { basename, dirname, join } from "node:path";
import { EXIT, OperatorError } from "../../errors.ts";
import { asOwnerOf } from "../backup/as-owner.ts";
import { syncDirectory } from "../backup/out-file.ts";
import { type Attempt, explaining } from "./explaining.ts";

/** A file that is wanted. */
export interface WantedFile {
  /** Below the directory of the configuration, with slashes. */
  readonly name: string;
  readonly bytes: Uint8Array;
  /** As it was where the backup was made, in octal. */
  readonly mode: string;
}

/** What would happen to a file. */
export type Change = "new" | "unchanged" | "replaced";

/** Files on their way. */
export interface ConfigPlacing {
  /** Puts them in place; returns the directory with what was replaced, or null. */
  commit(): string | null;
  /** Takes back what was done, unless {@link done} was said. Idempotent. */
  dispose(): void;
  /** It stays. */
  done(): void;
}

/** What would happen to each file. @throws OperatorError when one cannot be put where it belongs */
export function changesOf(
  configDir: string,
  wanted: readonly WantedFile[],
): ReadonlyMap<string, Change> {
  return asOwnerOf(configDir, () =>
    explaining(
      writing(configDir),
      () => new Map(wanted.map((file) => [file.name, change(configDir, file)])),
    ),
  );
}

function change(configDir: string, { name, bytes }: WantedFile): Change {
  for (const parent of parentsOf(name)) {
    const found = lstatSync(join(configDir, parent), { throwIfNoEntry: false });
    if (found !== undefined && !found.isDirectory()) {
      throw new OperatorError(
        EXIT.cannotCreate,
        `${join(configDir, name)} cannot be written: ${join(configDir, parent)} is no directory of its own`,
        "Move it away, or restore to another directory with -c.",
      );
    }
  }
  const path = join(configDir, name);
  const found = lstatSync(path, { throwIfNoEntry: false });
  if (found === undefined) return "new";
  if (found.isDirectory()) {
    throw new OperatorError(EXIT.cannotCreate, `${path} is a directory where a file belongs`);
  }
  const isSame = found.isFile() && found.size === bytes.length && readFileSync(path).equals(bytes);
  return isSame ? "unchanged" : "replaced";
}

interface Step {
  readonly target: string;
  readonly draft: string;
  /** Where the old file is kept; null when there is none. */
  readonly kept: string | null;
  isDone: boolean;
}

/**
 * Writes the files under other names, so that only renames are left to do. `aside` is the name of the directory for
 * what is replaced.
 * @throws OperatorError with nothing left behind
 */
export function prepareConfig(
  configDir: string,
  wanted: readonly WantedFile[],
  aside: string,
): ConfigPlacing {
  const steps: Step[] = [];
  const directories: string[] = [];
  const here = <T>(work: () => T): T =>
    asOwnerOf(configDir, () => explaining(writing(configDir), work));
  let isDone = false;
  const dispose = (): void => {
    if (isDone) return;
    isDone = true;
    for (const step of steps.toReversed()) takeBack(step);
    for (const directory of directories.toReversed()) removeEmpty(directory);
  };
  const placing: ConfigPlacing = {
    commit: () =>
      here(() => {
        for (const step of steps) putIn(step, directories);
        for (const { target } of steps) syncDirectory(dirname(target));
        return steps.some(({ kept }) => kept !== null) ? join(configDir, aside) : null;
      }),
    dispose: () => here(dispose),
    done() {
      isDone = true;
    },
  };
  try {
    here(() => {
      for (const file of wanted) prepareOne({ configDir, aside }, file, { steps, directories });
    });
    return placing;
  } catch (error) {
    placing.dispose();
    throw error;
  }
}

function prepareOne(
  { configDir, aside }: { readonly configDir: string; readonly aside: string },
  file: WantedFile,
  { steps, directories }: { readonly steps: Step[]; readonly directories: string[] },
): void {
  const target = join(configDir, file.name);
  makeDirectories(dirname(target), directories, 0o755);
  const old = lstatSync(target, { throwIfNoEntry: false });
  const draft = join(
    dirname(target),
    `.${basename(target)}.${randomBytes(6).toString("hex")}.part`,
  );
  const kept = old === undefined ? null : join(configDir, aside, file.name);
  const step: Step = { target, draft, kept, isDone: false };
  steps.push(step);
  writeDraft(draft, file, old ?? null);
}

/** Mode and owner of the file that is replaced; else of the directory, and never more open than it was. */
function writeDraft(draft: string, { bytes, mode }: WantedFile, old: Stats | null): void {
  const file = openSync(draft, "wx", 0o600);
  try {
    for (let rest = bytes; rest.length > 0; ) rest = rest.subarray(writeSync(file, rest));
    const isKept = old?.isFile() === true;
    fchmodSync(file, isKept ? old.mode & 0o777 : (Number.parseInt(mode, 8) & 0o644) | 0o600);
    fsyncSync(file);
  } finally {
    closeSync(file);
  }
  const owner = old ?? statSync(dirname(draft));
  if (process.geteuid?.() === 0) chownSync(draft, owner.uid, owner.gid);
}

function putIn(step: Step, directories: string[]): void {
  if (step.kept !== null) {
    makeDirectories(dirname(step.kept), directories, 0o700);
    keep(step.target, step.kept);
  }
  renameSync(step.draft, step.target);
  step.isDone = true;
}

/** A second name for the old file, so that there is one under the first all the time. */
function keep(target: string, kept: string): void {
  try {
    linkSync(target, kept);
  } catch {
    copyFileSync(target, kept);
  }
}

function takeBack({ target, draft, kept, isDone }: Step): void {
  if (isDone && kept !== null) renameSync(kept, target);
  else if (isDone) rmSync(target, { force: true });
  else if (kept !== null) rmSync(kept, { force: true });
  rmSync(draft, { force: true });
}

/**
 * Brings back what an interrupted restore replaced, from the directory `aside`. Returns whether there was anything.
 */
export function undoConfig(configDir: string, aside: string): boolean {
  const from = join(configDir, aside);
  if (!existsSync(from)) return false;
  return asOwnerOf(configDir, () =>
    explaining(writing(configDir), () => {
      moveBack(from, configDir);
      return true;
    }),
  );
}

function moveBack(from: string, to: string): void {
  for (const name of readdirSync(from)) {
    if (lstatSync(join(from, name)).isDirectory()) moveBack(join(from, name), join(to, name));
    else renameSync(join(from, name), join(to, name));
  }
  rmdirSync(from);
}

/** `a/b/c` -> `a`, `a/b`. */
function parentsOf(name: string): readonly string[] {
  const parts = name.split("/");
  return parts.slice(1).map((_, index) => parts.slice(0, index + 1).join("/"));
}

/** Notes what was made, topmost first, so that it can be removed again. */
function makeDirectories(path: string, made: string[], mode: number): void {
  if (existsSync(path)) return;
  makeDirectories(dirname(path), made, mode);
  mkdirSync(path, { mode });
  made.push(path);
}

function removeEmpty(directory: string): void {
  try {
    rmdirSync(directory);
  } catch {
    // Somebody else put something there.
  }
}

function writing(configDir: string): Attempt {
  return {
    failed: `the configuration cannot be written to ${configDir}`,
    exitCode: EXIT.cannotCreate,
    hint: "Nothing was changed. `--only state` leaves the configuration alone.",
  };
}
