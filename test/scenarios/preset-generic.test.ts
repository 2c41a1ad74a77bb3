/**
 * The preset `generic` in front of a service that knows nothing of anybody, and what all presets share: they can be
 * printed, are valid when printed, and serve without a file.
 *
 * Invariant: everything is guarded but what is opened path by path; what `config show` prints says the same again.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { stringify } from "yaml";
import { PRESETS } from "../../src/presets/list.ts";
import { runBinary, startBinary } from "../support/binary.ts";
import { describeBoth, type GatewayUnderTest, scratch } from "../support/gateway.ts";
import {
  checkSpellings,
  checkTable,
  presetConfig,
  rowsFor,
  TOKENS_ENV,
} from "../support/preset-table.ts";
import { done } from "../support/standins/dialects.ts";
import { ollamaStandIn } from "../support/standins/ollama.ts";
import { each, standIn, text } from "../support/standins/standin.ts";

const METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

function anything() {
  return standIn({
    endpoints: each(
      METHODS.map((method) => `${method} /*`),
      done,
    ),
    notFound: () => text("", 404),
  });
}

describeBoth("the preset generic", (start) => {
  const upstream = anything();
  let gateway: GatewayUnderTest;
  const subject = { gateway: () => gateway, seenCount: () => upstream.seen.length };

  beforeAll(async () => {
    const config = presetConfig("generic", upstream.url, {
      with: { open: ["/health", "/status/ready"], admin: ["/admin/**", "/metrics"] },
    });
    gateway = await start({ config, env: TOKENS_ENV });
  });
  afterAll(() => upstream.stop());

  checkTable(subject, [
    ...METHODS.flatMap((method) =>
      rowsFor(["/", "/anything/at/all"], method, { nobody: 401, stranger: 401, user: 200 }),
    ),
    ...rowsFor(["/health", "/status/ready"], "GET", { nobody: 200, stranger: 200 }),
    ["HEAD", "/health", "nobody", 200],
    ["POST", "/health", "nobody", 401],
    ["OPTIONS", "/health", "nobody", 401],
    ["GET", "/health/more", "nobody", 401],
    ...rowsFor(["/admin", "/admin/users", "/metrics"], "GET", {
      nobody: 401,
      user: 403,
      admin: 200,
    }),
  ]);

  checkSpellings(subject, [
    ["GET", "/admin/users", "user"],
    ["GET", "/secret", "nobody"],
  ]);
});

describe("options of presets", () => {
  const dir = scratch();
  const file = join(dir, "gatehouse.yaml");
  const problemsOf = async (preset: string, more: object) => {
    writeFileSync(file, presetConfig(preset, "http://127.0.0.1:9", { with: { ...more } }));
    const { code, stderr } = await runBinary(["config", "validate", "-c", file], {
      env: TOKENS_ENV,
    });
    return { code, stderr };
  };

  test.each([
    ["generic", { open: ["/public/**"] }, "expected one exact path, without *"],
    ["generic", { opne: ["/health"] }, "did you mean `open`"],
    ["generic", { access: ["taem"] }, "unknown strategy `taem`"],
    ["generic", { upstream: "app" }, "unknown upstream `app`"],
    ["ollama", { unlisted: "everybody" }, "unlisted"],
    ["ollama", { access: [] }, "access"],
    ["vllm", { origins: ["app.example.com"] }, "exact origin"],
    ["openai", { stored: "user" }, "stored"],
    ["dexto", { open: ["/api"] }, "open"],
    ["authsome", { proofs: "none" }, "proofs"],
  ])("%s with %j is refused at the entry", async (preset, more, said) => {
    const { code, stderr } = await problemsOf(preset, more);
    expect([code, stderr]).toEqual([78, expect.stringContaining(said)]);
    expect(stderr).toContain("gatehouse.yaml:1:");
  });
});

/** Options beside upstream and access that show as much of a preset as possible. */
const SHOWN: Readonly<Record<string, Readonly<Record<string, unknown>>>> = {
  generic: { open: ["/health"], admin: ["/admin/**"] },
  "llama-cpp": { health: true, ui: true },
};

describe("every preset", () => {
  const dir = scratch();
  const env = { ...TOKENS_ENV };
  const guards = PRESETS.filter(({ usual }) => usual !== undefined);

  test.each(guards.map((preset) => [preset.name, preset] as const))(
    "%s makes the routes that are written down",
    (name, preset) => {
      const given = { upstream: "api", access: ["team"], ...SHOWN[name] };
      const output = stringify(preset.routes(given), { lineWidth: 0 });
      const golden = join(import.meta.dir, "../golden", `preset-${name}.yaml`);
      // UPDATE_GOLDEN=1 writes the file anew; the difference is then reviewed.
      if (process.env.UPDATE_GOLDEN === "1") writeFileSync(golden, output);
      expect(output).toBe(readFileSync(golden, "utf8"));
    },
  );

  test.each(guards.map(({ name }) => [name]))(
    "%s is printed in full, and what is printed is a config that means the same",
    async (name) => {
      const file = join(dir, `${name}.yaml`);
      writeFileSync(file, presetConfig(name, "http://127.0.0.1:9", { with: SHOWN[name] ?? {} }));
      const shown = await runBinary(["config", "show", "--expanded", "-c", file], { env });
      expect([shown.code, shown.stderr]).toEqual([0, ""]);
      expect(shown.stdout).not.toContain("preset:");
      const again = join(dir, `${name}-expanded.yaml`);
      writeFileSync(again, shown.stdout);
      const valid = await runBinary(["config", "validate", "-c", again], { env });
      expect([valid.code, valid.stderr]).toEqual([0, ""]);
      const twice = await runBinary(["config", "show", "--expanded", "-c", again], { env });
      expect(twice.stdout).toBe(shown.stdout);
    },
  );

  test.each(guards.map((preset) => [preset.name, preset] as const))(
    "%s serves without a file",
    async (name, { usual }) => {
      const { key } = usual ?? {};
      const value = "a-key-that-nobody-else-has";
      const args = ["config", "validate", "--preset", name];
      const fine = await runBinary(args, {
        cwd: dir,
        env: key === undefined ? {} : { [key.env]: value },
      });
      expect([fine.code, fine.stderr]).toEqual([0, ""]);
      const bare = await runBinary(args, { cwd: dir });
      const mayLack = key === undefined || key.isOptional;
      expect(bare.code).toBe(mayLack ? 0 : 78);
      expect(bare.stderr).toContain(mayLack ? "" : `${key.env} is not set`);
    },
  );

  test("help names each that serves", async () => {
    const { stdout } = await runBinary(["serve", "--help"]);
    const words = stdout.split(/[\s,()]+/);
    expect(PRESETS.filter(({ name }) => !words.includes(name))).toEqual([]);
  });
});

describe("serve --preset", () => {
  const dir = scratch();

  test("ollama stands in front of where Ollama listens, for tokens that are made the usual way", async () => {
    const upstream = ollamaStandIn();
    const env = { OLLAMA_HOST: `0.0.0.0:${new URL(upstream.url).port}` };
    const gateway = await startBinary(["serve", "--preset", "ollama", "--port", "0"], {
      cwd: dir,
      env,
    });
    const made = await runBinary(["token", "create", "--preset", "ollama", "--name", "alice"], {
      cwd: dir,
    });
    const ask = (headers: Record<string, string>) =>
      fetch(`${gateway.url}/api/tags`, { headers }).then(({ status }) => status);
    expect(await ask({})).toBe(401);
    expect(await ask({ authorization: `Bearer ${made.stdout.trim()}` })).toBe(200);
    await gateway.kill();
    await upstream.stop();
  });

  test.each([
    [["--port", "http"], "the port is not a number"],
    [["--db-path", "x"], "--db-path means nothing to the preset vllm"],
    [["--upstream", "ftp://x"], "expected http://host:port"],
  ])("with %j says what is wrong and exits with 78", async (flags, said) => {
    const { code, stderr } = await runBinary(["serve", "--preset", "vllm", ...flags], { cwd: dir });
    expect([code, stderr]).toEqual([78, expect.stringContaining(said)]);
  });

  test("a preset that there is not is refused with the near one", async () => {
    const { code, stderr } = await runBinary(["serve", "--preset", "olama"], { cwd: dir });
    expect([code, stderr]).toEqual([78, expect.stringContaining("did you mean `ollama`")]);
  });
});
