/**
 * What every benchmark needs: a place of its own, free ports, processes, their CPU time and memory, and numbers.
 *
 * Invariant: whatever was started here is stopped by its own process id, and the directory is removed, also when a
 * benchmark fails or is interrupted.
 */
import {
  accessSync,
  chmodSync,
  constants,
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
} from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";

const ROOT = join(import.meta.dir, "..");
/** Until a process that was started must accept connections, or after SIGTERM must be gone. */
const PATIENCE_MS = 15_000;

/** Where a run happens. */
export interface Lab {
  readonly directory: string;
  /** A copy of dist/gatehouse (or of what `GATEHOUSE_BENCH_BINARY` names), so that a build in the middle of a run changes nothing. */
  readonly gatehouse: string;
  /** A fresh directory inside. */
  makeDirectory(name: string): string;
  /** Stops everything that still runs and removes the directory. */
  close(): Promise<void>;
}

/** A started process. */
export interface Service {
  readonly name: string;
  readonly pid: number;
  stop(): Promise<void>;
}

export interface ServiceOptions {
  readonly env?: Readonly<Record<string, string>>;
  readonly cwd?: string;
  /** File that takes standard output. Default: nowhere. */
  readonly stdout?: string;
}

const running = new Set<Service>();
const platformProcesses = "/proc";

/** CPU time and memory of other processes can be read. */
export const canReadProcesses = process.platform === "linux";

export function openLab(): Lab {
  const file = process.platform === "win32" ? "gatehouse.exe" : "gatehouse";
  const built = process.env.GATEHOUSE_BENCH_BINARY ?? join(ROOT, "dist", file);
  try {
    accessSync(built, constants.X_OK);
  } catch {
    throw new Error(`${built} is missing; run: npm run build`);
  }
  const directory = mkdtempSync(join(tmpdir(), "gatehouse-bench-"));
  // A server that drops its privileges must reach its own directory.
  chmodSync(directory, 0o755);
  const gatehouse = join(directory, "gatehouse");
  copyFileSync(built, gatehouse, constants.COPYFILE_FICLONE);
  chmodSync(gatehouse, 0o755);
  let count = 0;
  const lab = {
    directory,
    gatehouse,
    makeDirectory(name: string): string {
      count += 1;
      const path = join(directory, `${count}-${name}`);
      mkdirSync(path);
      return path;
    },
    async close(): Promise<void> {
      await Promise.all([...running].map((service) => service.stop()));
      rmSync(directory, { recursive: true, force: true });
    },
  };
  // The last resort, when nobody came to close.
  process.once("exit", () => {
    for (const { pid } of running) tryKill(pid);
    rmSync(directory, { recursive: true, force: true });
  });
  for (const signal of ["SIGINT", "SIGTERM"] as const) {
    process.once(signal, () => void lab.close().finally(() => process.exit(1)));
  }
  return lab;
}

function tryKill(pid: number): void {
  try {
    process.kill(pid);
  } catch {
    // It ended by itself.
  }
}

/** Path of an installed program, or `null`. Servers may live in a directory that is not searched. */
export function installed(name: string): string | null {
  const PATH = `${process.env.PATH ?? ""}:/usr/sbin:/usr/local/sbin:/sbin:/opt/homebrew/bin`;
  return Bun.which(name, { PATH });
}

/** A port of 127.0.0.1 that nobody listens on at this moment. */
export function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once("error", reject);
    server.listen(0, "127.0.0.1", () => {
      const address = server.address();
      const port = typeof address === "object" && address !== null ? address.port : 0;
      server.close(() => resolve(port));
    });
  });
}

/** Starts a process. Its standard error goes to a file and is shown when it ends by itself. */
export function startService(
  lab: Lab,
  name: string,
  command: readonly string[],
  options: ServiceOptions = {},
): Service {
  const errors = join(lab.directory, `${name.replaceAll(/[^a-z0-9]+/gi, "-")}.stderr`);
  const child = Bun.spawn([...command], {
    cwd: options.cwd ?? lab.directory,
    env: { ...process.env, ...options.env },
    stdin: "ignore",
    stdout: options.stdout === undefined ? "ignore" : Bun.file(options.stdout),
    stderr: Bun.file(errors),
  });
  let isStopping = false;
  const service: Service = {
    name,
    pid: child.pid,
    async stop() {
      isStopping = true;
      child.kill("SIGTERM");
      const timer = setTimeout(() => child.kill("SIGKILL"), PATIENCE_MS);
      await child.exited;
      clearTimeout(timer);
      running.delete(service);
    },
  };
  running.add(service);
  void child.exited.then((code) => {
    running.delete(service);
    if (isStopping) return;
    console.error(`${name} ended with ${code}: ${readFileSync(errors, "utf8").slice(0, 2000)}`);
  });
  return service;
}

/** Another file of this directory, run by the same Bun. */
export function startScript(
  lab: Lab,
  file: string,
  env: Readonly<Record<string, string>>,
): Service {
  return startService(lab, file, [process.execPath, join(import.meta.dir, file)], { env });
}

/** Resolves when somebody accepts connections on the port. */
export async function listening(port: number, service: Service): Promise<void> {
  const endMs = performance.now() + PATIENCE_MS;
  while (performance.now() < endMs && running.has(service)) {
    if (await accepts(port)) return;
    await Bun.sleep(10);
  }
  throw new Error(`${service.name} does not listen on port ${port}`);
}

async function accepts(port: number): Promise<boolean> {
  try {
    const socket = await Bun.connect({ hostname: "127.0.0.1", port, socket: { data() {} } });
    socket.end();
    return true;
  } catch {
    return false;
  }
}

/** The process and all that descend from it. */
export function processTree(pid: number): number[] {
  const parents = new Map<number, number>();
  for (const name of readdirSync(platformProcesses)) {
    if (!/^\d+$/.test(name)) continue;
    const stat = statOf(Number(name));
    if (stat !== null) parents.set(Number(name), Number(stat[1]));
  }
  const tree = [pid];
  for (const parent of tree) {
    for (const [child, its] of parents) if (its === parent) tree.push(child);
  }
  return tree;
}

const tickMs = canReadProcesses ? 1000 / clockTicks() : Number.NaN;

function clockTicks(): number {
  try {
    return Number(Bun.spawnSync(["getconf", "CLK_TCK"]).stdout.toString()) || 100;
  } catch {
    return 100;
  }
}

/** CPU time that the processes have used so far: user and system, all threads, those that ended too. */
export function cpuMs(pids: readonly number[]): number {
  let ticks = 0;
  for (const pid of pids) {
    const stat = statOf(pid);
    if (stat === null) throw new Error(`process ${pid} is gone`);
    ticks += Number(stat[11]) + Number(stat[12]);
  }
  return ticks * tickMs;
}

/** Fields of /proc/PID/stat from the third (the state) on, because the second may hold spaces. */
function statOf(pid: number): string[] | null {
  try {
    const text = readFileSync(join(platformProcesses, String(pid), "stat"), "latin1");
    return text.slice(text.lastIndexOf(")") + 2).split(" ");
  } catch {
    return null;
  }
}

/** Resident memory in MB (10^6 bytes) now, of which not backed by a file, and at its highest. */
export interface Memory {
  readonly residentMb: number;
  readonly anonymousMb: number;
  readonly peakMb: number;
}

export function memoryOf(pids: readonly number[]): Memory {
  const sum = { residentMb: 0, anonymousMb: 0, peakMb: 0 };
  for (const pid of pids) {
    const text = readFileSync(join(platformProcesses, String(pid), "status"), "latin1");
    const read = (key: string) =>
      (Number(new RegExp(`^${key}:\\s+(\\d+) kB`, "m").exec(text)?.[1] ?? 0) * 1024) / 1e6;
    sum.residentMb += read("VmRSS");
    sum.anonymousMb += read("RssAnon");
    sum.peakMb += read("VmHWM");
  }
  return sum;
}

/** Linear between neighbours. */
export function quantile(values: ArrayLike<number>, share: number): number {
  const sorted = Float64Array.from(values).sort();
  const at = (sorted.length - 1) * share;
  const low = sorted[Math.floor(at)] ?? Number.NaN;
  const high = sorted[Math.ceil(at)] ?? Number.NaN;
  return low + (high - low) * (at - Math.floor(at));
}

export function median(values: ArrayLike<number>): number {
  return quantile(values, 0.5);
}

/** `12.3 (11.0-14.2)`: median, lowest and highest. */
export function spread(values: readonly number[], digits: number): string {
  const [low, high] = [Math.min(...values), Math.max(...values)];
  return `${median(values).toFixed(digits)} (${low.toFixed(digits)}-${high.toFixed(digits)})`;
}

/** Ratios of the same round, because what slows the machine down slows neighbours alike. */
export function ratios(of: readonly number[], to: readonly number[]): number[] {
  return of.map((value, index) => value / (to[index] ?? Number.NaN));
}

/** A Markdown table, so that it can be pasted; the first column is text, the others are numbers. */
export function printTable(head: readonly string[], rows: readonly (readonly string[])[]): void {
  const widths = head.map((cell, column) =>
    Math.max(cell.length, ...rows.map((row) => row[column]?.length ?? 0)),
  );
  const line = (cells: readonly string[]) =>
    `| ${widths.map((width, column) => pad(cells[column] ?? "", width, column)).join(" | ")} |`;
  console.log(line(head));
  console.log(
    `|${widths.map((width, column) => (column === 0 ? "-".repeat(width + 2) : `${"-".repeat(width + 1)}:`)).join("|")}|`,
  );
  for (const row of rows) console.log(line(row));
  console.log("");
}

function pad(cell: string, width: number, column: number): string {
  return column === 0 ? cell.padEnd(width) : cell.padStart(width);
}

/** The line of a target. `measured` is `null` when its peer is missing. */
export function printTarget(what: string, limit: number, measured: number | null, unit = ""): void {
  if (measured === null) {
    console.log(`target ${what} <= ${limit}${unit}: not measured, its peer is not installed`);
    return;
  }
  const verdict = measured <= limit ? "met" : "missed";
  console.log(
    `target ${what} <= ${limit}${unit}: measured ${measured.toFixed(2)}${unit}: ${verdict}`,
  );
}
