/** Completion, asked of the shells themselves. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { binaryPath, runBinary } from "../../test/support/binary.ts";
import { type TempDir, tempDir } from "../../test/support/config.ts";
import { everyVerb, treeOf } from "./command-tree.ts";
import { bashScript } from "./completion/bash.ts";
import { fishScript } from "./completion/fish.ts";
import { zshScript } from "./completion/zsh.ts";
import { scriptVerbs } from "./completion.ts";
import { createProgram } from "./program.ts";

const tree = treeOf(createProgram({ out() {}, err() {} }, async () => {}));

let dir: TempDir;
beforeAll(async () => {
  dir = tempDir();
  dir.write("config one.yaml", "");
  dir.write("config.txt", "");
  mkdirSync(join(dir.path, "configs"));
  for (const shell of ["bash", "zsh", "fish"]) {
    const { code, stdout, stderr } = await runBinary(["completion", shell]);
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    dir.write(`script.${shell}`, stdout);
  }
});
afterAll(() => dir.remove());

function run(command: string[]): string {
  const { stdout, stderr, exitCode } = Bun.spawnSync(command, {
    cwd: dir.path,
    env: { PATH: process.env.PATH ?? "", HOME: dir.path, TERM: "dumb" },
  });
  if (exitCode !== 0) throw new Error(`${exitCode}: ${stderr}`);
  return stdout.toString();
}

function lines(text: string): string[] {
  return text
    .split("\n")
    .filter((line) => line !== "")
    .sort();
}

type Ask = (...words: string[]) => string[];

/** As readline does: the words of the line in COMP_WORDS, the last one is the one to complete. */
function askBash(...words: string[]): string[] {
  const script = `source script.bash; COMP_WORDS=(gatehouse "$@"); COMP_CWORD=$#; _gatehouse
    printf '%s\\n' "\${COMPREPLY[@]}"`;
  return lines(run(["bash", "--noprofile", "--norc", "-c", script, "bash", ...words]));
}

/** The completion system's own functions print what they are given. */
function askZsh(...words: string[]): string[] {
  const script = `compdef() { }; _message() { }; compset() { }
    compadd() { shift; print -rl -- "$@" }
    _describe() { local name=$argv[-1]; print -rl -- "\${(@)\${(P)name}%%:*}" }
    _files() { if [[ $1 == -/ ]]; then print -rl -- *(N/); else print -rl -- *(N); fi }
    source script.zsh; words=(gatehouse "$@"); CURRENT=$#words; _gatehouse`;
  return lines(run(["zsh", "-f", "-c", script, "zsh", ...words]));
}

function askFish(...words: string[]): string[] {
  const line = ["gatehouse", ...words].join(" ");
  const script = "source script.fish; complete -C $argv[1]";
  return lines(run(["fish", "--no-config", "-c", script, line])).map(
    (answer) => answer.split("\t")[0] ?? "",
  );
}

const SHELLS: readonly (readonly [string, Ask])[] = [
  ["bash", askBash],
  ["zsh", askZsh],
  ["fish", askFish],
];

for (const [shell, ask] of SHELLS) {
  describe(shell, () => {
    if (Bun.which(shell) === null) {
      test(`is not installed here`, () => console.log(`not run: ${shell} is not installed`));
      return;
    }

    test("every verb and group offers what is below it", () => {
      for (const verb of everyVerb(tree).filter(({ verbs }) => verbs.length > 0)) {
        const names = verb.verbs.map(({ path }) => path.at(-1) ?? "");
        const offered = ask(...verb.path, "");
        expect(offered).toEqual(expect.arrayContaining(names));
        expect(offered).not.toContain("nonsense");
      }
    });

    test("every option of every verb is offered", () => {
      // Each call starts a shell: one verb with many options, one in a group, and the newest.
      for (const path of [["serve"], ["token", "create"], ["restore"]]) {
        const verb = everyVerb(tree).find((one) => one.path.join(" ") === path.join(" "))!;
        const long = verb.options.map((option) => option.long ?? "");
        expect(long.length).toBeGreaterThan(4);
        expect(ask(...path, "--")).toEqual(expect.arrayContaining(long));
      }
    });

    test("the beginning of a word is completed", () => {
      // zsh itself leaves out what does not match, so there the whole list comes.
      expect(ask("tok")).toContain("token");
      expect(ask("token", "create", "--na")).toContain("--name");
      if (shell !== "zsh") {
        expect(ask("tok")).toEqual(["token"]);
        expect(ask("token", "create", "--na")).toEqual(["--name"]);
      }
    });

    test("values: a list of words, files, directories, or nothing", () => {
      expect(ask("token", "create", "--role", "")).toEqual(["admin", "user"]);
      expect(ask("completion", "")).toEqual(["bash", "fish", "zsh"]);
      expect(ask("serve", "--preset", "")).toContain("ollama");
      const files = ask("serve", "-c", "config").map((name) => name.replace(/\\/g, ""));
      expect(files).toEqual(expect.arrayContaining(["config one.yaml", "config.txt"]));
      const directories = ask("restore", "--state-dir", "").map((name) => name.replace(/\/$/, ""));
      expect(directories).toEqual(["configs"]);
      expect(ask("token", "create", "--name", "")).toEqual([]);
      expect(ask("restore", "config")).toContain("config.txt");
    });

    test("after a word that is no verb nothing is offered", () => {
      expect(ask("nonsense", "")).toEqual([]);
      expect(ask("token", "nonsense", "")).toEqual([]);
      expect(ask("help", "token", "")).toEqual([]);
    });

    test("nothing on the line is run", () => {
      const trap = join(dir.path, `ran-${shell}`);
      for (const word of [`$(touch ${trap})`, `\`touch ${trap}\``, `;touch ${trap};`]) {
        // fish is handed the line as text, which it parses; it must not expand it either.
        ask("token", "create", "--name", shell === "fish" ? `'${word}'` : word, "--");
      }
      expect(Bun.spawnSync(["test", "-e", trap]).exitCode).not.toBe(0);
    });
  });
}

test("in a real terminal, Tab completes a verb in bash", async () => {
  let shown = "";
  const child = Bun.spawn(["bash", "--noprofile", "--norc", "-i"], {
    cwd: dir.path,
    env: { PATH: process.env.PATH ?? "", HOME: dir.path, TERM: "dumb", PS1: "ready> " },
    terminal: {
      cols: 100,
      data: (_: unknown, bytes: Uint8Array) => {
        shown += new TextDecoder().decode(bytes);
      },
    },
  });
  const until = async (text: string): Promise<void> => {
    while (!shown.includes(text)) await Bun.sleep(5);
  };
  await until("ready> ");
  child.terminal!.write('source script.bash; gatehouse() { echo "<$*>"; }; echo loaded\r');
  await until("loaded\r\n");
  child.terminal!.write("gatehouse tok\tcre\t--na\tx --ro\tad\t\r");
  await until("<token create --name x --role admin>");
  child.terminal!.write("exit\r");
  await child.exited;
});

test("texts of ours come through quoted, whatever they contain", () => {
  const evil = `it's $(touch x) \`y\` "z" \\ : [q] {a,b} 'end`;
  const verbs = scriptVerbs({
    path: [],
    description: "",
    args: [],
    examples: [],
    options: [],
    verbs: [{ path: ["one"], description: evil, args: [], examples: [], verbs: [], options: [] }],
  });
  const scripts = { bash: bashScript(verbs), zsh: zshScript(verbs), fish: fishScript(verbs) };
  for (const [shell, script] of Object.entries(scripts)) {
    if (Bun.which(shell) === null) continue;
    dir.write(`evil.${shell}`, script);
    const check = shell === "zsh" ? "compdef() { }; source evil.zsh" : `source evil.${shell}`;
    expect(run([shell, "-c", check])).toBe("");
  }
  dir.write("script.fish.kept", "");
  if (Bun.which("fish") !== null) {
    const answer = run([
      "fish",
      "--no-config",
      "-c",
      "source evil.fish; complete -C 'gatehouse o'",
    ]);
    expect(answer).toBe(`one\t${evil}\n`);
  }
});

test("another shell is a usage error", async () => {
  const { code, stdout, stderr } = await runBinary(["completion", "tcsh"]);
  expect({ code, stdout }).toEqual({ code: 2, stdout: "" });
  expect(stderr).toContain("Allowed choices are bash, zsh, fish");
  expect((await runBinary(["completion"])).code).toBe(2);
  expect(await binaryPath()).toBeString();
});
