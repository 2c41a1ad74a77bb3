/** Members: what may be written, who may not go, what the configuration does, and what other processes see. */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { MemberError, type MemberStore, type StrategyInstance } from "gatehouse";
import { type TestHost, testHost } from "../../test/support/host.ts";
import { newKey, signed } from "../../test/support/nostr.ts";
import { inOtherProcess, inOtherProcesses } from "../../test/support/other-process.ts";
import { authRequest } from "../../test/support/request.ts";
import plugin from "./index.ts";

const [ALICE, BOB, CAROL] = [newKey(), newKey(), newKey()] as const;

let context: TestHost;
const running: StrategyInstance[] = [];

beforeEach(() => {
  context = testHost({ strategy: "nostr" });
});
afterEach(async () => {
  for (const instance of running.splice(0)) await instance.close?.();
  context.dispose();
});

async function start(config: Record<string, unknown> = {}): Promise<StrategyInstance> {
  const instance = await plugin.init(plugin.config.parse(config), context.host);
  running.push(instance);
  return instance;
}

async function members(config: Record<string, unknown> = {}): Promise<MemberStore> {
  const { members: store } = await start(config);
  if (store === undefined) throw new Error("no members");
  return store;
}

function codeOf(work: () => unknown): string {
  try {
    work();
  } catch (error) {
    if (error instanceof MemberError) return error.code;
    throw error;
  }
  return "fine";
}

describe("adding", () => {
  test.each([
    ["npub", ALICE.npub],
    ["npub in upper case", ALICE.npub.toUpperCase()],
    ["hex", ALICE.pubkey],
    ["hex in upper case", ALICE.pubkey.toUpperCase()],
    ["npub with blanks", `  ${ALICE.npub}\n`],
  ])("takes a key as %s", async (_, key) => {
    const store = await members();
    expect(store.add({ key, source: "cli" })).toEqual({
      pubkey: ALICE.pubkey,
      npub: ALICE.npub,
      name: null,
      role: "user",
      createdAtMs: context.clock.nowMs(),
      createdBy: null,
      source: "cli",
    });
    expect(store.get(ALICE.pubkey)?.npub).toBe(ALICE.npub);
    expect(codeOf(() => store.add({ key: ALICE.npub, source: "cli" }))).toBe("conflict");
  });

  test.each([
    ["nothing", ""],
    ["a text", "alice"],
    ["63 digits", ALICE.pubkey.slice(1)],
    ["65 digits", `${ALICE.pubkey}0`],
    ["an npub with a typo", ALICE.npub.replace(/.$/, (last) => (last === "q" ? "p" : "q"))],
    ["an npub cut short", ALICE.npub.slice(0, -1)],
    ["a secret key", ALICE.nsec],
    ["SQL", "'; DROP TABLE nip98_members; --"],
    ["a NUL", `${ALICE.pubkey}\0`],
    ["10,000 characters", "a".repeat(10_000)],
    ["digits of another script", "１".repeat(64)],
    ["a letter that folds to k", ALICE.npub.replace("n", "\u212a")],
    ["a right-to-left mark", `\u200f${ALICE.npub}`],
  ])("%s is no key, and is not repeated", async (_, key) => {
    const store = await members();
    for (const work of [
      () => store.add({ key, source: "cli" }),
      () => store.get(key),
      () => store.remove(key),
      () => store.update(key, { role: "admin" }),
    ]) {
      expect(codeOf(work)).toBe("invalid");
      expect(work).not.toThrow(key === "" ? "\0\0" : key);
    }
    expect(store.list()).toEqual([]);
  });

  test.each([
    ["Alice", "Alice"],
    ["  Alice  ", "Alice"],
    ["", null],
    ["   ", null],
    [null, null],
    ["😀".repeat(64), "😀".repeat(64)],
    ["Robert'); DROP TABLE nip98_members;--", "Robert'); DROP TABLE nip98_members;--"],
    ["محمد", "محمد"],
  ])("the name %p is kept as %p", async (name, expected) => {
    const store = await members();
    expect(store.add({ key: ALICE.npub, name, source: "cli" }).name).toBe(expected);
    expect(store.list()).toHaveLength(1);
  });

  test.each([
    ["65 characters", "a".repeat(65)],
    ["10,000 characters", "a".repeat(10_000)],
    ["a NUL", "a\0b"],
    ["a line break", "a\nb"],
    ["an escape", "a\u001b[2J"],
    ["a right-to-left override", "a\u202eb"],
    ["a right-to-left mark", "a\u200fb"],
    ["an isolate", "a\u2067b"],
    ["half a pair", "a\ud83d"],
  ])("a name with %s is refused", async (_, name) => {
    const store = await members();
    expect(codeOf(() => store.add({ key: ALICE.npub, name, source: "cli" }))).toBe("invalid");
    store.add({ key: ALICE.npub, name: "Alice", source: "cli" });
    expect(codeOf(() => store.update(ALICE.npub, { name }))).toBe("invalid");
    expect(store.get(ALICE.npub)?.name).toBe("Alice");
  });

  test("the list is oldest first, then by npub", async () => {
    const store = await members();
    store.add({ key: BOB.npub, source: "cli" });
    store.add({ key: ALICE.npub, source: "cli" });
    context.clock.advance(-5000);
    store.add({ key: CAROL.npub, source: "cli" });
    const rest = [ALICE.npub, BOB.npub].sort();
    expect(store.list().map(({ npub }) => npub)).toEqual([CAROL.npub, ...rest]);
  });
});

describe("changing", () => {
  test("role and name, each alone; null clears the name", async () => {
    const store = await members();
    store.add({ key: ALICE.npub, name: "A", source: "cli" });
    expect(store.update(ALICE.npub, { role: "admin" })).toMatchObject({ role: "admin", name: "A" });
    expect(store.update(ALICE.npub, { name: "B" })).toMatchObject({ role: "admin", name: "B" });
    expect(store.update(ALICE.npub, { name: null })).toMatchObject({ role: "admin", name: null });
    expect(codeOf(() => store.update(BOB.npub, { name: "x" }))).toBe("not_found");
    expect(store.remove(BOB.npub)).toBe(false);
  });

  test("the last admin can be neither demoted nor removed, a former one can", async () => {
    const store = await members({ admins: [ALICE.npub], users: [BOB.npub] });
    expect(codeOf(() => store.remove(ALICE.npub))).toBe("last_admin");
    expect(codeOf(() => store.update(ALICE.npub, { role: "user" }))).toBe("last_admin");
    expect(store.update(ALICE.npub, { role: "admin" }).role).toBe("admin");
    store.update(BOB.npub, { role: "admin" });
    expect(store.remove(ALICE.npub)).toBe(true);
    expect(codeOf(() => store.remove(BOB.npub))).toBe("last_admin");
  });

  test("of two processes that each remove one of two admins one fails", async () => {
    const store = await members();
    for (const { npub: key } of [ALICE, BOB]) store.add({ key, role: "admin", source: "cli" });
    const said = await Promise.all(
      [ALICE.npub, BOB.npub].map((key) =>
        elsewhere(
          `try { store.remove("${key}"); console.log("ok"); } catch (error) { console.log(error.code); }`,
        ),
      ),
    );
    expect(said.sort()).toEqual(["last_admin", "ok"]);
    expect(store.list()).toHaveLength(1);
  });
});

describe("what another process does", () => {
  test("holds on the next request", async () => {
    const instance = await start();
    const ask = async () => {
      const authorization = signed(ALICE, { clock: context.clock });
      const outcome = await instance.authenticate(authRequest({ headers: { authorization } }));
      return outcome.outcome === "accept" ? outcome.identity.role : outcome.outcome;
    };
    expect(await ask()).toBe("reject");
    elsewhereNow(`store.add({ key: "${ALICE.npub}", source: "cli" })`);
    expect(await ask()).toBe("user");
    elsewhereNow(
      `store.update("${ALICE.npub}", { role: "admin" }); store.add({ key: "${BOB.npub}", role: "admin", source: "cli" })`,
    );
    expect(await ask()).toBe("admin");
    elsewhereNow(`store.remove("${ALICE.npub}")`);
    expect(await ask()).toBe("reject");
  });
});

describe("the configuration", () => {
  test("its members are there at the start, and once", async () => {
    for (const _ of [1, 2]) {
      const store = await members({ admins: [ALICE.npub, ALICE.pubkey], users: [BOB.npub] });
      expect(store.list().map(({ npub, role, source }) => ({ npub, role, source }))).toEqual(
        expect.arrayContaining([
          { npub: ALICE.npub, role: "admin", source: "config" },
          { npub: BOB.npub, role: "user", source: "config" },
        ]),
      );
      expect(store.list()).toHaveLength(2);
    }
  });

  test("whoever it lists as admin is one, whatever it was before; a user is not demoted", async () => {
    const before = await members();
    before.add({ key: ALICE.npub, name: "A", source: "cli" });
    before.add({ key: BOB.npub, role: "admin", source: "cli" });
    const store = await members({ admins: [ALICE.npub], users: [BOB.npub] });
    expect(store.get(ALICE.npub)).toMatchObject({ role: "admin", name: "A", source: "cli" });
    expect(store.get(BOB.npub)?.role).toBe("admin");
  });

  test("whoever it lists no longer is gone; whoever was added otherwise stays", async () => {
    const before = await members({ admins: [ALICE.npub], users: [BOB.npub] });
    before.add({ key: CAROL.npub, role: "admin", source: "cli" });
    const store = await members({});
    expect(store.list().map(({ npub }) => npub)).toEqual([CAROL.npub]);
    expect(context.log.text()).toContain("member.removed");
  });

  test("the last admin is kept when it is listed no longer, and that is logged", async () => {
    await members({ admins: [ALICE.npub] });
    const store = await members({ users: [BOB.npub] });
    expect(store.get(ALICE.npub)?.role).toBe("admin");
    expect(context.log.text()).toContain("member.last_admin_kept");
    const next = await members({ admins: [CAROL.npub], users: [BOB.npub] });
    expect(next.get(ALICE.npub)).toBeNull();
  });

  test("two instances do not share members", async () => {
    await members({ admins: [ALICE.npub] });
    const other = testHost({ strategy: "other" });
    const second = await plugin.init(plugin.config.parse({}), {
      ...other.host,
      database: context.host.database,
    });
    running.push(second);
    expect(second.members?.list()).toEqual([]);
    other.dispose();
  });

  test.each([
    [{ admins: ["alice"] }, "admins"],
    [{ admins: [ALICE.nsec] }, "admins"],
    [{ admins: [ALICE.npub], users: [ALICE.pubkey] }, "users"],
    [{ max_age: "0s" }, "max_age"],
    [{ max_age: "500ms" }, "max_age"],
    [{ max_age: "2h" }, "max_age"],
    [{ max_body: "much" }, "max_body"],
    [{ replay: "never" }, "replay"],
    [{ bootstrap: "on" }, "bootstrap"],
    [{ payload: "no" }, "payload"],
    [{ database: "" }, "database"],
  ])("%p is refused without repeating it", (config, field) => {
    const parsed = plugin.config.safeParse(config);
    expect(parsed.success).toBe(false);
    expect(parsed.error?.issues[0]?.path[0]).toBe(field);
    expect(JSON.stringify(parsed.error?.issues)).not.toContain(ALICE.nsec);
  });
});

describe("health", () => {
  test("says when nobody is registered and when anybody may be first", async () => {
    const codes = (instance: StrategyInstance) => instance.health?.().map(({ code }) => code);
    expect(codes(await start())).toEqual(["no_members"]);
    expect(codes(await start({ bootstrap: "first" }))).toEqual(["no_members", "bootstrap_open"]);
    expect(codes(await start({ bootstrap: "first", admins: [ALICE.npub] }))).toEqual([]);
  });
});

const OPEN = `
  import { createHost, lazyDatabase } from "./src/host.ts";
  import plugin from "./plugins/nip98/index.ts";
  const stateDir = Bun.argv.at(-1);
  const clock = { nowMs: () => Date.now() };
  const log = { debug() {}, info() {}, warn() {}, error() {} };
  const database = lazyDatabase(stateDir, clock);
  const shared = { log, clock, stateDir, configDir: stateDir, env: {}, database, signal: new AbortController().signal };
  const instance = await plugin.init(plugin.config.parse({}), createHost("nostr", shared));
  const store = instance.members;`;

/** Runs `code` with `store` in a process of its own. */
function elsewhereNow(code: string): void {
  inOtherProcess(`${OPEN}\n${code}`, context.host.stateDir);
}

async function elsewhere(code: string): Promise<string> {
  const [said = ""] = await inOtherProcesses(1, `${OPEN}\n${code}`, context.host.stateDir);
  return said;
}
