/** The strategy as a whole: what it reads, what it answers, and what happens when its store is in trouble. */
import { Database } from "bun:sqlite";
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import {
  existsSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import type { IssuedToken, Outcome, StrategyInstance, TokenStore } from "gatehouse";
import { openStateDatabase } from "../../src/store/sqlite.ts";
import { type TestHost, testHost } from "../../test/support/host.ts";
import { inOtherProcess } from "../../test/support/other-process.ts";
import { authRequest, type RequestDescription } from "../../test/support/request.ts";
import { smallDisk } from "../../test/support/small-disk.ts";
import plugin from "./index.ts";
import { randomBase62, tokenForm } from "./token.ts";
import { MIGRATIONS } from "./tokens-table.ts";

const FOREIGN = "sk-canary-0123456789abcdefghij";

let context: TestHost;
const running: StrategyInstance[] = [];

beforeEach(() => {
  context = testHost({ strategy: "team" });
});
afterEach(async () => {
  for (const instance of running.splice(0)) await instance.close?.();
  context.dispose();
});

async function start(config: Record<string, unknown> = {}, host = context.host) {
  const instance = await plugin.init(plugin.config.parse(config), host);
  running.push(instance);
  return { instance, tokens: instance.tokens as Required<TokenStore> };
}

function ask(instance: StrategyInstance, headers: RequestDescription["headers"]): Outcome {
  const outcome = instance.authenticate(authRequest(headers === undefined ? {} : { headers }));
  // On the way of every request: it must not even cost a turn of the event loop.
  if (outcome instanceof Promise) throw new Error("authenticate answered with a promise");
  return outcome;
}

const bearer = (token: string) => ({ authorization: `Bearer ${token}` });
const basic = (text: string) => ({
  authorization: `Basic ${Buffer.from(text).toString("base64")}`,
});
const file = () => join(context.host.stateDir, "gatehouse.db");

describe("where the token is read from", () => {
  test("Authorization decides; the header is read when it is absent or empty", async () => {
    const { instance, tokens } = await start();
    const { token } = await tokens.create({ name: "ci" });
    expect(ask(instance, bearer(token)).outcome).toBe("accept");
    expect(ask(instance, { authorization: `bEaReR   ${token}` }).outcome).toBe("accept");
    expect(ask(instance, { "x-api-key": token }).outcome).toBe("accept");
    expect(ask(instance, { authorization: "", "x-api-key": token }).outcome).toBe("accept");
    expect(ask(instance, { "x-api-key": "wrong", ...bearer(token) }).outcome).toBe("accept");
    expect(ask(instance, { "x-api-key": token, ...bearer("nope") }).outcome).toBe("unknown");
    expect(ask(instance, { "x-api-key": token, authorization: "Nostr abc" }).outcome).toBe(
      "absent",
    );
    expect(ask(instance, undefined).outcome).toBe("absent");
  });

  test("the header can be another one, or none", async () => {
    const { instance, tokens } = await start({ header: "X-Token" });
    const { token } = await tokens.create({ name: "ci" });
    expect(ask(instance, { "x-token": token }).outcome).toBe("accept");
    expect(ask(instance, { "x-api-key": token }).outcome).toBe("absent");
    expect(instance.credentialHeaders).toEqual(["authorization", "x-token"]);
    const none = await start({ header: null });
    expect(ask(none.instance, { "x-api-key": token }).outcome).toBe("absent");
    expect(none.instance.credentialHeaders).toEqual(["authorization"]);
  });

  test("the token as password of Basic only counts when it is switched on", async () => {
    const off = await start();
    const { token } = await off.tokens.create({ name: "ci" });
    expect(ask(off.instance, basic(`git:${token}`)).outcome).toBe("absent");
    expect(off.instance.challenges?.()).toEqual([{ scheme: "Bearer" }]);
    const on = await start({ basic: true });
    expect(ask(on.instance, basic(`git:${token}`)).outcome).toBe("accept");
    expect(ask(on.instance, basic(`:${token}`)).outcome).toBe("accept");
    expect(ask(on.instance, bearer(token)).outcome).toBe("accept");
    expect(ask(on.instance, basic(`${token}:`))).toMatchObject({ reason: "malformed_credential" });
    expect(ask(on.instance, basic(`a:b:${token}`)).outcome).toBe("unknown");
    expect(on.instance.challenges?.()).toEqual([
      { scheme: "Bearer" },
      { scheme: "Basic", parameters: { charset: "UTF-8" } },
    ]);
  });

  test("Authorization can be left to the upstream: then only the header is read", async () => {
    const { instance, tokens } = await start({ authorization: false, header: "X-Gatehouse-Key" });
    const { token } = await tokens.create({ name: "ci" });
    expect(ask(instance, bearer(token)).outcome).toBe("absent");
    const proof = { authorization: "PoP abc.def.ghi" };
    expect(ask(instance, { ...proof, "x-gatehouse-key": token }).outcome).toBe("accept");
    expect(ask(instance, { ...proof, "x-gatehouse-key": "nope" }).outcome).toBe("unknown");
    expect(ask(instance, { ...bearer("a, b"), "x-gatehouse-key": token }).outcome).toBe("accept");
    expect(instance.credentialHeaders).toEqual(["x-gatehouse-key"]);
    expect(instance.challenges?.()).toEqual([]);
  });

  test.each([
    [{ header: null }, "without Authorization a header must be named"],
    [{ basic: true }, "Basic is in Authorization"],
  ])("without Authorization %j is refused", (more, said) => {
    const parsed = plugin.config.safeParse({ authorization: false, ...more });
    expect(parsed.error?.issues.map(({ message }) => message)).toEqual([
      expect.stringContaining(said),
    ]);
  });

  test("an empty or impossible credential is malformed, two are ambiguous, in whatever order", async () => {
    const { instance, tokens } = await start();
    const { token } = await tokens.create({ name: "ci" });
    for (const value of [
      "Bearer",
      "Bearer ",
      "Bearer é",
      `Bearer ${token} x`,
      `Bearer ${"x".repeat(9000)}`,
    ]) {
      expect(ask(instance, { authorization: value })).toEqual({
        outcome: "reject",
        reason: "malformed_credential",
      });
    }
    const two: [string, string] = ["authorization", `Bearer ${token}`];
    for (const headers of [
      [two, two],
      [two, ["authorization", "Bearer nope"] as [string, string]],
      [["authorization", `Bearer nope, Bearer ${token}`] as [string, string]],
      [["x-api-key", token] as [string, string], ["x-api-key", token] as [string, string]],
    ]) {
      expect(ask(instance, headers)).toEqual({ outcome: "reject", reason: "ambiguous_credential" });
    }
  });
});

describe("answers", () => {
  test("each state of a token has its reason and names its public id", async () => {
    const { instance, tokens } = await start();
    const now = context.clock.nowMs();
    const revoked = await tokens.create({ name: "revoked" });
    await tokens.revoke("revoked", "");
    const expired = await tokens.create({ name: "expired", expiresAtMs: now + 1 });
    const early = await tokens.create({ name: "early", notBeforeMs: now + 2 });
    context.clock.advance(1);
    const rows: [IssuedToken, string][] = [
      [revoked, "token_revoked"],
      [expired, "token_expired"],
      [early, "token_not_yet_valid"],
    ];
    for (const [{ token, record }, reason] of rows) {
      expect(ask(instance, bearer(token))).toEqual({
        outcome: "reject",
        reason: reason as "token_revoked",
        credentialId: record.id,
      });
    }
  });

  test("a mistyped token is rejected before any lookup, so also when the database is gone", async () => {
    const { instance, tokens } = await start();
    const { token } = await tokens.create({ name: "ci" });
    const last = token.endsWith("0") ? "1" : "0";
    context.breakDatabase();
    for (const wrong of [token.slice(0, -1) + last, token.slice(0, -1), `${token}0`]) {
      expect(ask(instance, bearer(wrong))).toEqual({ outcome: "reject", reason: "invalid_token" });
    }
    expect(() => ask(instance, bearer(token))).toThrow();
  });

  test("a wrong secret under a known id is rejected, a well-formed token that is not held is unknown", async () => {
    const { instance, tokens } = await start();
    const { record } = await tokens.create({ name: "ci" });
    const form = tokenForm("gate");
    expect(ask(instance, bearer(form.issue(record.id)))).toEqual({
      outcome: "reject",
      reason: "invalid_token",
      credentialId: record.id,
    });
    expect(ask(instance, bearer(form.issue("0123456789Az"))).outcome).toBe("unknown");
    expect(ask(instance, bearer(tokenForm("other").issue(record.id))).outcome).toBe("unknown");
  });

  test("no variation of a good token is accepted", async () => {
    const { instance, tokens } = await start();
    const { token } = await tokens.create({ name: "ci" });
    const imported = await tokens.adopt(FOREIGN, { name: "old" });
    expect(imported.foreign).toBe(true);
    for (const good of [token, FOREIGN]) {
      for (let place = 0; place < good.length; place += 1) {
        const swapped = good[place] === "x" ? "y" : "x";
        const variations = [
          good.slice(0, place) + swapped + good.slice(place + 1),
          good.slice(0, place) + good.slice(place + 1),
          good.slice(0, place) + swapped + good.slice(place),
          good.slice(0, place),
        ];
        for (const wrong of variations) {
          expect(ask(instance, bearer(wrong)).outcome).not.toBe("accept");
        }
      }
      expect(ask(instance, bearer(good.toUpperCase())).outcome).not.toBe("accept");
      expect(ask(instance, bearer(good)).outcome).toBe("accept");
    }
  });

  test("junk of any form is answered and never accepted", async () => {
    const { instance, tokens } = await start();
    await tokens.create({ name: "ci" });
    const forms = [
      (junk: string) => junk,
      (junk: string) => `gate_${junk}`,
      (junk: string) => `gate_${junk.slice(0, 12)}_${junk}`,
      (junk: string) => `gate_${junk}' OR 1=1 --`,
      (junk: string) => `${junk}%00`,
      (junk: string) => `gate__${junk}_`,
    ];
    for (let round = 0; round < 5000; round += 1) {
      const form = forms[round % forms.length];
      const text = form?.(randomBase62(1 + (round % 120))) ?? "";
      expect(["unknown", "reject"]).toContain(ask(instance, bearer(text)).outcome);
    }
  });
});

describe("another process", () => {
  const REVOKE = `
    import { Database } from "bun:sqlite";
    new Database(Bun.argv[1]).run("UPDATE bearer_sqlite_tokens SET revoked_at = 1 WHERE id = ?", [Bun.argv[2]]);
  `;

  test("what it revokes is refused on the very next request, and its streams end", async () => {
    const { instance, tokens } = await start();
    const own = await tokens.create({ name: "ci" });
    const old = await tokens.adopt(FOREIGN, { name: "old" });
    for (const [token, id] of [
      [own.token, own.record.id],
      [FOREIGN, old.id],
    ] as const) {
      const before = ask(instance, bearer(token));
      if (before.outcome !== "accept") throw new Error("it was not accepted");
      expect(await instance.isCurrent?.(before.identity)).toBe(true);
      inOtherProcess(REVOKE, file(), id);
      expect(ask(instance, bearer(token))).toMatchObject({ reason: "token_revoked" });
      expect(await instance.isCurrent?.(before.identity)).toBe(false);
    }
  });

  test("what it creates is accepted on the very next request", async () => {
    const { instance } = await start();
    const code = `
      import plugin from "./plugins/bearer-sqlite/index.ts";
      import { createHost, lazyDatabase } from "./src/host.ts";
      import { systemClock } from "./src/clock.ts";
      const stateDir = Bun.argv[1];
      const log = { debug() {}, info() {}, warn() {}, error() {} };
      const database = lazyDatabase(stateDir, systemClock);
      const signal = new AbortController().signal;
      const shared = { log, clock: systemClock, stateDir, configDir: stateDir, database, signal };
      const strategy = plugin.init(plugin.config.parse({}), createHost("team", shared));
      console.log(strategy.tokens.create({ name: "theirs" }).token);
      strategy.close();
      database.close();
    `;
    const token = inOtherProcess(code, context.host.stateDir);
    expect(ask(instance, bearer(token))).toMatchObject({ identity: { name: "theirs" } });
  });

  test("while it holds the write lock requests are answered, and writes fail without a trace", async () => {
    const { instance, tokens } = await start();
    const { token } = await tokens.create({ name: "ci" });
    context.host.database("bearer_sqlite", MIGRATIONS).run("PRAGMA busy_timeout = 20");
    const other = new Database(file());
    other.run("BEGIN EXCLUSIVE");
    expect(ask(instance, bearer(token)).outcome).toBe("accept");
    for (const write of [
      () => tokens.create({ name: "new" }),
      () => tokens.revoke("ci", ""),
      () => tokens.rotate("ci", 0),
      () => tokens.adopt(FOREIGN, { name: "old" }),
    ]) {
      expect(write).toThrow(/locked/);
    }
    other.run("ROLLBACK");
    other.close();
    expect((await tokens.list()).map(({ name, revokedAtMs }) => [name, revokedAtMs])).toEqual([
      ["ci", null],
    ]);
    expect(ask(instance, bearer(token)).outcome).toBe("accept");
    await tokens.revoke("ci", "");
  });
});

describe("a store in trouble", () => {
  test("on a full disk requests go on, writes fail, and nothing is lost when there is space again", async () => {
    const disk = smallDisk(2 * 1024 * 1024);
    const stateDir = disk === null ? context.host.stateDir : join(disk.path, "state");
    const state = openStateDatabase(stateDir);
    const host = {
      ...context.host,
      stateDir,
      database: state.migrate,
      key: () => new Uint8Array(32),
    };
    const { instance, tokens } = await start({}, host);
    try {
      const issued = [await tokens.create({ name: "before" })];
      if (disk === null) {
        console.warn(
          "no tmpfs can be mounted here: PRAGMA max_page_count stands in for a full disk",
        );
        state.database.run("PRAGMA max_page_count = 40");
      } else {
        disk.fill();
      }
      const fill = async () => {
        for (let n = 0; n < 20_000; n += 1) issued.push(await tokens.create({ name: `n${n}` }));
      };
      await expect(fill()).rejects.toMatchObject({ code: "SQLITE_FULL" });
      const first = issued[0]?.token ?? "";
      expect(issued.every(({ token }) => ask(instance, bearer(token)).outcome === "accept")).toBe(
        true,
      );
      // The stand-in only stops the file from growing, and revoking changes a row in its place.
      if (disk !== null) expect(() => tokens.revoke(issued[0]?.record.id ?? "", "")).toThrow();
      expect(ask(instance, bearer(first)).outcome).toBe("accept");
      if (disk === null) state.database.run("PRAGMA max_page_count = 4294967294");
      else disk.free();
      await tokens.revoke(issued[0]?.record.id ?? "", "");
      expect(ask(instance, bearer(first))).toMatchObject({ reason: "token_revoked" });
      await instance.close?.();
      const again = await start({}, host);
      const records = await again.tokens.list();
      expect(records).toHaveLength(issued.length);
      expect(records.every(({ lastUsedAtMs }) => lastUsedAtMs === context.clock.nowMs())).toBe(
        true,
      );
      await again.instance.close?.();
    } finally {
      await instance.close?.();
      state.close();
      disk?.dispose();
    }
  });

  test("a damaged page is a fault for the tokens on it, never an answer about them", async () => {
    const { instance, tokens } = await start();
    const issued: IssuedToken[] = [];
    for (let n = 0; n < 500; n += 1) issued.push(await tokens.create({ name: `n${n}` }));
    await instance.close?.();
    context.breakDatabase();
    // What is still in the log would be read instead of the damaged pages.
    const writer = new Database(file());
    writer.run("PRAGMA wal_checkpoint(TRUNCATE)");
    writer.close();
    const bytes = readFileSync(file());
    const pages = statSync(file()).size / 4096;
    // Every page behind the schema: leaf and inner pages, table and indexes.
    for (let page = 12; page < pages; page += 3) bytes.fill(0xa5, page * 4096, (page + 1) * 4096);
    writeFileSync(file(), bytes);
    const state = openStateDatabase(context.host.stateDir);
    const { migrate: database, mustBeSameFile: checkDatabase } = state;
    const again = await start({}, { ...context.host, database, checkDatabase });
    const seen = { accept: 0, fault: 0, other: 0 };
    for (const { token } of issued) {
      try {
        if (ask(again.instance, bearer(token)).outcome === "accept") seen.accept += 1;
        else seen.other += 1;
      } catch {
        seen.fault += 1;
      }
    }
    expect(seen.other).toBe(0);
    expect(seen.accept).toBeGreaterThan(0);
    expect(seen.fault).toBeGreaterThan(0);
    await again.instance.close?.();
    state.close();
  });

  test("a database file that was replaced or removed is a fault until it is back", async () => {
    const { instance, tokens } = await start();
    const { token } = await tokens.create({ name: "ci" });
    expect(ask(instance, bearer(token)).outcome).toBe("accept");
    const kept = `${file()}.kept`;
    for (const put of [() => writeFileSync(file(), readFileSync(kept)), () => {}]) {
      renameSync(file(), kept);
      put();
      await Bun.sleep(250);
      // Twice: a fault that was reported is not over.
      for (let n = 0; n < 2; n += 1) {
        expect(() => ask(instance, bearer(token))).toThrow(/gatehouse\.db .* restart the gateway/);
      }
      expect(() => instance.isCurrent?.({ id: token.split("_")[1] ?? "" })).toThrow("restart");
      expect(instance.health?.()).toMatchObject([{ code: "database_replaced" }]);
      renameSync(kept, file());
      expect(ask(instance, bearer(token)).outcome).toBe("accept");
      expect(instance.health?.()).toEqual([]);
    }
  });

  test("a database whose pepper is lost or another one is refused at the start, and the right one is fine again", async () => {
    const { instance, tokens } = await start();
    const { token } = await tokens.create({ name: "ci" });
    await instance.close?.();
    const key = join(context.host.stateDir, "pepper.key");
    renameSync(key, `${key}.kept`);
    await expect(start()).rejects.toThrow("restore pepper.key");
    expect(existsSync(key)).toBe(false);
    writeFileSync(key, new Uint8Array(32).fill(7), { mode: 0o600 });
    await expect(start()).rejects.toThrow("restore pepper.key");
    rmSync(key);
    renameSync(`${key}.kept`, key);
    expect(ask((await start()).instance, bearer(token)).outcome).toBe("accept");
  });

  test("trouble with the times of last use is shown as a condition until it is over", async () => {
    const { instance, tokens } = await start();
    expect(instance.health?.()).toEqual([]);
    const { token } = await tokens.create({ name: "ci" });
    const database = context.host.database("bearer_sqlite", MIGRATIONS);
    database.run("PRAGMA query_only = ON");
    expect(ask(instance, bearer(token)).outcome).toBe("accept");
    await instance.close?.();
    expect(instance.health?.()).toMatchObject([{ code: "last_used_not_written" }]);
  });
});

describe("secrets", () => {
  test("no token, secret or pepper is in the database, its log, the program's log or a message", async () => {
    const { instance, tokens } = await start({ basic: true });
    const first = await tokens.create({ name: "ci", owner: "alice" });
    const second = await tokens.rotate("ci", 60_000);
    await tokens.adopt(FOREIGN, { name: "old" });
    const said: string[] = [];
    for (const token of [first.token, second.token, FOREIGN]) {
      for (const headers of [bearer(token), { "x-api-key": token }, basic(`u:${token}`)]) {
        said.push(JSON.stringify(ask(instance, headers)));
      }
      const wrong = [
        () => tokens.get(token),
        () => tokens.adopt(token, { name: "again" }),
        () => tokens.adopt(token, { name: `from ${token}` }),
        // A foreign token cannot be told from a name; the command line refuses the common forms.
        ...(token === FOREIGN
          ? []
          : [() => tokens.create({ name: token }), () => tokens.revoke("ci", token)]),
      ];
      for (const work of wrong) {
        try {
          said.push(JSON.stringify(work()));
        } catch (error) {
          said.push(String(error), error instanceof Error ? (error.stack ?? "") : "");
        }
      }
    }
    said.push(JSON.stringify(await tokens.list()), context.log.text());
    const stored = readdirSync(context.host.stateDir)
      .filter((name) => name.startsWith("gatehouse.db"))
      .map((name) => readFileSync(join(context.host.stateDir, name), "latin1"));
    const pepper = readFileSync(join(context.host.stateDir, "pepper.key"), "latin1");
    for (const { token } of [first, second]) {
      const secret = token.slice("gate_0123456789Az_".length, -6);
      expect([...said, ...stored].some((text) => text.includes(secret))).toBe(false);
    }
    const leaks = [...said, ...stored].filter(
      (text) => text.includes(FOREIGN) || text.includes(pepper),
    );
    expect(leaks).toEqual([]);
    expect(stored.length).toBeGreaterThan(1);
  });
});
