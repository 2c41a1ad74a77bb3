/**
 * Programs that some tests start: nginx, Caddy, HAProxy and Valkey. `ensureTools()` installs what is missing where it
 * may (root on Debian or Ubuntu), and says what to install where it may not; also as a script.
 *
 * Invariant: best effort, never a failure, and quiet when nothing is missing. Nothing is started or enabled by an
 * install, apt's own configuration, sources and lists are left as they are, and a deadline ends all of it.
 */
import {
  accessSync,
  chmodSync,
  constants,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { fileURLToPath } from "node:url";
import { run } from "./paths.mjs";

const DEADLINE_MS = 90_000;
const SIGNALS = ["SIGINT", "SIGTERM", "SIGHUP"];

/** Each with the programs that do, and the packages that bring one, the best first. */
const TOOLS = [
  { name: "nginx", programs: ["nginx"], packages: ["nginx-light", "nginx"] },
  { name: "Caddy", programs: ["caddy"], packages: ["caddy"] },
  { name: "HAProxy", programs: ["haproxy"], packages: ["haproxy"] },
  {
    name: "Valkey",
    programs: ["valkey-server", "redis-server"],
    packages: ["valkey-server", "redis-server"],
  },
];

/** Where the tests look besides PATH. */
const SYSTEM_DIRECTORIES = ["/usr/sbin", "/usr/local/sbin", "/usr/local/bin", "/opt/homebrew/bin"];

/** Asked by maintainer scripts before they start a service: 101 is no (invoke-rc.d(8)). */
const POLICY = "#!/bin/sh\nexit 101\n";

/**
 * Installs what is missing, or says what to do. Never rejects.
 * @param where for tests: the file system's root, where programs are looked for, apt's programs
 */
export async function ensureTools(where = {}) {
  const {
    root = "/",
    directories = [...(process.env.PATH ?? "").split(delimiter), ...SYSTEM_DIRECTORIES],
    apt = { get: "apt-get", cache: "apt-cache" },
    isRoot = process.getuid?.() === 0,
    say = (line) => console.log(line),
    deadlineMs = DEADLINE_MS,
  } = where;
  const missing = () =>
    TOOLS.filter(({ programs }) => !programs.some((program) => isThere(program, directories)));
  const before = missing();
  if (before.length === 0) return;
  const system = readSystem(root);
  if (isRoot && system.hasApt && isThere(apt.get, directories)) {
    try {
      await install(before, { root, apt, system, say, endMs: performance.now() + deadlineMs });
    } catch (error) {
      say(`the install of test programs stopped: ${error.message}`);
    }
  }
  for (const { name, packages } of missing()) {
    const backports =
      packages[0] === "valkey-server" && system.codename === "bookworm"
        ? " (from bookworm-backports)"
        : "";
    say(`no ${name}: tests with it are skipped; run apt-get install ${packages[0]}${backports}`);
  }
}

function isThere(program, directories) {
  return [...(program.startsWith("/") ? [""] : directories)].some((directory) => {
    const path = directory === "" ? program : join(directory, program);
    try {
      accessSync(path, constants.X_OK);
      return path.startsWith("/") && statSync(path).isFile();
    } catch {
      return false;
    }
  });
}

/** What os-release(5) says. */
function readSystem(root) {
  const text = readIfThere(join(root, "etc/os-release"));
  const field = (name) =>
    new RegExp(`^${name}="?([^"\\n]*)"?$`, "m").exec(text)?.[1]?.toLowerCase() ?? "";
  const families = [field("ID"), ...field("ID_LIKE").split(" ")];
  return {
    hasApt: families.some((family) => family === "debian" || family === "ubuntu"),
    isDebian: field("ID") === "debian",
    codename: field("VERSION_CODENAME"),
  };
}

/** Everything of apt's that is written goes below one directory, which is removed. */
async function install(missing, { root, apt, system, say, endMs }) {
  const directory = mkdtempSync(join(tmpdir(), "gatehouse-apt-"));
  const leave = guardServices(root);
  // A signal must not leave the guard behind.
  const end = () => process.exit(1);
  process.once("exit", leave);
  for (const signal of SIGNALS) process.once(signal, end);
  try {
    const options = layOut(directory, { root, system, missing });
    const env = { ...process.env, DEBIAN_FRONTEND: "noninteractive", RUNLEVEL: "1", LC_ALL: "C" };
    const call = (program, args) => quietly(program, [...options, ...args], { env, endMs });
    say(`installing for tests: ${missing.map(({ name }) => name).join(", ")}`);
    // One source that is away must not spoil the others, so what this says does not matter.
    await call(apt.get, ["update"]);
    const { output } = await call(apt.cache, ["policy", ...missing.flatMap((one) => one.packages)]);
    const chosen = missing.flatMap(({ packages }) => {
      const found = packages.find((name) => hasCandidate(output, name));
      return found === undefined ? [] : [found];
    });
    if (chosen.length === 0) return;
    const flags = ["-y", "--no-install-recommends"];
    // The slow part first, because it may be ended at any time; the other is better not disturbed.
    const fetched = await call(apt.get, ["install", ...flags, "--download-only", ...chosen]);
    if (fetched.code !== 0) throw new Error(lastLine(fetched.output));
    const { code, output: said } = await call(apt.get, ["install", ...flags, ...chosen]);
    if (code !== 0) throw new Error(lastLine(said));
    await disable(chosen, root);
  } finally {
    leave();
    process.removeListener("exit", leave);
    for (const signal of SIGNALS) process.removeListener(signal, end);
    rmSync(directory, { recursive: true, force: true });
  }
}

/** Answers no to every start until the returned function is called, which puts back what was there. */
function guardServices(root) {
  const path = join(root, "usr/sbin/policy-rc.d");
  const before = existsSync(path)
    ? { bytes: readFileSync(path), mode: statSync(path).mode & 0o7777 }
    : null;
  let isDone = false;
  writeFileSync(path, POLICY);
  chmodSync(path, 0o755);
  return () => {
    if (isDone) return;
    isDone = true;
    if (before === null) {
      rmSync(path, { force: true });
      return;
    }
    writeFileSync(path, before.bytes);
    chmodSync(path, before.mode);
  };
}

/** Packages enable their service for the next start of the machine; these are for tests alone. */
async function disable(packages, root) {
  if (root !== "/") return;
  for (const name of packages) {
    const unit = name === "nginx-light" ? "nginx" : name;
    // The helper wants to be called by a package.
    const env = { ...process.env, LC_ALL: "C", DPKG_MAINTSCRIPT_PACKAGE: name };
    const endMs = performance.now() + 5000;
    await quietly("deb-systemd-helper", ["disable", `${unit}.service`], { env, endMs });
    await quietly("update-rc.d", [unit, "disable"], { env, endMs });
  }
}

/** The system's sources copied, with backports where Valkey is only there; lists and packages beside them. */
function layOut(directory, { root, system, missing }) {
  // apt fetches as a user of its own, who has to get in.
  chmodSync(directory, 0o755);
  const at = (name) => join(directory, name);
  for (const name of ["sources", "lists/partial", "cache/archives/partial"]) {
    mkdirSync(at(name), { recursive: true });
  }
  const parts = join(root, "etc/apt/sources.list.d");
  const texts = [readIfThere(join(root, "etc/apt/sources.list"))];
  for (const name of existsSync(parts) ? readdirSync(parts) : []) {
    if (!/\.(?:list|sources)$/.test(name)) continue;
    const text = readIfThere(join(parts, name));
    texts.push(text);
    writeFileSync(at(join("sources", name)), text);
  }
  const wantsValkey = missing.some(({ packages }) => packages.includes("valkey-server"));
  if (wantsValkey && system.isDebian && system.codename === "bookworm") {
    const source = backportsSource(texts, system.codename);
    if (source !== null) writeFileSync(at("sources/gatehouse-backports.sources"), source);
  }
  return [
    "-qq",
    ...["Dir::Etc::sourceparts", at("sources")],
    ...["Dir::State::lists", at("lists")],
    ...["Dir::Cache", at("cache")],
    ...["DPkg::Lock::Timeout", "10"],
    ...["Acquire::Retries", "0"],
    ...["Acquire::http::Timeout", "10"],
    ...["Acquire::https::Timeout", "10"],
    ...["Dpkg::Options::", "--force-confold"],
  ].flatMap((part, index, all) => {
    if (index === 0) return [part];
    return index % 2 === 1 ? ["-o", `${part}=${all[index + 1]}`] : [];
  });
}

/**
 * deb822 entries for the backports of a release at every mirror of it that the sources name, since one of them may be
 * somebody else's; `null` when they name none or have backports already.
 */
export function backportsSource(texts, codename) {
  const entries = texts.flatMap((text) => [...oneLineEntries(text), ...stanzaEntries(text)]);
  const suite = `${codename}-backports`;
  if (entries.some(({ suites }) => suites.includes(suite))) return null;
  const mirrors = entries.filter(({ suites }) => suites.includes(codename));
  if (mirrors.length === 0) return null;
  return mirrors
    .map(({ uri, signedBy }) => {
      const signed = signedBy === null ? "" : `Signed-By:${signedBy}\n`;
      return `Types: deb\nURIs: ${uri}\nSuites: ${suite}\nComponents: main\n${signed}`;
    })
    .join("\n");
}

function oneLineEntries(text) {
  return [...text.matchAll(/^deb\s+(?:\[([^\]]*)\]\s+)?(\S+)\s+(\S+)\s+\S/gm)].map((match) => {
    const key = /\bsigned-by=(\S+)/i.exec(match[1] ?? "")?.[1];
    return { uri: match[2], suites: [match[3]], signedBy: key === undefined ? null : ` ${key}` };
  });
}

/** deb822; a key may be in the entry itself, over several lines. */
function stanzaEntries(text) {
  return text
    .replaceAll(/^#.*\n?/gm, "")
    .split(/\n\s*\n/)
    .flatMap((stanza) => {
      const field = (name) =>
        new RegExp(`^${name}:((?:.*)(?:\\n[ \\t].*)*)`, "im").exec(stanza)?.[1] ?? null;
      const words = (name) => (field(name) ?? "").trim().split(/\s+/);
      const [uri] = words("URIs");
      if (!words("Types").includes("deb") || uri === "" || uri === undefined) return [];
      return [{ uri, suites: words("Suites"), signedBy: field("Signed-By") }];
    });
}

function hasCandidate(policy, name) {
  const found = new RegExp(`^${name}:\\n(?:  .*\\n)*?  Candidate: (.*)$`, "m").exec(policy)?.[1];
  return found !== undefined && found !== "(none)";
}

async function quietly(program, args, { env, endMs }) {
  let output = "";
  const timeoutMs = Math.round(endMs - performance.now());
  if (timeoutMs <= 0) throw new Error(`there was not enough time for ${program}`);
  const onOutput = (text) => {
    output += text;
  };
  const code = await run(program, args, { env, onOutput, timeoutMs });
  return { code, output };
}

function lastLine(output) {
  return output.trim().split("\n").at(-1) ?? "";
}

function readIfThere(path) {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}

if (
  process.argv[1] !== undefined &&
  realpathSync(process.argv[1]) === fileURLToPath(import.meta.url)
) {
  await ensureTools();
}
