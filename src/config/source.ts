/**
 * From a file to its text.
 *
 * Invariant: never more than 1 MiB is read, whatever the file says its size is, and only valid UTF-8 comes out.
 */
import {
  closeSync,
  constants,
  fstatSync,
  openSync,
  readSync,
  realpathSync,
  statSync,
} from "node:fs";
import { dirname } from "node:path";
import { errorCode } from "../errors.ts";

/** Far above any configuration written by people. */
export const MAX_CONFIG_BYTES = 1_048_576;

/** Why there is no text. `line` and `column` are 0 unless one place is to blame. */
export interface SourceProblem {
  readonly message: string;
  readonly hint: string;
  readonly line: number;
  readonly column: number;
}

/** The text, or why there is none. */
export type Source = { readonly text: string } | { readonly problem: SourceProblem };

const REASONS: Readonly<Record<string, readonly [string, string]>> = {
  ENOENT: ["does not exist", "pass -c FILE; config.example.yaml shows one"],
  ENOTDIR: ["does not exist", "a part of its path is not a directory"],
  EACCES: ["may not be read", "give the user that runs Gatehouse read access to it"],
  EPERM: ["may not be read", "give the user that runs Gatehouse read access to it"],
  EISDIR: ["is a directory", "name the file in it, for instance config.yaml"],
  ELOOP: ["is a symbolic link that leads to itself", "point it at the file"],
};

/** Reads a config file; every way this fails is said with what to do. */
export function readSource(path: string): Source {
  let descriptor: number | undefined;
  try {
    // NONBLOCK: opening a pipe must not wait for somebody to write to it.
    descriptor = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
    const status = fstatSync(descriptor);
    if (status.isDirectory()) return unreadable(path, "EISDIR");
    if (status.isFIFO() || status.isSocket()) {
      return refused(`${path} is a pipe`, "name a file");
    }
    if (status.isFile() && (status.mode & 0o002) !== 0) {
      return refused(
        `${path} can be changed by every user (mode ${(status.mode & 0o777).toString(8)})`,
        `chmod o-w ${path}`,
      );
    }
    const directory = status.isFile() ? openDirectory(path) : null;
    if (directory !== null) {
      return refused(
        `every user can put another file in its place in ${directory}`,
        `chmod o-w ${directory}`,
      );
    }
    return decodeSource(readAtMost(descriptor, MAX_CONFIG_BYTES + 1));
  } catch (error) {
    return unreadable(path, errorCode(error) ?? "unknown error");
  } finally {
    if (descriptor !== undefined) closeSync(descriptor);
  }
}

/**
 * The directory of the file, or of the link to it, when others may replace what is in it: the same as changing the
 * file. With the sticky bit (as on /tmp) they cannot.
 */
function openDirectory(path: string): string | null {
  const directories = [dirname(path), dirname(realpathSync(path))];
  return directories.find((one) => (statSync(one).mode & 0o1002) === 0o002) ?? null;
}

/** Bytes to text; refuses more than 1 MiB, invalid UTF-8 and control characters that YAML forbids. */
export function decodeSource(bytes: Uint8Array): Source {
  if (bytes.length > MAX_CONFIG_BYTES) {
    return refused("the file is larger than 1 MiB", "is this really the configuration?");
  }
  const bad = firstInvalidByte(bytes);
  if (bad !== -1) {
    const isUtf16 =
      (bytes[0] === 0xff && bytes[1] === 0xfe) || (bytes[0] === 0xfe && bytes[1] === 0xff);
    const before = new TextDecoder().decode(bytes.subarray(0, bad));
    return refused(
      `the file is not UTF-8: byte ${bad + 1} does not fit`,
      isUtf16 ? "it looks like UTF-16; save it as UTF-8" : "save it as UTF-8",
      before,
    );
  }
  const text = new TextDecoder().decode(bytes);
  const control = /[\0-\x08\x0b\x0c\x0e-\x1f\x7f]/.exec(text);
  if (control === null) return { text };
  return refused("a control character stands here", "remove it", text.slice(0, control.index));
}

/** Index of the first byte that no UTF-8 text can have there, or -1. */
function firstInvalidByte(bytes: Uint8Array): number {
  if (isUtf8(bytes, false)) return -1;
  let [valid, invalid] = [0, bytes.length + 1];
  while (invalid - valid > 1) {
    const middle = (valid + invalid) >> 1;
    if (middle <= bytes.length && isUtf8(bytes.subarray(0, middle), true)) valid = middle;
    else invalid = middle;
  }
  return Math.min(valid, bytes.length - 1);
}

function isUtf8(bytes: Uint8Array, mayEndEarly: boolean): boolean {
  try {
    new TextDecoder("utf-8", { fatal: true }).decode(bytes, { stream: mayEndEarly });
    return true;
  } catch {
    return false;
  }
}

const FIRST_BYTES = 16_384;

function readAtMost(descriptor: number, limit: number): Uint8Array {
  // Grows, because most files are small and a large buffer costs more than reading them.
  let buffer = new Uint8Array(FIRST_BYTES);
  let length = 0;
  while (length < limit) {
    if (length === buffer.length) {
      const larger = new Uint8Array(Math.min(limit, buffer.length * 4));
      larger.set(buffer);
      buffer = larger;
    }
    const count = readSync(descriptor, buffer, length, buffer.length - length, null);
    if (count === 0) break;
    length += count;
  }
  return buffer.subarray(0, length);
}

function unreadable(path: string, code: string): Source {
  const [what, hint] = REASONS[code] ?? [`cannot be read (${code})`, "check the path"];
  return refused(`${path} ${what}`, hint);
}

/** @param before the text up to the place to blame, if there is one */
function refused(message: string, hint: string, before?: string): Source {
  if (before === undefined) return { problem: { message, hint, line: 0, column: 0 } };
  const lines = before.split("\n");
  const column = (lines.at(-1)?.length ?? 0) + 1;
  return { problem: { message, hint, line: lines.length, column } };
}
