/** `backup`, with the executable: what is in the file, what it survives, and that nothing of it lies around. */
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "bun:test";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { generateHybridIdentity, identityToRecipient } from "age-encryption";
import { type KeyPair, keyPair, opened, tree } from "./support/backups.ts";
import { binaryPath, runBinary } from "./support/binary.ts";
import { type TempDir, tempDir } from "./support/config.ts";
import { smallDisk } from "./support/small-disk.ts";

const CANARY = "canary-battery-staple-7f3a";

let keys: KeyPair;
let dir: TempDir;
let small: string;

beforeAll(async () => {
  keys = await keyPair();
});

beforeEach(async () => {
  dir = tempDir();
  small = dir.write(
    "etc/config.yaml",
    `version: 1
state_dir: ./state
strategies: { team: { use: bearer-sqlite } }
routes: [{ match: { path: /x }, access: [team] }]
`,
  );
});
afterEach(() => dir.remove());

async function token(name: string): Promise<string> {
  const { code, stdout } = await runBinary(["token", "create", "-c", small, "--name", name]);
  expect(code).toBe(0);
  return stdout.trim();
}

function backup(...args: string[]) {
  return runBinary(["backup", "-c", small, "--recipient", keys.recipient, ...args], {
    cwd: dir.path,
  });
}

function drafts(directory: string): string[] {
  return readdirSync(directory).filter((name) => name.endsWith(".part"));
}

describe("what is in it", () => {
  test("state, keys, the configuration and what it names below its directory; the rest is listed", async () => {
    const elsewhere = dir.write("elsewhere.key", "outside-123\n");
    dir.write("etc/secrets/up.key", "inside-123\n");
    dir.write("etc/mine.ts", 'import { help } from "./lib/help";\nexport default help;\n', 0o644);
    dir.write("etc/lib/help.ts", 'import data from "./data.json";\nexport const help = data;\n');
    dir.write("etc/lib/data.json", "{}");
    dir.write("etc/not-named.txt", "nobody asked for this");
    symlinkSync(elsewhere, join(dir.path, "etc", "link.key"));
    await token("first");
    dir.write("etc/state/plugin/own.txt", "of a strategy");
    writeFileSync(
      small,
      `version: 1
state_dir: ./state
strategies:
  team: { use: bearer-sqlite }
  mine: { use: ./mine.ts, word: "\${env:MAGIC_WORD}" }
  ops: { use: static-env, env: OPS_TOKEN }
  file: { use: static-env, file: "./link.key" }
upstreams:
  api:
    url: http://127.0.0.1:9
    headers:
      authorization: "Bearer \${file:./secrets/up.key}"
      x-other: "\${file:${elsewhere}}"
      x-cred: "\${cred:upstream}"
routes: [{ match: { path: /x }, access: [team], upstream: api }]
`,
    );
    symlinkSync("/etc/passwd", join(dir.path, "etc", "state", "planted"));
    const out = join(dir.path, "b.age");
    const { code, stdout, stderr } = await backup("--out", out);
    expect({ code, stdout }).toEqual({ code: 0, stdout: `${out}\n` });
    const files = await opened(out, keys);
    expect([...files.keys()].sort()).toEqual([
      "config/config.yaml",
      "config/lib/data.json",
      "config/lib/help.ts",
      "config/mine.ts",
      "config/secrets/up.key",
      "manifest.json",
      "state/gatehouse.db",
      "state/pepper.key",
      "state/plugin/own.txt",
    ]);
    expect([...files.keys()][0]).toBe("manifest.json");
    expect(files.get("config/config.yaml")!.equals(readFileSync(small))).toBe(true);
    const key = readFileSync(join(dir.path, "etc/state/pepper.key"));
    expect(files.get("state/pepper.key")!.equals(key)).toBe(true);
    for (const line of [
      "environment variable MAGIC_WORD",
      "environment variable OPS_TOKEN",
      "systemd credential upstream",
      `${elsewhere}: a file outside the directory of the configuration`,
      `link.key: a link to a file outside the directory of the configuration`,
      `planted": a symbolic link`,
    ]) {
      expect(stderr).toContain(line);
    }
    expect(statSync(out).mode & 0o777).toBe(0o600);
  });

  test("it opens without Gatehouse: age, gzip, tar", async () => {
    const missing = ["age", "tar"].filter((tool) => Bun.which(tool) === null);
    if (missing.length > 0) {
      console.log(`not run: ${missing.join(", ")} not installed`);
      return;
    }
    await token("first");
    expect((await backup("--out", "b.age")).code).toBe(0);
    const key = keys.save(dir.path);
    const child = Bun.spawnSync([
      "bash",
      "-c",
      `set -o pipefail; age -d -i ${key} ${dir.path}/b.age | tar tzf -`,
    ]);
    expect(child.exitCode).toBe(0);
    expect(child.stdout.toString().split("\n")).toContain("state/gatehouse.db");
  });

  test("a configuration without state, a preset without a file", async () => {
    const { code, stderr } = await backup("--out", "b.age");
    expect(code).toBe(0);
    expect(stderr).toContain("There is no state in");
    expect([...(await opened(join(dir.path, "b.age"), keys)).keys()]).toEqual([
      "manifest.json",
      "config/config.yaml",
    ]);
    const stateDir = join(dir.path, "preset-state");
    const preset = await runBinary(
      ["backup", "--preset", "routstrd", "--recipient", keys.recipient, "--out", "p.age", "--json"],
      { cwd: dir.path, env: { GATEHOUSE_STATE_DIR: stateDir, ROUTSTRD_DIR: dir.path } },
    );
    expect({ code: preset.code, stderr: preset.stderr }).toEqual({ code: 0, stderr: "" });
    expect(JSON.parse(preset.stdout)).toMatchObject({ file: join(dir.path, "p.age"), files: [] });
  });

  test("another program's database in the configuration's directory is not taken", async () => {
    await token("first");
    rmSync(join(dir.path, "other.db"), { force: true });
    writeFileSync(
      join(dir.path, "etc", "daemon.db"),
      readFileSync(join(dir.path, "etc/state/gatehouse.db")),
    );
    writeFileSync(
      small,
      `version: 1
state_dir: ./state
strategies: { nostr: { use: nip98, database: ./daemon.db } }
routes: [{ match: { path: /x }, access: [nostr] }]
`,
    );
    const { code, stderr } = await backup("--out", "b.age");
    expect(code).toBe(0);
    expect(stderr).toContain("daemon.db: a database of another program");
    expect((await opened(join(dir.path, "b.age"), keys)).has("config/daemon.db")).toBe(false);
  });
});

describe("the secret", () => {
  test("on a terminal it is asked for twice and not shown", async () => {
    let shown = "";
    const child = Bun.spawn([await binaryPath(), "backup", "-c", small, "--out", "b.age"], {
      cwd: dir.path,
      terminal: {
        cols: 80,
        rows: 24,
        data: (_: unknown, bytes: Uint8Array) => {
          shown += new TextDecoder().decode(bytes);
        },
      },
    });
    const until = async (text: string): Promise<void> => {
      while (!shown.includes(text)) await Bun.sleep(5);
    };
    await until("Passphrase of the backup: ");
    child.terminal!.write(`${CANARY}\r`);
    await until("The same again: ");
    child.terminal!.write(`${CANARY}\r`);
    expect(await child.exited).toBe(0);
    expect(shown).not.toContain(CANARY);
    expect((await opened(join(dir.path, "b.age"), { passphrase: CANARY })).size).toBe(2);
  });

  test("two that differ, and Ctrl-C, write nothing", async () => {
    for (const second of ["something else entirely\r", "\x03"]) {
      let shown = "";
      const child = Bun.spawn([await binaryPath(), "backup", "-c", small, "--out", "b.age"], {
        cwd: dir.path,
        terminal: {
          data: (_: unknown, bytes: Uint8Array) => {
            shown += new TextDecoder().decode(bytes);
          },
        },
      });
      while (!shown.includes("Passphrase of")) await Bun.sleep(5);
      child.terminal!.write(`${CANARY}\r`);
      while (!shown.includes("The same")) await Bun.sleep(5);
      child.terminal!.write(second);
      expect(await child.exited).not.toBe(0);
      expect(shown).not.toContain(CANARY);
      expect(readdirSync(dir.path)).toEqual(["etc"]);
    }
  });

  test.each([
    [["--passphrase", CANARY], 2, "--passphrase takes a reference"],
    [["--passphrase", "${env:NOT_SET}"], 2, "environment variable NOT_SET is not set"],
    [["--passphrase-file", "short"], 2, "fewer than 12 characters"],
    [["--passphrase-file", "open"], 77, "can be read by others"],
    [["--passphrase-file", "two"], 2, "one line"],
    [["--passphrase-file", "nope"], 2, "nope cannot be read (ENOENT)"],
    [["--passphrase-file", "etc"], 2, "is a directory"],
    [["--passphrase-file", "short", "--passphrase", "${env:X}"], 2, "both given"],
    [[], 2, "no passphrase: there is no terminal to ask on"],
    [["--recipient", "age1nonsense"], 2, "expected a public key of age"],
    [["--recipient", `AGE-SECRET-KEY-1${CANARY}`], 2, "a secret key must not be an argument"],
    [["--recipient", "OWN", "--passphrase", "${env:X}"], 2, "exclude each other"],
  ])("%j is refused", async (args, code, message) => {
    dir.write("short", "too short");
    dir.write("open", "correct horse battery staple", 0o644);
    dir.write("two", "one line\nand another\n");
    const own = args.map((arg) => (arg === "OWN" ? keys.recipient : arg));
    const before = tree(dir.path);
    const run = await runBinary(["backup", "-c", small, "--out", "b.age", ...own], {
      cwd: dir.path,
    });
    expect({ code: run.code, stdout: run.stdout }).toEqual({ code, stdout: "" });
    expect(run.stderr).toContain(message);
    expect(run.stderr).not.toContain(CANARY);
    expect(tree(dir.path)).toEqual(before);
  });

  test("several public keys, one of them post-quantum: each opens it", async () => {
    const other = await generateHybridIdentity();
    const args = ["--recipient", await identityToRecipient(other), "--out", "b.age"];
    expect((await backup(...args)).code).toBe(0);
    const file = join(dir.path, "b.age");
    expect((await opened(file, keys)).has("manifest.json")).toBe(true);
    expect((await opened(file, { identity: other })).has("manifest.json")).toBe(true);
    const key = dir.write("pq.key", `${other}\n`);
    const run = await runBinary(["restore", file, "--identity", key, "-c", "new/config.yaml"], {
      cwd: dir.path,
    });
    expect(run.code).toBe(0);
  });

  test("a new pair of keys: the file is private, the public key is alone on standard output", async () => {
    const make = () => runBinary(["backup", "--new-identity", "id.key"], { cwd: dir.path });
    const { code, stdout, stderr } = await make();
    expect(code).toBe(0);
    expect(stdout).toMatch(/^age1[0-9a-z]+\n$/);
    const path = join(dir.path, "id.key");
    expect(statSync(path).mode & 0o777).toBe(0o600);
    const secret = /^AGE-SECRET-KEY-1\S+$/m.exec(readFileSync(path, "utf8"))![0];
    expect(stdout + stderr).not.toContain(secret);
    await runBinary(["backup", "-c", small, "--recipient", stdout.trim(), "--out", "b.age"], {
      cwd: dir.path,
    });
    expect((await opened(join(dir.path, "b.age"), { identity: secret })).size).toBe(2);
    const again = await make();
    expect(again.code).toBe(73);
    expect(again.stderr).toContain("is there already");
    expect(readFileSync(path, "utf8")).toContain(secret);
  });
});

describe("where it is written", () => {
  test("a file that is there is kept, unless --force says otherwise; a directory gets a name with the time", async () => {
    const out = dir.write("b.age", "precious");
    const refused = await backup("--out", out);
    expect(refused.code).toBe(73);
    expect(refused.stderr).toContain("is there already");
    expect(readFileSync(out, "utf8")).toBe("precious");
    expect((await backup("--out", out, "--force")).code).toBe(0);
    expect((await opened(out, keys)).has("manifest.json")).toBe(true);
    mkdirSync(join(dir.path, "many"));
    const named = await backup("--out", "many");
    expect(named.stdout).toMatch(/\/many\/gatehouse-\d{8}T\d{6}Z\.backup\.age\n$/);
    expect(existsSync(named.stdout.trim())).toBe(true);
    expect(drafts(dir.path)).toEqual([]);
  });

  test.each([
    ["a directory that is not there", "no/b.age", 73, "its directory does not exist"],
    ["below a file", "etc/config.yaml/b.age", 73, "its directory does not exist"],
  ])("%s", async (_, out, code, message) => {
    const before = tree(dir.path);
    const run = await backup("--out", out);
    expect(run.code).toBe(code);
    expect(run.stderr).toContain(message);
    expect(tree(dir.path)).toEqual(before);
  });

  test("a full disk leaves neither a file nor a part of one", async () => {
    const disk = smallDisk(1024 * 1024);
    if (disk === null) {
      console.log("not run: this user may not mount a small disk");
      return;
    }
    try {
      await token("first");
      dir.write("etc/state/noise.bin", crypto.getRandomValues(new Uint8Array(65536)));
      disk.fill();
      const { code, stderr } = await backup("--out", join(disk.path, "b.age"));
      expect(code).toBe(69);
      expect(stderr).toContain("the disk is full");
      expect(readdirSync(disk.path)).toEqual(["ballast"]);
      Bun.spawnSync(["mount", "-o", "remount,ro", disk.path]);
      const readOnly = await backup("--out", join(disk.path, "b.age"));
      expect(readOnly.code).toBe(73);
      expect(readOnly.stderr).toContain("read-only");
    } finally {
      disk.dispose();
    }
  });

  test("standard output: the backup alone; a reader that goes away is a failure", async () => {
    await token("first");
    const binary = await binaryPath();
    const child = Bun.spawn(
      [binary, "backup", "-c", small, "--recipient", keys.recipient, "--out", "-"],
      { stdin: "ignore", stdout: "pipe", stderr: "pipe" },
    );
    const bytes = await child.stdout.bytes();
    expect(await child.exited).toBe(0);
    expect((await opened(bytes, keys)).has("state/gatehouse.db")).toBe(true);
    const script = `"$0" backup -c "$1" --recipient "$2" --out - | true; echo "\${PIPESTATUS[0]}"`;
    const cut = Bun.spawn(["bash", "-c", script, binary, small, keys.recipient], {
      stdin: "ignore",
      stdout: "pipe",
      stderr: "pipe",
    });
    expect(await cut.stdout.text()).toBe("1\n");
    expect(await cut.stderr.text()).toContain("nobody reads it any more");
  });

  test("a terminal gets no backup", async () => {
    let shown = "";
    const child = Bun.spawn(
      [await binaryPath(), "backup", "-c", small, "--recipient", keys.recipient, "--out", "-"],
      {
        terminal: {
          data: (_: unknown, bytes: Uint8Array) => {
            shown += new TextDecoder().decode(bytes);
          },
        },
      },
    );
    expect(await child.exited).toBe(2);
    while (!shown.includes("terminal")) await Bun.sleep(5);
    expect(shown).not.toContain("age-encryption.org");
  });
});

describe("cut off", () => {
  /** Random, so that it does not shrink: the backup then takes long enough to be caught in the middle. */
  function enlarge(): void {
    const block = crypto.getRandomValues(new Uint8Array(65536));
    const noise = Buffer.concat(Array.from({ length: 192 }, () => block));
    for (let at = 0; at < noise.length; at += 65536) noise.writeUInt32LE(at, at);
    dir.write("etc/state/noise.bin", noise);
    dir.write("etc/state/canary.txt", CANARY);
  }

  async function caught(signal: NodeJS.Signals): Promise<number> {
    const child = Bun.spawn(
      [await binaryPath(), "backup", "-c", small, "--recipient", keys.recipient, "--out", "b.age"],
      { cwd: dir.path, stdin: "ignore", stdout: "ignore", stderr: "ignore" },
    );
    const isUnderWay = (): boolean =>
      drafts(dir.path).some((name) => statSync(join(dir.path, name)).size > 0);
    while (!isUnderWay() && child.exitCode === null) await Bun.sleep(1);
    child.kill(signal);
    const code = await child.exited;
    if (code !== 0) return code;
    // A busy machine let it finish first: once more.
    rmSync(join(dir.path, "b.age"));
    return caught(signal);
  }

  test("SIGTERM takes back what was written", async () => {
    await token("first");
    enlarge();
    const before = tree(dir.path);
    expect(await caught("SIGTERM")).toBe(1);
    expect(tree(dir.path)).toEqual(before);
  });

  test("SIGKILL leaves at most an encrypted part, and the state as it was", async () => {
    await token("first");
    enlarge();
    const before = tree(join(dir.path, "etc"));
    await caught("SIGKILL");
    expect(existsSync(join(dir.path, "b.age"))).toBe(false);
    expect(tree(join(dir.path, "etc"))).toEqual(before);
    const [part] = drafts(dir.path);
    const bytes = readFileSync(join(dir.path, part!));
    expect(statSync(join(dir.path, part!)).mode & 0o777).toBe(0o600);
    expect(bytes.subarray(0, 21).toString()).toBe("age-encryption.org/v1");
    expect(bytes.includes(CANARY) || bytes.includes("SQLite format 3")).toBe(false);
    expect(readdirSync(dir.path).sort()).toEqual([part!, "etc"].sort());
  });
});

test("what is no backup's business is said: a config with a mistake, an unreadable file, an interrupted restore", async () => {
  const broken = dir.write("broken.yaml", "version: 1\nroutes: 5\n");
  const run = await runBinary(["backup", "-c", broken, "--recipient", keys.recipient], {
    cwd: dir.path,
  });
  expect(run.code).toBe(78);
  expect(run.stderr).toContain("routes: expected a list");
  await token("first");
  dir.write("etc/state/restore.pending", "{}");
  const pending = await backup("--out", "b.age");
  expect(pending.code).toBe(1);
  expect(pending.stderr).toContain("was interrupted");
  expect(existsSync(join(dir.path, "b.age"))).toBe(false);
});

describe.if(process.geteuid?.() === 0)("root, for a service with a user of its own", () => {
  const SERVICE = 65_531;

  test("the state is read as that user: nothing there becomes root's, and no link leads root astray", async () => {
    await token("first");
    const stateDir = join(dir.path, "etc/state");
    chmodSync(dir.path, 0o755);
    chmodSync(join(dir.path, "etc"), 0o755);
    Bun.spawnSync(["chown", "-R", `${SERVICE}:${SERVICE}`, stateDir]);
    const secret = dir.write("root-only.txt", CANARY);
    mkdirSync(join(stateDir, "sub"));
    symlinkSync(secret, join(stateDir, "link.txt"));
    Bun.spawnSync(["chown", "-hR", `${SERVICE}:${SERVICE}`, stateDir]);
    // Unreadable for the service user: reading it with root's rights would put it within that user's reach.
    dir.write("etc/state/roots.txt", CANARY);
    const refused = await backup("--out", "b.age");
    expect(refused.code).toBe(77);
    expect(refused.stderr).toContain("roots.txt cannot be read (EACCES)");
    rmSync(join(stateDir, "roots.txt"));
    expect((await backup("--out", "b.age")).code).toBe(0);
    const files = await opened(join(dir.path, "b.age"), keys);
    expect(files.has("state/gatehouse.db")).toBe(true);
    expect([...files.values()].some((content) => content.includes(CANARY))).toBe(false);
    for (const name of readdirSync(stateDir)) {
      expect(Bun.spawnSync(["stat", "-c", "%u", join(stateDir, name)]).stdout.toString()).toBe(
        `${SERVICE}\n`,
      );
    }
  });
});

afterAll(() => {
  if (process.geteuid?.() !== 0) console.log("not run: tests for root, because this is not root");
});
