/** Variables and flags over the file. */
import { describe, expect, test } from "bun:test";
import { document, loadFine, loadText, problemsOf } from "../../test/support/config.ts";

const BASE = document(
  `state_dir: /from/file
server: { listen: 127.0.0.1:1, limits: { connections: 5 } }
upstreams:
  my-api: { url: http://127.0.0.1:9000, headers: { x-a: "1" } }
logging: { level: warn }`,
).replace("{ team: { use: plain } }", "{ team: { use: plain }, other: { use: sample } }");

describe("a variable", () => {
  test.each([
    ["GATEHOUSE_STATE_DIR", "/from/env", ["stateDir"], "/from/env"],
    ["GATEHOUSE_LOGGING__LEVEL", "debug", ["logging", "level"], "debug"],
    ["GATEHOUSE_LOGGING__ACCESS", "false", ["logging", "access"], false],
    ["GATEHOUSE_SERVER__LISTEN", "[::1]:7", ["server", "listen", 0, "port"], 7],
    ["GATEHOUSE_SERVER__HEALTH_PATH", "null", ["server", "healthPath"], null],
    ["GATEHOUSE_SERVER__LIMITS__CONNECTIONS", "77", ["server", "limits", "maxConnections"], 77],
    ["GATEHOUSE_UPSTREAMS__MY_API__URL", "http://x:8", ["upstreams", 0, "authority"], "x:8"],
    ["GATEHOUSE_upstreams__my-api__host", "preserve", ["upstreams", 0, "hostHeader"], "preserve"],
    ["GATEHOUSE_UPSTREAMS__MY_API__HEADERS__X_B", "2", ["upstreams", 0, "headers", 1, 0], "x-b"],
    ["GATEHOUSE_ROUTES__0__SLASHES", "keep", ["routes", 0, "slashes"], "keep"],
    ["GATEHOUSE_STRATEGIES__OTHER__TRIES", "7", ["strategies", 1, "settings", "tries"], 7],
    [
      "GATEHOUSE_STRATEGIES__OTHER__STRICT",
      "false",
      ["strategies", 1, "settings", "strict"],
      false,
    ],
  ])("%s=%s takes the place of what the file says", async (name, text, path, expected) => {
    const config = await loadFine(BASE, { env: { [name]: text } });
    expect(config).toHaveProperty(path.map(String).join("."), expected);
  });

  test("that names no top-level key belongs to the operator", async () => {
    const env = {
      GATEHOUSE_OPS_TOKEN: "x",
      GATEHOUSE_CONFIG: "/x",
      GATEHOUSE_: "x",
      GATEHOUSE: "x",
    };
    expect((await loadFine(BASE, { env })).stateDir).toBe("/from/file");
  });

  test.each([
    [
      { GATEHOUSE_SERVER__LISTN: "x" },
      "GATEHOUSE_SERVER__LISTN: no such key: server.listn",
      "did you mean GATEHOUSE_SERVER__LISTEN?",
    ],
    [
      { GATEHOUSE_UPSTREAMS__API__URL: "http://x" },
      "GATEHOUSE_UPSTREAMS__API__URL: no such key: upstreams.api",
      "there is my-api",
    ],
    [
      { GATEHOUSE_STRATEGIES__TEEM__USE: "x" },
      "GATEHOUSE_STRATEGIES__TEEM__USE: no such key: strategies.teem",
      "did you mean GATEHOUSE_STRATEGIES__TEAM?",
    ],
    [
      { GATEHOUSE_STRATEGIES__TEEM__SALT: "x" },
      "GATEHOUSE_STRATEGIES__TEEM__SALT: there is no such strategy in the file",
      "did you mean `team`?",
    ],
    [
      { GATEHOUSE_STRATEGIES__OTHER__TRYS: "1" },
      "GATEHOUSE_STRATEGIES__OTHER__TRYS: no such key: strategies.other.trys",
      "did you mean GATEHOUSE_STRATEGIES__OTHER__TRIES?",
    ],
    [
      { GATEHOUSE_SERVER: "x" },
      "GATEHOUSE_SERVER: a list or a map cannot be set this way",
      "write it in the file",
    ],
    [
      { GATEHOUSE_SERVER__TRUSTED_PROXIES: "10.0.0.0/8" },
      "GATEHOUSE_SERVER__TRUSTED_PROXIES: a list or a map cannot be set this way",
      "write it in the file",
    ],
    [
      { GATEHOUSE_ROUTES__5__UPSTREAM: "x" },
      "GATEHOUSE_ROUTES__5__UPSTREAM: no such key: routes.5",
      "there is 0",
    ],
    [
      { GATEHOUSE_STATE_DIR: " " },
      "GATEHOUSE_STATE_DIR: it is set but empty",
      "unset it, or give it a value",
    ],
    [
      { GATEHOUSE_SERVER_LISTEN: "x" },
      "GATEHOUSE_SERVER_LISTEN: this variable has no effect",
      "did you mean GATEHOUSE_SERVER__LISTEN?",
    ],
  ])("that cannot take effect is reported: %j", async (env, message, hint) => {
    const { issues } = await loadText(BASE, { env });
    expect(issues).toEqual([{ path: "", line: 0, column: 0, message, hint }]);
  });

  test("with a bad value is named instead of a place in the file", async () => {
    const { issues } = await loadText(BASE, { env: { GATEHOUSE_LOGGING__ACCESS: "maybe" } });
    expect(issues).toMatchObject([
      {
        path: "logging.access",
        line: 0,
        message: "set by GATEHOUSE_LOGGING__ACCESS: expected true or false, found text",
      },
    ]);
  });

  test("that matches two names is refused", async () => {
    const text = BASE.replace(
      "upstreams:\n",
      "upstreams:\n  my_api: { url: http://127.0.0.1:9001 }\n",
    );
    const env = { GATEHOUSE_UPSTREAMS__MY_API__URL: "http://x" };
    expect(await problemsOf(text, { env })).toEqual([
      "GATEHOUSE_UPSTREAMS__MY_API__URL: it could mean my_api or my-api",
    ]);
  });

  test("cannot put a literal where a secret must be a reference, and is not repeated", async () => {
    const env = {
      GATEHOUSE_STRATEGIES__OTHER__SALT: "canary",
      GATEHOUSE_UPSTREAMS__MY_API__HEADERS__X_API_KEY: "canary",
    };
    const problems = await problemsOf(BASE, { env });
    expect(problems).toHaveLength(2);
    expect(problems.join()).not.toContain("canary");
  });

  test("holds where the file has nothing at that place", async () => {
    const env = { GATEHOUSE_SERVER__DRAIN: "5s" };
    expect((await loadFine(document(), { env })).server.drainMs).toBe(5000);
  });
});

test("a flag wins over a variable, a variable over the file", async () => {
  const env = { GATEHOUSE_SERVER__LISTEN: "127.0.0.1:2" };
  const portOf = async (options: Parameters<typeof loadFine>[1]) => {
    const [first] = (await loadFine(BASE, options)).server.listen;
    return first?.kind === "tcp" ? first.port : undefined;
  };
  expect(await portOf({})).toBe(1);
  expect(await portOf({ env })).toBe(2);
  expect(await portOf({ env, overrides: { "server.listen": "127.0.0.1:3" } })).toBe(3);
});

test("a flag with a bad value is reported as coming from the command line", async () => {
  expect(await problemsOf(BASE, { overrides: { "server.listen": "x" } })).toEqual([
    "server.listen: set by the command line: expected host:port, [ipv6]:port, :port or unix:/path",
  ]);
});

test("where the file has a list in place of a map, only that is reported", async () => {
  const overrides = { "server.listen": "127.0.0.1:0" };
  expect(await problemsOf("- a", { overrides })).toEqual([
    expect.stringContaining("expected a map (key: value), found a list"),
  ]);
});
