/** What the loader accepts, and what it refuses before a line of it runs. */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { createHash } from "node:crypto";
import { chmodSync, chownSync, mkdirSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import staticEnv from "../plugins/static-env/index.ts";
import { temporaryDirectory } from "../test/support/host.ts";
import { EXIT, OperatorError } from "./errors.ts";
import { isPath, type LoadPlugin, pluginLoader } from "./loader.ts";

let directory: string;
let load: LoadPlugin;
beforeEach(() => {
  directory = temporaryDirectory();
  load = pluginLoader([staticEnv]);
});
afterEach(() => {
  rmSync(directory, { recursive: true, force: true });
});

/** Source of a plugin that is right in everything but what `change` replaces. */
function source(change: Record<string, string> = {}): string {
  const members = {
    name: '"mine"',
    contract: "1",
    config: "z.strictObject({ word: z.string().optional() })",
    init: '() => ({ authenticate: () => ({ outcome: "absent" }) })',
    ...change,
  };
  const body = Object.entries(members).map(([key, value]) => `  ${key}: ${value},`);
  return `import { z } from "gatehouse";\nexport default {\n${body.join("\n")}\n};\n`;
}

function write(name: string, text: string, mode = 0o644): string {
  const path = join(directory, name);
  writeFileSync(path, text);
  chmodSync(path, mode);
  return path;
}

async function refusal(use: string, sha256: string | null = null): Promise<OperatorError> {
  try {
    await load(use, sha256, directory);
  } catch (error) {
    if (error instanceof OperatorError) return error;
    throw error;
  }
  throw new Error(`${use} was loaded`);
}

const isRoot = process.getuid?.() === 0;

describe("bundled plugins", () => {
  test("a bundled name gives the bundled plugin", async () => {
    expect(await load("static-env", null, directory)).toBe(staticEnv);
  });

  test("a name that is nearly right is answered with the right one", async () => {
    const error = await refusal("static_env");
    expect(error.message).toBe('there is no bundled plugin "static_env"; bundled are static-env');
    expect(error.hint).toBe("Did you mean static-env?");
    expect(error.exitCode).toBe(EXIT.config);
  });

  test("a name that is like none is answered with how to name a file", async () => {
    expect((await refusal("magic")).hint).toContain("./");
  });

  test("a pin on a bundled plugin is refused", async () => {
    expect((await refusal("static-env", "0".repeat(64))).message).toContain("is bundled");
  });

  test.each([
    ["./a", true],
    ["../a", true],
    ["/a", true],
    ["a.ts", true],
    ["dir/a.mjs", true],
    ["a.js", true],
    ["a.mts", true],
    ["static-env", false],
    ["ts", false],
    ["a.tsx", false],
  ])("%s is a path: %p", (use, expected) => {
    expect(isPath(use)).toBe(expected);
  });
});

describe("an external file", () => {
  test("is resolved against the directory of the config and loaded by its default export", async () => {
    write("mine.ts", source());
    const plugin = await load("mine.ts", null, directory);
    expect(plugin.name).toBe("mine");
    expect(plugin.config.safeParse({ word: "x" }).success).toBe(true);
  });

  test.each(["mine.ts", "mine.mts", "mine.js", "mine.mjs"])("may be called %s", async (name) => {
    write(name, source());
    expect((await load(`./${name}`, null, directory)).name).toBe("mine");
  });

  test("may import files beside it and below", async () => {
    mkdirSync(join(directory, "lib"), { mode: 0o755 });
    write("lib/deep.js", "export const deep = 2;\n");
    write(
      "beside.ts",
      'import { deep } from "./lib/deep.js";\nexport const name: string = "n" + deep;\n',
    );
    write("mine.ts", `import { name } from "./beside.ts";\n${source({ name: "name" })}`);
    expect((await load("./mine.ts", null, directory)).name).toBe("n2");
  });

  test("is loaded anew when its content is another", async () => {
    write("mine.ts", source());
    const first = await load("./mine.ts", null, directory);
    expect(await load("./mine.ts", null, directory)).toBe(first);
    write("mine.ts", source({ name: '"other"' }));
    expect((await load("./mine.ts", null, directory)).name).toBe("other");
  });

  test("whose companion has changed is refused while the process keeps the old one", async () => {
    write("mine.ts", `import { word } from "./word.ts";\n${source({ name: "word" })}`);
    write("word.ts", 'export const word = "first";');
    expect((await load("./mine.ts", null, directory)).name).toBe("first");
    write("word.ts", 'export const word = "second";');
    load = pluginLoader([]);
    const { message, hint } = await refusal("./mine.ts");
    expect(message).toContain("word.ts, which a plugin file imports, has changed");
    expect(hint).toBe("Restart the gateway.");
    write("word.ts", 'export const word = "first";');
    expect((await load("./mine.ts", null, directory)).name).toBe("first");
  });

  test("may be reached by a symbolic link, and the file it leads to is what counts", async () => {
    mkdirSync(join(directory, "real"), { mode: 0o755 });
    write("real/mine.ts", source());
    symlinkSync(join(directory, "real/mine.ts"), join(directory, "link.ts"));
    expect((await load("./link.ts", null, directory)).name).toBe("mine");
    chmodSync(join(directory, "real"), 0o777);
    expect((await refusal("./link.ts")).message).toContain("real is writable by everyone");
  });
});

describe("the pin", () => {
  const text = source();
  const digest = createHash("sha256").update(text).digest("hex");

  test("of the exact bytes is accepted in either case", async () => {
    write("mine.ts", text);
    for (const pin of [digest, digest.toUpperCase()]) {
      expect((await load("./mine.ts", pin, directory)).name).toBe("mine");
    }
  });

  test("of other bytes refuses before anything of the file is run", async () => {
    write("mine.ts", `globalThis.__ran = true;\n${text}`);
    const error = await refusal("./mine.ts", digest);
    expect(error.message).toContain("is not the one that was pinned: its SHA-256 is ");
    expect("__ran" in globalThis).toBe(false);
  });

  test("covers what is run: a file that changes after the check is run as it was checked", async () => {
    const path = write("mine.ts", text);
    const loading = load("./mine.ts", digest, directory);
    writeFileSync(path, `globalThis.__ran = true;\n${source({ name: '"swapped"' })}`);
    expect((await loading).name).toBe("mine");
    expect("__ran" in globalThis).toBe(false);
  });
});

describe("a file that is not safe", () => {
  test("that is missing is named with its full path", async () => {
    const error = await refusal("./nowhere.ts");
    expect(error.message).toBe(`plugin file ${directory}/nowhere.ts does not exist`);
    expect(error.hint).toContain("relative to the directory of the config file");
  });

  test("that is a directory is refused", async () => {
    mkdirSync(join(directory, "mine.ts"), { mode: 0o755 });
    expect((await refusal("./mine.ts")).message).toContain("is not a regular file");
  });

  test("that everybody can write to is refused with the command that mends it", async () => {
    const path = write("mine.ts", source(), 0o646);
    const error = await refusal("./mine.ts");
    expect(error.message).toBe(
      `${path} is writable by everyone (mode 0646), who can change the plugin`,
    );
    expect(error.hint).toBe(`Run: chmod go-w ${path}`);
    expect(error.exitCode).toBe(EXIT.permission);
  });

  test("whose directory everybody can write to is refused, unless it is sticky", async () => {
    const folder = join(directory, "shared");
    mkdirSync(folder);
    writeFileSync(join(folder, "mine.ts"), source(), { mode: 0o644 });
    chmodSync(folder, 0o777);
    expect((await refusal("./shared/mine.ts")).message).toBe(
      `${folder} is writable by everyone (mode 0777), who can swap the plugin file`,
    );
    chmodSync(folder, 0o1777);
    expect((await load("./shared/mine.ts", null, directory)).name).toBe("mine");
  });

  test("in a directory two levels below a writable one is refused", async () => {
    mkdirSync(join(directory, "a/b"), { recursive: true, mode: 0o755 });
    write("a/b/mine.ts", source());
    chmodSync(join(directory, "a"), 0o777);
    expect((await refusal("./a/b/mine.ts")).message).toContain("/a is writable by everyone");
  });

  test("that imports a file which everybody can write to is refused", async () => {
    const helper = write("helper.ts", "export const one = 1;\n", 0o666);
    write("mine.ts", `import { one } from "./helper.ts";\n${source({ contract: "one" })}`);
    const error = await refusal("./mine.ts");
    expect(error.message).toContain(`${helper} is writable by everyone`);
  });

  test.skipIf(!isRoot)("that belongs to another user is refused", async () => {
    const path = write("mine.ts", source());
    chownSync(path, 4242, 0);
    expect((await refusal("./mine.ts")).message).toContain(`${path} belongs to user 4242`);
  });

  test.skipIf(!isRoot)("whose directory belongs to another user is refused", async () => {
    mkdirSync(join(directory, "theirs"), { mode: 0o755 });
    write("theirs/mine.ts", source());
    chownSync(join(directory, "theirs"), 4242, 0);
    expect((await refusal("./theirs/mine.ts")).message).toContain("theirs belongs to user 4242");
  });

  test.skipIf(!isRoot)("that a foreign group can write to is refused", async () => {
    const path = write("mine.ts", source(), 0o664);
    expect((await load("./mine.ts", null, directory)).name).toBe("mine");
    chownSync(path, 0, 4242);
    expect((await refusal("./mine.ts")).message).toContain("is writable by group 4242");
  });

  test.skipIf(!isRoot)("behind a link of another user is refused", async () => {
    const { lchownSync } = await import("node:fs");
    write("mine.ts", source());
    symlinkSync("mine.ts", join(directory, "link.ts"));
    lchownSync(join(directory, "link.ts"), 4242, 0);
    expect((await refusal("./link.ts")).message).toContain("link.ts belongs to user 4242");
  });

  test("whose path has a question mark is refused", async () => {
    write("mine?.ts", source());
    expect((await refusal("./mine?.ts")).message).toContain("has ? or #");
  });
});

describe("source that cannot be imported", () => {
  test("a syntax error is told with file, line and column and without the line's text", async () => {
    const path = write("mine.ts", 'const secret = "do-not-show";\nexport default { ( };\n');
    const error = await refusal("./mine.ts");
    expect(error.message).toContain(`plugin file ${path} cannot be imported: Expected identifier`);
    expect(error.message).toContain(`(${path}:2:18)`);
    expect(error.message).not.toContain("\n");
    expect(error.message).not.toContain("do-not-show");
  });

  test("a syntax error in a file beside it is told with that file", async () => {
    const helper = write("broken.ts", "export const = 1;\n");
    write("mine.ts", `import "./broken.ts";\n${source()}`);
    expect((await refusal("./mine.ts")).message).toContain(`(${helper}:1:14)`);
  });

  test("a throw at import is told with its place", async () => {
    const path = write("mine.ts", '\n\nthrow new TypeError("two\\nlines");\n');
    expect((await refusal("./mine.ts")).message).toBe(
      `plugin file ${path} cannot be imported: two lines (${path}:3:11)`,
    );
  });

  test("a package that is not there is told with what there is", async () => {
    write("mine.ts", `import x from "no-such-package";\nconsole.debug(x);\n${source()}`);
    const error = await refusal("./mine.ts");
    expect(error.message).toContain("Cannot find package 'no-such-package'");
    expect(error.message).not.toContain("sha256=");
    expect(error.hint).toContain('no packages but "gatehouse"');
  });

  test("a name that the contract does not export is told as such", async () => {
    write("mine.ts", 'import { nothing } from "gatehouse";\nexport default nothing;\n');
    const error = await refusal("./mine.ts");
    expect(error.message).toContain("'nothing' not found in module 'gatehouse'");
    expect(error.hint).toContain("plugin-guide");
  });

  test("a file that was mended after a failure is loaded", async () => {
    write("mine.ts", "export default {");
    await refusal("./mine.ts");
    write("mine.ts", source());
    expect((await load("./mine.ts", null, directory)).name).toBe("mine");
  });
});

describe("an export of the wrong shape", () => {
  test.each([
    ["no default export", "export {};\n", "it has no default export"],
    ["a function", "export default () => 1;\n", "the default export is not an object"],
    ["a newer contract", source({ contract: "2" }), "Gatehouse is the older side"],
    ["an older contract", source({ contract: "0.5" }), "`contract` is not a version number"],
    ["no contract", source({ contract: "undefined" }), "write contract: 1"],
    ["a bad name", source({ name: '"My Plugin"' }), "`name` is not a slug"],
    ["no init", source({ init: "null" }), "`init` is not a function"],
    ["a config that is no schema", source({ config: "{}" }), "`config` is not an object schema"],
    ["a config that is no object", source({ config: "z.string()" }), "is not an object schema"],
    ["a config that lets keys pass", source({ config: "z.object({})" }), "lets unknown keys pass"],
    ["a misspelt member", source({ question: "[]" }), "`question` is not a member of a plugin"],
    ["commands that are no list", source({ commands: "{}" }), "`commands` is not a list"],
    [
      "a command without run",
      source({ commands: '[{ name: "a", help: "b" }]' }),
      "a command lacks",
    ],
    [
      "a question about nothing",
      source({ questions: '[{ id: "x", kind: "text", message: "m" }]' }),
      "the question `x` is about no key of `config`",
    ],
    [
      "a question of an unknown kind",
      source({ questions: '[{ id: "word", kind: "colour", message: "m" }]' }),
      "a question lacks",
    ],
    [
      "an offer that says nothing",
      source({ offers: '{ tokens: "yes", surfaces: [] }' }),
      "`offers` is not { tokens",
    ],
    [
      "a second export",
      `${source()}export const extra = 1;\n`,
      "exports extra besides its default",
    ],
  ])("%s is refused by what is wrong", async (_, text, expected) => {
    const path = write("mine.ts", text);
    const { message } = await refusal("./mine.ts");
    expect(message).toContain(path);
    expect(message).toContain(expected);
  });
});

test("a file that could not be imported is tried again, also when it is the same", async () => {
  const flag = join(directory, "flag");
  const text = `import { existsSync } from "node:fs";
if (!existsSync(${JSON.stringify(flag)})) throw new Error("the flag is not there");
`;
  const path = write("mine.ts", `${text}${source()}`);
  for (const _ of [1, 2]) {
    const { message } = await refusal("./mine.ts");
    expect(message).toContain("the flag is not there");
    expect(message).toContain(`(${path}:`);
    expect(message).not.toContain("sha256");
  }
  writeFileSync(flag, "");
  expect((await load("./mine.ts", null, directory)).name).toBe("mine");
});

describe("names", () => {
  test("an external plugin cannot take the name of a bundled one", async () => {
    write("mine.ts", source({ name: '"static-env"' }));
    expect((await refusal("./mine.ts")).message).toContain("which is a bundled plugin");
  });

  test("two files cannot have one name, but one file may be used twice", async () => {
    write("a.ts", source());
    write("b.ts", source());
    await load("./a.ts", null, directory);
    await load("./a.ts", null, directory);
    expect((await refusal("./b.ts")).message).toBe(
      `plugin files ${directory}/a.ts and ${directory}/b.ts both call themselves mine`,
    );
  });
});
