/**
 * Functions of the C library that the runtime does not offer, through bun:ffi.
 *
 * Invariant: loaded only by those who need one, because most starts need none.
 */
import type { FFIFunction, Library } from "bun:ffi";

const MACHINE = process.arch === "arm64" ? "aarch64" : "x86_64";
const NAMES: Readonly<Record<string, readonly string[]>> = {
  linux: ["libc.so.6", `libc.musl-${MACHINE}.so.1`],
  darwin: ["libSystem.B.dylib"],
};

/** @throws (rejects with) what the first of the library's names threw when none works */
export async function openLibc<Functions extends Record<string, FFIFunction>>(
  functions: Functions,
): Promise<Library<Functions>["symbols"]> {
  const { dlopen } = await import("bun:ffi");
  let first: unknown = new Error(`no C library is known for ${process.platform}`);
  let isFirst = true;
  for (const name of NAMES[process.platform] ?? []) {
    try {
      return dlopen(name, functions).symbols;
    } catch (error) {
      if (isFirst) first = error;
      isFirst = false;
    }
  }
  throw first;
}
