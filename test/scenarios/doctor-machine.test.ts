/** `gatehouse doctor` about the machine: room, descriptors, service, compiler, and how it reports. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { chmodSync, mkdirSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { binaryPath, runBinary, startBinary } from "../support/binary.ts";
import {
  bearerConfig,
  type Examined,
  examined,
  type Household,
  household,
} from "../support/doctor.ts";
import { freePort } from "../support/proxies.ts";
import { type RawUpstream, rawUpstream } from "../support/raw.ts";
import { smallDisk } from "../support/small-disk.ts";

let upstream: RawUpstream;
let url: string;
beforeAll(() => {
  upstream = rawUpstream();
  url = `http://${upstream.address}`;
});
afterAll(() => upstream.stop());

const onLinux = process.platform === "linux";

/** Runs it in a shell that has limited itself before. */
async function underShell(home: Household, before: string): Promise<Examined> {
  const child = Bun.spawn(
    ["sh", "-c", `${before}; exec "$0" doctor -c "$1" --json`, await binaryPath(), home.config],
    {
      cwd: home.dir,
      env: { PATH: process.env.PATH ?? "", HOME: home.dir },
      stdin: "ignore",
      stdout: "pipe",
      stderr: "pipe",
    },
  );
  const [stdout, stderr] = await Promise.all([child.stdout.text(), child.stderr.text()]);
  return examined(await child.exited, stdout, stderr);
}

describe("room", () => {
  const withState = (dir: string): string => bearerConfig(url, { top: `state_dir: ${dir}` });

  test("a disk with room is fine", async () => {
    const report = await household(bearerConfig(url)).examine();
    const space = ["disk_space", "disk_full"].filter((code) => report.find(code));
    expect(space).toHaveLength(1);
    expect(report.find("disk_read_only")).toBeUndefined();
  });

  const disk = smallDisk(8_388_608);
  afterAll(() => disk?.dispose());
  test.skipIf(disk === null)(
    "a small, full, fleeting or read-only one is not (needs to mount)",
    async () => {
      const path = disk?.path ?? "";
      const home = household(withState(join(path, "state")));
      mkdirSync(join(path, "state"), { mode: 0o700 });
      const small = await home.examine();
      expect(small.find("disk_full")?.severity).toBe("error");
      expect(small.find("disk_fleeting")?.severity).toBe("warning");
      expect(small.exitCode).toBe(3);
      expect(Bun.spawnSync(["mount", "-o", "remount,ro", path]).exitCode).toBe(0);
      expect((await home.examine()).find("disk_read_only")?.severity).toBe("error");
      Bun.spawnSync(["mount", "-o", "remount,rw,nr_inodes=100", path]);
      expect((await home.examine()).find("disk_inodes")?.severity).toBe("error");
    },
  );

  test.skipIf(!onLinux)(
    "few descriptors are a warning, enough are fine (needs /proc)",
    async () => {
      const home = household(bearerConfig(url, { server: "  limits: { connections: 1000 }" }));
      expect((await underShell(home, "ulimit -n 512")).find("descriptors_few")?.severity).toBe(
        "warning",
      );
      expect((await underShell(home, "ulimit -n 1500")).find("descriptors_few")?.severity).toBe(
        "info",
      );
      expect((await underShell(home, "ulimit -n 4000")).find("descriptors")?.severity).toBe("ok");
    },
  );
});

describe.skipIf(!onLinux)("the compiler (needs /proc)", () => {
  test("switched off here, and in the running gateway, it is an error", async () => {
    const port = await freePort();
    const home = household(bearerConfig(url).replace("127.0.0.1:0", `127.0.0.1:${port}`));
    const off = { BUN_JSC_useJIT: "0" };
    const here = await home.examine({ env: off });
    expect(here.find("jit_off")?.what).toContain("this command");
    expect(here.exitCode).toBe(3);
    const running = await startBinary(["serve", "-c", home.config], { cwd: home.dir, env: off });
    const there = await home.examine();
    // The name of the test's copy of the executable is not always the product's.
    if (there.find("gateway_alive")?.what.includes("gatehouse")) {
      expect(there.find("jit_off")?.what).toContain(`process ${running.pid}`);
    }
    expect(there.find("jit_on")?.what).toContain("this command");
    await running.stop();
    const good = await startBinary(["serve", "-c", home.config], { cwd: home.dir });
    expect((await home.examine()).find("jit_off")).toBeUndefined();
    await good.stop();
  });

  test("as MemoryDenyWriteExecute takes it away, it is missed", async () => {
    const home = household(bearerConfig(url));
    // The same call that systemd makes (prctl PR_SET_MDWE), then the executable.
    const code = `
      import { dlopen, FFIType, CString, ptr } from "bun:ffi";
      const { symbols } = dlopen("libc.so.6", {
        prctl: { args: [FFIType.i32, FFIType.u64, FFIType.u64, FFIType.u64, FFIType.u64], returns: FFIType.i32 },
        execv: { args: [FFIType.ptr, FFIType.ptr], returns: FFIType.i32 },
      });
      const words = Bun.argv.slice(1).map((word) => Buffer.from(word + "\\0"));
      const list = new BigUint64Array([...words.map((word) => BigInt(ptr(word))), 0n]);
      if (symbols.prctl(65, 1, 0, 0, 0) !== 0) process.exit(99);
      symbols.execv(ptr(words[0]), ptr(list));
      process.exit(98);`;
    const child = Bun.spawn(
      [process.execPath, "-e", code, await binaryPath(), "doctor", "-c", home.config, "--json"],
      { cwd: home.dir, env: { PATH: process.env.PATH ?? "" }, stdout: "pipe", stderr: "pipe" },
    );
    const [stdout, stderr] = await Promise.all([child.stdout.text(), child.stderr.text()]);
    const exitCode = await child.exited;
    if (exitCode === 99) {
      console.warn("not tried: this kernel has no PR_SET_MDWE (6.3)");
      return;
    }
    const report = examined(exitCode, stdout, stderr);
    expect(report.find("jit_off")?.next).toContain("MemoryDenyWriteExecute");
  });
});

describe("the service", () => {
  /** A user unit as `service print` gives it. */
  async function installed(): Promise<{
    home: Household;
    unit: string;
    env: Record<string, string>;
  }> {
    const home = household(bearerConfig(url));
    const env = { HOME: home.dir, PATH: `${join(home.dir, "bin")}:/usr/bin:/bin` };
    mkdirSync(join(home.dir, "bin"));
    const args = ["service", "print", "--user", "-c", home.config];
    const { stdout, code, stderr } = await runBinary(args, { cwd: home.dir, env });
    expect(code, stderr).toBe(0);
    const unit = join(home.dir, ".config/systemd/user/gatehouse.service");
    mkdirSync(dirname(unit), { recursive: true });
    writeFileSync(unit, stdout);
    return { home, unit, env };
  }

  test("a unit that is what this version writes is fine", async () => {
    const { home, env } = await installed();
    const report = await home.examine({ env });
    expect(report.find("unit_current")?.severity).toBe("ok");
    expect(report.find("config_valid")?.what).toContain("gatehouse.service");
    expect(report.exitCode).toBe(0);
  });

  test("one that the configuration has left behind is drift; one that was edited says so", async () => {
    const { home, unit, env } = await installed();
    home.write("gatehouse.yaml", bearerConfig(url, { server: "  drain: 200s" }));
    const drifted = await home.examine({ env });
    expect(drifted.find("unit_drift")?.next).toContain("gatehouse service install --user");
    expect(drifted.exitCode).toBe(0);
    const text = await Bun.file(unit).text();
    writeFileSync(unit, text.replace("UMask=0077", "UMask=0022"));
    expect((await home.examine({ env })).find("unit_edited")?.severity).toBe("warning");
  });

  test("MemoryDenyWriteExecute in a drop-in is an error, switched off again it is none", async () => {
    const { home, unit, env } = await installed();
    mkdirSync(`${unit}.d`);
    const dropIn = join(`${unit}.d`, "hard.conf");
    writeFileSync(dropIn, "[Service]\nMemoryDenyWriteExecute=yes\n");
    const report = await home.examine({ env });
    expect(report.find("unit_denies_jit")?.what).toContain(dropIn);
    expect(report.exitCode).toBe(3);
    writeFileSync(join(`${unit}.d`, "zz.conf"), "[Service]\nMemoryDenyWriteExecute=no\n");
    expect((await home.examine({ env })).find("unit_denies_jit")).toBeUndefined();
  });

  test("what systemd says is heard: a default that denies, a failure, a reload that is due", async () => {
    const { home, env } = await installed();
    const systemctl = join(home.dir, "bin/systemctl");
    const say = (facts: string): void => {
      writeFileSync(systemctl, `#!/bin/sh\nprintf '${facts}'\n`);
      chmodSync(systemctl, 0o755);
    };
    say("ActiveState=failed\\nMainPID=0\\nMemoryDenyWriteExecute=yes\\nNeedDaemonReload=yes\\n");
    const report = await home.examine({ env });
    expect(report.find("unit_denies_jit")?.what).toContain("systemd");
    expect(report.find("unit_failed")?.next).toContain("journalctl");
    expect(report.find("unit_not_reloaded")?.next).toContain("daemon-reload");
    say("ActiveState=active\\nMainPID=0\\nMemoryDenyWriteExecute=no\\nNeedDaemonReload=no\\n");
    const well = await home.examine({ env });
    expect(well.find("unit_failed") ?? well.find("unit_denies_jit")).toBeUndefined();
    rmSync(systemctl);
    // A manager that never answers holds nothing up for long: it is killed after 15 s at the latest.
    writeFileSync(systemctl, "#!/bin/sh\nexec sleep 60\n");
    chmodSync(systemctl, 0o755);
    expect((await home.examine({ env })).find("unit_current")).toBeDefined();
  });

  test("its own variables count, not those of the shell", async () => {
    const { home, unit, env } = await installed();
    const text = bearerConfig(url, { upstream: '    headers: { x-key: "${env:API_KEY}" }' });
    home.write("gatehouse.yaml", text);
    const file = home.write("environment", "API_KEY=canary-environment-0123\n");
    const args = ["service", "print", "--user", "-c", home.config, "--environment-file", file];
    const { stdout } = await runBinary(args, { cwd: home.dir, env });
    writeFileSync(unit, stdout);
    const report = await home.examine({ env });
    expect(report.find("config_valid")).toBeDefined();
    expect(report.text).not.toContain("canary-environment");
    writeFileSync(file, "OTHER=x\n");
    const missing = await home.examine({ env: { ...env, API_KEY: "only-in-this-shell-0123" } });
    expect(missing.find("config_invalid")?.what).toContain("API_KEY");
  });
});

describe("the report", () => {
  const run = (home: Household, args: readonly string[], env: Record<string, string> = {}) =>
    runBinary(["doctor", "-c", home.config, ...args], { cwd: home.dir, env });

  test("is readable in 40 columns, with the severity as a word and commands in one piece", async () => {
    const home = household(bearerConfig("http://127.0.0.1:1"));
    chmodSync(home.state, 0o755);
    const { stdout, code } = await run(home, [], { COLUMNS: "40" });
    expect(code).toBe(3);
    expect(stdout).toMatch(/^Upstreams\n {2}error: api/m);
    expect(stdout).toMatch(/^ {4}why: /m);
    expect(stdout).toMatch(/^ {4}mend: /m);
    const long = stdout.split("\n").filter((line) => line.length > 40);
    // Only what may not be broken is longer: commands, paths, addresses.
    expect(long.filter((line) => !/[`/]|:\d/.test(line))).toEqual([]);
    expect(stdout).toMatch(/\d errors?, .*; looked at in \d+\.\d s\n$/);
  });

  test("has no colours when it is not a terminal, and says the same as JSON", async () => {
    const home = household(bearerConfig(url));
    const { stdout } = await run(home, []);
    expect(stdout).not.toContain("\u001b");
    const json = await run(home, ["--json"]);
    const facts = JSON.parse(json.stdout) as {
      ok: boolean;
      counts: { error: number };
      findings: object[];
    };
    expect(facts.ok).toBe(true);
    expect(facts.counts.error).toBe(0);
    for (const finding of facts.findings) {
      expect(Object.keys(finding).sort()).toEqual([
        "code",
        "group",
        "next",
        "severity",
        "what",
        "why",
      ]);
    }
  });

  test("options of the probe without --probe are refused", async () => {
    const { code, stderr } = await run(household(bearerConfig(url)), ["--token-env", "X"]);
    expect(code).toBe(2);
    expect(stderr).toContain("--probe");
  });
});
