/** Files that are no configuration: each is refused with its place and what to do, quickly. */
import { afterAll, describe, expect, test } from "bun:test";
import { chmodSync, mkdirSync, symlinkSync } from "node:fs";
import { dirname, join } from "node:path";
import { document, loadTestPlugin, loadText, tempDir } from "../../test/support/config.ts";
import { loadConfig } from "./load.ts";
import { readSource } from "./source.ts";
import { parseYaml } from "./yaml.ts";

const directory = tempDir();
afterAll(directory.remove);

async function issueOf(file: string | null, env: Record<string, string> = {}) {
  const loaded = await loadConfig({ file, cwd: directory.path, env, loadPlugin: loadTestPlugin });
  expect(loaded.config).toBeNull();
  expect(loaded.issues).toHaveLength(1);
  return loaded.issues[0]!;
}

describe("a file that", () => {
  test("does not exist is named, with what to do", async () => {
    expect(await issueOf("nope.yaml")).toEqual({
      path: "",
      line: 0,
      column: 0,
      message: `${directory.path}/nope.yaml does not exist`,
      hint: "pass -c FILE; config.example.yaml shows one",
    });
  });

  test("is not given and not found is reported with every place that was searched", async () => {
    const { message, hint } = await issueOf(null, { HOME: "/nonexistent/home" });
    expect(message).toContain(`${directory.path}/gatehouse.yaml, ${directory.path}/config.yaml`);
    expect(message).toContain("/nonexistent/home/.config/gatehouse/config.yaml");
    expect(message).toContain("/etc/gatehouse/config.yaml");
    expect(hint).toContain("config.example.yaml");
  });

  test("is a directory is refused", async () => {
    mkdirSync(join(directory.path, "conf.d"));
    const { message, hint } = await issueOf("conf.d");
    expect(message).toEndWith("conf.d is a directory");
    expect(hint).toContain("name the file in it");
  });

  test("lies below a file is refused", async () => {
    directory.write("plain.yaml", document());
    expect((await issueOf("plain.yaml/x")).message).toContain("does not exist");
  });

  test("is a symbolic link to itself is refused", async () => {
    symlinkSync("loop.yaml", join(directory.path, "loop.yaml"));
    expect((await issueOf("loop.yaml")).message).toContain("leads to itself");
  });

  test("has ten megabytes is refused without being read whole", async () => {
    directory.write("big.yaml", "# padding\n".repeat(1_048_576));
    const started = performance.now();
    expect((await issueOf("big.yaml")).message).toBe("the file is larger than 1 MiB");
    expect(performance.now() - started).toBeLessThan(1000);
  });

  test("never ends is refused", async () => {
    expect((await issueOf("/dev/zero")).message).toBe("the file is larger than 1 MiB");
  });

  test("is not UTF-8 is refused with the byte, line and column", async () => {
    const bytes = new Uint8Array([...Buffer.from("version: 1\nrö: "), 0xff, 0x0a]);
    directory.write("latin.yaml", bytes);
    expect(await issueOf("latin.yaml")).toMatchObject({
      line: 2,
      column: 5,
      message: "the file is not UTF-8: byte 17 does not fit",
      hint: "save it as UTF-8",
    });
  });

  test("ends inside a character is refused at that character", async () => {
    directory.write("cut.yaml", new Uint8Array([0x61, 0x3a, 0x20, 0xe2, 0x82]));
    expect((await issueOf("cut.yaml")).message).toContain("is not UTF-8");
  });

  test("is UTF-16 is refused by name", async () => {
    directory.write("utf16.yaml", new Uint8Array([0xff, 0xfe, 0x76, 0x00]));
    expect((await issueOf("utf16.yaml")).hint).toBe("it looks like UTF-16; save it as UTF-8");
  });

  test("holds a NUL is refused with its place", async () => {
    directory.write("nul.yaml", "version: 1\na: \0b\n");
    expect(await issueOf("nul.yaml")).toMatchObject({ line: 2, column: 4 });
  });

  test.each([
    ["empty", ""],
    ["blank", " \n\n"],
    ["comments", "# nothing\n"],
    ["null", "---\n"],
  ])("has nothing in it (%s) is refused", async (name, text) => {
    directory.write(`${name}.yaml`, text);
    expect((await issueOf(`${name}.yaml`)).message).toBe("the file is empty");
  });

  test("every user may replace is refused, but not in a sticky directory", async () => {
    const file = directory.write("shared/file.yaml", document());
    chmodSync(dirname(file), 0o777);
    const { message, hint } = await issueOf("shared/file.yaml");
    expect(message).toContain("every user can put another file in its place");
    expect(hint).toBe(`chmod o-w ${dirname(file)}`);
    chmodSync(dirname(file), 0o1777);
    expect(readSource(file)).toEqual({ text: document() });
  });

  test("every user may change is refused", async () => {
    chmodSync(directory.write("open.yaml", document()), 0o646);
    const { message, hint } = await issueOf("open.yaml");
    expect(message).toContain("can be changed by every user (mode 646)");
    expect(hint).toStartWith("chmod o-w");
  });

  test("starts with a byte order mark is read", async () => {
    directory.write("bom.yaml", `\uFEFF${document()}`);
    const loaded = await loadConfig({
      file: "bom.yaml",
      cwd: directory.path,
      env: {},
      loadPlugin: loadTestPlugin,
    });
    expect(loaded.issues).toEqual([]);
    expect(loaded.config?.file).toBe(join(directory.path, "bom.yaml"));
    expect(loaded.config?.configDir).toBe(directory.path);
  });
});

describe("YAML with", () => {
  test.each([
    [
      "a tab as indentation",
      "version: 1\nserver:\n\tlisten: x\n",
      3,
      "a tab is used for indentation",
    ],
    ["a duplicate key", "version: 1\nversion: 1\n", 2, "the key `version` appears twice"],
    ["an alias to nowhere", "version: 1\nserver: *base\n", 2, "the alias *base leads nowhere"],
    ["an alias before its anchor", "a: *x\nb: &x 1\n", 1, "the alias *x leads nowhere"],
    ["an anchor around its own alias", "a: &x [*x]\n", 1, "an alias inside its own anchor"],
    [
      "a second document",
      "version: 1\n---\nversion: 1\n",
      2,
      "a second document starts here (---)",
    ],
    ["a tag", "version: !secret 1\n", 1, "a tag (!name) that means nothing here"],
    ["binary data", "version: !!binary aGVsbG8=\n", 1, "a tag (!name) that means nothing here"],
    [
      "another YAML version",
      "%YAML 1.1\n---\nversion: 1\n",
      1,
      "another YAML version is asked for",
    ],
    ["an open quote", "version: 'x\n", 2, "a closing quote"],
    ["an open bracket", "version: [1\n", 2, "does not fit"],
    ["a second colon", "version: a: b\n", 1, "a second `: ` on one line"],
    ["a reserved character", "version: @x\n", 1, "text cannot start with this character"],
    ["a list as key", "[a]: b\n", 1, "a list or a map is used as a key"],
    ["bad indentation", "server:\n    a: 1\n  b: 2\n", 3, "does not fit"],
  ])("%s is refused with its line", async (_name, text, line, message) => {
    const { issues, config } = await loadText(text);
    expect(config).toBeNull();
    const found = issues.find((issue) => issue.message.includes(message));
    expect(found?.line).toBe(line);
    expect(found?.column).toBeGreaterThan(0);
    expect(found?.hint).toBeString();
  });

  test("a duplicate key does not hide what else is wrong", async () => {
    const { issues } = await loadText("version: 1\nversion: 1\nservr: {}\n");
    expect(issues.map(({ path }) => path)).toEqual(["routes", "", "servr"]);
  });

  test("a syntax error repeats nothing of the file but key and anchor names", async () => {
    for (const text of ["a: 'canary\n", "a: canary: x\n", "a: [canary\n", "- canary\n}canary\n"]) {
      const { issues } = await loadText(text);
      expect(issues.length).toBeGreaterThan(0);
      expect(JSON.stringify(issues)).not.toContain("canary");
    }
  });

  test("aliases are followed, and a mistake behind one is shown where it is written", async () => {
    const text = `version: 1
strategies: { team: { use: plain } }
upstreams:
  a: &base { url: http://127.0.0.1:9000, max_body: 5 }
  b: *base
routes: [{ match: { path: /** }, access: [team] }]
`;
    const { issues } = await loadText(text);
    expect(issues.map(({ path, line, column }) => [path, line, column])).toEqual([
      ["upstreams.a.max_body", 4, 52],
      ["upstreams.b.max_body", 4, 52],
    ]);
  });

  test("the key __proto__ is an unknown key and nothing more", async () => {
    const { issues } = await loadText(document("__proto__: { version: 1 }"));
    expect(issues).toMatchObject([{ path: "__proto__", message: "unknown key" }]);
  });

  const bomb = Array.from({ length: 12 }, (_, index) =>
    index === 0 ? "a0: &a0 [x]" : `a${index}: &a${index} [${`*a${index - 1},`.repeat(9)}]`,
  );
  test.each([
    ["a billion laughs", bomb.join("\n")],
    ["a megabyte of brackets", "[".repeat(1_000_000)],
    ["a megabyte of nested lists", "- ".repeat(500_000)],
    ["a hundred thousand keys", Array.from({ length: 90_000 }, (_, n) => `k${n}: 1`).join("\n")],
    ["a megabyte of aliases", `a: &a 1\nb: [${"*a,".repeat(330_000)}]`],
    ["a megabyte of anchors", "&a ".repeat(340_000)],
    ["a megabyte of keys without value", "a:\n".repeat(340_000)],
  ])("%s is refused, in at most a hundred lines", async (_name, text) => {
    const { issues } = await loadText(text);
    expect(issues.length).toBeGreaterThan(0);
    expect(issues.length).toBeLessThanOrEqual(101);
  });
});

test("numbers, booleans and null are those of YAML 1.2 core, and nothing else is", () => {
  const { value } = parseYaml(
    "[yes, no, on, 0o17, 017, 0x1f, 1_000, 12:30:45, 2001-01-01, ~, True]",
  );
  expect(value).toEqual([
    "yes",
    "no",
    "on",
    15,
    17,
    31,
    "1_000",
    "12:30:45",
    "2001-01-01",
    null,
    true,
  ]);
});
