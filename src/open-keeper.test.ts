/** The strategy that a token command opens: which one it is, and what is said when it cannot be told. */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { temporaryDirectory } from "../test/support/host.ts";
import { EXIT, OperatorError } from "./errors.ts";
import { openStrategy } from "./open-keeper.ts";
import { bundledPlugins } from "./registry.ts";

let directory: string;
beforeEach(() => {
  directory = temporaryDirectory();
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

async function refusal(work: Promise<unknown>): Promise<OperatorError> {
  const error = await work.then(
    () => null,
    (reason: unknown) => reason,
  );
  if (error instanceof OperatorError) return error;
  throw new Error(`not refused as it should be: ${String(error)}`);
}

describe("openStrategy", () => {
  const said: string[] = [];

  function open(
    strategies: string,
    options: { strategy?: string; env?: Record<string, string> } = {},
  ) {
    const file = join(directory, "gatehouse.yaml");
    const text = `version: 1
strategies:
${strategies}
upstreams: { api: { url: "http://127.0.0.1:9000" } }
routes: [{ match: { path: /** }, access: public, upstream: api }]
`;
    writeFileSync(file, text, { mode: 0o600 });
    const context = {
      plugins: bundledPlugins,
      env: options.env ?? {},
      cwd: directory,
      err: (line: string) => void said.push(line),
    };
    return openStrategy({ context, config: file, strategy: options.strategy });
  }

  const TEAM = "  team: { use: bearer-sqlite }\n";
  const OPS = "  ops: { use: static-env, env: GATEHOUSE_LIFECYCLE_TEST }\n";

  test("the only strategy that keeps tokens is found, also when another one cannot start", async () => {
    const opened = await open(OPS + TEAM);
    expect(opened.name).toBe("team");
    expect(opened.stateDir).toBe(join(directory, "state"));
    const { token } = await opened.tokens.create({ name: "first" });
    expect(token).toStartWith("gate_");
    await opened.close();
    await opened.close();
  });

  test("of two that keep tokens one has to be named", async () => {
    const two = `${TEAM}  staff: { use: bearer-sqlite, prefix: staff }\n`;
    const error = await refusal(open(two));
    expect(error.exitCode).toBe(EXIT.usage);
    expect(error.message).toContain("team, staff");
    expect(error.hint).toContain("--strategy");
    const opened = await open(two, { strategy: "staff" });
    expect(opened.name).toBe("staff");
    await opened.close();
  });

  test("a name that is not in the config is answered with those that are", async () => {
    const error = await refusal(open(TEAM, { strategy: "taem" }));
    expect(error.exitCode).toBe(EXIT.usage);
    expect(error.message).toContain("team");
  });

  test("a named strategy that keeps no tokens is a mistake of usage", async () => {
    const env = { GATEHOUSE_LIFECYCLE_TEST: "0123456789abcdef0123" };
    const error = await refusal(open(OPS + TEAM, { strategy: "ops", env }));
    expect(error.exitCode).toBe(EXIT.usage);
    expect(error.message).toContain("strategy ops (static-env) keeps no tokens");
  });

  test("without any that keeps tokens it says why the others could not be asked", async () => {
    const error = await refusal(open(`${OPS}  ops2: { use: static-env, file: nowhere }\n`));
    expect(error.message).toContain("keeps tokens");
    expect(`${error.message} ${error.hint}`).toContain("GATEHOUSE_LIFECYCLE_TEST is not set");
  });

  test("a strategy that was named and cannot start says why", async () => {
    const error = await refusal(open(OPS + TEAM, { strategy: "ops" }));
    expect(error.exitCode).toBe(EXIT.config);
    expect(error.message).toContain("GATEHOUSE_LIFECYCLE_TEST is not set");
  });

  test("a config with mistakes is refused with all of them", async () => {
    const error = await refusal(open("  team: { use: bearer-sqlite, colour: red }\n"));
    expect(error.exitCode).toBe(EXIT.config);
    expect(error.message).toContain("colour");
  });
});
