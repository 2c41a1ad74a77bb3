/**
 * The compiled executable, run as an operator runs it: every whole-program test goes through here.
 *
 * Invariant: a test never meets the environment of the person who started it, and every process that was started
 * has ended when the test file is over.
 */
import { afterAll } from "bun:test";
import { existsSync } from "node:fs";
import { join } from "node:path";

const ROOT = join(import.meta.dir, "..", "..");

/** How long a command may take before it is killed, unless the test says otherwise. */
const COMMAND_MS = 15_000;

/** How long a server may take to say where it listens. */
const START_MS = 10_000;

let building: Promise<string> | null = null;

/** The executable: GATEHOUSE_BINARY, or a build of the sources as they are, made once per test run. */
export function binaryPath(): Promise<string> {
  building ??= findOrBuild();
  return building;
}

async function findOrBuild(): Promise<string> {
  const given = process.env.GATEHOUSE_BINARY;
  if (given !== undefined && given !== "") {
    if (!existsSync(given)) throw new Error(`GATEHOUSE_BINARY names ${given}, which is not there`);
    return given;
  }
  const build = Bun.spawn([process.execPath, "build.ts"], {
    cwd: ROOT,
    stdin: "ignore",
    stdout: "ignore",
    stderr: "pipe",
  });
  const said = await build.stderr.text();
  if ((await build.exited) !== 0) throw new Error(`build failed:\n${said}`);
  return join(ROOT, "dist", process.platform === "win32" ? "gatehouse.exe" : "gatehouse");
}

/** How a process is run. */
export interface RunOptions {
  /** Default: the repository. */
  readonly cwd?: string;
  /** Added to a bare environment (PATH, HOME, TMPDIR); `undefined` removes. */
  readonly env?: Readonly<Record<string, string | undefined>>;
  /** Text for standard input; default: none, it is at its end at once. */
  readonly stdin?: string;
  /** Default 15 s; then it is killed. */
  readonly timeoutMs?: number;
}

/** What a finished process left. */
export interface Finished {
  /** 128 + n when a signal ended it. */
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs the executable to its end. */
export async function runBinary(
  args: readonly string[],
  options: RunOptions = {},
): Promise<Finished> {
  const child = await spawn(args, options);
  const timer = setTimeout(() => child.kill("SIGKILL"), options.timeoutMs ?? COMMAND_MS);
  try {
    const [stdout, stderr, code] = await Promise.all([
      child.stdout.text(),
      child.stderr.text(),
      exitCode(child),
    ]);
    return { code, stdout, stderr };
  } finally {
    clearTimeout(timer);
  }
}

/** A server that said where it listens. */
export interface Running {
  /** `127.0.0.1:PORT` or `unix:/path`, the first one. */
  readonly address: string;
  /** Every address, in the order of the config. */
  readonly addresses: readonly string[];
  /** `http://127.0.0.1:PORT`; meaningless for a unix socket. */
  readonly url: string;
  readonly pid: number;
  /** Everything it wrote to standard output so far. */
  stdout(): string;
  /** Everything it wrote to standard error so far. */
  stderr(): string;
  /** Sends SIGTERM by process id and waits for the end, at most `timeoutMs` (default 10 s), then kills. */
  stop(timeoutMs?: number): Promise<Finished>;
  /** Sends one signal and does not wait. */
  signal(name: NodeJS.Signals): void;
  /** Resolves when it ends by itself or by a signal. */
  readonly ended: Promise<Finished>;
  /** SIGKILL, and waits. */
  kill(): Promise<Finished>;
}

type Child = Bun.Subprocess<"ignore" | Buffer, "pipe", "pipe">;

const alive = new Set<Child>();

afterAll(() => {
  for (const child of alive) child.kill("SIGKILL");
});

/**
 * Starts a server (`serve …`, `demo --json`) and resolves once it has said where it listens: a `server.listening`
 * event with an `address`, or the demo's object. `expected` is how many listeners to wait for, default 1.
 * Rejects with everything it said when it ends before that or takes over 10 s.
 */
export async function startBinary(
  args: readonly string[],
  options: RunOptions & { readonly expected?: number } = {},
): Promise<Running> {
  const child = await spawn(args, options);
  const said = { stdout: "", stderr: "" };
  const reading = Promise.all([collect(child, said, "stdout"), collect(child, said, "stderr")]);
  const ended = Promise.all([exitCode(child), reading]).then(([code]) => ({ code, ...said }));
  const kill = () => {
    child.kill("SIGKILL");
    return ended;
  };
  const expected = options.expected ?? 1;
  const deadline = performance.now() + START_MS;
  let addresses = addressesIn(said.stdout);
  while (addresses.length < expected) {
    const isOver = await Promise.race([ended.then(() => true), Bun.sleep(5).then(() => false)]);
    addresses = addressesIn(said.stdout);
    if (addresses.length >= expected) break;
    if (isOver || performance.now() > deadline) {
      const { code, stdout, stderr } = await kill();
      throw new Error(`not listening (exit code ${code})\n${stdout}${stderr}`);
    }
  }
  const address = addresses[0] ?? "";
  return {
    address,
    addresses,
    url: `http://${address}`,
    pid: child.pid,
    stdout: () => said.stdout,
    stderr: () => said.stderr,
    ended,
    kill,
    signal: (name) => void process.kill(child.pid, name),
    async stop(timeoutMs = 10_000) {
      if (child.exitCode === null) child.kill("SIGTERM");
      const timer = setTimeout(() => child.kill("SIGKILL"), timeoutMs);
      return ended.finally(() => clearTimeout(timer));
    },
  };
}

async function spawn(args: readonly string[], options: RunOptions): Promise<Child> {
  const { stdin } = options;
  const child: Child = Bun.spawn([await binaryPath(), ...args], {
    cwd: options.cwd ?? ROOT,
    env: environment(options.env),
    stdin: stdin === undefined ? "ignore" : Buffer.from(stdin),
    stdout: "pipe",
    stderr: "pipe",
  });
  alive.add(child);
  void child.exited.then(() => alive.delete(child));
  return child;
}

function environment(
  own: Readonly<Record<string, string | undefined>> = {},
): Record<string, string> {
  const { PATH, HOME, TMPDIR, SystemRoot } = process.env;
  const all = Object.entries({ PATH, HOME, TMPDIR, SystemRoot, ...own });
  return Object.fromEntries(
    all.filter((entry): entry is [string, string] => entry[1] !== undefined),
  );
}

async function exitCode(child: Child): Promise<number> {
  const code = await child.exited;
  return child.signalCode === null ? code : 128 + signalNumber(child.signalCode);
}

function signalNumber(name: string | number): number {
  if (typeof name === "number") return name;
  return { SIGHUP: 1, SIGINT: 2, SIGKILL: 9, SIGPIPE: 13, SIGTERM: 15 }[name] ?? 0;
}

async function collect(
  child: Child,
  said: { stdout: string; stderr: string },
  stream: "stdout" | "stderr",
): Promise<void> {
  const decoder = new TextDecoder();
  for await (const chunk of child[stream]) said[stream] += decoder.decode(chunk, { stream: true });
}

/** Addresses in the complete lines of a log. */
function addressesIn(log: string): string[] {
  return log
    .split("\n")
    .slice(0, -1)
    .map(addressIn)
    .filter((address) => address !== null);
}

function addressIn(line: string): string | null {
  if (!line.startsWith("{")) return null;
  let fields: unknown;
  try {
    fields = JSON.parse(line);
  } catch {
    return null;
  }
  if (typeof fields !== "object" || fields === null || !("address" in fields)) return null;
  const isListening = "event" in fields ? fields.event === "server.listening" : "token" in fields;
  return isListening ? String(fields.address).replace(/^http:\/\//, "") : null;
}
