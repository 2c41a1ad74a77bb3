/** static-env as a strategy: where tokens may be sent, who is proven, what refuses to start. */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { spawnSync } from "node:child_process";
import { chmodSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Outcome } from "../../src/contract/outcome.ts";
import type { StrategyInstance } from "../../src/contract/plugin.ts";
import { type TestHost, testHost } from "../../test/support/host.ts";
import { authRequest, type RequestDescription } from "../../test/support/request.ts";
import plugin from "./index.ts";

const VARIABLE = "GATEHOUSE_STATIC_ENV_TEST";
const TOKEN = "0123456789abcdef0123456789abcdef";
const OTHER = "fedcba9876543210fedcba9876543210";

let context: TestHost;
beforeEach(() => {
  context = testHost({ strategy: "ops" });
});
afterEach(() => {
  delete process.env[VARIABLE];
  context.dispose();
});

async function start(config: Record<string, unknown>): Promise<StrategyInstance> {
  return await plugin.init(plugin.config.parse(config), context.host);
}

async function startWith(value: string, more: object = {}): Promise<StrategyInstance> {
  process.env[VARIABLE] = value;
  return await start({ env: VARIABLE, ...more });
}

async function ask(
  instance: StrategyInstance,
  headers: RequestDescription["headers"],
): Promise<Outcome> {
  return await instance.authenticate(authRequest(headers === undefined ? {} : { headers }));
}

async function failure(config: Record<string, unknown>): Promise<string> {
  try {
    await start(config);
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
  throw new Error("it started");
}

describe("where a token may be sent", () => {
  const accepted: Outcome = { outcome: "accept", identity: { id: "ops", role: "user" } };

  test.each([
    ["Authorization: Bearer", { authorization: `Bearer ${TOKEN}` }],
    ["the scheme in lower case", { authorization: `bearer ${TOKEN}` }],
    ["the scheme in upper case and two blanks", { authorization: `BEARER  ${TOKEN}` }],
    ["x-api-key", { "x-api-key": TOKEN }],
    ["x-api-key beside an empty Authorization", { authorization: " ", "x-api-key": TOKEN }],
  ])("%s is accepted", async (_, headers) => {
    expect(await ask(await startWith(TOKEN), headers)).toEqual(accepted);
  });

  test("Authorization can be left to the upstream: then only the header is read", async () => {
    const instance = await startWith(TOKEN, { authorization: false });
    expect(await ask(instance, { authorization: `Bearer ${TOKEN}` })).toEqual({
      outcome: "absent",
    });
    const both = { authorization: "PoP abc.def.ghi", "x-api-key": TOKEN };
    expect(await ask(instance, both)).toEqual(accepted);
    expect(instance.credentialHeaders).toEqual(["x-api-key"]);
    expect(instance.challenges?.()).toEqual([]);
  });

  test.each<[string, RequestDescription["headers"], Outcome]>([
    ["no header", {}, { outcome: "absent" }],
    ["a wrong token", { authorization: `Bearer ${OTHER}` }, { outcome: "unknown" }],
    [
      "the token in another case",
      { authorization: `Bearer ${TOKEN.toUpperCase()}` },
      { outcome: "unknown" },
    ],
    ["the token without a scheme", { authorization: TOKEN }, { outcome: "absent" }],
    [
      "Bearer and nothing",
      { authorization: "Bearer " },
      { outcome: "reject", reason: "malformed_credential" },
    ],
    [
      "a wrong Authorization beside a right x-api-key",
      { authorization: `Bearer ${OTHER}`, "x-api-key": TOKEN },
      { outcome: "unknown" },
    ],
    [
      "another scheme beside a right x-api-key",
      { authorization: "Basic dTpw", "x-api-key": TOKEN },
      { outcome: "absent" },
    ],
    [
      "two Authorization lines",
      [
        ["authorization", `Bearer ${TOKEN}`],
        ["Authorization", `Bearer ${TOKEN}`],
      ],
      { outcome: "reject", reason: "ambiguous_credential" },
    ],
    [
      "two x-api-key lines",
      [
        ["x-api-key", TOKEN],
        ["x-api-key", OTHER],
      ],
      { outcome: "reject", reason: "ambiguous_credential" },
    ],
    [
      "a comma-joined Authorization",
      { authorization: `Bearer nope, Bearer ${TOKEN}` },
      { outcome: "reject", reason: "ambiguous_credential" },
    ],
  ])("%s is not accepted", async (_, headers, expected) => {
    expect(await ask(await startWith(TOKEN), headers)).toEqual(expected);
  });

  test("another header replaces x-api-key and is named as a credential header", async () => {
    const instance = await startWith(TOKEN, { header: "X-Ops-Key" });
    expect(instance.credentialHeaders).toEqual(["authorization", "x-ops-key"]);
    expect(await ask(instance, { "x-ops-key": TOKEN })).toEqual(accepted);
    expect(await ask(instance, { "x-api-key": TOKEN })).toEqual({ outcome: "absent" });
  });
});

describe("who is proven", () => {
  test("several tokens are told apart by position, with the role and name of the config", async () => {
    const instance = await startWith(`${TOKEN},${OTHER}`, { role: "admin", name: "Operators" });
    const ids: unknown[] = [];
    for (const token of [TOKEN, OTHER]) {
      ids.push(await ask(instance, { authorization: `Bearer ${token}` }));
    }
    const identity = { role: "admin", name: "Operators" };
    expect(ids).toEqual([
      { outcome: "accept", identity: { id: "ops:1", ...identity } },
      { outcome: "accept", identity: { id: "ops:2", ...identity } },
    ]);
  });

  test("the token is read at the start, and a later change of the variable changes nothing", async () => {
    const instance = await startWith(TOKEN);
    process.env[VARIABLE] = OTHER;
    expect((await ask(instance, { "x-api-key": TOKEN })).outcome).toBe("accept");
    expect((await ask(instance, { "x-api-key": OTHER })).outcome).toBe("unknown");
  });
});

describe("what refuses to start", () => {
  test.each([
    ["neither env nor file", {}],
    ["both env and file", { env: VARIABLE, file: "token" }],
    ["a value instead of a name", { env: "sk-abc" }],
    ["authorization as the other header", { env: VARIABLE, header: "Authorization" }],
    ["an unknown role", { env: VARIABLE, role: "root" }],
  ])("%s does not parse", (_, config) => {
    expect(plugin.config.safeParse(config).success).toBe(false);
  });

  test("a variable that is not set is named, and the other way is shown", async () => {
    expect(await failure({ env: VARIABLE })).toBe(
      `environment variable ${VARIABLE} is not set; set it, or name a file with \`file\` instead of \`env\``,
    );
  });

  test("an empty or blank variable is refused", async () => {
    for (const value of ["", " \n"]) {
      process.env[VARIABLE] = value;
      expect(await failure({ env: VARIABLE })).toContain(
        `environment variable ${VARIABLE} is empty or blank`,
      );
    }
  });

  test("a short token is refused and not shown", async () => {
    process.env[VARIABLE] = "hunter2";
    const message = await failure({ env: VARIABLE });
    expect(message).toContain("openssl rand -hex 24");
    expect(message).not.toContain("hunter2");
  });

  test("a file that others can read or write is refused with the command that mends it", async () => {
    const path = join(context.directory, "token");
    writeFileSync(path, TOKEN, { mode: 0o600 });
    for (const mode of [0o604, 0o602]) {
      chmodSync(path, mode);
      expect(await failure({ file: "token" })).toBe(
        `token file ${path} is open to every user; run: chmod 600 ${path}`,
      );
    }
    chmodSync(path, 0o640);
    expect((await ask(await start({ file: "token" }), { "x-api-key": TOKEN })).outcome).toBe(
      "accept",
    );
  });

  test("a missing file, a directory and a pipe are refused by path", async () => {
    const missing = join(context.directory, "missing");
    expect(await failure({ file: missing })).toBe(`token file ${missing} cannot be read (ENOENT)`);
    mkdirSync(join(context.directory, "folder"), { mode: 0o700 });
    expect(await failure({ file: "folder" })).toContain("is not a regular file");
    spawnSync("mkfifo", ["-m", "600", join(context.directory, "pipe")]);
    expect(await failure({ file: "pipe" })).toContain("is not a regular file");
  });
});
