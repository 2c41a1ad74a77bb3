/** routstrd as a strategy, on a real file that another process writes. */

import { Database } from "bun:sqlite";
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { chmodSync, existsSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Outcome } from "../../src/contract/outcome.ts";
import type { StrategyInstance } from "../../src/contract/plugin.ts";
import { type TestHost, testHost } from "../../test/support/host.ts";
import { authRequest } from "../../test/support/request.ts";
import {
  createDatabase,
  type DaemonProcess,
  everyRow,
  type JournalMode,
  newKey,
  startDaemon,
  storedClient,
} from "./daemon.fixture.ts";
import plugin from "./index.ts";

const OWNER = `npub1${"q".repeat(58)}`;
const MEMBERS_TABLE = `CREATE TABLE routstr_auth_npubs (pubkey TEXT PRIMARY KEY, npub TEXT NOT NULL UNIQUE,
  created_at INTEGER NOT NULL, created_by TEXT, source TEXT NOT NULL DEFAULT 'api', role TEXT NOT NULL DEFAULT 'admin')`;

let context: TestHost;
let path: string;
const instances: StrategyInstance[] = [];
const daemons: DaemonProcess[] = [];

beforeEach(() => {
  context = testHost({ strategy: "daemon" });
  path = join(context.directory, "routstr.db");
});
afterEach(async () => {
  for (const instance of instances.splice(0)) await instance.close?.();
  for (const daemon of daemons.splice(0)) await daemon.stop();
  context.dispose();
});

async function daemonAt(mode: JournalMode = "wal", file = path): Promise<DaemonProcess> {
  const daemon = await startDaemon(file, mode);
  daemons.push(daemon);
  return daemon;
}

async function start(config: object = {}): Promise<StrategyInstance> {
  const settings = plugin.config.parse({ database: "routstr.db", ...config });
  const instance = await plugin.init(settings, context.host);
  instances.push(instance);
  return instance;
}

async function ask(instance: StrategyInstance, key: string): Promise<Outcome> {
  return await instance.authenticate(authRequest({ headers: { authorization: `Bearer ${key}` } }));
}

async function said(instance: StrategyInstance, key: string): Promise<string> {
  return (await ask(instance, key)).outcome;
}

function codes(instance: StrategyInstance): string[] {
  chmodSync(path, 0o600);
  return (instance.health?.() ?? []).map(({ code }) => code);
}

describe("who is proven", () => {
  test("the client of the key, with its owner and the id that the daemon knows", async () => {
    const client = storedClient({ clientId: "laptop-qqqqqqq", name: "Laptop", ownerNpub: OWNER });
    createDatabase(path, { clients: [storedClient(), client] });
    expect(await ask(await start(), client.apiKey)).toEqual({
      outcome: "accept",
      identity: {
        id: "laptop-qqqqqqq",
        role: "user",
        name: "Laptop",
        owner: OWNER,
        attributes: { client_id: "laptop-qqqqqqq" },
      },
    });
  });

  test.each(["UTF-8", "UTF-16le", "UTF-16be"])(
    "whatever the file is written in (%s)",
    async (name) => {
      const client = storedClient({ name: "L\u00e4ptop \u{1f511}" });
      const database = new Database(path);
      database.run(`PRAGMA encoding = "${name}"`);
      database.run("CREATE TABLE sdk_storage (key TEXT PRIMARY KEY, value TEXT)");
      database.run("INSERT INTO sdk_storage VALUES ('client_ids', ?)", [JSON.stringify([client])]);
      database.close();
      const outcome = await ask(await start(), client.apiKey);
      expect(outcome).toMatchObject({ outcome: "accept", identity: { name: client.name } });
    },
  );

  test("a key of any form that can be in a header, and no other spelling of it", async () => {
    const client = storedClient({ apiKey: "old-key" });
    createDatabase(path, { clients: [client] });
    const instance = await start();
    expect(await said(instance, "old-key")).toBe("accept");
    for (const other of ["OLD-KEY", "old-ke", "old-key2", "%", "_", "' OR 1=1 --"]) {
      expect(["unknown", "reject"]).toContain(await said(instance, other));
    }
  });
});

describe("what the daemon does while we run", () => {
  test.each<JournalMode>(["wal", "delete"])(
    "a key added or removed holds on the next request (%s)",
    async (mode) => {
      const daemon = await daemonAt(mode);
      const instance = await start();
      const clients = Array.from({ length: 6 }, () => storedClient());
      for (const client of clients) {
        expect(await said(instance, client.apiKey)).toBe("unknown");
        await daemon.order({ do: "add", clients: [client] });
        const outcome = await ask(instance, client.apiKey);
        expect(outcome.outcome).toBe("accept");
        // What is not about keys changes nothing.
        await daemon.order({ do: "sql", sql: "UPDATE usage_tracking SET timestamp = 2" });
        expect(await said(instance, client.apiKey)).toBe("accept");
        if (outcome.outcome !== "accept") continue;
        expect(await instance.isCurrent?.(outcome.identity)).toBe(true);
        await daemon.order({ do: "remove", clientId: client.clientId });
        expect(await said(instance, client.apiKey)).toBe("unknown");
        expect(await instance.isCurrent?.(outcome.identity)).toBe(false);
      }
    },
  );

  test("a client that comes back with another key does not keep the streams of the old one", async () => {
    const daemon = await daemonAt();
    const instance = await start();
    const client = storedClient({ clientId: "laptop" });
    await daemon.order({ do: "add", clients: [client] });
    const outcome = await ask(instance, client.apiKey);
    if (outcome.outcome !== "accept") throw new Error("not accepted");
    await daemon.order({
      do: "store",
      key: "client_ids",
      value: JSON.stringify([{ ...client, apiKey: newKey() }]),
    });
    expect(await instance.isCurrent?.(outcome.identity)).toBe(false);
    // An identity that another instance proved, before a reload, is judged by its id.
    expect(await instance.isCurrent?.({ ...outcome.identity })).toBe(true);
    expect(await instance.isCurrent?.({ id: "somebody else" })).toBe(false);
  });

  test("removing an npub ends its clients' keys, registering it again revives them", async () => {
    const daemon = await daemonAt();
    const instance = await start();
    const lenient = await start({ end_with_owner: false });
    const owned = storedClient({ clientId: "owned", ownerNpub: OWNER.toUpperCase() });
    const free = storedClient();
    await daemon.order({ do: "add", clients: [owned, free] });
    // No table: nobody can be registered, so owners are not checked.
    const first = await ask(instance, owned.apiKey);
    expect(first.outcome).toBe("accept");
    await daemon.order({ do: "sql", sql: MEMBERS_TABLE });
    const revoked = { outcome: "reject", reason: "token_revoked", credentialId: "owned" } as const;
    expect(await ask(instance, owned.apiKey)).toEqual(revoked);
    const insert = `INSERT INTO routstr_auth_npubs (pubkey, npub, created_at) VALUES ('00', '${OWNER}', 1)`;
    await daemon.order({ do: "sql", sql: insert });
    expect(await said(instance, owned.apiKey)).toBe("accept");
    await daemon.order({ do: "sql", sql: "DELETE FROM routstr_auth_npubs" });
    expect(await ask(instance, owned.apiKey)).toEqual(revoked);
    if (first.outcome === "accept") {
      expect(await instance.isCurrent?.(first.identity)).toBe(false);
    }
    expect(await said(instance, free.apiKey)).toBe("accept");
    expect(await said(lenient, owned.apiKey)).toBe("accept");
    await daemon.order({ do: "sql", sql: "DROP TABLE routstr_auth_npubs" });
    expect(await said(instance, owned.apiKey)).toBe("accept");
  });

  test("models are the daemon's list, the same array while it is the same list", async () => {
    const daemon = await daemonAt();
    const instance = await start();
    expect(instance.models?.()).toBeNull();
    const store = (value: string) => daemon.order({ do: "store", key: "routstr21Models", value });
    await store('["a/b","c",7,null]');
    const models = instance.models?.();
    expect(models).toEqual(["a/b", "c"]);
    await daemon.order({ do: "add", clients: [storedClient()] });
    expect(instance.models?.()).toBe(models);
    for (const value of ["", "[", "{}", '"a"', "null", "[]", "[1]"]) {
      await store(value);
      expect(instance.models?.()).toBeNull();
    }
    await store('["c"]');
    expect(instance.models?.()).toEqual(["c"]);
  });

  test("10,000 clients are told apart, and the file is as it was", async () => {
    const clients = Array.from({ length: 10_000 }, (_, n) => storedClient({ clientId: `c-${n}` }));
    createDatabase(path, { clients });
    const before = everyRow(path);
    const instance = await start();
    for (let n = 0; n < clients.length; n += 97) {
      const outcome = await ask(instance, clients[n]?.apiKey ?? "");
      expect(outcome).toMatchObject({ outcome: "accept", identity: { id: `c-${n}` } });
    }
    expect(await said(instance, newKey())).toBe("unknown");
    expect(everyRow(path)).toBe(before);
  });
});

describe("locks", () => {
  test("three seconds of the daemon's lock are waited for, without stopping anybody else", async () => {
    const [client, other] = [storedClient(), storedClient()];
    const daemon = await daemonAt("delete");
    await daemon.order({ do: "add", clients: [client] });
    await daemon.order({ do: "store", key: "routstr21Models", value: '["m"]' });
    const instance = await start();
    expect(await said(instance, client.apiKey)).toBe("accept");
    const value = JSON.stringify([other]);
    await daemon.order({
      do: "lock",
      ms: 3000,
      sql: `UPDATE sdk_storage SET value = '${value}' WHERE key = 'client_ids'`,
    });
    const began = performance.now();
    let ticks = 0;
    const timer = setInterval(() => {
      ticks += 1;
    }, 10);
    const answers = Promise.all([
      said(instance, client.apiKey),
      said(instance, other.apiKey),
      ...Array.from({ length: 50 }, () => said(instance, other.apiKey)),
    ]);
    expect(instance.models?.()).toEqual(["m"]);
    // What was committed under the lock is what counts.
    expect((await answers).slice(0, 3)).toEqual(["unknown", "accept", "accept"]);
    clearInterval(timer);
    expect(performance.now() - began).toBeGreaterThan(2500);
    expect(ticks).toBeGreaterThan(30);
    expect(context.log.text()).not.toContain("locked");
  }, 15_000);

  test("in WAL mode a writer holds nobody up", async () => {
    const client = storedClient();
    const daemon = await daemonAt("wal");
    await daemon.order({ do: "add", clients: [client] });
    const instance = await start();
    await daemon.order({ do: "lock", ms: 1000 });
    const outcome = instance.authenticate(
      authRequest({ headers: { authorization: `Bearer ${client.apiKey}` } }),
    );
    expect(outcome).toMatchObject({ outcome: "accept" });
  });
});

describe("a file that cannot be asked is a fault", () => {
  test("no sdk_storage, until the daemon has made it", async () => {
    const daemon = await daemonAt();
    const client = storedClient();
    await daemon.order({ do: "add", clients: [client] });
    await daemon.order({ do: "sql", sql: "ALTER TABLE sdk_storage RENAME TO kept" });
    const instance = await start();
    await expect(ask(instance, client.apiKey)).rejects.toThrow("no table sdk_storage");
    await expect(ask(instance, newKey())).rejects.toThrow("no table sdk_storage");
    expect(() => instance.models?.()).toThrow();
    expect(codes(instance)).toEqual(["storage_table_missing"]);
    await daemon.order({ do: "sql", sql: "ALTER TABLE kept RENAME TO sdk_storage" });
    expect(await said(instance, client.apiKey)).toBe("accept");
    expect(codes(instance)).toEqual([]);
    await daemon.order({ do: "sql", sql: "DROP TABLE sdk_storage" });
    await expect(ask(instance, client.apiKey)).rejects.toThrow("no table sdk_storage");
    const warnings = context.log.lines.filter(({ level }) => level === "warn");
    expect(warnings.map(({ event }) => event)).toEqual([
      "routstrd.storage_table_missing",
      "routstrd.storage_table_missing",
    ]);
  });

  test("a file that is no database, is empty or is damaged inside", async () => {
    const clients = Array.from({ length: 1000 }, () => storedClient());
    const key = clients[0]?.apiKey ?? "";
    writeFileSync(path, "x".repeat(20_000));
    const garbage = await start();
    await expect(ask(garbage, key)).rejects.toThrow("cannot be read (SQLITE_NOTADB)");
    expect(codes(garbage)).toEqual(["database_unreadable"]);
    expect(readFileSync(path, "utf8")).toBe("x".repeat(20_000));

    writeFileSync(path, "");
    await expect(ask(await start(), key)).rejects.toThrow("no table sdk_storage");

    rmSync(path);
    createDatabase(path, { clients, mode: "delete" });
    const bytes = readFileSync(path);
    bytes.fill(0xa5, 4096 * 2, bytes.length - 4096 * 2);
    writeFileSync(path, bytes);
    const damaged = await start();
    let faults = 0;
    for (const { apiKey } of clients.slice(0, 20)) {
      // Never "unknown": whoever has a good key must not be told that it is bad.
      await ask(damaged, apiKey).catch(() => {
        faults += 1;
      });
    }
    expect(faults).toBe(20);
    expect(readFileSync(path).equals(bytes)).toBe(true);
    for (const { apiKey } of clients) expect(context.log.text()).not.toContain(apiKey);
  });

  test("a file that is gone, and one that was put in its place", async () => {
    const [before, after] = [storedClient(), storedClient()];
    createDatabase(path, { clients: [before], mode: "delete" });
    const instance = await start();
    expect(await said(instance, before.apiKey)).toBe("accept");
    renameSync(path, `${path}.old`);
    await expect(ask(instance, before.apiKey)).rejects.toThrow("is not there");
    expect(instance.health?.()).toMatchObject([
      { code: "database_missing", severity: "error", next: "routstrd start" },
    ]);
    expect(existsSync(path)).toBe(false);
    createDatabase(path, { clients: [after] });
    expect(await said(instance, before.apiKey)).toBe("unknown");
    expect(await said(instance, after.apiKey)).toBe("accept");
    // Not only when it was missing for a while.
    renameSync(`${path}.old`, path);
    expect(await said(instance, before.apiKey)).toBe("accept");
  });

  test("a file that may only be read is read", async () => {
    const client = storedClient();
    createDatabase(path, { clients: [client], mode: "delete" });
    chmodSync(path, 0o400);
    chmodSync(context.directory, 0o500);
    const instance = await start();
    expect(await said(instance, client.apiKey)).toBe("accept");
    chmodSync(context.directory, 0o700);
  });

  test("a closed strategy answers nothing", async () => {
    createDatabase(path, { clients: [] });
    const instance = await start();
    await instance.close?.();
    await expect(ask(instance, newKey())).rejects.toThrow();
    expect(instance.health?.()).toEqual([]);
  });
});

describe("odd lists of clients", () => {
  test.each([
    ["no JSON", "sk-canary-000000000000 {"],
    ["an object", '{"0":{"clientId":"a","apiKey":"sk-canary-000000000000"}}'],
    ["a text", '"sk-canary-000000000000"'],
    ["null", "null"],
    ["nothing", ""],
  ])("%s means no clients, said once", async (_, value) => {
    const daemon = await daemonAt();
    await daemon.order({ do: "store", key: "client_ids", value });
    const instance = await start();
    for (let n = 0; n < 3; n += 1) {
      expect(await said(instance, "sk-canary-000000000000")).toBe("unknown");
      await daemon.order({ do: "sql", sql: "UPDATE usage_tracking SET timestamp = timestamp + 1" });
    }
    expect(codes(instance)).toEqual(["clients_unreadable"]);
    expect(context.log.lines.map(({ event }) => event)).toEqual(["routstrd.clients_unreadable"]);
    expect(context.log.text() + JSON.stringify(instance.health?.())).not.toContain("canary");
    await daemon.order({ do: "store", key: "client_ids", value: "[]" });
    expect(await said(instance, newKey())).toBe("unknown");
    expect(context.log.lines.at(-1)?.event).toBe("routstrd.database_ok");
  });

  test("no list yet is no warning; blobs and numbers in its place are", async () => {
    const daemon = await daemonAt();
    const instance = await start();
    expect(codes(instance)).toEqual(["clients_missing"]);
    expect(context.log.lines).toEqual([]);
    for (const value of ["x'5b5d'", "7", "1.5"]) {
      await daemon.order({
        do: "sql",
        sql: `INSERT OR REPLACE INTO sdk_storage VALUES ('client_ids', ${value})`,
      });
      // TEXT affinity turns numbers into texts, which are no lists either.
      expect(codes(instance)).toEqual(["clients_unreadable"]);
    }
    await daemon.order({ do: "sql", sql: "UPDATE sdk_storage SET value = NULL" });
    expect(codes(instance)).toEqual(["clients_missing"]);
  });

  test("hostile names and ids harm nobody and stay in the file", async () => {
    const daemon = await daemonAt();
    const names = [
      "a\0b",
      "'; DROP TABLE sdk_storage; --",
      "n".repeat(10_000),
      "\u202egnp.exe",
      "\u200f\u0627",
      "line\nbreak",
      "\u001b[31m",
      "\ud800",
      "__proto__",
    ];
    const clients = names.map((text) => storedClient({ clientId: text, name: text }));
    await daemon.order({ do: "add", clients });
    const before = everyRow(path);
    const instance = await start();
    const ids = new Set<string>();
    for (const { apiKey } of clients) {
      const outcome = await ask(instance, apiKey);
      if (outcome.outcome !== "accept") throw new Error(outcome.outcome);
      const { id, name = "", attributes } = outcome.identity;
      expect(id).toMatch(/^[\x21-\x7e]{1,200}$/);
      expect(attributes).toEqual({ client_id: id });
      expect(name).toMatch(/^[^\p{Cc}\p{Cf}\p{Cs}]{1,200}$/u);
      ids.add(id);
    }
    expect(ids.size).toBe(names.length);
    expect(everyRow(path)).toBe(before);
  });

  test("a database that others can read is a condition", async () => {
    createDatabase(path, { clients: [] });
    const instance = await start();
    chmodSync(path, 0o644);
    expect(instance.health?.()).toMatchObject([{ code: "database_open_to_others" }]);
    expect(codes(instance)).toEqual([]);
  });
});

describe("what refuses to start", () => {
  test.each([
    ["no database", {}],
    ["an empty path", { database: "" }],
    ["Authorization as the other header", { database: "a", header: "authorization" }],
    ["an unknown key", { database: "a", table: "b" }],
  ])("%s does not parse", (_, settings) => {
    expect(plugin.config.safeParse(settings).success).toBe(false);
  });

  test("a missing file and a directory are named, and nothing is created", async () => {
    const settings = plugin.config.parse({ database: "none/routstr.db" });
    const surroundings = { env: {}, configDir: context.directory };
    const missing = join(context.directory, "none/routstr.db");
    const text = `database ${missing} does not exist; start routstrd once, it creates the file`;
    expect(plugin.check?.(settings, surroundings)).toEqual([text]);
    expect(() => plugin.init(settings, context.host)).toThrow(text);
    const directory = plugin.config.parse({ database: "." });
    expect(plugin.check?.(directory, surroundings)).toEqual([
      `database ${context.directory} is not a regular file`,
    ]);
    expect(existsSync(missing)).toBe(false);
    createDatabase(path);
    expect(plugin.check?.(plugin.config.parse({ database: path }), surroundings)).toEqual([]);
  });
});
