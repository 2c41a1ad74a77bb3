/**
 * Who listens where on this machine, as the Linux kernel says it in /proc/net/tcp and tcp6.
 *
 * Invariant: only looks. Where there is no such file the answer is null, and which process it is remains unknown when
 * that may not be seen.
 */
import { readdirSync, readFileSync, readlinkSync } from "node:fs";
import { isIP } from "node:net";
import { networkInterfaces } from "node:os";

/** A socket that accepts connections. */
export interface Listener {
  /** `0.0.0.0`, `127.0.0.1`, `::`, `fd00::2`. */
  readonly address: string;
  readonly port: number;
  /** Number of the socket, by which its process is found. */
  readonly inode: string;
}

/** A process, as far as it may be seen. */
export interface OwnerProcess {
  readonly pid: number;
  /** Short name, at most 15 characters. */
  readonly name: string;
  /** Words of its command line; empty when it may not be seen. */
  readonly argv: readonly string[];
}

const LISTENING = "0A";

/** Every listening TCP socket of this network namespace; null where the kernel does not say. */
export function listeners(): readonly Listener[] | null {
  const four = textOf("/proc/net/tcp");
  if (four === null) return null;
  return [...parseListeners(four), ...parseListeners(textOf("/proc/net/tcp6") ?? "")];
}

/** The listening sockets in a text of the form of /proc/net/tcp or tcp6 (proc_pid_net(5)). */
export function parseListeners(text: string): readonly Listener[] {
  return text.split("\n").flatMap((line) => {
    const [, local = "", , state, , , , , , inode = ""] = line.trim().split(/\s+/);
    const [hex = "", port = ""] = local.split(":");
    if (state !== LISTENING || !/^(?:[0-9A-F]{8}|[0-9A-F]{32})$/.test(hex)) return [];
    return [{ address: addressOf(hex), port: Number.parseInt(port, 16), inode }];
  });
}

/** Words of 32 bits in the byte order of the machine, which is little-endian wherever this runs. */
function addressOf(hex: string): string {
  const bytes = Buffer.from(hex, "hex");
  for (let at = 0; at < bytes.length; at += 4) bytes.subarray(at, at + 4).reverse();
  if (bytes.length === 4) return bytes.join(".");
  const isMapped =
    bytes.subarray(0, 10).every((byte) => byte === 0) && bytes.readUInt16BE(10) === 0xffff;
  if (isMapped) return bytes.subarray(12).join(".");
  const groups = Array.from({ length: 8 }, (_, at) => bytes.readUInt16BE(at * 2).toString(16));
  return canonicalAddress(groups.join(":"));
}

/** One spelling for each IP address; what is none stays as it is. */
export function canonicalAddress(text: string): string {
  const address = text.split("%")[0]?.toLowerCase() ?? "";
  if (isIP(address) !== 6) return address;
  return new URL(`http://[${address}]`).hostname.slice(1, -1);
}

/** The process that holds a socket; null when it may not be seen. */
export function ownerOf(inode: string): OwnerProcess | null {
  const wanted = `socket:[${inode}]`;
  const pids = namesIn("/proc").filter((name) => /^\d+$/.test(name));
  const pid = pids.find((one) =>
    namesIn(`/proc/${one}/fd`).some((fd) => linkOf(`/proc/${one}/fd/${fd}`) === wanted),
  );
  if (pid === undefined) return null;
  return {
    pid: Number(pid),
    name: (textOf(`/proc/${pid}/comm`) ?? "").trim(),
    argv: (textOf(`/proc/${pid}/cmdline`) ?? "").split("\0").filter((word) => word !== ""),
  };
}

/** Addresses of the interfaces of this machine, without zone. */
export function ownAddresses(): ReadonlySet<string> {
  const all = Object.values(networkInterfaces()).flatMap((one) => one ?? []);
  return new Set(all.map(({ address }) => canonicalAddress(address)));
}

/** A file's text, or null. */
export function textOf(path: string): string | null {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return null;
  }
}

function namesIn(path: string): readonly string[] {
  try {
    return readdirSync(path);
  } catch {
    return [];
  }
}

function linkOf(path: string): string {
  try {
    return readlinkSync(path);
  } catch {
    return "";
  }
}
