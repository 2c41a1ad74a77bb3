/**
 * The pinned Bun: `node scripts/bun.mjs <arguments>` runs it, `bunPath()` finds it.
 *
 * Invariant: never a Bun from PATH. The package's own install script (which puts the executable into place) may
 * have been blocked, so the platform package is looked at too.
 */
import { spawn } from "node:child_process";
import { existsSync, readdirSync, realpathSync, statSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { exitCodeOf, root } from "./paths.mjs";

/** Without its install script the package holds a small text file in the executable's place. */
const SMALLEST_EXECUTABLE_BYTES = 10_000_000;

/** The path of the pinned Bun. Throws with advice when there is none. */
export function bunPath() {
  const scope = join(root, "node_modules", "@oven");
  const candidates = [join(root, "node_modules", "bun", "bin", "bun.exe")];
  for (const name of platformPackages(scope)) {
    candidates.push(join(scope, name, "bin", "bun"), join(scope, name, "bin", "bun.exe"));
  }
  const found = candidates.find(isExecutable);
  if (found !== undefined) return found;
  throw new Error(
    `no Bun for ${process.platform}-${process.arch} in node_modules; run: node scripts/install.mjs` +
      " (and allow optional dependencies, they hold the executable)",
  );
}

/** This machine's packages only: a tree copied from elsewhere may hold others. glibc and musl exclude each other. */
function platformPackages(scope) {
  if (!existsSync(scope)) return [];
  const os = { win32: "windows" }[process.platform] ?? process.platform;
  const cpu = { arm64: "aarch64" }[process.arch] ?? process.arch;
  const libc = process.platform === "linux" && !isGlibc() ? "-musl" : "";
  const wanted = `bun-${os}-${cpu}${libc}`;
  return readdirSync(scope).filter((name) => name === wanted || name === `${wanted}-baseline`);
}

function isGlibc() {
  return process.report?.getReport().header.glibcVersionRuntime !== undefined;
}

function isExecutable(path) {
  try {
    return statSync(path).size > SMALLEST_EXECUTABLE_BYTES;
  } catch {
    return false;
  }
}

if (
  process.argv[1] !== undefined &&
  realpathSync(process.argv[1]) === fileURLToPath(import.meta.url)
) {
  try {
    const child = spawn(bunPath(), process.argv.slice(2), { stdio: "inherit" });
    child.once("error", fail);
    child.once("close", (code, signal) => process.exit(exitCodeOf(code, signal)));
    // A terminal sends its signals to the child as well; this process must only not end before it.
    for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"])
      process.on(signal, () => child.kill(signal));
  } catch (error) {
    fail(error);
  }
}

function fail(error) {
  console.error(`error: ${error.message}`);
  process.exit(1);
}
