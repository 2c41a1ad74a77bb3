/**
 * The checks that need no test runner, shared by `npm run check` and `npm test`.
 *
 * Invariant: the tools are the pinned ones, started by path, so nothing in PATH or a shell matters.
 */
import { join } from "node:path";
import { root, run } from "./paths.mjs";

/** Types of everything. Resolves to the exit code. */
export function checkTypes() {
  return run(process.execPath, [join(root, "node_modules", "typescript", "bin", "tsc"), "-p", "."]);
}

/** Lint and format. Resolves to the exit code. */
export function checkLint() {
  const biome = join(root, "node_modules", "@biomejs", "biome", "bin", "biome");
  return run(process.execPath, [
    biome,
    "check",
    "--diagnostic-level=warn",
    "--error-on-warnings",
    ".",
  ]);
}

/** Runs one named stage and prints its time in seconds. Resolves to its exit code; a throw counts as 1. */
export async function stage(name, action) {
  const start = performance.now();
  let code = 1;
  try {
    code = (await action()) ?? 0;
  } catch (error) {
    console.log(error.message);
  }
  const seconds = ((performance.now() - start) / 1000).toFixed(1);
  console.log(`-- ${name}: ${code === 0 ? "ok" : `failed (${code})`} in ${seconds} s`);
  return code;
}
