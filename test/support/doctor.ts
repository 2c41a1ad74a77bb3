/**
 * `gatehouse doctor` for tests: a gateway's directory, and what the executable says about it.
 *
 * Invariant: everything goes through the executable and its `--json`; a test sees what an operator's script sees.
 */
import { chmodSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { GroupedFinding } from "../../src/cli/doctor/finding.ts";
import { binaryPath, runBinary } from "./binary.ts";
import { scratch } from "./gateway.ts";

/** What it said. */
export interface Examined {
  readonly exitCode: number;
  readonly findings: readonly GroupedFinding[];
  /** The first finding of this code; undefined when there is none. */
  find(code: string): GroupedFinding | undefined;
  /** Codes of this severity, in order. */
  codes(severity: GroupedFinding["severity"]): readonly string[];
  /** Everything on both streams. */
  readonly text: string;
  /** Of `--probe`. */
  readonly grade: string | undefined;
}

export interface ExamineOptions {
  readonly env?: Readonly<Record<string, string | undefined>>;
  readonly cwd?: string;
}

/** Runs `gatehouse doctor ARGS --json`; it is killed after 15 s, which is also its own promise. */
export async function examine(
  args: readonly string[],
  options: ExamineOptions = {},
): Promise<Examined> {
  const { code, stdout, stderr } = await runBinary(["doctor", ...args, "--json"], options);
  return examined(code, stdout, stderr);
}

/** The same from output that was had otherwise. */
export function examined(exitCode: number, stdout: string, stderr: string): Examined {
  if (!stdout.startsWith("{"))
    throw new Error(`no report (exit code ${exitCode}): ${stdout}${stderr}`);
  const said = JSON.parse(stdout) as { findings: GroupedFinding[]; grade?: string };
  const { findings, grade } = said;
  return {
    exitCode,
    findings,
    grade,
    text: `${stdout}${stderr}`,
    find: (code) => findings.find((one) => one.code === code),
    codes: (severity) =>
      findings.filter((one) => one.severity === severity).map(({ code }) => code),
  };
}

/** A directory with a configuration and an empty state directory. */
export interface Household {
  readonly dir: string;
  readonly config: string;
  readonly state: string;
  /** Writes a file with mode 0600, or another one; gives its path. */
  write(name: string, content: string | Uint8Array, mode?: number): string;
  examine(options?: ExamineOptions): Promise<Examined>;
}

/** `text` is the configuration. */
export function household(text: string): Household {
  const dir = scratch();
  const state = join(dir, "state");
  mkdirSync(state, { mode: 0o700 });
  const write = (name: string, content: string | Uint8Array, mode = 0o600): string => {
    const path = join(dir, name);
    writeFileSync(path, content);
    chmodSync(path, mode);
    return path;
  };
  const config = write("gatehouse.yaml", text);
  return {
    dir,
    config,
    state,
    write,
    examine: (options = {}) => examine(["-c", config], { cwd: dir, ...options }),
  };
}

const setpriv = Bun.which("setpriv");

/** Whether {@link examineAsNobody} is possible: as root, with setpriv. */
export const mayBecomeNobody = process.getuid?.() === 0 && setpriv !== null;

/** The doctor run by a user who owns nothing of it, but may read the configuration. */
export async function examineAsNobody({ dir, config }: Household): Promise<Examined> {
  chmodSync(dir, 0o755);
  chmodSync(config, 0o644);
  const as = ["--reuid=65534", "--regid=65534", "--clear-groups"];
  const child = Bun.spawn(
    [setpriv ?? "", ...as, await binaryPath(), "doctor", "-c", config, "--json"],
    {
      cwd: "/",
      env: { PATH: process.env.PATH ?? "", HOME: "/nonexistent" },
      stdin: "ignore",
      stdout: "pipe",
      stderr: "pipe",
    },
  );
  const [stdout, stderr] = await Promise.all([child.stdout.text(), child.stderr.text()]);
  return examined(await child.exited, stdout, stderr);
}

/** A configuration with bearer-sqlite in front of one upstream. */
export function bearerConfig(
  upstreamUrl: string,
  extra: { server?: string; strategies?: string; upstream?: string; top?: string } = {},
): string {
  return `version: 1
server:
  listen: 127.0.0.1:0
${extra.server ?? ""}
strategies:
  team: { use: bearer-sqlite }
${extra.strategies ?? ""}
upstreams:
  api:
    url: ${upstreamUrl}
${extra.upstream ?? ""}
${extra.top ?? ""}
routes:
  - { match: { path: /public/** }, access: public, upstream: api }
  - { match: { path: /** }, access: [team], upstream: api }
`;
}
