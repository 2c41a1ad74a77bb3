/** The npub verbs: what goes to which stream, which exit code, what holds in a running strategy. */
import { Database } from "bun:sqlite";
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { chmodSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { decode } from "nostr-tools/nip19";
import bearer from "../../plugins/bearer-sqlite/index.ts";
import plugin from "../../plugins/nip98/index.ts";
import { temporaryDirectory } from "../../test/support/host.ts";
import { newKey } from "../../test/support/nostr.ts";
import { EXIT, OperatorError } from "../errors.ts";
import type { CliContext } from "./context.ts";
import { npubAdd, npubList, npubNew, npubRemove, npubRole } from "./npub.ts";

const [ALICE, BOB] = [newKey(), newKey()] as const;

let directory: string;
let config: string;
let out: string;
let err: string;

beforeEach(() => {
  directory = temporaryDirectory();
  config = join(directory, "gatehouse.yaml");
  write("nostr: { use: nip98 }", "team: { use: bearer-sqlite }");
  out = "";
  err = "";
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

function write(...strategies: string[]): void {
  const lines = [
    "version: 1",
    "strategies:",
    ...strategies.map((line) => `  ${line}`),
    "upstreams: { api: { url: http://127.0.0.1:9 } }",
    "routes: [{ match: { path: / }, access: public, upstream: api }]",
  ];
  writeFileSync(config, `${lines.join("\n")}\n`, { mode: 0o600 });
}

function context(): CliContext {
  return {
    version: "0.0.0",
    plugins: [plugin, bearer],
    env: {},
    cwd: directory,
    stdinIsTerminal: false,
    stdoutIsTerminal: false,
    out(text) {
      out += text;
    },
    err(text) {
      err += text;
    },
    readStdin: async () => "",
    stop: new AbortController().signal,
  };
}

async function refusal(work: () => unknown): Promise<OperatorError> {
  try {
    await work();
  } catch (error) {
    if (error instanceof OperatorError) return error;
    throw error;
  }
  throw new Error("it was accepted");
}

async function list(): Promise<unknown> {
  out = "";
  await npubList(context(), { config, json: true });
  return JSON.parse(out);
}

describe("npub add, list, role, remove", () => {
  test("a key is added, listed, changed and removed", async () => {
    expect(await npubAdd(context(), { config, key: ALICE.pubkey, name: "Alice" })).toBe(EXIT.ok);
    expect(out).toBe(`${ALICE.npub}\n`);
    expect(err).toContain("No one is admin yet");
    expect(await npubRole(context(), { config, key: ALICE.npub, role: "admin" })).toBe(EXIT.ok);
    await npubAdd(context(), { config, key: BOB.npub, role: "user" });
    expect(await list()).toEqual(
      expect.arrayContaining([
        expect.objectContaining({ npub: ALICE.npub, role: "admin", name: "Alice", source: "cli" }),
        expect.objectContaining({ npub: BOB.npub, role: "user", name: null, created_by: null }),
      ]),
    );
    out = "";
    await npubList(context(), { config });
    expect(out.split("\n")[0]).toMatch(/^NPUB +ROLE +SOURCE +ADDED +NAME$/);
    expect(out).toContain("Alice");
    expect(await npubRemove(context(), { config, key: BOB.npub })).toBe(EXIT.ok);
    expect(await list()).toHaveLength(1);
  });

  test("mistakes have their exit codes and repeat no key", async () => {
    await npubAdd(context(), { config, key: ALICE.npub, role: "admin" });
    const mistakes: [() => unknown, number][] = [
      [() => npubAdd(context(), { config, key: ALICE.npub }), EXIT.failure],
      [() => npubAdd(context(), { config, key: ALICE.nsec }), EXIT.usage],
      [() => npubAdd(context(), { config, key: "alice" }), EXIT.usage],
      [() => npubAdd(context(), { config, key: BOB.npub, role: "owner" }), EXIT.usage],
      [() => npubAdd(context(), { config, key: BOB.npub, name: "a\u202eb" }), EXIT.usage],
      [() => npubRemove(context(), { config, key: ALICE.npub }), EXIT.failure],
      [() => npubRemove(context(), { config, key: BOB.npub }), EXIT.failure],
      [() => npubRole(context(), { config, key: ALICE.npub, role: "user" }), EXIT.failure],
      [() => npubRole(context(), { config, key: BOB.npub, role: "admin" }), EXIT.failure],
      [() => npubList(context(), { config, strategy: "team" }), EXIT.usage],
      [() => npubList(context(), { config, strategy: "nobody" }), EXIT.usage],
      [() => npubList(context(), { config: join(directory, "none.yaml") }), EXIT.config],
    ];
    for (const [work, exitCode] of mistakes) {
      const error = await refusal(work);
      expect(error.exitCode).toBe(exitCode as 1);
      expect(`${error.message} ${error.hint}`).not.toContain(ALICE.nsec);
    }
    expect(await list()).toHaveLength(1);
  });

  test("without a strategy that knows members it says which would", async () => {
    write("team: { use: bearer-sqlite }");
    const error = await refusal(() => npubList(context(), { config }));
    expect(`${error.message} ${error.hint}`).toContain("members");
    expect(error.hint).toContain("nip98");
  });

  test("members in routstrd's file; one that is not there is not made", async () => {
    write("nostr: { use: nip98, database: routstr.db }");
    const error = await refusal(() => npubList(context(), { config }));
    expect(error.message).toContain("start the daemon once");
    new Database(join(directory, "routstr.db")).close();
    await npubAdd(context(), { config, key: ALICE.npub, role: "admin" });
    const database = new Database(join(directory, "routstr.db"));
    expect(database.query("SELECT npub, role, source FROM routstr_auth_npubs").values()).toEqual([
      [ALICE.npub, "admin", "api"],
    ]);
    database.close();
  });

  test("a member of the configuration that is removed comes back, and that is said", async () => {
    write(`nostr: { use: nip98, admins: ["${ALICE.npub}"], users: ["${BOB.npub}"] }`);
    await npubRemove(context(), { config, key: BOB.npub });
    expect(err).toContain("back at the next start");
  });
});

describe("npub new", () => {
  test("makes a file that only its owner can read, and prints the npub alone", () => {
    expect(npubNew(context(), { keyFile: "me.nsec" })).toBe(EXIT.ok);
    const path = join(directory, "me.nsec");
    expect(statSync(path).mode & 0o777).toBe(0o600);
    const nsec = readFileSync(path, "utf8").trim();
    expect(decode(nsec).type).toBe("nsec");
    expect(out).toMatch(/^npub1[a-z0-9]{58}\n$/);
    expect(out + err).not.toContain(nsec);
  });

  test("never writes over a file", async () => {
    writeFileSync(join(directory, "me.nsec"), "precious");
    chmodSync(join(directory, "me.nsec"), 0o600);
    const error = await refusal(() => npubNew(context(), { keyFile: "me.nsec" }));
    expect(error.exitCode).toBe(EXIT.usage);
    expect(readFileSync(join(directory, "me.nsec"), "utf8")).toBe("precious");
    const missing = await refusal(() => npubNew(context(), { keyFile: "no/such/me.nsec" }));
    expect(missing.exitCode).toBe(EXIT.cannotCreate);
  });
});
