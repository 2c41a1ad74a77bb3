/**
 * A systemd that was really booted: PID 1 in namespaces of its own, on a copy of this system that lives in memory.
 *
 * Invariant: nothing of this machine is changed. systemd is not started before the copy is its root and the machine's own
 * file systems are out of its reach; with the process that started it, all of it is gone.
 */
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { eventually } from "./raw.ts";

const SYSTEMD = "/lib/systemd/systemd";

/** $1: an empty directory; $2: the executable that appears as /usr/local/bin/gatehouse. */
const BOOT = `set -eu
mount --make-rprivate /
mount -t tmpfs tmpfs "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$1/root"
cd "$1/root"
mkdir -p usr/local/bin old
cp "$2" usr/local/bin/gatehouse
chmod 755 usr/local/bin/gatehouse
mount --rbind /dev dev
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
for place in run tmp etc/systemd/system; do mount -t tmpfs tmpfs "$place"; done
mkdir -p run/systemd/system
pivot_root . old
cd /
umount -l /old
exec env -i container=test PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin ${SYSTEMD} --system --unit=basic.target
`;

const SEARCHED = `${process.env.PATH}:/usr/sbin:/sbin`;
const TOOLS = ["unshare", "nsenter", "mount", "pivot_root", "systemctl", "ip"];
/** It takes two seconds on a machine that has other work. */
const BOOT_MS = 30_000;

/** Why there can be none, or null. */
function whyNot(): string | null {
  if (process.platform !== "linux" || process.getuid?.() !== 0) return "it takes root on Linux";
  const missing = TOOLS.filter((tool) => Bun.which(tool, { PATH: SEARCHED }) === null);
  if (!existsSync(SYSTEMD) || missing.length > 0) {
    return `no ${missing[0] ?? "systemd"}: run apt-get install systemd util-linux iproute2`;
  }
  const trial = `set -e; d=$(mktemp -d); mount -t tmpfs t $d; mkdir $d/u $d/w $d/r; mount -t overlay o -o lowerdir=/,upperdir=$d/u,workdir=$d/w $d/r; mount -t cgroup2 c $d/w/.. ; umount -l $d; umount -l $d; rmdir $d`;
  const ran = Bun.spawnSync(["unshare", "--mount", "--cgroup", "sh", "-c", trial]);
  return ran.exitCode === 0 ? null : "this process may not mount overlay file systems";
}

export interface BootedSystemd {
  /** Runs a shell command in it; what it printed, both streams, and its exit code. */
  run(command: string): Promise<{ readonly code: number; readonly text: string }>;
  /** Asks a URL in its network: the status and the body of the answer. */
  ask(url: string, token?: string): Promise<string>;
  /** Serves `text` at 127.0.0.1:PORT in its network until it is stopped. */
  serve(port: number, text: string): Promise<{ stop(): void }>;
  /** Ends all that runs in it. */
  stop(): Promise<void>;
}

/** Boots it, with `binary` installed; or says why that is not possible here. */
export async function bootSystemd(
  binary: string,
): Promise<{ readonly machine: BootedSystemd } | { readonly reason: string }> {
  const reason = whyNot();
  if (reason !== null) return { reason };
  try {
    return { machine: await boot(binary) };
  } catch (error) {
    return { reason: error instanceof Error ? error.message : String(error) };
  }
}

const ASK = `const [url, token] = process.argv.slice(-2);
const headers = token === "-" ? {} : { authorization: "Bearer " + token };
const answer = await fetch(url, { headers });
process.stdout.write(answer.status + " " + (await answer.text()));`;
const SERVE = `const [port, text] = process.argv.slice(-2);
Bun.serve({ hostname: "127.0.0.1", port: Number(port), fetch: () => new Response(text) });
process.stdout.write("up");`;

async function boot(binary: string): Promise<BootedSystemd> {
  const dir = mkdtempSync(join(tmpdir(), "gatehouse-systemd-"));
  const mountPoint = join(dir, "machine");
  mkdirSync(mountPoint);
  const script = join(dir, "boot.sh");
  writeFileSync(script, BOOT);
  const spaces = ["--mount", "--pid", "--uts", "--ipc", "--net", "--cgroup"];
  const parent = Bun.spawn(
    ["unshare", ...spaces, "--fork", "--kill-child", "sh", script, mountPoint, binary],
    { stdin: "ignore", stdout: "ignore", stderr: Bun.file(join(dir, "boot.log")) },
  );
  const stop = async (): Promise<void> => {
    parent.kill("SIGKILL");
    await parent.exited;
    rmSync(dir, { recursive: true, force: true });
  };
  try {
    return await booted(parent, { dir, stop });
  } catch (error) {
    await stop();
    throw error;
  }
}

async function booted(
  parent: Bun.Subprocess,
  { dir, stop }: { readonly dir: string; readonly stop: BootedSystemd["stop"] },
): Promise<BootedSystemd> {
  const said = (): string => readFileSync(join(dir, "boot.log"), "utf8");
  const child = (): string =>
    readFileSync(`/proc/${parent.pid}/task/${parent.pid}/children`, "utf8").trim();
  const isSystemd = (): boolean => {
    if (parent.exitCode !== null) throw new Error(`not booted: ${said()}`);
    const pid = child();
    return pid !== "" && readFileSync(`/proc/${pid}/comm`, "utf8") === "systemd\n";
  };
  await eventually("systemd is started", isSystemd, BOOT_MS);
  const pid = child();
  const run = async (command: string) => {
    const inside = Bun.spawn(["nsenter", "-t", pid, "-a", "sh", "-c", `exec 2>&1\n${command}`], {
      cwd: "/",
      env: { PATH: SEARCHED, HOME: "/root" },
      stdin: "ignore",
      stdout: "pipe",
      stderr: "ignore",
    });
    const text = await inside.stdout.text();
    return { code: await inside.exited, text };
  };
  for (const endMs = performance.now() + BOOT_MS; ; ) {
    const { text } = await run("systemctl is-system-running --wait");
    if (/^(running|degraded)$/m.test(text)) break;
    if (performance.now() > endMs) throw new Error(`not booted: ${text}${said()}`);
  }
  await run("ip link set lo up");
  const script = (text: string, ...args: readonly string[]) =>
    Bun.spawn(["nsenter", "-t", pid, "-n", process.execPath, "-e", text, ...args], {
      stdin: "ignore",
      stdout: "pipe",
      stderr: "ignore",
    });
  return {
    run,
    ask: (url, token = "-") => script(ASK, url, token).stdout.text(),
    async serve(port, text) {
      const server = script(SERVE, String(port), text);
      // Its first word: it listens.
      await server.stdout.getReader().read();
      return { stop: () => server.kill() };
    },
    stop,
  };
}
