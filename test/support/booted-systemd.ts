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
/** Of a loaded machine with two cores. */
const BOOT_MS = 60_000;

/** Why there is none, or null. */
export const NO_BOOTED_SYSTEMD: string | null = whyNot();

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
  /** Runs a program of this machine in its network until it is killed. */
  inNetwork(...command: string[]): Bun.Subprocess;
  /** Ends all that runs in it. */
  stop(): Promise<void>;
}

/** Boots it, with `binary` installed. */
export async function bootSystemd(binary: string): Promise<BootedSystemd> {
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
  const inNetwork = (...command: string[]): Bun.Subprocess =>
    Bun.spawn(["nsenter", "-t", pid, "-n", ...command], {
      stdin: "ignore",
      stdout: "ignore",
      stderr: "ignore",
    });
  return { run, inNetwork, stop };
}
