/**
 * Other programs of the machine: systemctl, journalctl, id, setpriv.
 *
 * Invariant: arguments are a list, never a line for a shell; the environment is bounded; nothing runs without a
 * deadline, and what a program said on standard error is part of our error.
 */
import { EXIT, type ExitCode, OperatorError } from "../../errors.ts";
import type { CliContext } from "../context.ts";

/** What a program left. */
export interface Ran {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Where programs are looked for and what they see. */
export type ProgramContext = Pick<CliContext, "env">;

/** What a program needs to find the user's own manager. */
const PASSED = ["PATH", "HOME", "USER", "LOGNAME", "XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS"];
const DEADLINE_MS = 30_000;

/** Runs `argv[0]`, found in PATH; null when there is no such program. */
export async function run(
  { env }: ProgramContext,
  argv: readonly [string, ...string[]],
  deadlineMs: number = DEADLINE_MS,
): Promise<Ran | null> {
  const program = Bun.which(argv[0], { PATH: env.PATH ?? "/usr/sbin:/usr/bin:/sbin:/bin" });
  if (program === null) return null;
  const child = Bun.spawn([program, ...argv.slice(1)], {
    env: bounded(env),
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
  });
  let isLate = false;
  const timer = setTimeout(() => {
    isLate = true;
    child.kill("SIGKILL");
  }, deadlineMs);
  try {
    const [stdout, stderr, code] = await Promise.all([
      child.stdout.text(),
      child.stderr.text(),
      child.exited,
    ]);
    const late = isLate ? `no answer within ${deadlineMs / 1000} s\n` : "";
    return { code: isLate ? 124 : code, stdout, stderr: `${stderr}${late}` };
  } finally {
    clearTimeout(timer);
  }
}

/** The error for a program that is missing or failed, with what it said. */
export function programError(
  argv: readonly string[],
  ran: Ran | null,
  exitCode: ExitCode = EXIT.failure,
): OperatorError {
  const command = argv.join(" ");
  if (ran === null) return new OperatorError(EXIT.unavailable, `there is no ${argv[0]} here`);
  const said = (ran.stderr.trim() || ran.stdout.trim()).split("\n").slice(0, 12).join("\n  ");
  return new OperatorError(
    exitCode,
    `${command} failed with ${ran.code}${said === "" ? "" : `:\n  ${said}`}`,
  );
}

function bounded(env: ProgramContext["env"]): Record<string, string> {
  const passed = PASSED.flatMap((name) => {
    const value = env[name];
    return value === undefined ? [] : [[name, value]];
  });
  return {
    ...Object.fromEntries(passed),
    LC_ALL: "C.UTF-8",
    SYSTEMD_PAGER: "",
    SYSTEMD_COLORS: "0",
  };
}
