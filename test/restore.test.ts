/** `restore`, with the executable: round trips under load, and a machine that is as before when it does not work. */
import { Database } from "bun:sqlite";
import { beforeEach, describe, expect, test } from "bun:test";
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { keyPair, tree, workbenchForEach } from "./support/backups.ts";
import { runBinary, startBinary } from "./support/binary.ts";
import { smallDisk } from "./support/small-disk.ts";

const CANARY = "canary-battery-staple-7f3a";

const bench = workbenchForEach();
const { at, backup, configure, dir, restore, token } = bench;

async function statusOf(url: string, bearer: string): Promise<number> {
  const answer = await fetch(`${url}/x`, { headers: { authorization: `Bearer ${bearer}` } });
  await answer.text();
  return answer.status;
}

describe("a round trip", () => {
  test("while a gateway serves and tokens are made: what was acknowledged before works, what was revoked does not", async () => {
    await using upstream = Bun.serve({
      hostname: "127.0.0.1",
      port: 0,
      fetch: () => new Response("in"),
    });
    const url = `http://127.0.0.1:${upstream.port}`;
    const old = configure("old", url);
    const gateway = await startBinary(["serve", "-c", old]);
    const acknowledged: string[] = [await token(old, "first")];
    const revoked = await token(old, "to-be-revoked");
    expect((await runBinary(["token", "revoke", "-c", old, "to-be-revoked"])).code).toBe(0);
    let isOver = false;
    const making = (async () => {
      while (!isOver) acknowledged.push(await token(old, `t${acknowledged.length}`));
    })();
    while (acknowledged.length < 4) await Bun.sleep(5);
    const before = [...acknowledged];
    await backup(old);
    const count = acknowledged.length;
    // The gateway and the commands beside it work on.
    while (acknowledged.length < count + 2) await Bun.sleep(5);
    isOver = true;
    await making;
    expect(await statusOf(gateway.url, acknowledged.at(-1)!)).toBe(200);
    await gateway.stop();

    const fresh = at("fresh", "config.yaml");
    const { code, stderr } = await restore("-c", fresh);
    expect({ code, stderr: code === 0 ? "" : stderr }).toEqual({ code: 0, stderr: "" });
    expect(readFileSync(fresh, "utf8")).toBe(readFileSync(old, "utf8"));
    expect(statSync(at("fresh/state")).mode & 0o777).toBe(0o700);
    for (const name of readdirSync(at("fresh/state"))) {
      expect(statSync(at("fresh/state", name)).mode & 0o777).toBe(0o600);
    }
    const restored = await startBinary(["serve", "-c", fresh]);
    for (const one of before) expect(await statusOf(restored.url, one)).toBe(200);
    expect(await statusOf(restored.url, revoked)).toBe(401);
    // And it is a gateway as any other.
    const later = await token(fresh, "later");
    expect(await statusOf(restored.url, later)).toBe(200);
    await restored.stop();
  });

  test("with a passphrase; a wrong one is said, and neither is ever shown", async () => {
    const old = configure("old");
    await token(old, "first");
    dir.write("pass", CANARY);
    dir.write("wrong", "something else entirely");
    const made = await runBinary(
      ["backup", "-c", old, "--passphrase-file", "pass", "--out", "p.age"],
      { cwd: dir.path },
    );
    expect(made.code).toBe(0);
    const wrong = await runBinary(
      ["restore", "p.age", "--passphrase-file", "wrong", "-c", "new/config.yaml"],
      { cwd: dir.path },
    );
    expect(wrong).toMatchObject({ code: 1, stdout: "" });
    expect(wrong.stderr).toBe("error: wrong passphrase for p.age\n");
    expect(existsSync(at("new"))).toBe(false);
    const right = await runBinary(
      ["restore", "p.age", "--passphrase", "${env:PASS}", "-c", "new/config.yaml", "--json"],
      { cwd: dir.path, env: { PASS: CANARY } },
    );
    expect(right.code).toBe(0);
    expect(JSON.parse(right.stdout)).toMatchObject({
      dry_run: false,
      state: { dir: at("new/state"), replaces: false },
      config: { file: at("new/config.yaml"), changes: { "config.yaml": "new" } },
      kept: { state: null, config: null },
    });
    const said = [made, wrong, right].map(({ stdout, stderr }) => stdout + stderr).join("");
    expect(said).not.toContain(CANARY);
    const pepper = readFileSync(at("old/state/pepper.key")).toString("hex");
    expect(said).not.toContain(pepper);
  });

  test("the key of another backup is said, and a passphrase that is not wanted", async () => {
    await backup(configure("old"));
    const other = await keyPair();
    mkdirSync(at("other"));
    const file = other.save(at("other"));
    const run = await runBinary([
      "restore",
      at("b.age"),
      "--identity",
      file,
      "-c",
      at("new/c.yaml"),
    ]);
    expect(run).toMatchObject({ code: 1, stdout: "" });
    expect(run.stderr).toContain("is not encrypted for this key");
    const none = await runBinary(["restore", at("b.age"), "-c", at("new/c.yaml")]);
    expect(none.code).toBe(2);
    expect(none.stderr).toContain("is encrypted for a public key");
    expect(existsSync(at("new"))).toBe(false);
  });
});

describe("what is there already", () => {
  let config: string;
  let first: string;
  beforeEach(async () => {
    config = configure("etc");
    first = await token(config, "first");
    await backup(config);
    dir.write("etc/state/later.txt", "made after the backup");
  });

  test("is not written over; --dry-run says what would be, and does nothing", async () => {
    const before = tree(dir.path);
    const refused = await restore("-c", config);
    expect(refused).toMatchObject({ code: 73, stdout: "" });
    expect(refused.stderr).toContain(`it is not written over: ${at("etc/state")}\n`);
    const dry = await restore("-c", config, "--dry-run", "--replace");
    expect(dry.code).toBe(0);
    expect(dry.stdout).toContain(`state: 2 files`);
    expect(dry.stdout).toContain("in place of what is there");
    expect(dry.stdout).toContain(`configuration: ${config} unchanged`);
    expect(tree(dir.path)).toEqual(before);
  });

  test("is moved aside with --replace, whole, and named", async () => {
    await token(config, "second");
    writeFileSync(config, `${readFileSync(config, "utf8")}# a comment\n`);
    const changed = readFileSync(config, "utf8");
    const { code, stderr } = await restore("-c", config, "--replace");
    expect({ code, stderr: code === 0 ? "" : stderr }).toEqual({ code: 0, stderr: "" });
    const [aside] = readdirSync(at("etc/state")).filter((name) => name.startsWith("replaced-"));
    expect(stderr).toContain(`What was there before is in ${at("etc/state", aside!)}`);
    expect(stderr).toContain(`What was there before is in ${at("etc", aside!)}`);
    expect(readdirSync(at("etc/state")).sort()).toEqual(
      ["gatehouse.db", "pepper.key", aside!].sort(),
    );
    expect(readdirSync(at("etc/state", aside!)).sort()).toEqual([
      "gatehouse.db",
      "later.txt",
      "pepper.key",
    ]);
    expect(readFileSync(at("etc", aside!, "config.yaml"), "utf8")).toBe(changed);
    expect(readFileSync(config, "utf8")).not.toContain("# a comment");
    const list = await runBinary(["token", "list", "-c", config, "--json"]);
    expect(JSON.parse(list.stdout).map(({ name }: { name: string }) => name)).toEqual(["first"]);
    // The next backup leaves out what was replaced.
    await backup(config);
    expect((await restore("-c", config, "--dry-run", "--replace")).stdout).toContain("2 files");
  });

  test("only the state, or only the configuration", async () => {
    writeFileSync(config, `${readFileSync(config, "utf8")}# kept\n`);
    expect((await restore("-c", config, "--only", "state", "--replace")).code).toBe(0);
    expect(readFileSync(config, "utf8")).toContain("# kept");
    const state = tree(at("etc/state"));
    expect((await restore("-c", config, "--only", "config", "--replace")).code).toBe(0);
    expect(readFileSync(config, "utf8")).not.toContain("# kept");
    expect(tree(at("etc/state"))).toEqual(state);
    const wrong = await restore("-c", config, "--only", "keys");
    expect(wrong.code).toBe(2);
    expect(wrong.stderr).toContain("--only: expected state or config");
  });

  test("is left alone while a gateway runs on it", async () => {
    const gateway = await startBinary(["serve", "-c", config]);
    const { code, stdout, stderr } = await restore("-c", config, "--replace");
    expect({ code, stdout }).toEqual({ code: 69, stdout: "" });
    expect(stderr).toContain("a gateway is running on this state");
    if (process.platform === "linux") expect(stderr).toContain(`process ${gateway.pid}`);
    // The token is known: the upstream, which is not there, was asked for it.
    expect(await statusOf(gateway.url, first)).toBe(502);
    expect(await statusOf(gateway.url, "gate_nonsense")).toBe(401);
    await gateway.stop();
    expect(readdirSync(at("etc/state")).sort()).toEqual([
      "gatehouse.db",
      "later.txt",
      "pepper.key",
    ]);
    expect((await restore("-c", config, "--replace")).code).toBe(0);
  });

  test("a damaged database is replaced, too: that is what a restore is for", async () => {
    writeFileSync(at("etc/state/gatehouse.db"), `SQLite format 3\0${"x".repeat(9000)}`);
    expect((await runBinary(["token", "list", "-c", config])).code).toBe(1);
    expect((await restore("-c", config, "--replace")).code).toBe(0);
    expect((await runBinary(["token", "show", "-c", config, "first"])).code).toBe(0);
  });

  test("comes back when the last step fails: a config file that is a mount of its own", async () => {
    writeFileSync(config, `${readFileSync(config, "utf8")}# in the image\n`);
    const mount = (...args: string[]) => Bun.spawnSync(["mount", ...args]).exitCode === 0;
    if (process.platform !== "linux" || !mount("--bind", config, config)) {
      console.log("not run: this user may not mount a file");
      return;
    }
    try {
      const before = tree(dir.path);
      const { code, stderr } = await restore("-c", config, "--replace");
      expect(code).toBe(73);
      expect(stderr).toContain("a file in it is a mount of its own");
      expect(tree(dir.path)).toEqual(before);
      expect((await runBinary(["token", "show", "-c", config, "first"])).code).toBe(0);
    } finally {
      Bun.spawnSync(["umount", config]);
    }
  });
});

describe("where to", () => {
  test("without a configuration here it has to be said", async () => {
    await backup(configure("old"));
    mkdirSync(at("empty"));
    const run = await runBinary(["restore", at("b.age"), "--identity", bench.key], {
      cwd: at("empty"),
      env: { HOME: at("empty") },
    });
    if (existsSync("/etc/gatehouse/config.yaml")) {
      console.log("not run: this machine has a configuration of its own");
      return;
    }
    expect(run.code).toBe(2);
    expect(run.stderr).toContain(`Say it with -c FILE (it was ${at("old/config.yaml")})`);
  });

  test("a state directory that only the backup names has to be confirmed", async () => {
    const config = configure("old");
    const far = at("far/away");
    writeFileSync(config, readFileSync(config, "utf8").replace("./state", far));
    await token(config, "first");
    await backup(config);
    rmSync(at("far"), { recursive: true });
    const refused = await restore("-c", at("new/config.yaml"));
    expect(refused.code).toBe(2);
    expect(refused.stderr).toContain(`--state-dir ${far}`);
    expect(existsSync(at("far")) || existsSync(at("new"))).toBe(false);
    expect((await restore("-c", at("new/config.yaml"), "--state-dir", far)).code).toBe(0);
    expect((await runBinary(["token", "show", "-c", at("new/config.yaml"), "first"])).code).toBe(0);
    // Another place is possible, and then the configuration does not fit.
    const other = await restore("-c", at("other/config.yaml"), "--state-dir", at("other/s"));
    expect(other.code).toBe(0);
    expect(other.stderr).toContain(`the configuration says state_dir ${far}`);
  });

  test("a directory in the way, a link in the way, a file that may not be written", async () => {
    const old = configure("old");
    dir.write("old/keys/up.key", "secret-123\n");
    writeFileSync(
      old,
      readFileSync(old, "utf8").replace(
        "upstreams: {",
        'upstreams: { other: { url: "http://127.0.0.1:9", headers: { authorization: "${file:./keys/up.key}" } },',
      ),
    );
    await backup(old);
    mkdirSync(at("outside"));
    mkdirSync(at("new"));
    Bun.spawnSync(["ln", "-s", at("outside"), at("new/keys")]);
    const linked = await restore("-c", at("new/config.yaml"));
    expect(linked.code).toBe(73);
    expect(linked.stderr).toContain("is no directory of its own");
    expect(readdirSync(at("outside"))).toEqual([]);
    expect(readdirSync(at("new"))).toEqual(["keys"]);
    mkdirSync(at("third/config.yaml"), { recursive: true });
    const directory = await restore("-c", at("third/config.yaml"));
    expect(directory.code).toBe(73);
    expect(directory.stderr).toContain("is a directory where a file belongs");
  });

  test("a disk that is too small is said before anything is written", async () => {
    const disk = smallDisk(2 * 1024 * 1024);
    if (disk === null) {
      console.log("not run: this user may not mount a small disk");
      return;
    }
    try {
      const config = configure("old");
      await token(config, "first");
      dir.write("old/state/noise.bin", crypto.getRandomValues(new Uint8Array(65536)));
      await backup(config);
      const target = join(disk.path, "etc/config.yaml");
      disk.fill();
      const { code, stderr } = await restore("-c", target);
      expect(code).toBe(69);
      expect(stderr).toContain("free, and the backup needs");
      expect(readdirSync(disk.path)).toEqual(["ballast"]);
      disk.free();
      Bun.spawnSync(["mount", "-o", "remount,ro", disk.path]);
      const readOnly = await restore("-c", target);
      expect(readOnly.code).not.toBe(0);
      expect(readOnly.stderr).toContain("the file system is read-only");
      Bun.spawnSync(["mount", "-o", "remount,rw", disk.path]);
      expect((await restore("-c", target)).code).toBe(0);
    } finally {
      disk.dispose();
    }
  });
});

describe("of another version", () => {
  test("a step that this version does not know is refused, in the manifest and in the database", async () => {
    const config = configure("old");
    await token(config, "first");
    const database = new Database(at("old/state/gatehouse.db"), { readwrite: true, create: false });
    const row = "INSERT INTO gatehouse_migrations VALUES ('bearer_sqlite', 99, '099_future', 0)";
    database.run(row);
    database.close();
    await backup(config);
    const { code, stderr } = await restore("-c", at("new/config.yaml"));
    expect(code).toBe(1);
    expect(stderr).toContain("of a newer version");
    expect(stderr).toContain("bearer_sqlite: 099_future");
    expect(existsSync(at("new"))).toBe(false);
  });
});
