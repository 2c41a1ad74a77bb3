/**
 * Functions of the C library that the runtime does not offer, through bun:ffi.
 *
 * Invariant: imported only where one is needed, because most starts need none.
 */
import { dlopen, type FFIFunction, type Library } from "bun:ffi";

const NAMES: Readonly<Record<string, readonly string[]>> = {
  linux: ["libc.so.6", "libc.so", "libc.musl-x86_64.so.1", "libc.musl-aarch64.so.1"],
  darwin: ["libSystem.B.dylib"],
};

/** @throws what the first of the library's names threw when none works, as without a just-in-time compiler */
export function openLibc<Functions extends Record<string, FFIFunction>>(
  functions: Functions,
): Library<Functions>["symbols"] {
  const failures: unknown[] = [];
  for (const name of NAMES[process.platform] ?? []) {
    try {
      return dlopen(name, functions).symbols;
    } catch (error) {
      failures.push(error);
    }
  }
  throw failures[0] ?? new Error(`no C library is known for ${process.platform}`);
}
