/**
 * Builds the executables: `npm run build` for this machine, `-- --all` for every target, `-- --target NAME`; with
 * `-- --deb` Debian packages of them too.
 *
 * Invariants: a shipped executable reads no `.env`, `bunfig.toml`, `tsconfig.json` or `package.json` of the
 * directory it is started in (test/hostile-directory.test.ts), and the same commit gives the same bytes: no date but
 * the commit's, no path of the building machine. A file appears in dist whole or not at all.
 */
import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { mkdir, mkdtemp, readFile, rename, rm, stat, writeFile } from "node:fs/promises";
import { basename, join, relative, resolve } from "node:path";
import { parseArgs } from "node:util";
import type { DebianArchitecture, Shell } from "./packaging/deb/contents.ts";

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

/** Targets that Debian has an architecture for. */
const DEBIAN: Readonly<Record<string, DebianArchitecture>> = {
  "linux-x64": "amd64",
  "linux-arm64": "arm64",
};

const ROOT = import.meta.dir;

const USAGE = `usage: npm run build -- [--all | --target NAME]... [--deb] [--out DIRECTORY] [--no-sourcemap]

Without options: dist/gatehouse for this machine.
  --all            every target
  --target NAME    one of: ${TARGETS.map((target) => target.suffix).join(", ")}
  --deb            Debian packages too, of ${Object.keys(DEBIAN).join(" and ")} as far as they are built; alone: for this machine
  --out DIRECTORY  default: dist
  --no-sourcemap   without source positions in stack traces
`;

interface Options {
  readonly targets: readonly Target[];
  readonly deb: boolean;
  /** Absolute. */
  readonly out: string;
  readonly sourcemap: boolean;
}

interface Identity {
  readonly version: string;
  /** Short commit, with `-dirty` when the working tree differs from it; empty without git. */
  readonly commit: string;
}

interface Job {
  readonly name: string;
  /** Null: the running Bun itself. */
  readonly runtime: Bun.Build.CompileTarget | null;
  /** Null: no package is made of it. */
  readonly debian: DebianArchitecture | null;
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
  const { out } = options;
  const built: Built[] = [];
  const failed: string[] = [];
  await mkdir(out, { recursive: true });
  for (const job of jobs(options, identity)) {
    try {
      built.push(await build(job, identity, options));
      if (job.debian !== null) built.push(await packageOf(job, job.debian, identity, out));
    } catch (error) {
      failed.push(`${job.name}: ${reason(error)}`);
    }
  }
  if (built.length > 0) await writeChecksums(built, out);
  report(built, failed, { identity, out });
  return failed.length === 0 ? 0 : 1;
}

/** Null when they cannot be understood. */
function readOptions(): Options | null {
  try {
    const { values } = parseArgs({
      options: {
        all: { type: "boolean" },
        target: { type: "string", multiple: true },
        deb: { type: "boolean", default: false },
        out: { type: "string", default: "dist" },
        sourcemap: { type: "boolean", default: true },
      },
      allowNegative: true,
    });
    const { deb, sourcemap } = values;
    const out = resolve(ROOT, values.out);
    if (values.all === true) return { targets: TARGETS, deb, out, sourcemap };
    const names = values.target ?? (deb ? [`linux-${process.arch}`] : []);
    const targets = TARGETS.filter((target) => names.includes(target.suffix));
    if (targets.length !== names.length) return null;
    if (deb && !targets.some(({ suffix }) => suffix in DEBIAN)) return null;
    return { targets, deb, out, sourcemap };
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

function jobs({ targets, deb }: Options, identity: Identity): readonly Job[] {
  if (targets.length === 0) {
    const name = process.platform === "win32" ? "gatehouse.exe" : "gatehouse";
    return [{ name, runtime: null, debian: null }];
  }
  return targets.map((target) => ({
    name: `gatehouse-${identity.version}-${target.suffix}${target.suffix.startsWith("windows") ? ".exe" : ""}`,
    runtime: target.runtime,
    debian: deb ? (DEBIAN[target.suffix] ?? null) : null,
  }));
}

async function build(
  job: Job,
  identity: Identity,
  { out, sourcemap }: Pick<Options, "out" | "sourcemap">,
): Promise<Built> {
  const start = performance.now();
  // Built aside and renamed: a running executable cannot be written to, and tests may start it at any moment.
  const aside = await mkdtemp(join(out, ".build-"));
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
    await keepMaps(result.outputs, join(out, `${job.name}.maps`));
    await rename(outfile, join(out, job.name));
    return await finished(job.name, out, start);
  } finally {
    await rm(aside, { recursive: true, force: true });
  }
}

async function finished(name: string, out: string, start: number): Promise<Built> {
  const path = join(out, name);
  const seconds = (performance.now() - start) / 1000;
  return { name, bytes: (await stat(path)).size, sha256: await sha256(path), seconds };
}

/** The Debian package of an executable that was just built. */
async function packageOf(
  job: Job,
  architecture: DebianArchitecture,
  { version }: Identity,
  out: string,
): Promise<Built> {
  const start = performance.now();
  const { buildPackage, packageFileName } = await import("./packaging/deb/contents.ts");
  const name = packageFileName({ version, architecture });
  const bytes = await buildPackage({
    version,
    architecture,
    executable: await readFile(join(out, job.name)),
    completions: {
      bash: completion("bash"),
      zsh: completion("zsh"),
      fish: completion("fish"),
    },
    modifiedAt: new Date(Number(git("log", "-1", "--format=%ct") || WITHOUT_COMMIT) * 1000),
  });
  const aside = join(out, `.${name}`);
  await writeFile(aside, bytes);
  await rename(aside, join(out, name));
  return finished(name, out, start);
}

/** 2000-01-01, for sources that come without their history; dpkg's tools warn of files from before 1984. */
const WITHOUT_COMMIT = 946_684_800;

/** What the sources say, because an executable for another architecture does not run here. */
function completion(shell: Shell): string {
  const main = join(ROOT, "src", "main.ts");
  const result = Bun.spawnSync([process.execPath, main, "completion", shell], { cwd: ROOT });
  if (!result.success) throw new Error(`completion ${shell}: ${result.stderr.toString().trim()}`);
  return result.stdout.toString();
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
async function writeChecksums(built: readonly Built[], out: string): Promise<void> {
  const lines = built.map((file) => `${file.sha256}  ${file.name}`).sort();
  await writeFile(join(out, "SHA256SUMS"), `${lines.join("\n")}\n`);
}

/** Every message of an error that holds others, in one line. */
function reason(error: unknown): string {
  const errors = error instanceof AggregateError ? error.errors : [error];
  return errors.map((one) => (one instanceof Error ? one.message : String(one))).join("; ");
}

function report(
  built: readonly Built[],
  failed: readonly string[],
  { identity, out }: { readonly identity: Identity; readonly out: string },
): void {
  const commit = identity.commit === "" ? "" : ` (${identity.commit})`;
  console.log(
    `gatehouse ${identity.version}${commit}, Bun ${Bun.version}, in ${relative(ROOT, out)}/`,
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
