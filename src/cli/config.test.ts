/** `config validate`, `show` and `schema` as an operator sees them. */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { readdirSync } from "node:fs";
import { parse } from "yaml";
import { document, plain, sample, type TempDir, tempDir } from "../../test/support/config.ts";
import { configSchema, configShow, configValidate } from "./config.ts";
import type { CliContext } from "./context.ts";

let directory: TempDir;
beforeEach(() => {
  directory = tempDir();
});
afterEach(() => directory.remove());

interface Screen {
  readonly context: CliContext;
  readonly out: () => string;
  readonly err: () => string;
}

function screen(env: Record<string, string> = {}): Screen {
  let [out, err] = ["", ""];
  const context: CliContext = {
    version: "0.0.0",
    plugins: [sample, plain],
    env,
    cwd: directory.path,
    stdinIsTerminal: false,
    stdoutIsTerminal: false,
    out: (text) => {
      out += text;
    },
    err: (text) => {
      err += text;
    },
    readStdin: async () => "",
    stop: new AbortController().signal,
  };
  return { context, out: () => out, err: () => err };
}

const WITH_SECRET = document(
  'upstreams: { api: { url: http://127.0.0.1:9000, headers: { x-key: "${env:KEY}" } } }',
).replace("use: plain", () => 'use: sample, salt: "${env:SALT}"');
const ENV = { KEY: "canary-one", SALT: "canary-two" };

describe("config validate", () => {
  test("says ok with what is in the file, and exits 0", async () => {
    directory.write("c.yaml", document());
    const { context, out, err } = screen();
    expect(await configValidate(context, { config: "c.yaml" })).toBe(0);
    expect(out()).toBe("c.yaml: ok (1 route, 1 strategy, 0 upstreams)\n");
    expect(err()).toBe("");
  });

  test("prints every problem on standard error and exits 78", async () => {
    directory.write("c.yaml", document("servr: {}\nlogging: { level: inf }"));
    const { context, out, err } = screen();
    expect(await configValidate(context, { config: "c.yaml" })).toBe(78);
    expect(out()).toBe("");
    expect(err()).toBe(
      "c.yaml:3:1: servr: unknown key\n  did you mean `server`?\n" +
        "c.yaml:4:19: logging.level: expected debug, info, warn or error\n  did you mean `info`?\n",
    );
  });

  test("with --json prints an object with the same issues", async () => {
    directory.write("c.yaml", document("servr: {}"));
    const bad = screen();
    expect(await configValidate(bad.context, { config: "c.yaml", json: true })).toBe(78);
    expect(JSON.parse(bad.out())).toEqual({
      ok: false,
      issues: [
        {
          file: "c.yaml",
          path: "servr",
          line: 3,
          column: 1,
          message: "unknown key",
          hint: "did you mean `server`?",
        },
      ],
    });
    directory.write("d.yaml", document());
    const good = screen();
    expect(await configValidate(good.context, { config: "d.yaml", json: true })).toBe(0);
    expect(JSON.parse(good.out())).toEqual({ ok: true, issues: [] });
  });

  test("finds the file when none is named, and says where it looked when there is none", async () => {
    const none = screen();
    expect(await configValidate(none.context, {})).toBe(78);
    expect(none.err()).toContain(`looked for ${directory.path}/gatehouse.yaml`);
    directory.write("gatehouse.yaml", document());
    const found = screen();
    expect(await configValidate(found.context, {})).toBe(0);
    expect(found.out()).toStartWith(`${directory.path}/gatehouse.yaml: ok`);
  });

  test("leaves no trace: no state directory, no file", async () => {
    directory.write("c.yaml", document());
    await configValidate(screen().context, { config: "c.yaml" });
    expect(readdirSync(directory.path)).toEqual(["c.yaml"]);
  });

  test("names a missing secret and shows none that is there", async () => {
    directory.write("c.yaml", WITH_SECRET);
    const { context, err } = screen({ KEY: ENV.KEY });
    expect(await configValidate(context, { config: "c.yaml" })).toBe(78);
    expect(err()).toContain("environment variable SALT is not set");
    expect(err()).not.toContain("canary");
  });
});

describe("config show", () => {
  test("prints what is written, with variables applied and references unresolved", async () => {
    directory.write("c.yaml", WITH_SECRET);
    const { context, out } = screen({ ...ENV, GATEHOUSE_LOGGING__LEVEL: "debug" });
    expect(await configShow(context, { config: "c.yaml" })).toBe(0);
    expect(out()).toStartWith(
      "# yaml-language-server: $schema=./gatehouse.schema.json\nversion: 1\n",
    );
    expect(out()).not.toContain("canary");
    expect(parse(out())).toEqual({
      version: 1,
      strategies: { team: { use: "sample", salt: "${env:SALT}" } },
      upstreams: { api: { url: "http://127.0.0.1:9000", headers: { "x-key": "${env:KEY}" } } },
      routes: [{ match: { path: "/**" }, access: ["team"] }],
      logging: { level: "debug" },
    });
  });

  test("with --expanded prints every default, and is itself a configuration with the same meaning", async () => {
    directory.write("c.yaml", WITH_SECRET);
    const first = screen(ENV);
    expect(await configShow(first.context, { config: "c.yaml", expanded: true })).toBe(0);
    expect(first.out()).not.toContain("canary");
    const shown = parse(first.out());
    expect(shown.server.limits.head).toBe("16KiB");
    expect(shown.strategies.team).toEqual({
      use: "sample",
      salt: "${env:SALT}",
      mode: "safe",
      tries: 3,
      strict: true,
      ttl: "30s",
    });
    directory.write("d.yaml", first.out());
    const second = screen(ENV);
    expect(await configShow(second.context, { config: "d.yaml", expanded: true })).toBe(0);
    expect(second.out()).toBe(first.out());
  });

  test("with --json prints the same as an object", async () => {
    directory.write("c.yaml", document());
    const { context, out } = screen();
    expect(await configShow(context, { config: "c.yaml", json: true })).toBe(0);
    expect(JSON.parse(out()).routes).toHaveLength(1);
  });

  test("of a broken file prints its problems and exits 78", async () => {
    directory.write("c.yaml", document("servr: {}"));
    const { context, out, err } = screen();
    expect(await configShow(context, { config: "c.yaml" })).toBe(78);
    expect(out()).toBe("");
    expect(err()).toContain("servr: unknown key");
    const json = screen();
    expect(await configShow(json.context, { config: "c.yaml", json: true })).toBe(78);
    expect(JSON.parse(json.out()).ok).toBe(false);
  });
});

test("config schema prints JSON with the settings of every bundled strategy", () => {
  const { context, out } = screen();
  expect(configSchema(context, {})).toBe(0);
  const schema = JSON.parse(out());
  const { allOf } = schema.properties.strategies.additionalProperties;
  expect(allOf.map((one: { if: object }) => one.if)).toEqual([
    { properties: { use: { const: "sample" } }, required: ["use"] },
    { properties: { use: { const: "plain" } }, required: ["use"] },
  ]);
});
