/**
 * A file system of a few megabytes that a test can fill.
 *
 * Invariant: it is unmounted and removed by `dispose`; where mounting is not allowed there is none, and the test
 * says what it does instead.
 */
import { mkdtempSync, rmSync, statfsSync, unlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** A mounted file system. */
export interface SmallDisk {
  readonly path: string;
  /** Takes all space that is left. */
  fill(): void;
  /** Gives it back. */
  free(): void;
  dispose(): void;
}

/** A tmpfs of `bytes`, or null when this process may not mount one. */
export function smallDisk(bytes: number): SmallDisk | null {
  const path = mkdtempSync(join(tmpdir(), "gatehouse-disk-"));
  const mounted = run(["mount", "-t", "tmpfs", "-o", `size=${bytes},mode=700`, "tmpfs", path]);
  if (!mounted) {
    rmSync(path, { recursive: true });
    return null;
  }
  const ballast = join(path, "ballast");
  return {
    path,
    fill() {
      const { bavail, bsize } = statfsSync(path);
      writeFileSync(ballast, new Uint8Array(bavail * bsize));
    },
    free: () => unlinkSync(ballast),
    dispose() {
      run(["umount", "-l", path]);
      rmSync(path, { recursive: true, force: true });
    },
  };
}

function run(command: string[]): boolean {
  if (Bun.which(command[0] ?? "") === null) return false;
  return Bun.spawnSync(command, { stdout: "ignore", stderr: "ignore" }).exitCode === 0;
}
