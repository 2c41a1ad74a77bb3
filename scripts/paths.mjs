/**
 * Where things are, and how a child process is run. Plain Node, no dependencies: these scripts run before
 * anything is installed.
 *
 * Invariant: every path is derived from this file's place, never from the working directory.
 */
import { spawn } from "node:child_process";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

/** The repository. */
export const root = dirname(dirname(fileURLToPath(import.meta.url)));

/** The executable for this machine. */
export const hostBinary = join(
  root,
  "dist",
  process.platform === "win32" ? "gatehouse.exe" : "gatehouse",
);

/** 128 + signal number, as shells count. */
const SIGNAL_EXIT = { SIGHUP: 129, SIGINT: 130, SIGKILL: 137, SIGTERM: 143 };

/**
 * Runs a command in the repository, without standard input.
 *
 * `onOutput` gets both streams as text, in the order they arrive; without it they are inherited. `timeoutMs`
 * kills the child. Resolves to the exit code (128 + n after a signal, 124 after the timeout, 127 when it
 * cannot be started); never rejects.
 */
export function run(command, args, { env = process.env, onOutput, timeoutMs } = {}) {
  return new Promise((resolve) => {
    const stdio =
      onOutput === undefined ? ["ignore", "inherit", "inherit"] : ["ignore", "pipe", "pipe"];
    const child = spawn(command, args, { cwd: root, env, stdio, windowsHide: true });
    let timedOut = false;
    const timer =
      timeoutMs === undefined
        ? undefined
        : setTimeout(() => {
            timedOut = true;
            child.kill("SIGKILL");
          }, timeoutMs);
    child.stdout?.setEncoding("utf8").on("data", onOutput);
    child.stderr?.setEncoding("utf8").on("data", onOutput);
    child.once("error", (error) => {
      clearTimeout(timer);
      onOutput?.(`${error.message}\n`);
      resolve(127);
    });
    child.once("close", (code, signal) => {
      clearTimeout(timer);
      resolve(timedOut ? 124 : exitCodeOf(code, signal));
    });
  });
}

/** What a shell would report for an ended child. */
export function exitCodeOf(code, signal) {
  return code ?? SIGNAL_EXIT[signal] ?? 1;
}
