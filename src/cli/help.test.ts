/** Help, examples and the manual page: complete, true, and readable by the tools for manual pages. */
import { describe, expect, test } from "bun:test";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { EXIT } from "../errors.ts";
import { everyVerb, leaves, treeOf } from "./command-tree.ts";
import { EXIT_MEANINGS } from "./exit-codes.ts";
import { refuseKeys } from "./key-args.ts";
import { manualPage } from "./manual.ts";
import { createProgram, runProgram } from "./program.ts";

const program = () => createProgram({ out() {}, err() {} }, async () => {});
const tree = treeOf(program());

/** `gatehouse …` in a line for a shell, as words: also within "$( )", before a pipe, with quotes and redirections. */
function invocations(line: string): string[][] {
  const found = [...line.matchAll(/\bgatehouse ((?:"[^"]*"|'[^']*'|[^|;&<>()"'])*)/g)];
  return found.map(([, rest = ""]) =>
    [...rest.matchAll(/"([^"]*)"|'([^']*)'|(\S+)/g)].map(
      ([, double, single, plain]) => double ?? single ?? plain ?? "",
    ),
  );
}

test("the words of an example are found wherever it stands", () => {
  expect(invocations('curl -H "$(gatehouse sign GET https://x --key-file k)" https://x')).toEqual([
    ["sign", "GET", "https://x", "--key-file", "k"],
  ]);
  expect(invocations("gatehouse token import --name ci < token")).toEqual([
    ["token", "import", "--name", "ci"],
  ]);
  expect(invocations(`gatehouse token revoke x --reason "it's lost" | cat`)).toEqual([
    ["token", "revoke", "x", "--reason", "it's lost"],
  ]);
});

describe("every verb", () => {
  test.each(leaves(tree).map((verb) => [verb.path.join(" "), verb] as const))(
    "%s has an example of itself that is understood",
    async (path, { examples, description }) => {
      expect(description).not.toBe("");
      const calls = examples.flatMap(invocations);
      expect(calls.filter((words) => words.join(" ").startsWith(path))).not.toEqual([]);
      for (const words of calls) {
        refuseKeys(words);
        // Rejects what the parser does not know; what the verb would do is not done.
        await program().parseAsync(words, { from: "user" });
      }
    },
  );

  test("an example that has gone stale would be noticed", () => {
    expect(program().parseAsync(["serve", "--nonsense"], { from: "user" })).rejects.toThrow();
    expect(program().parseAsync(["token", "shwo"], { from: "user" })).rejects.toThrow();
  });

  test("describes each of its options, and none twice", () => {
    for (const verb of everyVerb(tree)) {
      const names = verb.options.flatMap(({ short, long }) => [short, long]);
      const given = names.filter((name) => name !== null);
      expect({ verb: verb.path, names: given }).toEqual({
        verb: verb.path,
        names: [...new Set(given)],
      });
      for (const { long, description } of verb.options) {
        expect({ long, isDescribed: description !== "" }).toEqual({ long, isDescribed: true });
      }
    }
  });
});

test("every exit code has a meaning, in the help and in the manual page", () => {
  let help = "";
  const shown = createProgram({ out: (text) => (help += text), err() {} }, async () => {});
  shown.outputHelp();
  const page = manualPage(tree);
  for (const [name, code] of Object.entries(EXIT)) {
    const { meaning } = EXIT_MEANINGS[name as keyof typeof EXIT];
    expect(EXIT_MEANINGS[name as keyof typeof EXIT].code).toBe(code);
    expect(help).toMatch(new RegExp(`^ +${code}  ${meaning}$`, "m"));
    expect(page).toContain(`.B ${code}\n`);
  }
});

describe("the manual page", () => {
  const page = manualPage(tree);

  test("has every verb, every option and every example", () => {
    const plain = page.replaceAll("\\-", "-").replaceAll("\\(aq", "'");
    for (const { path, options } of leaves(tree)) {
      expect(plain).toContain(`.SS gatehouse ${path.join(" ")}`);
      for (const { long } of options) expect(plain).toContain(long ?? "");
    }
    expect(page).toStartWith(".TH GATEHOUSE 1 ");
    expect(page).toEndWith("\n");
  });

  // UPDATE_GOLDEN=1 writes the file anew; packages install it.
  test("packaging/gatehouse.1 is this page: UPDATE_GOLDEN=1 writes it anew", () => {
    const file = join(import.meta.dir, "../../packaging/gatehouse.1");
    if (process.env.UPDATE_GOLDEN === "1") writeFileSync(file, page);
    expect(readFileSync(file, "utf8")).toBe(page);
  });

  test("is what `gatehouse help --man` prints", async () => {
    let out = "";
    const host = {
      out(more: string) {
        out += more;
      },
      err() {},
      context: () => Promise.reject(new Error("no command runs")),
    };
    expect(await runProgram(["help", "--man"], host)).toBe(EXIT.ok);
    expect(out).toBe(page);
  });

  test("says options that all verbs have once", () => {
    expect(page.split("\\-\\-no\\-color").length).toBe(2);
  });

  test("is plain ASCII, and no text of ours is taken for a command", () => {
    expect(page).toMatch(/^[\x20-\x7e\n]*$/);
    const evil = manualPage({
      path: [],
      description: "",
      options: [],
      args: [],
      examples: [],
      verbs: [
        {
          path: ["x"],
          description: ".so /etc/passwd",
          options: [],
          args: [],
          verbs: [],
          examples: ["'\\n(.x", "a\n.de evil"],
        },
      ],
    });
    const commands = evil.split("\n").filter((line) => /^[.']/.test(line));
    const known = /^\.(?:TH|SH|SS|TP|PP|IP|EX|EE|B|I)(?: |$)/;
    expect(commands.filter((line) => !known.test(line))).toEqual([]);
  });

  test.each([
    ["groff", ["groff", "-man", "-Tutf8", "-ww", "-b", "-z"]],
    ["mandoc", ["mandoc", "-T", "lint", "-W", "error"]],
    ["man", ["man", "--warnings", "-l", "-"]],
  ])("%s has nothing to say about it", (tool, command) => {
    if (Bun.which(tool) === null) {
      console.log(`not run: ${tool} is not installed`);
      return;
    }
    const { exitCode, stderr, stdout } = Bun.spawnSync(command, {
      stdin: Buffer.from(page),
      env: { ...process.env, LC_ALL: "C.UTF-8", MANPAGER: "cat", MANWIDTH: "80" },
    });
    expect({ exitCode, said: stderr.toString() }).toEqual({ exitCode: 0, said: "" });
    if (tool === "mandoc") expect(stdout.toString()).toBe("");
    if (tool === "man") expect(stdout.toString()).toContain("GATEHOUSE(1)");
  });
});
