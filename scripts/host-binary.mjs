/**
 * Builds the executable for this machine when its sources are newer.
 *
 * Invariant: an executable that is there after this was built from the sources as they are now.
 */
import { readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { bunPath } from "./bun.mjs";
import { hostBinary, root, run } from "./paths.mjs";

const SOURCES = [
  "src",
  "plugins",
  "build.ts",
  "package.json",
  "package-lock.json",
  "tsconfig.json",
];

/** Resolves to the executable's path. Throws with the build's output when it fails. */
export async function buildHostBinary({ force = false } = {}) {
  if (!force && !isStale()) return hostBinary;
  let output = "";
  const code = await run(bunPath(), ["build.ts"], {
    onOutput: (text) => {
      output += text;
    },
  });
  if (code !== 0) throw new Error(`build failed (${code})\n${output}`);
  return hostBinary;
}

function isStale() {
  const built = newestMs(hostBinary);
  return built === 0 || SOURCES.some((name) => newestMs(join(root, name)) > built);
}

/** Of a file, or of everything under a directory (itself included: that shows a removal). 0 when absent. */
function newestMs(path) {
  let newest = 0;
  try {
    const stat = statSync(path);
    newest = stat.mtimeMs;
    if (stat.isDirectory()) {
      for (const name of readdirSync(path)) newest = Math.max(newest, newestMs(join(path, name)));
    }
  } catch (error) {
    if (error.code !== "ENOENT") throw error;
  }
  return newest;
}
