/** The token verbs: what goes to which stream, which exit code, and that no token leaks. */
import { Database } from "bun:sqlite";
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { chmodSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { z } from "zod";
import plugin from "../../plugins/bearer-sqlite/index.ts";
import { temporaryDirectory } from "../../test/support/host.ts";
import { EXIT, OperatorError } from "../errors.ts";
import { openStrategy } from "../open-keeper.ts";
import type { CliContext } from "./context.ts";
import {
  tokenCreate,
  tokenImport,
  tokenList,
  tokenRevoke,
  tokenRotate,
  tokenShow,
} from "./token.ts";

const FOREIGN = "sk-canary-0123456789abcdefghij";
const RFC3339 = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{3})?Z$/;
const DAY_MS = 86_400_000;

const issuedSchema = z.strictObject({
  id: z.string().length(12),
  token: z.string(),
  name: z.string(),
  expires_at: z.string().regex(RFC3339).nullable(),
  grace_until: z.string().regex(RFC3339).optional(),
});

const time = z.string().regex(RFC3339).nullable();
const recordSchema = z.strictObject({
  id: z.string().length(12),
  name: z.string(),
  owner: z.string().nullable(),
  role: z.enum(["admin", "user"]),
  scopes: z.array(z.string()),
  state: z.enum(["active", "revoked", "expired", "not_yet_valid"]),
  created_at: z.string().regex(RFC3339),
  created_by: z.string().nullable(),
  not_before: time,
  expires_at: time,
  last_used_at: time,
  grace_until: time,
  revoked_at: time,
  revoked_reason: z.string().nullable(),
  foreign: z.boolean(),
});

let directory: string;
let config: string;
let out: string;
let err: string;

beforeEach(() => {
  directory = temporaryDirectory();
  config = join(directory, "gatehouse.yaml");
  write("team: { use: bearer-sqlite }");
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

function context(stdin = ""): CliContext {
  return {
    version: "0.0.0",
    plugins: [plugin],
    env: { USER: "alice" },
    cwd: directory,
    stdinIsTerminal: false,
    stdoutIsTerminal: false,
    out(text) {
      out += text;
    },
    err(text) {
      err += text;
    },
    readStdin: async () => stdin,
    stop: new AbortController().signal,
  };
}

/** What was printed since the last time. */
function printed(): string {
  const text = out;
  out = "";
  return text;
}

async function refusal(work: () => Promise<unknown>): Promise<OperatorError> {
  try {
    await work();
  } catch (error) {
    if (error instanceof OperatorError) return error;
    throw error;
  }
  throw new Error("it was accepted");
}

async function create(name: string, options: { readonly expires?: string } = {}) {
  expect(await tokenCreate(context(), { config, json: true, name, ...options })).toBe(EXIT.ok);
  return issuedSchema.parse(JSON.parse(printed()));
}

async function list(options: { readonly unused?: string } = {}) {
  await tokenList(context(), { config, json: true, ...options });
  return z.array(recordSchema).parse(JSON.parse(printed()));
}

test("a token that was made without a name has a dash in the list and is called by its id", async () => {
  const opened = await openStrategy({ context: context(), config, strategy: undefined });
  const { record } = await opened.tokens.create({ owner: "alice" });
  await opened.close();
  await tokenList(context(), { config });
  expect(printed()).toMatch(new RegExp(`^${record.id} +- +alice `, "m"));
  expect(await tokenRevoke(context(), { config, idOrName: record.id })).toBe(EXIT.ok);
  expect(err).toContain(`Token ${record.id} is revoked`);
});

describe("token create", () => {
  test("the token is alone on standard output, everything else is on standard error", async () => {
    expect(await tokenCreate(context(), { config, name: "ci", expires: "30d" })).toBe(EXIT.ok);
    expect(out).toMatch(/^gate_[0-9A-Za-z]{12}_[0-9A-Za-z]{39}\n$/);
    expect(err).toContain("Token ci (id ");
    expect(err).toContain("It expires 2");
    expect(err).not.toContain(out.trim());
  });

  test("with --json it is an object with id, token, name and expires_at", async () => {
    const issued = await create("ci");
    expect(issued).toMatchObject({ name: "ci", expires_at: null });
    const expiring = await create("ci2", { expires: "1d" });
    const inMs = Date.parse(expiring.expires_at ?? "") - Date.now();
    expect(Math.abs(inMs - DAY_MS)).toBeLessThan(60_000);
  });

  test("a token that cannot be written out is named, with what to do", async () => {
    const full = {
      ...context(),
      out() {
        throw new Error("ENOSPC: no space left on device, write");
      },
    };
    const refused = await refusal(() => tokenCreate(full, { config, name: "ci" }));
    expect(refused.exitCode).toBe(EXIT.failure);
    expect(refused.message).toMatch(
      /^token ci \(id \w{12}\) was created in \w+, but it was not delivered: /,
    );
    expect(refused.message).toEndWith("ENOSPC: no space left on device, write");
    expect(refused.hint).toMatch(/token revoke \w{12}, or /);
    const [, id] = /token rotate (\w{12})$/.exec(refused.hint ?? "") ?? [];
    await tokenRotate(context(), { config, idOrName: id ?? "" });
    expect(out).toStartWith(`gate_${id}_`);
  });

  test("every option arrives in the record", async () => {
    const options = {
      config,
      json: true,
      name: "ci",
      strategy: "team",
      owner: "bob",
      role: "admin",
      scope: ["a", "b"],
      expires: "2999-12-31T23:59:59+02:00",
      notBefore: "2999-01-01",
    };
    await tokenCreate(context(), options);
    printed();
    expect(await list()).toMatchObject([
      {
        name: "ci",
        owner: "bob",
        role: "admin",
        scopes: ["a", "b"],
        state: "not_yet_valid",
        created_by: "cli:alice",
        not_before: "2999-01-01T00:00:00Z",
        expires_at: "2999-12-31T21:59:59Z",
      },
    ]);
  });

  test.each([
    ["a role that does not exist", { role: "root" }, "--role"],
    ["an expiry that is no time", { expires: "soon" }, "--expires"],
    ["a date that does not exist", { expires: "2030-13-01" }, "--expires"],
    ["a time without a zone", { expires: "2030-01-01T00:00:00" }, "--expires"],
    ["an expiry in the past", { expires: "2001-01-01" }, "in the past"],
    ["an expiry of nothing", { expires: "0s" }, "in the past"],
    ["a not-before time that is none", { notBefore: "x" }, "--not-before"],
    ["a scope with a space", { scope: ["a b"] }, "scope"],
    ["a token as the name", { name: FOREIGN }, "--name"],
    ["a token as the owner", { owner: FOREIGN }, "--owner"],
    ["a token as a scope", { scope: [FOREIGN] }, "--scope"],
  ])("%s is a usage error and nothing is created", async (_, wrong, named) => {
    const options = { config, name: "ci", ...wrong };
    const { exitCode, message } = await refusal(() => tokenCreate(context(), options));
    expect(exitCode).toBe(EXIT.usage);
    expect(message).toContain(named);
    expect(message).not.toContain(FOREIGN);
    expect(await list()).toEqual([]);
  });
});

describe("which strategy", () => {
  test("with two that keep tokens one must be named", async () => {
    write("team: { use: bearer-sqlite }", "ops: { use: bearer-sqlite }");
    const { exitCode, message } = await refusal(() =>
      tokenCreate(context(), { config, name: "a" }),
    );
    expect(exitCode).toBe(EXIT.usage);
    expect(message).toContain("team, ops");
    expect(await tokenCreate(context(), { config, name: "a", strategy: "ops" })).toBe(EXIT.ok);
    printed();
    await tokenList(context(), { config, json: true, strategy: "team" });
    expect(printed()).toBe("[]\n");
  });

  test("a token in place of its name is not repeated", async () => {
    const work = () => tokenList(context(), { config, strategy: FOREIGN });
    expect((await refusal(work)).message).not.toContain(FOREIGN);
  });
});

describe("token list and show", () => {
  test("for people it is a table, and without tokens only a word on standard error", async () => {
    await tokenList(context(), { config });
    expect(out).toBe("");
    expect(err).toContain("No tokens");
    await create("李雷");
    await create("ci", { expires: "30d" });
    await tokenList(context(), { config });
    const lines = printed().trimEnd().split("\n");
    expect(lines[0]).toMatch(/^ID {12}NAME +OWNER +ROLE +STATE +EXPIRES +LAST USED$/);
    expect(lines).toHaveLength(3);
    const columns = lines.map((line) => Bun.stringWidth(line.slice(0, line.search(/ROLE|user/))));
    expect(new Set(columns).size).toBe(1);
    expect(out).not.toContain("gate_");
  });

  test("--unused leaves out what was used or made since, and what is revoked", async () => {
    await create("ci");
    expect(await list({ unused: "1d" })).toEqual([]);
    // Nothing was ever made this little time ago.
    const all = await list({ unused: "0s" });
    expect(all.length).toBeLessThanOrEqual(1);
    const { exitCode } = await refusal(() => tokenList(context(), { config, unused: "long" }));
    expect(exitCode).toBe(EXIT.usage);
  });

  test("one token is found by its id and by its name", async () => {
    const { id } = await create("ci");
    for (const idOrName of [id, "ci"]) {
      expect(await tokenShow(context(), { config, json: true, idOrName })).toBe(EXIT.ok);
      expect(recordSchema.parse(JSON.parse(printed()))).toMatchObject({ id, state: "active" });
    }
    await tokenShow(context(), { config, idOrName: "ci" });
    expect(printed()).toContain(`id:             ${id}\n`);
  });

  test("what is not there is a failure, what is not unique lists the ids", async () => {
    const missing = await refusal(() => tokenShow(context(), { config, idOrName: "nobody" }));
    expect(missing.exitCode).toBe(EXIT.failure);
    const ids = [(await create("ci")).id, (await create("ci")).id];
    const several = await refusal(() => tokenShow(context(), { config, idOrName: "ci" }));
    expect(several.exitCode).toBe(EXIT.failure);
    for (const id of ids) expect(several.message).toContain(id);
  });
});

describe("token rotate and revoke", () => {
  test("rotating prints the new token alone, and what becomes of the old one beside it", async () => {
    const first = await create("ci");
    expect(await tokenRotate(context(), { config, idOrName: "ci" })).toBe(EXIT.ok);
    const token = printed().trim();
    expect(token).toStartWith(`gate_${first.id}_`);
    expect(token).not.toBe(first.token);
    expect(err).toContain("the old secret has ended");
    await tokenRotate(context(), { config, json: true, idOrName: "ci", grace: "24h" });
    const third = issuedSchema.parse(JSON.parse(printed()));
    expect(third.grace_until).toBeDefined();
    expect(err).toContain(`works until ${third.grace_until}`);
  });

  test("revoking names the token and keeps the first time and reason", async () => {
    const { id } = await create("ci");
    await tokenRevoke(context(), { config, json: true, idOrName: "ci", reason: "leaked" });
    const first = recordSchema.parse(JSON.parse(printed()));
    expect(first).toMatchObject({ id, state: "revoked", revoked_reason: "leaked" });
    await tokenRevoke(context(), { config, json: true, idOrName: id, reason: "again" });
    expect(recordSchema.parse(JSON.parse(printed()))).toEqual(first);
    expect(err).toContain(`Token ci (id ${id}) is revoked since ${first.revoked_at}`);
  });

  test("a token as an argument is refused with advice and not repeated", async () => {
    const { token } = await create("ci");
    const long = "a".repeat(41);
    for (const idOrName of [token, token.slice(0, -3), FOREIGN, "sk-x", long]) {
      for (const work of [
        () => tokenShow(context(), { config, idOrName }),
        () => tokenRotate(context(), { config, idOrName }),
        () => tokenRevoke(context(), { config, idOrName }),
      ]) {
        const { exitCode, message, hint } = await refusal(work);
        expect(exitCode).toBe(EXIT.usage);
        expect(message).toContain("tokens are not passed as arguments");
        expect(hint).toContain("standard input");
        expect(`${message}${hint}`).not.toContain(idOrName);
      }
    }
    const reason = () => tokenRevoke(context(), { config, idOrName: "ci", reason: token });
    expect((await refusal(reason)).message).toStartWith("--reason: ");
  });
});

describe("token import", () => {
  test("the one line of standard input is imported under a name", async () => {
    expect(await tokenImport(context(`${FOREIGN}\n`), { config, name: "old" })).toBe(EXIT.ok);
    const id = printed().trim();
    expect(await list()).toMatchObject([{ id, name: "old", foreign: true }]);
    expect(err).toContain("Imported 1 token into team");
    const again = await refusal(() => tokenImport(context(FOREIGN), { config, name: "new" }));
    expect(again.exitCode).toBe(EXIT.failure);
    expect(again.message).toContain(id);
    expect(again.message).not.toContain(FOREIGN);
  });

  test.each([
    ["nothing", ""],
    ["a blank line", "\n"],
    ["two lines", `${FOREIGN}\n${FOREIGN}2\n`],
    ["a short token", "short\n"],
    ["a token with a space", `${FOREIGN} x\n`],
  ])("%s is a usage error", async (_, stdin) => {
    const { exitCode, message } = await refusal(() =>
      tokenImport(context(stdin), { config, name: "n" }),
    );
    expect(exitCode).toBe(EXIT.usage);
    expect(message).not.toContain(FOREIGN);
    expect(await list()).toEqual([]);
  });

  test("a single token needs a name", async () => {
    const { message } = await refusal(() => tokenImport(context(FOREIGN), { config }));
    expect(message).toContain("--name");
  });

  test("many lines are imported at once", async () => {
    const stdin = [
      { token: `${FOREIGN}1`, name: "a", owner: "bob", role: "admin", scopes: ["x"] },
      { token: `${FOREIGN}2`, name: "b", expires_at: "2999-01-01T00:00:00Z", not_before: null },
    ]
      .map((line) => JSON.stringify(line))
      .join("\r\n\r\n");
    await tokenImport(context(stdin), { config, json: true, jsonLines: true });
    const records = z.array(recordSchema).parse(JSON.parse(printed()));
    expect(records).toMatchObject([
      { name: "a", owner: "bob", role: "admin", scopes: ["x"], created_by: "cli:alice" },
      { name: "b", expires_at: "2999-01-01T00:00:00Z" },
    ]);
  });

  test.each<[string, readonly unknown[], string]>([
    ["no JSON", [FOREIGN], "line 2: expected a JSON object"],
    ["a list", [[FOREIGN]], "line 2: expected a JSON object"],
    ["no name", [{ token: FOREIGN }], "line 2: name: "],
    ["a token as a key", [{ [FOREIGN]: 1, token: FOREIGN, name: "n" }], "line 2: unknown key"],
    ["a token as a role", [{ token: FOREIGN, name: "n", role: FOREIGN }], "line 2: role: expected"],
    [
      "no time",
      [{ token: FOREIGN, name: "n", expires_at: "soon" }],
      "line 2: expires_at: expected",
    ],
    ["a short token", [{ token: "short", name: "n" }], "line 2: a token of fewer than 16"],
    [
      "a past expiry",
      [{ token: FOREIGN, name: "n", expires_at: "2001-01-01" }],
      "line 2: the expiry",
    ],
    ["a number as a token", [{ token: 5, name: "n" }], "line 2: token: "],
    [
      "the same token twice",
      [
        { token: FOREIGN, name: "n" },
        { token: FOREIGN, name: "m" },
      ],
      "line 3: the same token as in line 2",
    ],
  ])("%s in a line is named by its number, and nothing is imported", async (_, lines, expected) => {
    const good = JSON.stringify({ token: `${FOREIGN}good`, name: "good" });
    const stdin = [
      good,
      ...lines.map((line) => (line === FOREIGN ? FOREIGN : JSON.stringify(line))),
    ];
    const options = { config, jsonLines: true };
    const { exitCode, message } = await refusal(() =>
      tokenImport(context(stdin.join("\n")), options),
    );
    expect(exitCode).toBe(EXIT.usage);
    expect(message).toContain(expected);
    expect(message).not.toContain("canary");
    expect(await list()).toEqual([]);
  });

  test("a line that is a conflict with what is stored is named by its number", async () => {
    await tokenImport(context(FOREIGN), { config, name: "old" });
    const stdin = `\n${JSON.stringify({ token: FOREIGN, name: "new" })}\n`;
    const options = { config, jsonLines: true };
    const { exitCode, message } = await refusal(() => tokenImport(context(stdin), options));
    expect(exitCode).toBe(EXIT.failure);
    expect(message).toStartWith("line 2: ");
  });

  test("with --json-lines what describes a token stands in its line", async () => {
    const options = { config, jsonLines: true, owner: "bob" };
    expect((await refusal(() => tokenImport(context("{}"), options))).exitCode).toBe(EXIT.usage);
  });
});

describe("a store in trouble", () => {
  test("a database that others may read is refused with exit code 77", async () => {
    await create("ci");
    chmodSync(join(directory, "state", "gatehouse.db"), 0o644);
    const work = () => tokenList(context(), { config, strategy: "team" });
    expect((await refusal(work)).exitCode).toBe(EXIT.permission);
  });

  test("a damaged database is refused with exit code 1 and advice", async () => {
    await create("ci");
    writeFileSync(join(directory, "state", "gatehouse.db"), "x".repeat(8192));
    const { exitCode, hint } = await refusal(() =>
      tokenList(context(), { config, strategy: "team" }),
    );
    expect(exitCode).toBe(EXIT.failure);
    expect(hint).toContain("backup");
  });

  test("a database that another process has locked is one line for the operator", async () => {
    await create("ci");
    const other = new Database(join(directory, "state", "gatehouse.db"));
    other.run("BEGIN IMMEDIATE");
    expect(await tokenList(context(), { config })).toBe(EXIT.ok);
    printed();
    const { exitCode, message } = await refusal(() =>
      tokenCreate(context(), { config, name: "b" }),
    );
    other.close();
    expect(exitCode).toBe(EXIT.unavailable);
    expect(message).toContain("locked by another process");
    expect((await list()).map(({ name }) => name)).toEqual(["ci"]);
  });

  test("no token that came in or went out is in the files of the state directory", async () => {
    const { token } = await create("ci");
    await tokenImport(context(FOREIGN), { config, name: "old" });
    const bytes = readFileSync(join(directory, "state", "gatehouse.db"), "latin1");
    expect(bytes).not.toContain(token.slice(-39, -6));
    expect(bytes).not.toContain("canary");
    expect(err).not.toContain("canary");
  });
});
