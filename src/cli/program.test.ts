/** The parser's side of the command line: what runs, what is refused, and in which words. */
import { describe, expect, test } from "bun:test";
import { EXIT, OperatorError } from "../errors.ts";
import type { CliContext } from "./context.ts";
import { runProgram } from "./program.ts";

async function run(...args: string[]) {
  const said = { out: "", err: "" };
  const out = (text: string) => {
    said.out += text;
  };
  const err = (text: string) => {
    said.err += text;
  };
  const context: CliContext = {
    version: "0.0.0",
    plugins: [],
    env: {},
    cwd: "/",
    stdinIsTerminal: false,
    stdoutIsTerminal: false,
    out,
    err,
    readStdin: async () => "",
    stop: new AbortController().signal,
  };
  try {
    const code = await runProgram(args, { out, err, context: async () => context });
    return { code, ...said, error: null };
  } catch (error) {
    if (!(error instanceof OperatorError)) throw error;
    return { code: error.exitCode, ...said, error: error.message };
  }
}

describe("runProgram", () => {
  test("version prints one line, and an object with --json", async () => {
    expect(await run("version")).toMatchObject({ code: EXIT.ok, out: "gatehouse 0.0.0-dev\n" });
    const { out } = await run("version", "--json");
    expect(JSON.parse(out)).toMatchObject({ version: "0.0.0-dev", runtime: expect.any(String) });
  });

  test.each([["--version"], ["-V"]])("%s prints what version prints", async (flag) => {
    expect(await run(flag)).toMatchObject({ code: EXIT.ok, out: "gatehouse 0.0.0-dev\n" });
  });

  test.each([["help"], ["--help"], ["help serve"], ["token --help"]])(
    "%s goes to standard output and is no error",
    async (line) => {
      const { code, out, err } = await run(...line.split(" "));
      expect({ code, err }).toEqual({ code: EXIT.ok, err: "" });
      expect(out).toStartWith("Usage: gatehouse");
    },
  );

  test.each([[""], ["token"], ["config"]])(
    "a missing verb is a usage error with help on standard error: '%s'",
    async (line) => {
      const { code, out, err } = await run(...line.split(" ").filter((arg) => arg !== ""));
      expect({ code, out }).toEqual({ code: EXIT.usage, out: "" });
      expect(err).toStartWith("Usage: gatehouse");
    },
  );

  test.each([
    ["serv", "unknown command 'serv', did you mean serve? see 'gatehouse help'"],
    ["token shwo x", "unknown command 'shwo', did you mean show? see 'gatehouse help'"],
    ["serve --lisen x", "unknown option '--lisen', did you mean --listen? see 'gatehouse help'"],
    ["version --frob=x", "unknown option '--frob'; see 'gatehouse help'"],
    ["version extra", "too many arguments for 'version'. Expected 0 arguments but got 1; see"],
    ["serve -c", "option '-c, --config <file>' argument missing; see 'gatehouse help'"],
    ["token create", "required option '--name <name>' not specified; see 'gatehouse help'"],
    ["serve -c a.yaml -c b.yaml", "it is given twice; see 'gatehouse help'"],
    ["demo --port 70000", "expected a port from 0 to 65535; see 'gatehouse help'"],
    [`${"x".repeat(60)}`, "unknown command (not shown); see 'gatehouse help'"],
  ])("%s is a usage error in one line", async (line, message) => {
    const { code, out, err, error } = await run(...line.split(" "));
    expect({ code, out, err }).toEqual({ code: EXIT.usage, out: "", err: "" });
    expect(error).toContain(message);
    expect(error).not.toContain("\n");
  });

  test.each([["sk-canary-0123456789"], ["token create --tokn=sk-canary-0123456789 --name x"]])(
    "a token in the arguments is refused with advice and not repeated: %s",
    async (line) => {
      const { code, out, err, error } = await run(...line.split(" "));
      expect(code).toBe(EXIT.usage);
      expect(error).toContain("tokens are not passed as arguments");
      expect(out + err + error).not.toContain("canary");
    },
  );
});
