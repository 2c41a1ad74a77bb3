/**
 * Runs inside the namespaces that check.mjs made: puts the image together as an engine does, starts it and asks.
 *
 * Invariant: whatever is mounted or started here ends with the namespaces; the first thing that is not as it should be
 * ends it with that in words.
 */
import { execFileSync, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { createServer, get } from "node:http";
import { dirname, join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";

const DEADLINE_MS = 20_000;
const { root, volume, mounted, config } = JSON.parse(readFileSync(process.argv[2], "utf8"));
const [uid, gid] = config.user.split(":");

assemble();
const withoutConfig = inImage([...config.entrypoint, ...config.cmd]);
mountConfig();
freeze();

let passed = 0;
const upstream = createServer((_request, response) => {
  passed += 1;
  response.end("from the upstream\n");
});
upstream.listen(9000, "127.0.0.1");
await once(upstream, "listening");

const gateway = start();
const alive = await untilHealthy();
const status = statusOf(gateway.pid);
const refused = await ask("/", {});
const passedWithout = passed;
const made = inImage([...config.entrypoint, "token", "create", "--name", "check"]);
const allowed = await ask("/", { authorization: `Bearer ${made.stdout.trim()}` });
const rootMount = mountOptions(gateway.pid, "/");
gateway.kill(config.stopSignal);
const [code] = await once(gateway, "exit");
upstream.close();

process.stdout.write(
  JSON.stringify({
    without_config: { code: withoutConfig.code, said: withoutConfig.stderr },
    health: alive,
    user: status.Uid?.split("\t")[0],
    groups: status.Groups?.trim() ?? "",
    capabilities: status.CapEff,
    no_new_privileges: status.NoNewPrivs,
    root_mount: rootMount,
    root_files: readdirSync(join(root, "usr/bin")),
    without_token: { status: refused, reached_upstream: passedWithout },
    with_token: { status: allowed, reached_upstream: passed },
    stopped_with: code,
  }),
);

/** Mounts that every engine makes: the image itself, /proc, a few devices, the volume. */
function assemble() {
  mount("--make-rprivate", "/");
  mount("--bind", root, root);
  for (const path of ["proc", "dev", dirname(config.env.GATEHOUSE_CONFIG)]) {
    mkdirSync(join(root, path), { recursive: true });
  }
  mount("-t", "proc", "proc", join(root, "proc"));
  mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", join(root, "dev"));
  for (const name of ["null", "zero", "random", "urandom"]) {
    writeFileSync(join(root, "dev", name), "");
    mount("--bind", `/dev/${name}`, join(root, "dev", name));
  }
  mount("--bind", volume, join(root, config.volumes[0]));
  execFileSync("ip", ["link", "set", "lo", "up"]);
}

function mountConfig() {
  const target = join(root, config.env.GATEHOUSE_CONFIG);
  writeFileSync(target, "");
  mount("--bind", mounted, target);
  mount("-o", "remount,bind,ro", target);
}

function freeze() {
  mount("-o", "remount,bind,ro", root);
}

function mount(...args) {
  execFileSync("mount", args, { stdio: ["ignore", "ignore", "inherit"] });
}

/** How a program of the image is started: its root, its user, its directory, its environment and nothing else. */
function command(words) {
  const user = ["--setgid", gid, "--setuid", uid];
  const place = ["--root", root, "--wd", config.workdir];
  return ["setpriv", ["--no-new-privs", "unshare", ...place, ...user, "--", ...words]];
}

function environment() {
  return { PATH: "/usr/bin:/usr/sbin:/bin:/sbin", ...config.env };
}

function inImage(words) {
  const [program, args] = command(words);
  const options = { encoding: "utf8", env: environment(), timeout: DEADLINE_MS };
  const { status, stdout, stderr } = spawnSync(program, args, options);
  return { code: status, stdout, stderr };
}

function start() {
  const [program, args] = command([...config.entrypoint, ...config.cmd]);
  return spawn(program, args, { env: environment(), stdio: ["ignore", "ignore", "inherit"] });
}

/** HEALTHCHECK, until it says yes. */
async function untilHealthy() {
  const endMs = Date.now() + DEADLINE_MS;
  for (;;) {
    const said = inImage(config.healthcheck.command);
    if (said.code === 0) return said.stdout.trim();
    if (Date.now() > endMs) fail(`not healthy: ${said.stderr}`);
    await pause(50);
  }
}

function ask(path, headers) {
  return new Promise((resolve, reject) => {
    const request = get({ host: "127.0.0.1", port: 8008, path, headers }, (response) => {
      response.resume();
      response.once("end", () => resolve(response.statusCode));
    });
    request.once("error", reject);
  });
}

/** proc(5), /proc/PID/status. The process itself: setpriv and unshare replace themselves by it. */
function statusOf(pid) {
  const lines = readFileSync(join(root, "proc", String(pid), "status"), "utf8").split("\n");
  return Object.fromEntries(lines.map((line) => line.split(/:\t?/s)));
}

/** proc(5), /proc/PID/mountinfo: the fifth field is the mount point, the sixth its options. */
function mountOptions(pid, point) {
  const lines = readFileSync(join(root, "proc", String(pid), "mountinfo"), "utf8").split("\n");
  const found = lines.map((line) => line.split(" ")).findLast((fields) => fields[4] === point);
  return found?.[5] ?? "";
}

function fail(text) {
  process.stderr.write(`${text}\n`);
  process.exit(1);
}
