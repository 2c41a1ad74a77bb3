/** The swap: whenever it is cut off, everything can be brought back. */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { temporaryDirectory } from "../../../test/support/host.ts";
import { EXIT, OperatorError } from "../../errors.ts";
import { stateKey } from "../../store/keys.ts";
import { openStateDatabase } from "../../store/sqlite.ts";
import { RESTORE_MARK } from "../../store/unfinished-restore.ts";
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

let stateDir: string;
beforeEach(() => {
  stateDir = temporaryDirectory();
});
afterEach(() => rmSync(stateDir, { recursive: true, force: true }));

const OLD = { "gatehouse.db": "old db", "pepper.key": "old key", "only-old": "x" };
const NEW = { "gatehouse.db": "new db", "pepper.key": "new key", "only-new": "y" };

function write(directory: string, files: Record<string, string>): void {
  for (const [name, text] of Object.entries(files)) writeFileSync(join(directory, name), text);
}

/** What is there, without what an earlier restore left. */
function state(): Record<string, string> {
  return Object.fromEntries(
    stateEntries(stateDir)
      .toSorted()
      .map((name) => [name, readFileSync(join(stateDir, name), "utf8")]),
  );
}

function staged(): Move {
  const name = makeStage(stateDir);
  write(join(stateDir, name), NEW);
  return { staged: name, aside: asideName(stateDir, 0), entries: Object.keys(NEW) };
}

/** Every rename of the swap, in its order. */
function renames({ staged: stage, aside, entries }: Move): (() => void)[] {
  const at = (...parts: string[]): string => join(stateDir, ...parts);
  return [
    () => mkdirSync(at(aside), { mode: 0o700 }),
    ...Object.keys(OLD).map((name) => () => renameSync(at(name), at(aside, name))),
    ...entries.map((name) => () => renameSync(at(stage, name), at(name))),
  ];
}

const STEPS = 1 + Object.keys(OLD).length + Object.keys(NEW).length;

test("new state is in, old state is aside, and the mark stays until it is confirmed", () => {
  write(stateDir, OLD);
  const move = staged();
  swap(stateDir, move, () => {});
  expect(state()).toEqual(NEW);
  expect(existsSync(join(stateDir, RESTORE_MARK))).toBe(true);
  expect(readdirSync(join(stateDir, move.aside)).sort()).toEqual(Object.keys(OLD).sort());
  expect(statSync(join(stateDir, move.aside)).mode & 0o777).toBe(0o700);
  confirm(stateDir, move);
  expect(readdirSync(stateDir).sort()).toEqual([...Object.keys(NEW), move.aside].sort());
});

describe("a swap that was cut off", () => {
  for (let done = 0; done <= STEPS; done++) {
    test(`after ${done} of ${STEPS} renames is taken back, also when that is cut off and repeated`, () => {
      write(stateDir, OLD);
      const move = staged();
      writeFileSync(join(stateDir, RESTORE_MARK), JSON.stringify(move));
      for (const rename of renames(move).slice(0, done)) rename();
      // Nobody opens what may be half of each.
      expect(() => openStateDatabase(stateDir)).toThrow(/was interrupted/);
      expect(() => stateKey(stateDir, "pepper")).toThrow(/was interrupted/);
      const found = unfinishedMove(stateDir);
      expect(found).toEqual(move);
      takeBack(stateDir, move);
      expect(state()).toEqual(OLD);
      expect(readdirSync(stateDir).sort()).toEqual(Object.keys(OLD).sort());
      // Once more from the mark, as after a cut between the last rename and its removal.
      writeFileSync(join(stateDir, RESTORE_MARK), JSON.stringify(move));
      mkdirSync(join(stateDir, move.staged));
      write(join(stateDir, move.staged), NEW);
      takeBack(stateDir, move);
      expect(state()).toEqual(OLD);
    });
  }
});

test("without old state there is nothing to move aside, and taking back leaves nothing", () => {
  const move = staged();
  swap(stateDir, move, () => {});
  expect(state()).toEqual(NEW);
  takeBack(stateDir, move);
  expect(readdirSync(stateDir)).toEqual([]);
});

test("what earlier restores left is neither state nor moved; stages that were left behind are removed", () => {
  write(stateDir, OLD);
  mkdirSync(join(stateDir, "replaced-20260101T000000Z"));
  mkdirSync(join(stateDir, "lost+found"));
  const left = makeStage(stateDir);
  const move = staged();
  expect(existsSync(join(stateDir, left))).toBe(false);
  swap(stateDir, move, () => {});
  confirm(stateDir, move);
  expect(state()).toEqual(NEW);
  expect(existsSync(join(stateDir, "replaced-20260101T000000Z"))).toBe(true);
  expect(existsSync(join(stateDir, "lost+found"))).toBe(true);
});

test("two restores in one second keep two old states", () => {
  const first = asideName(stateDir, 0);
  mkdirSync(join(stateDir, first));
  expect(first).toBe("replaced-19700101T000000Z");
  expect(asideName(stateDir, 0)).toBe("replaced-19700101T000000Z-2");
});

test.each([
  ["no JSON", "{"],
  ["a path for a stage", JSON.stringify({ staged: "../x", aside: "replaced-1Z", entries: [] })],
  [
    "a path for an entry",
    JSON.stringify({
      staged: ".restore-0123456789abcdef",
      aside: "replaced-1Z",
      entries: ["../../etc/passwd"],
    }),
  ],
  [
    "a path for what is aside",
    JSON.stringify({ staged: ".restore-0123456789abcdef", aside: "replaced-/..", entries: [] }),
  ],
])("a mark with %s is refused", (_, text) => {
  writeFileSync(join(stateDir, RESTORE_MARK), text);
  try {
    unfinishedMove(stateDir);
    throw new Error("it was not refused");
  } catch (error) {
    expect(error).toBeInstanceOf(OperatorError);
    expect((error as OperatorError).exitCode).toBe(EXIT.failure);
  }
});

test("a directory that cannot be written to is left as it is", () => {
  if (process.geteuid?.() === 0) {
    console.log("not run: root writes everywhere");
    return;
  }
  write(stateDir, OLD);
  const move = staged();
  chmodSync(stateDir, 0o500);
  try {
    expect(() => swap(stateDir, move, () => {})).toThrow();
    expect(state()).toEqual(OLD);
  } finally {
    chmodSync(stateDir, 0o700);
  }
});
