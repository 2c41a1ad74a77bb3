/**
 * Builds the executables: `npm run build` for this machine, `-- --all` for every target, `-- --target NAME`.
 *
 * Invariants: a shipped executable reads no `.env`, `bunfig.toml`, `tsconfig.json` or `package.json` of the
 * directory it is started in (test/hostile-directory.test.ts), and the same commit gives the same bytes: no date,
 * no path of the building machine. An executable appears in dist whole or not at all.
 */
import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { mkdir, mkdtemp, readFile, rename, rm, stat, writeFile } from "node:fs/promises";
import { basename, join, relative } from "node:path";
import { parseArgs } from "node:util";

/** One executable. `suffix` ends its file name; the runtime is fetched from the package registry when it is foreign. */
interface Target {
  readonly suffix: string;
  readonly runtime: Bun.Build.CompileTarget;
}

/**
 * No baseline builds for servers without AVX2: since 1.4 the runtime's x64 executable is that one, byte for byte.
 */
const TARGETS: readonly Target[] = [
  { suffix: "linux-x64", runtime: "bun-linux-x64" },
  { suffix: "linux-x64-musl", runtime: "bun-linux-x64-musl" },
  { suffix: "linux-arm64", runtime: "bun-linux-arm64" },
  { suffix: "linux-arm64-musl", runtime: "bun-linux-arm64-musl" },
  { suffix: "macos-x64", runtime: "bun-darwin-x64" },
  { suffix: "macos-arm64", runtime: "bun-darwin-arm64" },
  { suffix: "windows-x64", runtime: "bun-windows-x64" },
];

const ROOT = import.meta.dir;
const DIST = join(ROOT, "dist");

const USAGE = `usage: npm run build -- [--all | --target NAME]... [--no-sourcemap]

Without options: dist/gatehouse for this machine.
  --all            every target
  --target NAME    one of: ${TARGETS.map((target) => target.suffix).join(", ")}
  --no-sourcemap   without source positions in stack traces
`;

interface Identity {
  readonly version: string;
  /** Short commit, with `-dirty` when the working tree differs from it; empty without git. */
  readonly commit: string;
}

interface Job {
  readonly name: string;
  /** Null: the running Bun itself. */
  readonly runtime: Bun.Build.CompileTarget | null;
}

interface Built {
  readonly name: string;
  readonly bytes: number;
  readonly sha256: string;
  readonly seconds: number;
}

process.exitCode = await main();

async function main(): Promise<number> {
  const options = readOptions();
  if (options === null) {
    process.stderr.write(USAGE);
    return 2;
  }
  const identity = await readIdentity();
  const built: Built[] = [];
  const failed: string[] = [];
  await mkdir(DIST, { recursive: true });
  for (const job of jobs(options.targets, identity)) {
    try {
      built.push(await build(job, identity, options.sourcemap));
    } catch (error) {
      failed.push(`${job.name}: ${reason(error)}`);
    }
  }
  if (built.length > 0) await writeChecksums(built);
  report(built, failed, identity);
  return failed.length === 0 ? 0 : 1;
}

/** Null when they cannot be understood. */
function readOptions(): { targets: readonly Target[]; sourcemap: boolean } | null {
  try {
    const { values } = parseArgs({
      options: {
        all: { type: "boolean" },
        target: { type: "string", multiple: true },
        sourcemap: { type: "boolean", default: true },
      },
      allowNegative: true,
    });
    if (values.all === true) return { targets: TARGETS, sourcemap: values.sourcemap };
    const names = values.target ?? [];
    const targets = TARGETS.filter((target) => names.includes(target.suffix));
    return targets.length === names.length ? { targets, sourcemap: values.sourcemap } : null;
  } catch {
    return null;
  }
}

async function readIdentity(): Promise<Identity> {
  const manifest: unknown = JSON.parse(await readFile(join(ROOT, "package.json"), "utf8"));
  const version =
    typeof manifest === "object" && manifest !== null && "version" in manifest
      ? String(manifest.version)
      : "0.0.0";
  const commit = git("rev-parse", "--short=12", "HEAD");
  const isDirty = commit !== "" && git("status", "--porcelain", "--untracked-files=no") !== "";
  return { version, commit: isDirty ? `${commit}-dirty` : commit };
}

/** Output of a git command, empty when there is no git or no repository. */
function git(...args: readonly string[]): string {
  try {
    const result = Bun.spawnSync(["git", ...args], { cwd: ROOT, stderr: "ignore" });
    return result.success ? result.stdout.toString().trim() : "";
  } catch {
    return "";
  }
}

function jobs(targets: readonly Target[], identity: Identity): readonly Job[] {
  if (targets.length === 0) {
    return [{ name: process.platform === "win32" ? "gatehouse.exe" : "gatehouse", runtime: null }];
  }
  return targets.map((target) => ({
    name: `gatehouse-${identity.version}-${target.suffix}${target.suffix.startsWith("windows") ? ".exe" : ""}`,
    runtime: target.runtime,
  }));
}

async function build(job: Job, identity: Identity, sourcemap: boolean): Promise<Built> {
  const start = performance.now();
  // Built aside and renamed: a running executable cannot be written to, and tests may start it at any moment.
  const aside = await mkdtemp(join(DIST, ".build-"));
  try {
    // The file's name becomes the name inside the executable, so it is the same for every target.
    const outfile = join(aside, job.name.endsWith(".exe") ? "gatehouse.exe" : "gatehouse");
    const result = await Bun.build({
      entrypoints: [join(ROOT, "src", "main.ts")],
      root: ROOT,
      target: "bun",
      format: "esm",
      // One chunk a command: `version` starts in two thirds of the time that one file for everything takes.
      splitting: true,
      // Names stay, for stack traces; without them it would be 0.1 % smaller.
      minify: { whitespace: true, syntax: true, identifiers: false },
      bytecode: true,
      // Also part of the executable (0.7 MB, nothing at start), which is what makes its stack traces readable.
      sourcemap: sourcemap ? "linked" : "none",
      define: {
        GATEHOUSE_VERSION: JSON.stringify(identity.version),
        GATEHOUSE_COMMIT: JSON.stringify(identity.commit),
        "process.env.NODE_ENV": '"production"',
        // Packages that look for files beside themselves (pino's transports, which are not used) would carry the
        // building machine's path, and look there.
        __dirname: '"/nonexistent"',
        __filename: '"/nonexistent/file"',
      },
      compile: {
        outfile,
        ...(job.runtime === null ? {} : { target: job.runtime }),
        autoloadDotenv: false,
        autoloadBunfig: false,
        autoloadTsconfig: false,
        autoloadPackageJson: false,
      },
    });
    if (!result.success) throw new AggregateError(result.logs, "the bundle has errors");
    await keepMaps(result.outputs, join(DIST, `${job.name}.maps`));
    const path = join(DIST, job.name);
    await rename(outfile, path);
    const seconds = (performance.now() - start) / 1000;
    return { name: job.name, bytes: (await stat(path)).size, sha256: await sha256(path), seconds };
  } finally {
    await rm(aside, { recursive: true, force: true });
  }
}

/** The source maps, beside the executable: for debuggers and crash reports, not for running it. */
async function keepMaps(outputs: readonly Bun.BuildArtifact[], directory: string): Promise<void> {
  const maps = outputs.filter((output) => output.kind === "sourcemap");
  await rm(directory, { recursive: true, force: true });
  if (maps.length > 0) await mkdir(directory);
  for (const map of maps) await rename(map.path, join(directory, basename(map.path)));
}

async function sha256(path: string): Promise<string> {
  const hash = createHash("sha256");
  for await (const chunk of createReadStream(path)) hash.update(chunk as Uint8Array);
  return hash.digest("hex");
}

/** In the form that `sha256sum --check` reads. */
async function writeChecksums(built: readonly Built[]): Promise<void> {
  const lines = built.map((file) => `${file.sha256}  ${file.name}`).sort();
  await writeFile(join(DIST, "SHA256SUMS"), `${lines.join("\n")}\n`);
}

/** Every message of an error that holds others, in one line. */
function reason(error: unknown): string {
  const errors = error instanceof AggregateError ? error.errors : [error];
  return errors.map((one) => (one instanceof Error ? one.message : String(one))).join("; ");
}

function report(built: readonly Built[], failed: readonly string[], identity: Identity): void {
  const commit = identity.commit === "" ? "" : ` (${identity.commit})`;
  console.log(
    `gatehouse ${identity.version}${commit}, Bun ${Bun.version}, in ${relative(ROOT, DIST)}/`,
  );
  const width = Math.max(0, ...built.map((file) => file.name.length));
  for (const file of built) {
    const size = `${(file.bytes / 1e6).toFixed(1)} MB`;
    const time = `${file.seconds.toFixed(1)} s`;
    console.log(
      `  ${file.name.padEnd(width)}  ${size.padStart(8)}  ${time.padStart(6)}  ${file.sha256.slice(0, 16)}`,
    );
  }
  for (const line of failed) console.error(`  not built: ${line}`);
}
