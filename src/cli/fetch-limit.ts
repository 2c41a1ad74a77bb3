/**
 * Lifts the runtime's ceiling on `fetch` calls in flight, which is 256 per process: plugins that hold calls open
 * would starve the others.
 *
 * Invariant: the process id, the standard streams and the arguments stay the same. The runtime reads the ceiling
 * from its environment before any of our code runs, so the only way is to start over inside the same process;
 * measured at 4 ms.
 */

const LIMIT = "BUN_CONFIG_MAX_HTTP_REQUESTS";

/** The most that the runtime accepts. */
const MOST = "65535";

/**
 * Replaces this process by itself with the ceiling lifted; returns when there is nothing to do (set already, not
 * the executable, a system without `execve`) or when it cannot be done, which leaves the ceiling and no other harm.
 */
export function liftFetchLimit(): void {
  if (process.env[LIMIT] !== undefined || !Bun.isStandaloneExecutable) return;
  if (process.execve === undefined || process.platform === "win32") return;
  try {
    const args = [process.execPath, ...process.argv.slice(2)];
    process.execve(process.execPath, args, { ...process.env, [LIMIT]: MOST });
  } catch {
    // For instance the file was replaced or is on a volume mounted noexec since.
  }
}
