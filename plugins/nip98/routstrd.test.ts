/** Members in routstrd's own file, written by a second process in every shape that a version left behind. */
import { Database } from "bun:sqlite";
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { chmodSync, existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { StrategyInstance } from "gatehouse";
import { type TestHost, testHost } from "../../test/support/host.ts";
import { newKey, signed } from "../../test/support/nostr.ts";
import { inOtherProcess } from "../../test/support/other-process.ts";
import { authRequest } from "../../test/support/request.ts";
import plugin from "./index.ts";

const [ALICE, BOB, CAROL] = [newKey(), newKey(), newKey()] as const;

const SDK_STORAGE = "CREATE TABLE sdk_storage (key TEXT PRIMARY KEY, value TEXT);";
const CLIENTS = `INSERT INTO sdk_storage VALUES ('client_ids', '[{"clientId":"a"}]');`;
const V2 = `CREATE TABLE routstr_auth_admins (pubkey TEXT PRIMARY KEY, npub TEXT NOT NULL UNIQUE,
  created_at INTEGER NOT NULL, created_by TEXT, source TEXT NOT NULL DEFAULT 'api');`;
const V3 = `CREATE TABLE routstr_auth_npubs (pubkey TEXT PRIMARY KEY, npub TEXT NOT NULL UNIQUE,
  created_at INTEGER NOT NULL, created_by TEXT, source TEXT NOT NULL DEFAULT 'api',
  role TEXT NOT NULL DEFAULT 'admin' CHECK (role IN ('admin', 'user')));`;
const V5 = `${V3} ALTER TABLE routstr_auth_npubs ADD COLUMN name TEXT;`;

let context: TestHost;
let file: string;
const running: StrategyInstance[] = [];

beforeEach(() => {
  context = testHost({ strategy: "nostr" });
  file = join(context.directory, "routstr.db");
});
afterEach(async () => {
  for (const instance of running.splice(0)) await instance.close?.();
  context.dispose();
});

async function start(config: Record<string, unknown> = {}): Promise<StrategyInstance> {
  const settings = plugin.config.parse({ database: "routstr.db", ...config });
  const instance = await plugin.init(settings, context.host);
  running.push(instance);
  return instance;
}

/** Runs SQL on the file as the daemon would, in a process of its own. */
function daemon(sql: string, journal = "WAL"): void {
  inOtherProcess(
    `import { Database } from "bun:sqlite";
     const [path, journal, sql] = Bun.argv.slice(-3);
     const database = new Database(path);
     database.run("PRAGMA journal_mode = " + journal);
     database.exec(sql);
     database.close();`,
    file,
    journal,
    sql,
  );
}

function row(key: typeof ALICE, rest: string): string {
  return `('${key.pubkey}', '${key.npub}', ${rest})`;
}

function rows(sql: string): unknown[][] {
  const database = new Database(file, { readonly: true });
  try {
    return database.query(sql).values();
  } finally {
    database.close();
  }
}

async function said(instance: StrategyInstance, key: typeof ALICE): Promise<string> {
  const authorization = signed(key, { clock: context.clock });
  const outcome = await instance.authenticate(authRequest({ headers: { authorization } }));
  if (outcome.outcome === "accept") return outcome.identity.role ?? "none";
  return outcome.outcome === "reject" ? outcome.reason : outcome.outcome;
}

describe("every shape of the file", () => {
  test("one with the newest table is used as it is", async () => {
    daemon(`${SDK_STORAGE}${CLIENTS}${V5} INSERT INTO routstr_auth_npubs VALUES
      ${row(ALICE, "100, NULL, 'api', 'admin', 'Al'")}, ${row(BOB, `50, '${ALICE.pubkey}', 'api', 'user', NULL`)}`);
    const before = readFileSync(file);
    const instance = await start();
    expect(instance.members?.list()).toEqual([
      {
        pubkey: BOB.pubkey,
        npub: BOB.npub,
        name: null,
        role: "user",
        createdAtMs: 50_000,
        createdBy: ALICE.pubkey,
        source: "api",
      },
      {
        pubkey: ALICE.pubkey,
        npub: ALICE.npub,
        name: "Al",
        role: "admin",
        createdAtMs: 100_000,
        createdBy: null,
        source: "api",
      },
    ]);
    expect(await said(instance, ALICE)).toBe("admin");
    expect(await said(instance, BOB)).toBe("user");
    expect(await said(instance, CAROL)).toBe("not_registered");
    expect(readFileSync(file).equals(before)).toBe(true);
  });

  test("one without the name column gets it and keeps its rows", async () => {
    daemon(
      `${V3} INSERT INTO routstr_auth_npubs VALUES ${row(ALICE, "1, NULL, 'env', 'admin'")}, ${row(BOB, "2, NULL, 'api', 'user'")}`,
    );
    const instance = await start({ admins: [ALICE.npub] });
    expect(instance.members?.update(BOB.npub, { name: "Bob" }).name).toBe("Bob");
    expect(
      rows(
        "SELECT pubkey, created_at, source, role, name FROM routstr_auth_npubs ORDER BY created_at",
      ),
    ).toEqual([
      [ALICE.pubkey, 1, "env", "admin", null],
      [BOB.pubkey, 2, "api", "user", "Bob"],
    ]);
  });

  test("the old table of admins is taken over; who is a user already stays one", async () => {
    daemon(`${SDK_STORAGE}${CLIENTS}${V2}${V3}
      INSERT INTO routstr_auth_admins VALUES ${row(ALICE, "1, NULL, 'api'")}, ${row(BOB, `2, '${ALICE.pubkey}', 'api'`)};
      INSERT INTO routstr_auth_npubs VALUES ${row(BOB, "3, NULL, 'api', 'user'")}`);
    await start();
    expect(
      rows(
        "SELECT pubkey, created_at, created_by, role FROM routstr_auth_npubs ORDER BY created_at",
      ),
    ).toEqual([
      [ALICE.pubkey, 1, null, "admin"],
      [BOB.pubkey, 3, null, "user"],
    ]);
    expect(rows("SELECT name FROM sqlite_master WHERE name = 'routstr_auth_admins'")).toEqual([]);
    expect(rows("SELECT value FROM sdk_storage")).toEqual([['[{"clientId":"a"}]']]);
  });

  test("the old table alone is enough", async () => {
    daemon(`${V2} INSERT INTO routstr_auth_admins VALUES ${row(ALICE, "1, NULL, 'env'")}`);
    expect(await said(await start({ admins: [ALICE.npub] }), ALICE)).toBe("admin");
  });

  test("an old row that the new table cannot hold is not dropped", async () => {
    daemon(`${V2} ${V3} INSERT INTO routstr_auth_admins VALUES ${row(ALICE, "1, NULL, 'api'")};
      INSERT INTO routstr_auth_npubs VALUES ('${BOB.pubkey}', '${ALICE.npub}', 1, NULL, 'api', 'user')`);
    await start();
    expect(rows("SELECT pubkey FROM routstr_auth_admins")).toEqual([[ALICE.pubkey]]);
    expect(context.log.text()).toContain("nip98.old_admins_kept");
    await start();
  });

  test.each([
    ["no tables at all", "CREATE TABLE unrelated (x);"],
    ["sdk_storage but no members", SDK_STORAGE],
    ["members but no sdk_storage", V5],
  ])("one with %s is fine", async (_, sql) => {
    daemon(sql);
    const instance = await start({ admins: [ALICE.npub] });
    expect(await said(instance, ALICE)).toBe("admin");
    expect(rows("SELECT source, role FROM routstr_auth_npubs")).toEqual([["env", "admin"]]);
  });

  test.each(["WAL", "DELETE"])("the journal mode %s is left as it is", async (mode) => {
    daemon(V5, mode);
    await start({ admins: [ALICE.npub] });
    expect(rows("PRAGMA journal_mode")).toEqual([[mode.toLowerCase()]]);
  });
});

describe("as the daemon's own proxy does it", () => {
  test("rows of the environment that are listed no longer go, but never the last admin", async () => {
    daemon(`${V5} INSERT INTO routstr_auth_npubs VALUES ${row(ALICE, "1, NULL, 'env', 'admin', NULL")},
      ${row(BOB, "2, NULL, 'env', 'admin', NULL")}, ${row(CAROL, "3, NULL, 'api', 'user', NULL")}`);
    const instance = await start();
    expect(instance.members?.list().map(({ npub }) => npub)).toEqual([ALICE.npub, CAROL.npub]);
    expect(context.log.text()).toContain("member.last_admin_kept");
    const next = await start({ admins: [BOB.npub] });
    expect(
      next.members
        ?.list()
        .map(({ npub }) => npub)
        .sort(),
    ).toEqual([BOB.npub, CAROL.npub].sort());
  });

  test("a user whom the list names as admin is not promoted, and that is logged", async () => {
    daemon(
      `${V5} INSERT INTO routstr_auth_npubs VALUES ${row(ALICE, "1, NULL, 'api', 'user', NULL")}`,
    );
    expect(await said(await start({ admins: [ALICE.npub] }), ALICE)).toBe("user");
    expect(context.log.text()).toContain("member.not_promoted");
  });

  test("what is added is written in its words", async () => {
    daemon(V5);
    const { members } = await start();
    context.clock.set(1_767_225_600_999);
    members?.add({ key: ALICE.npub, role: "admin", name: "A", source: "cli" });
    expect(rows("SELECT * FROM routstr_auth_npubs")).toEqual([
      [ALICE.pubkey, ALICE.npub, 1_767_225_600, null, "api", "admin", "A"],
    ]);
  });

  test("what the daemon writes holds on the next request", async () => {
    daemon(V5);
    const instance = await start();
    expect(await said(instance, ALICE)).toBe("not_registered");
    daemon(`INSERT INTO routstr_auth_npubs VALUES ${row(ALICE, "1, NULL, 'api', 'admin', NULL")}`);
    expect(await said(instance, ALICE)).toBe("admin");
    daemon("UPDATE routstr_auth_npubs SET role = 'user'");
    expect(await said(instance, ALICE)).toBe("user");
    daemon("DELETE FROM routstr_auth_npubs");
    expect(await said(instance, ALICE)).toBe("not_registered");
  });
});

describe("troubles", () => {
  async function refusal(config: Record<string, unknown> = {}): Promise<string> {
    try {
      await start(config);
    } catch (error) {
      return error instanceof Error ? error.message : String(error);
    }
    return "started";
  }

  test("a file that is not there is not made", async () => {
    expect(await refusal()).toContain("start the daemon once");
    expect(existsSync(file)).toBe(false);
    const surroundings = { env: {}, configDir: context.directory };
    const settings = plugin.config.parse({ database: "routstr.db" });
    expect(plugin.check?.(settings, surroundings)).toHaveLength(1);
    daemon("CREATE TABLE unrelated (x)");
    expect(plugin.check?.(settings, surroundings)).toEqual([]);
  });

  test("a directory, a text and a damaged file are said to be that, and are left alone", async () => {
    mkdirSync(file);
    expect(await refusal()).toContain("is not a file");
    file = join(context.directory, "text.db");
    writeFileSync(file, "hello ".repeat(1000));
    expect(await refusal({ database: "text.db" })).toContain("is damaged");
    expect(readFileSync(file, "utf8")).toStartWith("hello hello");
    file = join(context.directory, "cut.db");
    daemon(`${V5} CREATE TABLE filler (x); INSERT INTO filler VALUES (zeroblob(100000))`, "DELETE");
    const bytes = readFileSync(file);
    writeFileSync(
      file,
      Buffer.concat([bytes.subarray(0, 100), Buffer.alloc(4096, 0xff), bytes.subarray(4196)]),
    );
    expect(await refusal({ database: "cut.db" })).toContain("is damaged");
  });

  /** Byte 18 of the header is the version of the format for writing: SQLite reads but never writes a later one. */
  function makeReadOnly(): void {
    const bytes = readFileSync(file);
    bytes[18] = 9;
    writeFileSync(file, bytes);
    chmodSync(file, 0o444);
  }

  test("a read-only file is read; what would be written fails with words", async () => {
    daemon(
      `${V5} INSERT INTO routstr_auth_npubs VALUES ${row(ALICE, "1, NULL, 'api', 'admin', NULL")}`,
      "DELETE",
    );
    makeReadOnly();
    const instance = await start();
    expect(await said(instance, ALICE)).toBe("admin");
    expect(() => instance.members?.add({ key: BOB.npub, source: "cli" })).toThrow("is read-only");
    expect(await refusal({ admins: [ALICE.npub] })).toBe("started");
    expect(await refusal({ admins: [BOB.npub] })).toContain("is read-only");
  });

  test("a read-only file that would have to be migrated is refused", async () => {
    daemon(V3, "DELETE");
    makeReadOnly();
    expect(await refusal()).toContain("is read-only");
  });

  test.each(["WAL", "DELETE"])(
    "3 s of the daemon's lock (%s) delay who needs the file, and nobody else",
    async (journal) => {
      daemon(
        `${V5} INSERT INTO routstr_auth_npubs VALUES ${row(ALICE, "1, NULL, 'api', 'admin', NULL")}`,
        journal,
      );
      const instance = await start();
      const holder = Bun.spawn(
        [
          process.execPath,
          "-e",
          `
          import { Database } from "bun:sqlite";
          const database = new Database(Bun.argv.at(-1));
          database.run("BEGIN EXCLUSIVE");
          database.run("UPDATE routstr_auth_npubs SET name = 'held'");
          console.log("held");
          await Bun.sleep(3000);
          database.run("COMMIT");`,
          file,
        ],
        { stdout: "pipe" },
      );
      const reader = holder.stdout.getReader();
      await reader.read();
      let longestMs = 0;
      let lastMs = performance.now();
      const ticking = setInterval(() => {
        longestMs = Math.max(longestMs, performance.now() - lastMs);
        lastMs = performance.now();
      }, 1);
      expect(await said(instance, ALICE)).toBe("admin");
      clearInterval(ticking);
      expect(longestMs).toBeLessThan(100);
      // And a write waits for it.
      instance.members?.add({ key: BOB.npub, source: "cli" });
      expect(await holder.exited).toBe(0);
      expect(rows("SELECT count(*) FROM routstr_auth_npubs WHERE name = 'held'")).toEqual([[1]]);
      expect(await said(instance, BOB)).toBe("user");
    },
    15_000,
  );
});
