/**
 * Room: space and kind of the disk with the state, and how many descriptors the gateway may open.
 *
 * Invariant: only looks.
 */
import { accessSync, constants, existsSync, realpathSync, statfsSync } from "node:fs";
import { dirname } from "node:path";
import { errorCode } from "../../errors.ts";
import { error, type Finding, info, ok, warning } from "./finding.ts";
import { textOf } from "./proc-net.ts";
import { runningPid } from "./running.ts";
import { needingConfig } from "./subject.ts";

const MEBIBYTE = 1_048_576;
/** Less is gone with the next package update. */
const LITTLE_BYTES = 1024 * MEBIBYTE;
/** The write-ahead log alone may take 64 MiB. */
const NO_BYTES = 100 * MEBIBYTE;
const FEW_INODES = 1000;
/** SQLite's locks and its log are not sure there. */
const NETWORK =
  /^(?:nfs\d?|cifs|smb\d?|smbfs|9p|afs|ceph|glusterfs|fuse\.(?:sshfs|glusterfs|s3fs|rclone))$/;
const FLEETING = /^(?:tmpfs|ramfs)$/;
/** Files that are no connections. */
const OWN_DESCRIPTORS = 100;

export const checkDisk = needingConfig("Room", "the disk", ({ stateDir }) => {
  const place = existing(stateDir);
  const { bavail, bsize, files, ffree } = statfsSync(place);
  return [
    spaceFinding(place, bavail * bsize),
    ...inodeFindings(place, files, ffree),
    ...kindFindings(place, fileSystemOf(place)),
    ...writableFindings(place),
  ];
});

export const checkDescriptors = needingConfig(
  "Room",
  "the descriptor limit",
  async ({ server }, subject) => {
    const pid = await runningPid(subject);
    const limit = openFiles(pid === null ? "self" : String(pid));
    if (limit === null) return [];
    const { maxConnections } = server.limits;
    // Each request in flight has a connection of its client and one to its upstream.
    const wanted = 2 * maxConnections + OWN_DESCRIPTORS;
    const whose =
      pid === null ? "a gateway started from this shell" : `the running gateway (process ${pid})`;
    if (limit >= wanted) return [ok("descriptors", `${whose} may open ${limit} files`)];
    const what = `${whose} may open ${limit} files, and ${maxConnections} connections need up to ${wanted}`;
    if (limit >= maxConnections + OWN_DESCRIPTORS) return [info("descriptors_few", what)];
    return [
      warning("descriptors_few", what, {
        why: "When they are used up, new connections are refused and commands fail.",
        next: "`gatehouse service install` sets LimitNOFILE; in a shell `ulimit -n 65535`; or lower `server.limits.connections`",
      }),
    ];
  },
);

function spaceFinding(place: string, bytes: number): Finding {
  const free = `${Math.floor(bytes / MEBIBYTE)} MiB are free for ${place}`;
  if (bytes >= LITTLE_BYTES) return ok("disk_space", free);
  const advice = {
    why: "On a full disk tokens cannot be made or ended; those that there are go on working.",
    next: `make room: \`df -h ${place}\`, \`du -xh ${place} | sort -h | tail\``,
  };
  return bytes < NO_BYTES
    ? error("disk_full", `only ${free}`, advice)
    : warning("disk_full", `only ${free}`, advice);
}

/** Some file systems have no fixed number and say 0. */
function inodeFindings(place: string, all: number, free: number): readonly Finding[] {
  if (all === 0 || free >= FEW_INODES) return [];
  return [
    error("disk_inodes", `only ${free} more files can be made where ${place} is`, {
      why: "The database needs files beside it; without them it cannot be written.",
      next: "find the directory with too many files: `du --inodes -x / | sort -n | tail`",
    }),
  ];
}

/** @param kind as the kernel names file systems; null where it does not say */
export function kindFindings(place: string, kind: string | null): readonly Finding[] {
  if (kind === null) return [];
  if (NETWORK.test(kind)) {
    return [
      error("disk_network", `${place} is on a network file system (${kind})`, {
        why: "SQLite's locks do not hold there: the database can be damaged, and an ended token come back.",
        next: "set `state_dir` to a local disk; for several machines see `shared` in the configuration",
      }),
    ];
  }
  if (!FLEETING.test(kind)) return [];
  return [
    warning("disk_fleeting", `${place} is in memory (${kind})`, {
      why: "Tokens and keys are gone with the next start of the machine.",
      next: "set `state_dir` to a disk, for instance /var/lib/gatehouse",
    }),
  ];
}

function writableFindings(place: string): readonly Finding[] {
  try {
    accessSync(place, constants.W_OK);
    return [];
  } catch (problem) {
    if (errorCode(problem) !== "EROFS") return [];
    return [
      error("disk_read_only", `${place} is on a file system that is mounted read-only`, {
        why: "No token can be made or ended, and the first start fails.",
        next: "see why: `dmesg | tail`, `findmnt --target` with that path; then mount it for writing",
      }),
    ];
  }
}

/** The directory, or what it would be made in. */
function existing(path: string): string {
  return existsSync(path) || path === dirname(path) ? path : existing(dirname(path));
}

/** Kind of the file system that a path is on; null where /proc does not say. */
function fileSystemOf(path: string): string | null {
  const real = realpathSync(path);
  const mounts = (textOf("/proc/self/mounts") ?? "").split("\n").flatMap((line) => {
    const [, at = "", kind = ""] = line.split(" ");
    const place = at.replaceAll(/\\(\d{3})/g, (_, octal: string) =>
      String.fromCharCode(Number.parseInt(octal, 8)),
    );
    const isAbove = place === "/" || real === place || real.startsWith(`${place}/`);
    return isAbove && kind !== "" ? [{ place, kind }] : [];
  });
  // Of two mounts on one place the later one is seen.
  const [nearest] = mounts.toReversed().toSorted((a, b) => b.place.length - a.place.length);
  return nearest?.kind ?? null;
}

/** The hard limit: the runtime raises its own to it. Null when it is not said. */
function openFiles(process: string): number | null {
  const line = /^Max open files\s+\S+\s+(\S+)/m.exec(textOf(`/proc/${process}/limits`) ?? "")?.[1];
  if (line === "unlimited") return Number.POSITIVE_INFINITY;
  return line === undefined ? null : Number(line);
}
