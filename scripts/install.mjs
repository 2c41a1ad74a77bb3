/**
 * Installs the locked dependencies when they are missing or older than the lock file: `install()`, or as a script.
 *
 * Invariant: quiet unless it fails, and the lock file is never written. No package's install script is run:
 * nothing here needs one (see bun.mjs).
 */
import { existsSync, realpathSync, statSync } from "node:fs";
import { basename, join } from "node:path";
import { fileURLToPath } from "node:url";
import { root, run } from "./paths.mjs";

/**
 * Flags win over every npmrc and environment setting, and each of these has one that would break the install:
 * production mode and `omit` leave out the tools, `engine-strict` stops at packages that run under Bun alone.
 */
const FLAGS = [
  "--include=dev",
  "--include=optional",
  "--ignore-scripts",
  "--engine-strict=false",
  "--strict-peer-deps=false",
  "--package-lock=true",
  "--package-lock-only=false",
  "--dry-run=false",
  "--global=false",
  "--workspaces=false",
  "--install-strategy=hoisted",
  "--audit=false",
  "--fund=false",
  "--update-notifier=false",
  "--progress=false",
  "--loglevel=error",
];

/** Makes node_modules match the lock file. Throws with npm's own words when that fails. */
export async function install() {
  if (isCurrent()) return;
  const hasLock = existsSync(join(root, "package-lock.json"));
  const first = await npm([
    hasLock ? "ci" : "install",
    ...(hasLock ? [] : ["--no-save"]),
    ...FLAGS,
  ]);
  if (first.code === 0) return;
  // `ci` refuses a lock file that lacks another platform's optional package, which a registry without that
  // package produces. `install` takes the same locked versions, checks the same hashes, and is content.
  if (hasLock && first.output.includes("Missing:")) {
    const second = await npm(["install", "--no-save", ...FLAGS]);
    if (second.code === 0) return;
    throw new Error(`npm install failed (${second.code})\n${second.output}`);
  }
  throw new Error(`npm ${hasLock ? "ci" : "install"} failed (${first.code})\n${first.output}`);
}

function isCurrent() {
  const installed = modifiedMs(join(root, "node_modules", ".package-lock.json"));
  const locked = modifiedMs(join(root, "package-lock.json"));
  return installed !== null && (locked === null || locked <= installed);
}

function modifiedMs(path) {
  try {
    return statSync(path).mtimeMs;
  } catch {
    return null;
  }
}

/** The npm that runs this script if there is one, else the one in PATH. */
async function npm(args) {
  let output = "";
  const onOutput = (text) => {
    output += text;
  };
  const own = process.env.npm_execpath ?? "";
  const code = /^npm-cli\.c?js$/.test(basename(own))
    ? await run(process.execPath, [own, ...args], { onOutput })
    : await run(...shellNpm(args), { onOutput });
  return { code, output };
}

/** On Windows npm is a batch file, which only a shell can start. */
function shellNpm(args) {
  return process.platform === "win32"
    ? ["cmd.exe", ["/d", "/s", "/c", "npm", ...args]]
    : ["npm", args];
}

if (
  process.argv[1] !== undefined &&
  realpathSync(process.argv[1]) === fileURLToPath(import.meta.url)
) {
  install().catch((error) => {
    console.error(`error: ${error.message}`);
    process.exit(1);
  });
}
