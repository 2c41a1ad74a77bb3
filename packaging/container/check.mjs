/**
 * `node packaging/container/check.mjs [--executable FILE]`: carries the Dockerfile's steps out in a directory, starts
 * the image from there as a container engine would, and asks it what an operator would ask. Prints JSON.
 *
 * Shown: that the steps fit together, that the executable needs nothing but the C library, that it runs as the
 * unprivileged user, without capabilities, on a read-only root, with one writable volume, that HEALTHCHECK and the
 * stop signal work, and that nothing passes without a token. Not shown: the real base image, an engine's own reading of the
 * Dockerfile, its seccomp profile, other architectures. Without root only the steps and the executable itself are tried.
 *
 * Invariant: what was not tried is in `not_tried`, with the reason; everything made is removed again.
 */
import { spawnSync } from "node:child_process";
import {
  chmodSync,
  chownSync,
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { carryOut, parseDockerfile } from "./dockerfile.mjs";
import { isIgnored, parseIgnoreFile } from "./ignore.mjs";

const HERE = dirname(fileURLToPath(import.meta.url));
const REPOSITORY = resolve(HERE, "../..");
const ARCHITECTURES = { x64: "amd64", arm64: "arm64" };
/** Commands of their own network, process and file system, started here when there is root. */
const ISOLATION = ["--mount", "--net", "--pid", "--ipc", "--uts", "--fork", "--kill-child"];
const DEADLINE_MS = 60_000;

const { values } = parseArgs({ options: { executable: { type: "string" } } });
const work = mkdtempSync(join(tmpdir(), "gatehouse-image-"));
try {
  // The user of the image must be able to reach what lies in it.
  chmodSync(work, 0o755);
  process.stdout.write(`${JSON.stringify(check(values.executable), null, 2)}\n`);
} catch (error) {
  process.stderr.write(`${error.message}\n`);
  process.exitCode = 1;
} finally {
  rmSync(work, { recursive: true, force: true });
}

function check(executable) {
  const isRoot = process.getuid?.() === 0;
  const architecture = ARCHITECTURES[process.arch];
  if (process.platform !== "linux" || architecture === undefined) {
    throw new Error(`an image for Linux cannot be tried on ${process.platform} ${process.arch}`);
  }
  const instructions = parseDockerfile(readFileSync(join(HERE, "Dockerfile"), "utf8"));
  const stages = join(work, "stages");
  mkdirSync(stages);
  const { root, config } = carryOut(instructions, {
    directory: stages,
    source: contextOf(executable),
    base: standInBase,
    args: { TARGETARCH: architecture },
    canOwn: isRoot,
  });
  addLibraries(root, join(root, config.entrypoint[0]));
  const plan = writePlan(root, config);
  const missing = isRoot ? whatIsMissing() : "this is not root";
  const tried = missing === null ? runIsolated(plan) : runPlainly(root);
  return { image: config, isolated: missing === null, not_tried: notTried(missing), tried };
}

/** Files of the build context, as the ignore file leaves it. */
function contextOf(executable) {
  const rules = parseIgnoreFile(readFileSync(join(HERE, "Dockerfile.dockerignore"), "utf8"));
  return (path) => {
    if (isIgnored(path, rules)) throw new Error(`${path} is kept out by Dockerfile.dockerignore`);
    if (executable !== undefined && path.startsWith("dist/")) return executable;
    const real = join(REPOSITORY, path);
    if (existsSync(real)) return real;
    throw new Error(`${path} is not there: npm run build -- --target linux-${process.arch}`);
  };
}

/** In place of the real base image, which no registry here has: what its documentation says is in it. */
function standInBase(_image, root) {
  for (const path of ["etc/ssl/certs", "home/nonroot", "tmp", "usr/bin", "var/lib"]) {
    mkdirSync(join(root, path), { recursive: true });
  }
  chmodSync(join(root, "tmp"), 0o1777);
  writeFileSync(
    join(root, "etc/passwd"),
    "root:x:0:0:root:/root:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin\n",
  );
  writeFileSync(join(root, "etc/group"), "root:x:0:\nnonroot:x:65532:\n");
  const authorities = "/etc/ssl/certs/ca-certificates.crt";
  if (existsSync(authorities)) copyFileSync(authorities, join(root, authorities));
}

/** The C library, from this machine, under the names that the executable asks for. */
function addLibraries(root, executable) {
  const said = spawnSync("ldd", [executable], { encoding: "utf8" });
  if (said.status !== 0)
    throw new Error(`ldd ${executable}: ${said.stderr ?? said.error?.message}`);
  const libraries = [...said.stdout.matchAll(/(?:=> |^\s*)(\/\S+)/gm)].map(([, path]) => path);
  for (const path of libraries) {
    const target = join(root, path);
    mkdirSync(dirname(target), { recursive: true });
    cpSync(path, target, { dereference: true });
  }
}

function whatIsMissing() {
  for (const [program, ...args] of [
    ["setpriv", "--version"],
    ["ip", "-Version"],
    ["unshare", ...ISOLATION, "true"],
  ]) {
    const said = spawnSync(program, args, { encoding: "utf8" });
    if (said.error !== undefined) return `there is no ${program}`;
    if (said.status !== 0) return `${program}: ${said.stderr.trim()}`;
  }
  return null;
}

function notTried(missing) {
  const always = ["the real base image", "a container engine", "other architectures"];
  return missing === null ? always : [...always, `isolation and the user (${missing})`];
}

/** What is mounted into the image, and where things are. */
function writePlan(root, config) {
  const volume = join(work, "volume");
  cpSync(join(root, config.volumes[0]), volume, { recursive: true });
  const [uid, gid] = config.user.split(":").map(Number);
  if (process.getuid?.() === 0) chownSync(volume, uid, gid);
  const mounted = join(work, "config.yaml");
  writeFileSync(mounted, readFileSync(join(HERE, "check-config.yaml")), { mode: 0o644 });
  const plan = join(work, "plan.json");
  writeFileSync(plan, JSON.stringify({ root, volume, mounted, config }));
  return plan;
}

function runIsolated(plan) {
  const inside = join(HERE, "inside.mjs");
  const said = spawnSync("unshare", [...ISOLATION, process.execPath, inside, plan], {
    encoding: "utf8",
    timeout: DEADLINE_MS,
  });
  if (said.status === 0) return JSON.parse(said.stdout);
  throw new Error(`the image does not run:\n${said.stderr}${said.stdout}`);
}

function runPlainly(root) {
  const said = spawnSync(join(root, "usr/bin/gatehouse"), ["version"], { encoding: "utf8" });
  if (said.status !== 0) throw new Error(`the executable does not start: ${said.stderr}`);
  return { version: said.stdout.trim() };
}
