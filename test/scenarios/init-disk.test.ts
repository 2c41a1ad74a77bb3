/**
 * `gatehouse init` on a disk that is full, that becomes full at some step, and that cannot be written at all.
 *
 * Invariant: it ends in one clear line, and the disk is as it was before, byte for byte.
 */
import { afterAll, afterEach, beforeEach, describe, expect, test } from "bun:test";
import { join } from "node:path";
import { type InitPlace, initPlace, runInit, runInitAsUser, treeOf } from "../support/init.ts";
import { type SmallDisk, smallDisk } from "../support/small-disk.ts";
import { ollamaStandIn } from "../support/standins/ollama.ts";

const PAGE = 4096;
const upstream = ollamaStandIn();
afterAll(() => upstream.stop());

let place: InitPlace;
let disk: SmallDisk | null = null;
beforeEach(() => {
  place = initPlace();
});
afterEach(() => {
  disk?.dispose();
  disk = null;
  place.remove();
});

async function initOn(dir: string): Promise<{ code: number; stdout: string; stderr: string }> {
  const args = [
    "--yes",
    "--json",
    "--no-service",
    "--upstream",
    upstream.url,
    "--listen",
    "127.0.0.1:0",
  ];
  return runInit(place, ...args, "--dir", dir);
}

describe("a disk", () => {
  test("that becomes full, at whatever step", async () => {
    const codes: number[] = [];
    // From one page, on which not even the journal fits, to where everything does.
    for (let pages = 2; pages <= 96 && codes.at(-1) !== 0; pages += pages < 8 ? 2 : 6) {
      disk = smallDisk(pages * PAGE);
      if (disk === null) return console.log("not run: this process may not mount a tmpfs");
      const before = treeOf(disk.path);
      const { code, stdout, stderr } = await initOn(join(disk.path, "gate"));
      codes.push(code);
      if (code !== 0) {
        expect(stdout).toBe("");
        expect(stderr).toMatch(/^error: .*(?:ENOSPC|disk is full|full)/);
        expect(stderr).toContain("everything is as it was before");
        expect(treeOf(disk.path)).toEqual(before);
      }
      disk.dispose();
    }
    disk = null;
    expect(codes.at(-1)).toBe(0);
    // It failed at several steps on the way there.
    expect(codes.filter((code) => code !== 0).length).toBeGreaterThan(4);
  });

  test("that is read-only", async () => {
    disk = smallDisk(1024 * 1024);
    if (disk === null) return console.log("not run: this process may not mount a tmpfs");
    expect(Bun.spawnSync(["mount", "-o", "remount,ro", disk.path]).exitCode).toBe(0);
    const { code, stdout, stderr } = await initOn(join(disk.path, "gate"));
    expect({ code, stdout }).toEqual({ code: 73, stdout: "" });
    expect(stderr).toContain("EROFS");
    expect(stderr).toContain("--dir DIR");
    expect(stderr).toContain("everything is as it was before");
    expect(treeOf(disk.path)).toEqual([]);
  });

  test("on which the directory is another user's", async () => {
    const args = ["--yes", "--no-service", "--upstream", upstream.url, "--listen", "127.0.0.1:0"];
    const ran = await runInitAsUser(place, ...args, "--dir", "/etc/gatehouse-of-root");
    if (ran === null) return console.log("not run: there is no setpriv");
    expect(ran.code).toBe(77);
    expect(ran.stderr).toContain("Run it with sudo, or choose a place of your own with --dir DIR.");
  });
});
