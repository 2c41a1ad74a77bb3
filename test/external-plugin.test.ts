/**
 * External plugins in the compiled executable: no node_modules, no tsconfig, no source tree in sight.
 *
 * Invariant: what is loaded here is loaded from another temporary directory than the one the executable was
 * built in, and the executable is started from an empty directory.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { cpSync, mkdirSync, rmSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { temporaryDirectory } from "./support/host.ts";

const ROOT = resolve(import.meta.dir, "..");

/** Loads a plugin, starts it and asks it about one request; prints the outcome or the refusal. */
const ENTRY = `
import { pluginLoader } from ${JSON.stringify(join(ROOT, "src/loader.ts"))};
import { errorMessage, OperatorError } from ${JSON.stringify(join(ROOT, "src/errors.ts"))};
import { testHost } from ${JSON.stringify(join(ROOT, "test/support/host.ts"))};
import { authRequest } from ${JSON.stringify(join(ROOT, "test/support/request.ts"))};
const [use = "", directory = "", config = "{}", headers = "{}"] = process.argv.slice(2);
const context = testHost();
try {
  const plugin = await pluginLoader([])(use, null, directory);
  const host = { ...context.host, configDir: directory };
  const instance = await plugin.init(plugin.config.parse(JSON.parse(config)), host);
  const outcome = await instance.authenticate(authRequest({ headers: JSON.parse(headers) }));
  console.log(JSON.stringify({ name: plugin.name, outcome }));
} catch (error) {
  const isKnown = error instanceof OperatorError;
  console.log(JSON.stringify({ refused: errorMessage(error), isKnown }));
} finally {
  context.dispose();
}
`;

let built: string;
let plugins: string;
let empty: string;

beforeAll(async () => {
  [built, plugins, empty] = [temporaryDirectory(), temporaryDirectory(), temporaryDirectory()];
  writeFileSync(join(built, "entry.ts"), ENTRY);
  const flags = ["--compile", "--bytecode", "--format=esm"];
  const off = ["--no-compile-autoload-dotenv", "--no-compile-autoload-bunfig"];
  const build = Bun.spawn(
    [process.execPath, "build", ...flags, ...off, "entry.ts", "--outfile", "loads"],
    { cwd: built, stdout: "pipe", stderr: "pipe" },
  );
  const said = (await build.stdout.text()) + (await build.stderr.text());
  if ((await build.exited) !== 0) throw new Error(said);
}, 60_000);
afterAll(() => {
  for (const directory of [built, plugins, empty]) {
    rmSync(directory, { recursive: true, force: true });
  }
});

async function run(use: string, config: object = {}, headers: object = {}): Promise<unknown> {
  const texts = [config, headers].map((value) => JSON.stringify(value));
  const child = Bun.spawn([join(built, "loads"), use, plugins, ...texts], {
    cwd: empty,
    env: { PATH: "/usr/bin:/bin" },
    stdout: "pipe",
    stderr: "pipe",
  });
  const [out, err] = [await child.stdout.text(), await child.stderr.text()];
  expect(err).toBe("");
  return JSON.parse(out);
}

function strategy(imports: string, name: string): string {
  return `${imports}
export default definePlugin({
  name: ${name},
  contract: 1,
  config: z.strictObject({ word: z.string().min(8).describe("what to say in x-magic") }),
  async init(config, host) {
    return {
      authenticate(request) {
        const said = request.headers.get("x-magic");
        if (said === null) return { outcome: "absent" };
        if (!host.secretEquals(said, config.word)) return { outcome: "reject", reason: "invalid_token" };
        return { outcome: "accept", identity: { id: "wizard", role: "user" } };
      },
    };
  },
});
`;
}

const WORD = { word: "abracadabra" };
const MAGIC = { "x-magic": "abracadabra" };
const WIZARD = { outcome: "accept", identity: { id: "wizard", role: "user" } };

describe("the executable, with an external plugin from another directory", () => {
  test("loads a .ts file that imports definePlugin and z as values", async () => {
    writeFileSync(
      join(plugins, "magic.ts"),
      strategy('import { definePlugin, z } from "gatehouse";', '"magic"'),
    );
    expect(await run("./magic.ts", WORD, MAGIC)).toEqual({ name: "magic", outcome: WIZARD });
    expect(await run("magic.ts", WORD)).toEqual({
      name: "magic",
      outcome: { outcome: "absent" },
    });
  });

  test("loads a .js file by its absolute path", async () => {
    writeFileSync(
      join(plugins, "plain.js"),
      strategy('import { definePlugin, z } from "gatehouse";', '"plain"'),
    );
    const outcome = await run(join(plugins, "plain.js"), WORD, MAGIC);
    expect(outcome).toEqual({ name: "plain", outcome: WIZARD });
  });

  test("loads a .ts file with type-only imports and files beside it", async () => {
    mkdirSync(join(plugins, "lib"), { mode: 0o755 });
    writeFileSync(join(plugins, "lib/name.ts"), 'export const NAME: string = "typed";\n');
    const imports = `import { definePlugin, type Outcome, z } from "gatehouse";
import type { Host } from "gatehouse";
import { NAME } from "./lib/name.ts";
export type Unused = readonly [Host, Outcome];
`;
    writeFileSync(join(plugins, "typed.ts"), strategy(imports, "NAME"));
    expect(await run("./typed.ts", WORD, MAGIC)).toEqual({ name: "typed", outcome: WIZARD });
  });

  test("loads the files of a bundled plugin, copied unchanged", async () => {
    for (const name of ["index.ts", "verify.ts"]) {
      mkdirSync(join(plugins, "static-env"), { recursive: true, mode: 0o755 });
      cpSync(join(ROOT, "plugins/static-env", name), join(plugins, "static-env", name));
    }
    const token = "0123456789abcdef01234567";
    writeFileSync(join(plugins, "token"), token, { mode: 0o600 });
    const headers = { authorization: `Bearer ${token}` };
    expect(await run("./static-env/index.ts", { file: "token" }, headers)).toEqual({
      name: "static-env",
      outcome: { outcome: "accept", identity: { id: "test", role: "user" } },
    });
  });

  test("loads the example with a database and files beside it", async () => {
    for (const name of ["signed-link.ts", "signed-link-format.ts"]) {
      cpSync(join(ROOT, "test/external", name), join(plugins, name));
    }
    const keys = { keys: `robot:${"k".repeat(32)}` };
    const headers = { "x-signature": `keyId=robot,ts=1,sig=${"0".repeat(64)}` };
    expect(await run("./signed-link.ts", keys, headers)).toEqual({
      name: "signed-link",
      outcome: { outcome: "reject", reason: "signature_invalid", credentialId: "robot" },
    });
  });

  test("gives the real contract, whatever calls itself gatehouse beside the file", async () => {
    const trapped = join(plugins, "trapped");
    mkdirSync(join(trapped, "node_modules/gatehouse"), { recursive: true, mode: 0o755 });
    const trap = "export const z = null; export const definePlugin = () => 'trap';\n";
    writeFileSync(join(trapped, "node_modules/gatehouse/index.js"), trap);
    writeFileSync(join(trapped, "trap.ts"), trap);
    const paths = { compilerOptions: { paths: { gatehouse: ["./trap.ts"] } } };
    writeFileSync(join(trapped, "tsconfig.json"), JSON.stringify(paths));
    writeFileSync(join(trapped, "package.json"), '{ "imports": { "gatehouse": "./trap.ts" } }');
    const imports = 'import { definePlugin, z } from "gatehouse";';
    writeFileSync(join(trapped, "mine.ts"), strategy(imports, '"trapped"'));
    expect(await run("./trapped/mine.ts", WORD, MAGIC)).toEqual({
      name: "trapped",
      outcome: WIZARD,
    });
  });

  test("refuses a syntax error by file and line", async () => {
    writeFileSync(join(plugins, "broken.ts"), "\nexport default { ( };\n");
    expect(await run("./broken.ts")).toEqual({
      refused: expect.stringContaining(`broken.ts:2:18)`),
      isKnown: true,
    });
  });

  test("refuses a file that everybody can write to", async () => {
    writeFileSync(join(plugins, "open.ts"), "export default {};\n");
    Bun.spawnSync(["chmod", "666", join(plugins, "open.ts")]);
    expect(await run("./open.ts")).toEqual({
      refused: expect.stringContaining("is writable by everyone"),
      isKnown: true,
    });
  });
});
