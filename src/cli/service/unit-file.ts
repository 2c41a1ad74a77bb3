/**
 * Unit files on disk: which are ours, whether somebody changed them, and how they are replaced.
 *
 * Invariant: a file that we did not write is never touched; what somebody changed in one of ours is kept beside it;
 * a file is there whole or not at all.
 */
import { createHash, randomBytes } from "node:crypto";
import {
  closeSync,
  existsSync,
  fchmodSync,
  fsyncSync,
  lstatSync,
  mkdirSync,
  openSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmSync,
  writeSync,
} from "node:fs";
import { basename, dirname, join } from "node:path";
import { EXIT, errorCode, errorMessage, OperatorError } from "../../errors.ts";
import { difference } from "./difference.ts";
import { readInput, recordInput, type ServiceInput } from "./input.ts";

/** What stands where a unit belongs. */
export type FoundUnit =
  | { readonly kind: "none" }
  /** Not written by us; `what` says what it is. */
  | { readonly kind: "foreign"; readonly what: string }
  | {
      readonly kind: "ours";
      readonly text: string;
      /** What it was made from. */
      readonly input: ServiceInput;
      /** Somebody changed it after we wrote it. */
      readonly isEdited: boolean;
    };

const SUM = "# gatehouse-sum: ";
const INPUT = "# gatehouse-input: ";

/** A unit with the lines on top by which it is known again. */
export function sealed(input: ServiceInput, text: string): string {
  const scope = input.scope === "user" ? " --user" : "";
  const body = `${INPUT}${recordInput(input)}\n${text}`;
  return `# Made by \`gatehouse service install\`. Do not edit: \`systemctl${scope} edit ${input.name}\` adds to it.\n${SUM}${sumOf(body)}\n${body}`;
}

/** What changes from one unit to another, without the checksum that changes with everything. */
export function unitDifference(from: string, to: string): readonly string[] {
  const unsealed = (text: string): string =>
    text
      .split("\n")
      .filter((line) => !line.startsWith(SUM))
      .join("\n");
  return difference(unsealed(from), unsealed(to));
}

/** What is at `path`. */
export function findUnit(path: string): FoundUnit {
  let text: string;
  try {
    if (lstatSync(path).isSymbolicLink()) return foreignLink(path);
    text = readFileSync(path, "utf8");
  } catch (error) {
    if (errorCode(error) === "ENOENT" || errorCode(error) === "ENOTDIR") return { kind: "none" };
    return { kind: "foreign", what: `${path} (${errorCode(error) ?? errorMessage(error)})` };
  }
  const [, sum = "", ...rest] = text.split("\n");
  const body = rest.join("\n");
  const input = rest[0]?.startsWith(INPUT) ? readInput(rest[0].slice(INPUT.length)) : null;
  if (!sum.startsWith(SUM) || input === null) return { kind: "foreign", what: path };
  return { kind: "ours", text, input, isEdited: sum.slice(SUM.length) !== sumOf(body) };
}

function foreignLink(path: string): FoundUnit {
  const target = readlinkSync(path);
  const what = target === "/dev/null" ? `${path}, which is masked` : `${path}, a link to ${target}`;
  return { kind: "foreign", what };
}

function sumOf(text: string): string {
  return createHash("sha256").update(text).digest("hex");
}

/**
 * Puts `text` there with mode 0644, in one step.
 * @throws OperatorError
 */
export function writeUnit(path: string, text: string): void {
  const draft = join(dirname(path), `.${basename(path)}.${randomBytes(6).toString("hex")}`);
  try {
    mkdirSync(dirname(path), { recursive: true, mode: 0o755 });
    const descriptor = openSync(draft, "wx", 0o644);
    try {
      fill(descriptor, text);
      renameSync(draft, path);
    } catch (error) {
      rmSync(draft, { force: true });
      throw error;
    }
  } catch (error) {
    throw unwritable(path, error);
  }
}

/** Writes everything to the disk, and closes. */
function fill(descriptor: number, text: string): void {
  try {
    let rest: Uint8Array = Buffer.from(text);
    while (rest.length > 0) rest = rest.subarray(writeSync(descriptor, rest));
    // A umask may have taken bits away that systemd's own tools expect.
    fchmodSync(descriptor, 0o644);
    fsyncSync(descriptor);
  } finally {
    closeSync(descriptor);
  }
}

/** Keeps what somebody changed under a name that systemd does not read; returns that name. */
export function keepAside(path: string): string {
  const names = [
    `${path}.changed`,
    ...Array.from({ length: 99 }, (_, i) => `${path}.changed${i + 2}`),
  ];
  const aside = names.find((name) => !existsSync(name)) ?? `${path}.changed100`;
  writeUnit(aside, readFileSync(path, "utf8"));
  return aside;
}

/** @throws OperatorError */
export function removeUnit(path: string): void {
  try {
    rmSync(path);
  } catch (error) {
    if (errorCode(error) !== "ENOENT") throw unwritable(path, error);
  }
}

function unwritable(path: string, error: unknown): OperatorError {
  const code = errorCode(error) ?? errorMessage(error);
  const isDenied = code === "EACCES" || code === "EPERM";
  const hints: Readonly<Record<string, string>> = {
    EROFS: "The file system is read-only; `gatehouse service print` shows what would be written.",
    ENOSPC: "The disk is full; nothing was changed.",
  };
  return new OperatorError(
    isDenied ? EXIT.permission : EXIT.cannotCreate,
    `cannot write ${path}: ${code}`,
    hints[code] ?? (isDenied ? "Run it with sudo." : undefined),
  );
}
