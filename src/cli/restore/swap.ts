/**
 * Putting new state in the place of old: aside with the old, in with the new, and back again.
 *
 * Invariant: at every moment the old state is either in its place or whole in the directory it is moved to, and the
 * mark says which entries are on their way. Whoever finds the mark can bring everything back, as often as it takes.
 * All of it happens inside the state directory, which may be a volume of its own whose parent is not ours.
 */
import { randomBytes } from "node:crypto";
import {
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmdirSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { EXIT, OperatorError } from "../../errors.ts";
import { SNAPSHOT_PREFIX } from "../../store/snapshot.ts";
import { RESTORE_MARK } from "../../store/unfinished-restore.ts";
import { syncDirectory } from "../backup/out-file.ts";

/** What is on its way. Names are entries of the state directory, never paths. */
export interface Move {
  /** Directory with the new state. */
  readonly staged: string;
  /** Directory for the old state. */
  readonly aside: string;
  /** Entries of the new state. */
  readonly entries: readonly string[];
}

const STAGED = /^\.restore-[0-9a-f]{16}$/;
const ASIDE = /^replaced-[0-9TZ]+(?:-\d+)?$/;

/** Entries of the state directory that are state: not what earlier restores left, nor what the file system made. */
export function stateEntries(stateDir: string): readonly string[] {
  if (!existsSync(stateDir)) return [];
  return readdirSync(stateDir).filter(
    (name) =>
      name !== RESTORE_MARK &&
      name !== "lost+found" &&
      !ASIDE.test(name) &&
      !STAGED.test(name) &&
      !name.startsWith(SNAPSHOT_PREFIX),
  );
}

/** A new directory beside the state, inside the state directory. What interrupted commands left there is removed. */
export function makeStage(stateDir: string): string {
  for (const name of readdirSync(stateDir)) {
    if (STAGED.test(name)) rmSync(join(stateDir, name), { recursive: true, force: true });
  }
  const name = `.restore-${randomBytes(8).toString("hex")}`;
  mkdirSync(join(stateDir, name), { mode: 0o700 });
  return name;
}

/** A name for the old state that is not taken: `replaced-20261130T120000Z`. */
export function asideName(stateDir: string, nowMs: number): string {
  const time = new Date(nowMs).toISOString().replaceAll(/[-:]|\.\d+/g, "");
  for (let count = 1; ; count += 1) {
    const name = `replaced-${time}${count === 1 ? "" : `-${count}`}`;
    if (!existsSync(join(stateDir, name))) return name;
  }
}

/**
 * Moves old state aside and new state in. The mark stays until {@link confirm}; `marked` is called once it is there
 * and before anything is moved.
 */
export function swap(stateDir: string, move: Move, marked: () => void): void {
  const mark = join(stateDir, RESTORE_MARK);
  const draft = join(stateDir, move.staged, RESTORE_MARK);
  writeFileSync(draft, JSON.stringify(move), { flag: "wx", mode: 0o600, flush: true });
  renameSync(draft, mark);
  syncDirectory(stateDir);
  marked();
  const old = stateEntries(stateDir);
  if (old.length > 0) mkdirSync(join(stateDir, move.aside), { mode: 0o700 });
  for (const name of old) renameSync(join(stateDir, name), join(stateDir, move.aside, name));
  for (const name of move.entries) {
    renameSync(join(stateDir, move.staged, name), join(stateDir, name));
  }
  syncAll(stateDir, move);
}

/** From here on the new state is the state. */
export function confirm(stateDir: string, move: Move): void {
  rmSync(join(stateDir, RESTORE_MARK));
  syncDirectory(stateDir);
  rmSync(join(stateDir, move.staged), { recursive: true, force: true });
}

/** The move of a restore that was interrupted, or null. @throws OperatorError when the mark cannot be understood */
export function unfinishedMove(stateDir: string): Move | null {
  const mark = join(stateDir, RESTORE_MARK);
  if (lstatSync(mark, { throwIfNoEntry: false }) === undefined) return null;
  let value: unknown;
  try {
    value = JSON.parse(readFileSync(mark, "utf8"));
  } catch {
    value = null;
  }
  if (isMove(value)) return value;
  throw new OperatorError(
    EXIT.failure,
    `${mark} is damaged`,
    "The old state is in replaced-… beside it: move its files back by hand and remove the mark.",
  );
}

/** Brings the old state back, from wherever the swap stopped. Can itself be interrupted and repeated. */
export function takeBack(stateDir: string, { staged, aside, entries }: Move): void {
  const at = (...parts: string[]): string => join(stateDir, ...parts);
  mkdirSync(at(staged), { recursive: true, mode: 0o700 });
  // What is gone from the new state's directory is in place. A swap that got this far has moved all that is old.
  for (const name of entries) {
    if (!existsSync(at(staged, name)) && existsSync(at(name))) {
      renameSync(at(name), at(staged, name));
    }
  }
  if (existsSync(at(aside))) {
    for (const name of readdirSync(at(aside))) renameSync(at(aside, name), at(name));
    rmdirSync(at(aside));
  }
  syncDirectory(stateDir);
  rmSync(at(RESTORE_MARK), { force: true });
  syncDirectory(stateDir);
  rmSync(at(staged), { recursive: true, force: true });
}

function syncAll(stateDir: string, { aside, staged }: Move): void {
  for (const directory of [join(stateDir, aside), join(stateDir, staged), stateDir]) {
    if (existsSync(directory)) syncDirectory(directory);
  }
}

function isMove(value: unknown): value is Move {
  if (typeof value !== "object" || value === null) return false;
  if (!("staged" in value && "aside" in value && "entries" in value)) return false;
  const { staged, aside, entries } = value;
  const isPlain = (name: unknown): boolean =>
    typeof name === "string" && name !== "" && name !== "." && name !== ".." && !/[/\0]/.test(name);
  return (
    typeof staged === "string" &&
    STAGED.test(staged) &&
    typeof aside === "string" &&
    ASIDE.test(aside) &&
    Array.isArray(entries) &&
    entries.every(isPlain)
  );
}
