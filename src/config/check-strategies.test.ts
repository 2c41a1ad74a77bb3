/** Strategies: their plugins load, their settings fit, their secrets are references and stay out of messages. */
import { describe, expect, test } from "bun:test";
import { definePlugin, z } from "gatehouse";
import { document, loadTestPlugin, loadText, sample } from "../../test/support/config.ts";
import { EXIT, OperatorError } from "../errors.ts";
import { loadConfig } from "./load.ts";

// A function, because `$$` in a replacement text is one `$`.
const withSettings = (settings: string) =>
  document().replace("{ use: plain }", () => `{ use: sample${settings && `, ${settings}`} }`);

async function problems(settings: string, env: Record<string, string> = {}) {
  const { issues } = await loadText(withSettings(settings), { env });
  return issues.map(({ path, message }) => `${path}: ${message}`);
}

describe("settings", () => {
  test("are kept as written, with references unresolved", async () => {
    const { config } = await loadText(withSettings('salt: "${env:SALT}", tries: 2'), {
      env: { SALT: "canary" },
    });
    expect(config?.strategies[0]).toEqual({
      name: "team",
      use: "sample",
      sha256: null,
      settings: { salt: "${env:SALT}", tries: 2 },
    });
    expect(JSON.stringify(config)).not.toContain("canary");
  });

  test("that do not fit the plugin's schema are shown where they are", async () => {
    const { issues } = await loadText(withSettings("tries: 12, mode: fats, trys: 1"));
    expect(issues.map(({ path, line, column }) => [path, line, column])).toEqual([
      ["strategies.team.tries", 2, 43],
      ["strategies.team.mode", 2, 53],
      ["strategies.team.trys", 2, 59],
    ]);
    expect(issues.map(({ message }) => message)).toEqual([
      "expected at most 9",
      "expected fast or safe",
      "unknown key",
    ]);
    expect(issues[1]?.hint).toBe("did you mean `fast`?");
    expect(issues[2]?.hint).toBe("did you mean `tries`?");
  });
});

test("a misspelt key of the core is suggested as well", async () => {
  const { issues } = await loadText(withSettings("sha265: x"));
  expect(issues[0]?.hint).toBe("did you mean `sha256`?");
});

describe("a secret", () => {
  test.each([
    ["salt: canary", "strategies.team.salt"],
    ["salt: 12345", "strategies.team.salt"],
    ["salt: null", "strategies.team.salt"],
    ['salt: "x${env:S}"', "strategies.team.salt"],
    ['salt: "$${env:S}"', "strategies.team.salt"],
    ["admins: [canary]", "strategies.team.admins[0]"],
  ])("written as %s is refused with advice", async (settings, path) => {
    const { issues } = await loadText(withSettings(settings), { env: { S: "s" } });
    expect(issues).toMatchObject([{ path, message: "a secret is not written into this file" }]);
    expect(issues[0]?.hint).toContain("${env:NAME}");
    expect(JSON.stringify(issues)).not.toContain("canary");
  });

  test("that is missing, empty or blank refuses to start and names the place", async () => {
    expect(await problems('salt: "${env:NOPE}"')).toEqual([
      "strategies.team.salt: environment variable NOPE is not set",
    ]);
    expect(await problems('salt: "${env:S}"', { S: "" })).toEqual([
      "strategies.team.salt: environment variable S is empty",
    ]);
    expect(await problems('admins: ["${env:A}", "${env:B}"]', { A: "a", B: "  " })).toEqual([
      "strategies.team.admins[1]: environment variable B is blank",
    ]);
    expect(
      await problems('salt: "${cred:salt}"', { CREDENTIALS_DIRECTORY: "/nonexistent" }),
    ).toEqual(["strategies.team.salt: secret file /nonexistent/salt does not exist"]);
  });

  test("does not come out by way of a schema's own message", async () => {
    const found = await problems('word: "${env:W}"', { W: "CANARY 99" });
    expect(found).toEqual(["strategies.team.word: not a word: [hidden]"]);
  });

  test("does not hide what is wrong with the other settings when it cannot be resolved", async () => {
    expect(await problems('salt: "${env:NOPE}", tries: 0')).toEqual([
      "strategies.team.salt: environment variable NOPE is not set",
      "strategies.team.tries: expected at least 1",
    ]);
  });
});

describe("a plugin", () => {
  const load = (loadPlugin: typeof loadTestPlugin) =>
    loadConfig({ file: null, text: document(), cwd: "/somewhere", env: {}, loadPlugin });

  test("that does not load is reported at `use` with the loader's message and hint", async () => {
    const { issues } = await load(async () => {
      throw new OperatorError(EXIT.config, "no such plugin", "write it first");
    });
    expect(issues).toEqual([
      {
        path: "strategies.team.use",
        line: 2,
        column: 28,
        message: "no such plugin",
        hint: "write it first",
      },
    ]);
  });

  test("is loaded with its pin in lower case and the directory of the file", async () => {
    const asked: unknown[] = [];
    const pin = "AB".repeat(32);
    const text = document().replace("use: plain", `use: ./mine.ts, sha256: ${pin}`);
    const loadPlugin = async (...values: unknown[]) => {
      asked.push(values);
      return loadTestPlugin("plain");
    };
    const { config } = await loadConfig({
      file: "/etc/x/c.yaml",
      text,
      cwd: "/",
      env: {},
      loadPlugin,
    });
    expect(asked).toEqual([["./mine.ts", pin.toLowerCase(), "/etc/x"]]);
    expect(config?.strategies[0]?.sha256).toBe(pin.toLowerCase());
  });

  test("whose schema throws is reported and does not end the check", async () => {
    const schema = z.strictObject({
      a: z
        .string()
        .default("x")
        .refine(() => {
          throw new Error("boom");
        }),
    });
    const broken = definePlugin({ ...sample, name: "broken", config: schema, init: sample.init });
    const { issues } = await load(async () => broken);
    expect(issues).toMatchObject([
      { path: "strategies.team", message: "the plugin's own check failed: boom" },
    ]);
  });

  test("of every strategy is handed on by name", async () => {
    const { plugins } = await load(loadTestPlugin);
    expect(plugins.get("team")?.name).toBe("plain");
  });
});

test("a strategy cannot be called public", async () => {
  const { issues } = await loadText(
    document().replace("{ team:", "{ public: { use: plain }, team:"),
  );
  expect(issues).toMatchObject([{ path: "strategies.public", line: 2, column: 15 }]);
});
