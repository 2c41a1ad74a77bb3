/** `gatehouse doctor` about what lies on the disk: configuration, files, state, database, keys, tokens. */
import { Database } from "bun:sqlite";
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { createHash } from "node:crypto";
import {
  chmodSync,
  chownSync,
  copyFileSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { runBinary, startBinary } from "../support/binary.ts";
import {
  bearerConfig,
  examine,
  examineAsNobody,
  type Household,
  household,
  mayBecomeNobody,
} from "../support/doctor.ts";
import { scratch } from "../support/gateway.ts";
import { type RawUpstream, rawUpstream } from "../support/raw.ts";

const isRoot = process.getuid?.() === 0;
const CANARY = "canary-doctor-0123456789abcdef";

let upstream: RawUpstream;
let url: string;
beforeAll(() => {
  upstream = rawUpstream();
  url = `http://${upstream.address}`;
});
afterAll(() => upstream.stop());

async function withToken(name: string, ...more: string[]): Promise<Household> {
  const home = household(bearerConfig(url));
  await addToken(home, name, ...more);
  return home;
}

async function addToken(home: Household, name: string, ...more: string[]): Promise<void> {
  const args = ["token", "create", "-c", home.config, "--name", name, ...more];
  const { code, stderr } = await runBinary(args, { cwd: home.dir });
  if (code !== 0) throw new Error(stderr);
}

/** Name, mode, time of change and content of everything in a directory. */
function snapshot(dir: string): readonly string[] {
  return readdirSync(dir, { recursive: true, withFileTypes: true })
    .map((entry) => {
      const path = join(entry.parentPath, entry.name);
      const { mode, mtimeNs, size } = statSync(path, { bigint: true });
      const content = entry.isFile()
        ? createHash("sha256").update(readFileSync(path)).digest("hex")
        : "";
      return [path, mode, mtimeNs, size, content].join(" ");
    })
    .sort();
}

describe("a gateway in order", () => {
  test("has no errors and exits 0, and what was looked at is listed", async () => {
    const home = await withToken("laptop");
    const report = await home.examine();
    expect(report.codes("error")).toEqual([]);
    expect(report.exitCode).toBe(0);
    for (const code of [
      "config_valid",
      "state_private",
      "database_sound",
      "strategy_starts",
      "tokens",
      "upstream_answers",
      "jit_on",
    ]) {
      expect(report.find(code)?.severity, code).toBe("ok");
    }
  });

  test("nothing is changed on disk, also where there is no state yet", async () => {
    const fresh = household(bearerConfig(url));
    rmSync(fresh.state, { recursive: true });
    const used = await withToken("laptop");
    for (const home of [fresh, used]) {
      const before = snapshot(home.dir);
      const report = await home.examine();
      expect(report.exitCode).toBe(0);
      expect(snapshot(home.dir)).toEqual(before);
    }
    expect((await fresh.examine()).find("state_absent")?.severity).toBe("info");
  });

  test("beside a running gateway the database is read as it is, and no file comes or goes", async () => {
    const home = household(bearerConfig(url));
    const running = await startBinary(["serve", "-c", home.config], { cwd: home.dir });
    try {
      await addToken(home, "made-while-it-runs");
      const kept = (): readonly string[] =>
        snapshot(home.dir).filter((line) => !line.includes("-shm "));
      const names = readdirSync(home.state).sort();
      expect(names).toContain("gatehouse.db-wal");
      const before = kept();
      const report = await home.examine();
      expect(kept()).toEqual(before);
      expect(readdirSync(home.state).sort()).toEqual(names);
      // The token is in the log alone.
      expect(report.find("tokens")?.what).toContain("1 of 1 tokens");
      expect(report.exitCode).toBe(0);
    } finally {
      await running.stop();
    }
  });
});

describe("the configuration", () => {
  test("every problem is an error with its place and what to do", async () => {
    const home = household(
      `${bearerConfig(url).replace("team: {", "keys: { use: static-env, env: NOT_SET }\n  team: {")}  - { match: { path: /** }, access: [tema] }\n`,
    );
    const report = await home.examine();
    expect(report.exitCode).toBe(78);
    const found = report.findings.filter(({ code }) => code === "config_invalid");
    expect(found.map(({ what }) => what).join("\n")).toContain("tema");
    expect(found.every(({ why, next }) => why !== null && next !== null)).toBe(true);
    // What needs no configuration was looked at all the same.
    expect(report.find("jit_on")).toBeDefined();
  });

  test("a missing secret is an error, and the rest is looked at", async () => {
    const home = household(
      bearerConfig(url, { upstream: '    headers: { x-key: "${env:API_KEY}" }' }),
    );
    const report = await home.examine();
    expect(report.exitCode).toBe(3);
    expect(report.find("config_invalid")?.what).toContain("API_KEY is not set");
    expect(report.find("upstream_answers")).toBeDefined();
    const there = await home.examine({ env: { API_KEY: CANARY } });
    expect(there.exitCode).toBe(0);
    expect(there.text).not.toContain(CANARY);
  });

  test("a secret file that everybody can read is an error with its command", async () => {
    const home = household(
      bearerConfig(url, { upstream: '    headers: { x-key: "${file:./key.txt}" }' }),
    );
    home.write("key.txt", CANARY, 0o644);
    const report = await home.examine();
    expect(report.find("config_invalid")?.what).toContain("chmod 600");
    expect(report.text).not.toContain(CANARY);
    home.write("key.txt", CANARY, 0o600);
    expect((await home.examine()).exitCode).toBe(0);
  });

  test("no file at all: 78, with where it was looked for", async () => {
    const dir = scratch();
    const report = await examine([], { cwd: dir, env: { HOME: dir } });
    expect(report.exitCode).toBe(78);
    expect(report.find("config_invalid")?.what).toContain(join(dir, "gatehouse.yaml"));
    const broken = await examine(["-c", "x.yaml"], { cwd: dir });
    expect(broken.exitCode).toBe(78);
  });

  test("a file that everybody can read is a warning when it refers to secrets", async () => {
    const home = household(
      bearerConfig(url, { upstream: '    headers: { x-key: "${env:API_KEY}" }' }),
    );
    const env = { API_KEY: CANARY };
    expect((await home.examine({ env })).find("config_open")).toBeUndefined();
    chmodSync(home.config, 0o644);
    expect((await home.examine({ env })).find("config_open")?.severity).toBe("warning");
    const plain = household(bearerConfig(url));
    chmodSync(plain.config, 0o644);
    expect((await plain.examine()).find("config_open")).toBeUndefined();
  });

  test("a world-readable .env beside it is an error; its content and that of others is not shown", async () => {
    const home = household(bearerConfig(url));
    home.write(".env", `SECRET=${CANARY}\n`, 0o600);
    home.write(".env.example", "SECRET=\n", 0o644);
    expect((await home.examine()).find("env_file_open")).toBeUndefined();
    home.write("prod.env", `SECRET=${CANARY}\n`, 0o644);
    const report = await home.examine();
    expect(report.find("env_file_open")?.what).toContain("prod.env");
    expect(report.find("env_file_open")?.next).toContain("chmod 600");
    expect(report.exitCode).toBe(3);
    expect(report.text).not.toContain(CANARY);
  });

  test("a secret that a strategy would quote is not in the report", async () => {
    const home = household(
      bearerConfig(url, {
        strategies:
          '  keys: { use: valkey-hash, url: "redis://127.0.0.1:1", salt: "${env:SALT}", password: "${env:PASSWORD}" }',
      }),
    );
    const salt = createHash("sha256").update(CANARY).digest("hex");
    const report = await home.examine({ env: { SALT: salt, PASSWORD: CANARY } });
    expect(report.exitCode).toBe(3);
    expect(report.find("strategy_cannot_start")?.what).toContain("keys cannot start");
    expect(report.text).not.toContain(CANARY);
    expect(report.text).not.toContain(salt);
  });
});

describe("the state directory", () => {
  test("a key that others can read is an error with the command that mends it", async () => {
    const home = await withToken("laptop");
    chmodSync(join(home.state, "pepper.key"), 0o644);
    const report = await home.examine();
    expect(report.find("state_open")?.what).toContain("pepper.key");
    expect(report.find("state_open")?.next).toContain("chmod go-rwx");
    expect(report.exitCode).toBe(3);
  });

  test("a key of another length is damaged", async () => {
    const home = await withToken("laptop");
    writeFileSync(join(home.state, "pepper.key"), "short");
    expect((await home.examine()).find("key_damaged")?.what).toContain("5 bytes");
  });

  test("an unfinished restore is an error", async () => {
    const home = await withToken("laptop");
    writeFileSync(join(home.state, "restore.pending"), "", { mode: 0o600 });
    expect((await home.examine()).find("restore_unfinished")?.next).toContain(
      "gatehouse restore --undo",
    );
  });

  test.skipIf(!isRoot)(
    "files of another user than the directory's are an error (needs root)",
    async () => {
      const home = await withToken("laptop");
      chownSync(join(home.state, "pepper.key"), 65_534, 65_534);
      const report = await home.examine();
      expect(report.find("state_owner")?.what).toContain("pepper.key");
      expect(report.exitCode).toBe(3);
    },
  );

  test.skipIf(!isRoot)(
    "files of the account that systemd made, behind the link of root's that it makes, are in order (needs root)",
    async () => {
      const home = await withToken("laptop");
      const behind = `${home.state}-private`;
      renameSync(home.state, behind);
      symlinkSync(behind, home.state);
      for (const name of [".", ...readdirSync(behind)]) {
        chownSync(join(behind, name), 61_740, 61_740);
      }
      const report = await home.examine();
      expect(report.codes("error")).toEqual([]);
      expect(report.find("state_private")?.severity).toBe("ok");
    },
  );

  test.skipIf(!mayBecomeNobody)(
    "what this user may not see is said to be unseen (needs root and setpriv)",
    async () => {
      const home = await withToken("laptop");
      const report = await examineAsNobody(home);
      expect(report.find("state_unseen")?.next).toContain("sudo");
      expect(report.find("database_sound")).toBeUndefined();
      expect(report.find("strategies_not_tried")).toBeDefined();
    },
  );
});

describe("the database", () => {
  test("damage is found", async () => {
    const home = await withToken("laptop");
    const path = join(home.state, "gatehouse.db");
    const bytes = readFileSync(path);
    bytes.fill(0xa5, 4096 * 2, 4096 * 4);
    writeFileSync(path, bytes);
    const report = await home.examine();
    expect(report.find("database_damaged")?.next).toContain("gatehouse restore");
    expect(report.exitCode).toBe(3);
    writeFileSync(
      path,
      "this is no database, but it is long enough to be taken for one".repeat(20),
    );
    expect((await home.examine()).find("database_damaged")).toBeDefined();
  });

  test("another program's file is told from ours", async () => {
    const home = household(bearerConfig(url));
    const path = join(home.state, "gatehouse.db");
    const other = new Database(path);
    other.run("CREATE TABLE theirs (a)");
    other.close();
    chmodSync(path, 0o600);
    expect((await home.examine()).find("database_foreign")?.severity).toBe("error");
  });

  test("one that a newer version has written is refused with what to do", async () => {
    const home = await withToken("laptop");
    const database = new Database(join(home.state, "gatehouse.db"));
    database.run("INSERT INTO gatehouse_migrations VALUES ('bearer_sqlite', 99, '099_later', 0)");
    database.close();
    const report = await home.examine();
    expect(report.find("database_newer")?.what).toContain("099_later");
    expect(report.exitCode).toBe(3);
  });

  test("one that was not closed in order is left to the gateway", async () => {
    const home = household(bearerConfig(url));
    const running = await startBinary(["serve", "-c", home.config], { cwd: home.dir });
    await addToken(home, "laptop");
    const crashed = household(bearerConfig(url));
    for (const name of ["gatehouse.db", "gatehouse.db-wal", "pepper.key"]) {
      copyFileSync(join(home.state, name), join(crashed.state, name));
      chmodSync(join(crashed.state, name), 0o600);
    }
    await running.stop();
    const before = snapshot(crashed.dir);
    const report = await crashed.examine();
    expect(report.find("database_unseen")?.what).toContain("not closed in order");
    expect(snapshot(crashed.dir)).toEqual(before);
    expect(report.exitCode).toBe(0);
  });

  test("a strategy's own file is read without a trace, and damage in it is found", async () => {
    const home = household(
      bearerConfig(url, { strategies: "  clients: { use: routstrd, database: ./routstr.db }" }),
    );
    const path = join(home.dir, "routstr.db");
    const theirs = new Database(path);
    theirs.run("PRAGMA journal_mode = WAL");
    theirs.run("CREATE TABLE sdk_storage (key TEXT, value TEXT)");
    theirs.close(true);
    const before = snapshot(home.dir);
    const report = await home.examine();
    expect(report.find("other_database_sound")?.what).toContain("routstr.db");
    expect(report.find("strategy_not_tried")?.what).toContain("clients");
    expect(snapshot(home.dir)).toEqual(before);
    writeFileSync(path, "damaged ".repeat(600));
    expect((await home.examine()).find("other_database_damaged")?.severity).toBe("error");
  });
});

describe("strategies and tokens", () => {
  test("a lost pepper says what that means", async () => {
    const home = await withToken("laptop");
    rmSync(join(home.state, "pepper.key"));
    const before = snapshot(home.dir);
    const report = await home.examine();
    const lost = report.find("key_lost");
    expect(lost?.severity).toBe("error");
    expect(lost?.what).toContain("pepper.key is not there");
    expect(lost?.why).toContain("no token of team works");
    expect(lost?.next).toContain("gatehouse restore");
    expect(report.exitCode).toBe(3);
    // Least of all is a new one made.
    expect(snapshot(home.dir)).toEqual(before);
  });

  test("another pepper than that of the tokens is found as well", async () => {
    const home = await withToken("laptop");
    writeFileSync(join(home.state, "pepper.key"), new Uint8Array(32).fill(7));
    const report = await home.examine();
    expect(report.find("strategy_cannot_start")?.what).toContain("another pepper");
    expect(report.exitCode).toBe(3);
  });

  test("tokens that expire soon or were never used are named; others are counted", async () => {
    const home = await withToken("ends-soon", "--expires", "3d");
    await addToken(home, "ends-later", "--expires", "90d");
    await addToken(home, "forgotten");
    const fresh = await home.examine();
    expect(fresh.find("tokens_expiring")?.what).toContain("ends-soon");
    expect(fresh.find("tokens_expiring")?.what).not.toContain("ends-later");
    expect(fresh.find("tokens_unused")).toBeUndefined();
    const database = new Database(join(home.state, "gatehouse.db"));
    const longAgo = Date.now() - 40 * 86_400_000;
    database.run("UPDATE bearer_sqlite_tokens SET created_at = ? WHERE name = 'forgotten'", [
      longAgo,
    ]);
    database.close();
    const report = await home.examine();
    expect(report.find("tokens_unused")?.what).toContain("forgotten");
    expect(report.find("tokens")?.what).toContain("3 of 3");
    expect(report.exitCode).toBe(0);
  });

  test("nobody who could come in, and a condition of a strategy, are said", async () => {
    const home = household(bearerConfig(url, { strategies: "  nostr: { use: nip98 }" }));
    const report = await home.examine();
    expect(report.find("no_tokens")?.next).toContain("gatehouse token create --strategy team");
    expect(report.find("no_members")?.severity).toBe("warning");
    expect(report.exitCode).toBe(0);
    expect((await examine(["-c", home.config, "--strict"], { cwd: home.dir })).exitCode).toBe(3);
  });

  test("a file of somebody's own is not started", async () => {
    const home = household(bearerConfig(url, { strategies: "  mine: { use: ./mine.ts }" }));
    mkdirSync(join(home.dir, "made"));
    home.write(
      "mine.ts",
      `import { writeFileSync } from "node:fs";
import { definePlugin, z } from "gatehouse";
export default definePlugin({
  name: "mine",
  contract: 1,
  config: z.strictObject({}),
  init() {
    writeFileSync(${JSON.stringify(join(home.dir, "made", "trace"))}, "x");
    return { authenticate: () => ({ outcome: "absent" }) };
  },
});
`,
    );
    const report = await home.examine();
    expect(report.find("strategy_not_tried")?.what).toContain("mine");
    expect(readdirSync(join(home.dir, "made"))).toEqual([]);
  });
});
