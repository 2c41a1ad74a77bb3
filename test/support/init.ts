/**
 * `gatehouse init` in tests: a place of its own, what lies in it before and after, and its run with and without a
 * terminal.
 *
 * Invariant: nothing outside of the place is written; the environment holds what the test says and nothing else.
 */
import { createHash } from "node:crypto";
import {
  chmodSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  realpathSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join, relative } from "node:path";
import { binaryPath, type Finished, runBinary } from "./binary.ts";
import { TerminalProgram } from "./terminal.ts";

/** An empty home with everything that init would look at. */
export interface InitPlace {
  readonly home: string;
  /** Where `--dir` points; not there yet. */
  readonly dir: string;
  readonly env: Readonly<Record<string, string>>;
  /** Every path with its kind, mode and content, in order. */
  tree(): readonly string[];
  write(path: string, text: string, mode?: number): string;
  /** Programs by name, in front of PATH. */
  program(name: string, text: string): void;
  remove(): void;
}

/** Makes one. */
export function initPlace(): InitPlace {
  const home = realpathSync(mkdtempSync(join(tmpdir(), "gatehouse-init-")));
  const bin = join(home, "bin");
  mkdirSync(bin);
  return {
    home,
    dir: join(home, "gate"),
    env: {
      HOME: home,
      XDG_CONFIG_HOME: join(home, "config"),
      XDG_STATE_HOME: join(home, "state"),
      PATH: `${bin}:${process.env.PATH ?? ""}`,
    },
    tree: () => treeOf(home),
    write(path, text, mode = 0o600) {
      const at = join(home, path);
      mkdirSync(join(at, ".."), { recursive: true });
      writeFileSync(at, text, { mode });
      return at;
    },
    program(name, text) {
      writeFileSync(join(bin, name), text);
      chmodSync(join(bin, name), 0o755);
    },
    remove: () => rmSync(home, { recursive: true, force: true }),
  };
}

/** Every path below a directory with kind, mode and content. */
export function treeOf(root: string): readonly string[] {
  return readdirSync(root, { recursive: true, withFileTypes: true })
    .map((entry) => join(entry.parentPath, entry.name))
    .sort()
    .map((path) => {
      const status = lstatSync(path);
      const mode = (status.mode & 0o777).toString(8);
      const what = status.isSymbolicLink()
        ? `-> ${readlinkSync(path)}`
        : status.isDirectory()
          ? "/"
          : status.isSocket()
            ? "socket"
            : createHash("sha256").update(readFileSync(path)).digest("hex").slice(0, 16);
      return `${relative(root, path)} ${mode} ${what}`;
    });
}

/** Without a terminal, and without a service unless the test asks for one. */
export async function runInit(place: InitPlace, ...args: readonly string[]): Promise<Finished> {
  return runBinary(["init", ...args], { cwd: place.home, env: place.env });
}

/** As a user who is not root; null when this process is none either and cannot become one. */
export async function runInitAsUser(
  place: InitPlace,
  ...args: readonly string[]
): Promise<Finished | null> {
  if (process.geteuid?.() !== 0) return runInit(place, ...args);
  if (Bun.which("setpriv") === null) return null;
  Bun.spawnSync(["chown", "-R", `${NOBODY}:${NOBODY}`, place.home]);
  return finished(
    Bun.spawn(
      [
        ...["setpriv", `--reuid=${NOBODY}`, `--regid=${NOBODY}`, "--clear-groups", "--"],
        ...[await binaryPath(), "init", ...args],
      ],
      { cwd: place.home, env: { ...place.env }, stdin: "ignore", stdout: "pipe", stderr: "pipe" },
    ),
  );
}

/** Nobody's number, wherever it was seen. */
const NOBODY = 65_534;

async function finished(child: Bun.Subprocess<"ignore", "pipe", "pipe">): Promise<Finished> {
  const [stdout, stderr, code] = await Promise.all([
    child.stdout.text(),
    child.stderr.text(),
    child.exited,
  ]);
  return { code, stdout, stderr };
}

/** Why there is no machine of one's own for a test, or null. */
export const NO_OWN_MACHINE =
  process.geteuid?.() === 0 &&
  Bun.which("unshare") !== null &&
  Bun.spawnSync(["unshare", "-m", "mount", "-t", "tmpfs", "tmpfs", "/run"]).exitCode === 0
    ? null
    : "this process may not mount";

/**
 * A shell script as root, with /etc, /var/lib, /run and /usr/local/bin of its own: copies and empty directories in the
 * place, so that what is written there can be looked at afterwards. `gatehouse` is there, and so are the place's
 * programs, as on a machine that was started with systemd.
 */
export async function onOwnMachine(place: InitPlace, script: string): Promise<Finished> {
  const root = join(place.home, "machine");
  if (!existsSync(root)) {
    for (const dir of ["var-lib", "local-bin"]) mkdirSync(join(root, dir), { recursive: true });
    Bun.spawnSync(["cp", "-a", "/etc", join(root, "etc")]);
    writeFileSync(join(root, "local-bin/gatehouse"), "");
  }
  const mounts = `set -e
mount --make-rprivate / 2>/dev/null || true
mount --bind '${root}/etc' /etc
mount --bind '${root}/var-lib' /var/lib
mount --bind '${root}/local-bin' /usr/local/bin
mount --bind '${await binaryPath()}' /usr/local/bin/gatehouse
mount -t tmpfs tmpfs /run
mkdir -p /run/systemd/system
set +e
`;
  return finished(
    Bun.spawn(["unshare", "-m", "sh", "-c", mounts + script], {
      cwd: place.home,
      env: { ...place.env },
      stdin: "ignore",
      stdout: "pipe",
      stderr: "pipe",
    }),
  );
}

/** What `--json` printed. */
export interface InitAnswer {
  readonly config: string;
  readonly token: string | null;
  readonly id: string | null;
  readonly start: string;
  readonly url: string;
  readonly grade: string;
  readonly checks: readonly {
    readonly code: string;
    readonly severity: string;
    readonly what: string;
    readonly next: string | null;
  }[];
  readonly notes: readonly string[];
  readonly changed?: boolean;
  readonly diff?: readonly string[];
  readonly backup?: string | null;
  readonly undo: string;
}

/** Runs `init --yes --json` in the place's directory; it must succeed and print one object and nothing else. */
export async function initJson(place: InitPlace, ...args: readonly string[]): Promise<InitAnswer> {
  const { code, stdout, stderr } = await runInit(
    place,
    "--yes",
    "--json",
    "--no-service",
    "--dir",
    place.dir,
    ...args,
  );
  if (code !== 0 || stderr !== "") throw new Error(`exit ${code}\n${stdout}${stderr}`);
  return JSON.parse(stdout) as InitAnswer;
}

/** In a terminal. */
export async function initTerminal(
  place: InitPlace,
  args: readonly string[],
  options: { readonly columns?: number; readonly env?: Readonly<Record<string, string>> } = {},
): Promise<TerminalProgram> {
  const { columns, env } = options;
  return new TerminalProgram([await binaryPath(), "init", ...args], {
    cwd: place.home,
    env: { ...place.env, ...env },
    ...(columns === undefined ? {} : { columns }),
  });
}

/** A port that is free now. */
export async function freePort(): Promise<number> {
  const server = createServer();
  const { promise, resolve } = Promise.withResolvers<void>();
  server.listen(0, "127.0.0.1", resolve);
  await promise;
  const address = server.address();
  await new Promise((done) => server.close(done));
  if (address === null || typeof address === "string") throw new Error("no port");
  return address.port;
}

/** Codes of what was checked. */
export function codesOf({ checks }: Pick<InitAnswer, "checks">): readonly string[] {
  return checks.map(({ code }) => code);
}
