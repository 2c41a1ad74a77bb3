/** `restore` cut off in the middle, and run by root for a service: what lies where, and whose it is. */
import { beforeEach, describe, expect, test } from "bun:test";
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tree, workbenchForEach } from "./support/backups.ts";
import { binaryPath, runBinary } from "./support/binary.ts";

const CANARY = "canary-battery-staple-7f3a";

const bench = workbenchForEach();
const { at, backup, configure, dir, restore, token } = bench;

describe("cut off", () => {
  let config: string;
  beforeEach(async () => {
    config = configure("etc");
    await token(config, "first");
    const noise = crypto.getRandomValues(new Uint8Array(65536));
    dir.write("etc/state/noise.bin", Buffer.concat(Array.from({ length: 192 }, () => noise)));
    await backup(config);
    dir.write("etc/state/later.txt", "made after the backup");
  });

  /** Ends a restore while it writes the new state. */
  async function caught(signal: NodeJS.Signals): Promise<number> {
    const child = Bun.spawn(
      [
        await binaryPath(),
        "restore",
        at("b.age"),
        "--identity",
        bench.key,
        "-c",
        config,
        "--replace",
      ],
      { stdin: "ignore", stdout: "ignore", stderr: "ignore" },
    );
    const isUnderWay = (): boolean =>
      readdirSync(at("etc/state")).some((name) => name.startsWith(".restore-"));
    while (!isUnderWay() && child.exitCode === null) await Bun.sleep(1);
    child.kill(signal);
    return child.exited;
  }

  /** A busy machine may let it finish first; then once more, from what is there now. */
  async function caughtInTime(signal: NodeJS.Signals) {
    for (;;) {
      const before = tree(dir.path);
      const code = await caught(signal);
      if (code !== 0) return { before, code };
    }
  }

  test("SIGTERM: as if nothing had been", async () => {
    const { before, code } = await caughtInTime("SIGTERM");
    expect(code).toBe(1);
    expect(tree(dir.path)).toEqual(before);
  });

  test("SIGKILL: the old state works on, and nothing lies outside the state directory", async () => {
    const { before } = await caughtInTime("SIGKILL");
    // SQLite may have made an empty log beside the file that it held.
    expect(tree(dir.path, { without: /\.restore-|\.db-wal$/ })).toEqual(before);
    expect(statSync(at("etc/state/gatehouse.db-wal"), { throwIfNoEntry: false })?.size ?? 0).toBe(
      0,
    );
    for (const name of readdirSync(at("etc/state")).filter((one) => one.startsWith(".restore-"))) {
      expect(statSync(at("etc/state", name)).mode & 0o777).toBe(0o700);
    }
    expect((await runBinary(["token", "show", "-c", config, "first"])).code).toBe(0);
    expect((await restore("-c", config, "--replace")).code).toBe(0);
    expect(readdirSync(at("etc/state")).filter((name) => name.startsWith("."))).toEqual([]);
  });

  test("in the swap: nobody opens what is half, and --undo or the next restore brings the old state back", async () => {
    const mark = { staged: ".restore-0123456789abcdef", aside: "replaced-20260101T000000Z" };
    const before = tree(at("etc/state"));
    const cut = (): void => {
      // As the swap leaves it after its second rename.
      mkdirSync(at("etc/state", mark.staged), { mode: 0o700 });
      mkdirSync(at("etc/state", mark.aside), { mode: 0o700 });
      dir.write(`etc/state/${mark.staged}/gatehouse.db`, "new");
      dir.write(
        "etc/state/restore.pending",
        JSON.stringify({ ...mark, entries: ["gatehouse.db"] }),
      );
      for (const name of ["gatehouse.db", "pepper.key"]) {
        Bun.spawnSync(["mv", at("etc/state", name), at("etc/state", mark.aside, name)]);
      }
    };
    cut();
    const list = await runBinary(["token", "list", "-c", config]);
    expect(list.code).toBe(1);
    expect(list.stderr).toContain("gatehouse restore --undo");
    const serve = await runBinary(["serve", "-c", config]);
    expect(serve.code).toBe(1);
    expect(existsSync(at("etc/state/gatehouse.db"))).toBe(false);
    const undo = await runBinary(["restore", "--undo", "-c", config]);
    expect({ code: undo.code, stdout: undo.stdout }).toEqual({ code: 0, stdout: "" });
    expect(undo.stderr).toContain("is as it was before");
    expect(tree(at("etc/state"))).toEqual(before);
    expect((await runBinary(["token", "show", "-c", config, "first"])).code).toBe(0);
    const again = await runBinary(["restore", "--undo", "-c", config, "--json"]);
    expect(JSON.parse(again.stdout)).toEqual({ state_dir: at("etc/state"), undone: false });
    expect((await restore("-c", config, "--undo")).code).toBe(2);
    cut();
    const next = await restore("-c", config, "--replace");
    expect(next.code).toBe(0);
    expect(next.stderr).toContain("An earlier restore had been interrupted");
    expect((await runBinary(["token", "show", "-c", config, "first"])).code).toBe(0);
  });
});

describe.if(process.geteuid?.() === 0)("root, for a service with a user of its own", () => {
  const SERVICE = 65_531;

  test("state and configuration belong to whom their directories belong to", async () => {
    const config = configure("old");
    await token(config, "first");
    await backup(config);
    chmodSync(dir.path, 0o755);
    mkdirSync(at("new/state"), { recursive: true });
    chmodSync(at("new/state"), 0o700);
    chownSync(at("new/state"), SERVICE, SERVICE);
    chownSync(at("new"), 0, SERVICE);
    const { code, stderr } = await restore("-c", at("new/config.yaml"));
    expect({ code, stderr: code === 0 ? "" : stderr }).toEqual({ code: 0, stderr: "" });
    for (const name of ["gatehouse.db", "pepper.key"]) {
      const { uid, gid, mode } = statSync(at("new/state", name));
      expect([uid, gid, mode & 0o777]).toEqual([SERVICE, SERVICE, 0o600]);
    }
    const { uid, gid } = statSync(at("new/config.yaml"));
    expect([uid, gid]).toEqual([0, SERVICE]);
    const replaced = await restore("-c", at("new/config.yaml"), "--replace");
    expect(replaced.code).toBe(0);
    for (const name of readdirSync(at("new/state"))) {
      expect(statSync(at("new/state", name)).uid).toBe(SERVICE);
    }
  });

  test("a link that the service user planted leads root nowhere", async () => {
    const config = configure("old");
    await token(config, "first");
    await backup(config);
    chmodSync(dir.path, 0o755);
    mkdirSync(at("roots"), { mode: 0o700 });
    mkdirSync(at("new/state"), { recursive: true });
    writeFileSync(at("new/config.yaml"), readFileSync(config), { mode: 0o644 });
    chmodSync(at("new/state"), 0o700);
    const mark = { staged: ".restore-0123456789abcdef", aside: "replaced-20260101T000000Z" };
    Bun.spawnSync(["ln", "-s", at("roots"), at("new/state", mark.staged)]);
    Bun.spawnSync(["ln", "-s", at("roots"), at("new/state", mark.aside)]);
    dir.write("new/state/restore.pending", JSON.stringify({ ...mark, entries: ["x"] }));
    dir.write("new/state/x", "planted");
    dir.write("roots/precious", CANARY);
    Bun.spawnSync(["chown", "-hR", `${SERVICE}:${SERVICE}`, at("new/state")]);
    const undo = await runBinary(["restore", "--undo", "-c", at("new/config.yaml")]);
    expect(undo.code).not.toBe(0);
    expect(tree(at("roots"))).toHaveLength(1);
    expect(readFileSync(at("roots/precious"), "utf8")).toBe(CANARY);
  });
});
