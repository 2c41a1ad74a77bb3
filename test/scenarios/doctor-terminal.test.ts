/** `gatehouse doctor` at a terminal: colours, 40 columns, and the question before somebody else is attacked. */
import { afterAll, describe, expect, test } from "bun:test";
import { binaryPath } from "../support/binary.ts";
import { bearerConfig, household } from "../support/doctor.ts";
import { rawUpstream } from "../support/raw.ts";
import { KEYS, TerminalProgram } from "../support/terminal.ts";

const upstream = rawUpstream();
afterAll(() => upstream.stop());

async function start(args: readonly string[], env: Record<string, string> = {}, columns = 80) {
  return new TerminalProgram([await binaryPath(), "doctor", ...args], { columns, env });
}

describe("the report", () => {
  test("is coloured, unless NO_COLOR says otherwise", async () => {
    const home = household(bearerConfig(`http://${upstream.address}`));
    const coloured = await start(["-c", home.config]);
    expect(await coloured.ended).toBe(0);
    expect(coloured.written()).toContain("\u001b[32mok\u001b[0m: ");
    for (const [args, env] of [
      [["-c", home.config, "--no-color"], {}],
      [["-c", home.config], { NO_COLOR: "1" }],
    ] as const) {
      const plain = await start(args, env);
      expect(await plain.ended).toBe(0);
      expect(plain.written()).not.toContain("\u001b[");
    }
  });

  test("fits 40 columns, but for what must not be broken", async () => {
    const home = household(bearerConfig("http://127.0.0.1:1"));
    const narrow = await start(["-c", home.config], {}, 40);
    expect(await narrow.ended).toBe(3);
    expect(narrow.text()).toContain("Upstreams\n  error: api");
    expect(narrow.overflowing().filter((line) => !/[`/]/.test(line))).toEqual([]);
  });
});

describe("a public address", () => {
  test.each(["n", "", "yess"])("answered with %p is not attacked", async (answer) => {
    const program = await start(["--probe", "http://198.51.100.7/"]);
    await program.waitFor("[y/N]");
    program.type(answer, KEYS.enter);
    expect(await program.ended).toBe(2);
    expect(program.text()).toContain("nothing was sent");
  });

  test("Ctrl-C at the question ends it", async () => {
    const program = await start(["--probe", "http://198.51.100.7/"]);
    await program.waitFor("[y/N]");
    program.type(KEYS.ctrlC);
    expect(await program.ended).not.toBe(0);
    expect(program.text()).not.toContain("grade");
  });
});
