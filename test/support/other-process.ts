/**
 * Runs a piece of code in a process of its own, for tests of what processes do to each other's files.
 *
 * Invariant: it has ended when the function returns; what it prints is the answer.
 */
import { join } from "node:path";

const ROOT = join(import.meta.dir, "../..");

/** Runs `code` (a module; `args` are `Bun.argv.slice(1)`) from the repository's root and returns what it printed. */
export function inOtherProcess(code: string, ...args: readonly string[]): string {
  const { exitCode, stdout, stderr } = Bun.spawnSync([process.execPath, "-e", code, ...args], {
    cwd: ROOT,
    stdout: "pipe",
    stderr: "pipe",
  });
  if (exitCode !== 0) throw new Error(`the other process ended with ${exitCode}: ${stderr}`);
  return stdout.toString().trim();
}

/** Starts the same code `count` times at once and returns what each printed. */
export async function inOtherProcesses(
  count: number,
  code: string,
  ...args: readonly string[]
): Promise<readonly string[]> {
  const started = Array.from({ length: count }, () =>
    Bun.spawn([process.execPath, "-e", code, ...args], {
      cwd: ROOT,
      stdout: "pipe",
      stderr: "pipe",
    }),
  );
  return Promise.all(
    started.map(async (child) => {
      const [out, err] = await Promise.all([child.stdout.text(), child.stderr.text()]);
      if ((await child.exited) !== 0) throw new Error(`the other process failed: ${err}`);
      return out.trim();
    }),
  );
}
