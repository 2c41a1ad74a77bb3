/**
 * The executable in a directory where somebody else has put every file that its runtime would read by default.
 *
 * Invariant: none of them is read. Each trap leaves a file named `sprung-…` behind, and the first test proves with
 * the development runtime that the traps are armed.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, readdirSync, realpathSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { runBinary, startBinary } from "./support/binary.ts";

const CANARY = "canary-value-of-the-hostile-env-file";

/** Source that leaves a mark when it is run, and passes for the module it stands in for. */
function trap(directory: string, name: string): string {
  const path = JSON.stringify(join(directory, `sprung-${name}`));
  return `require("node:fs").writeFileSync(${path}, ""); module.exports = {};\n`;
}

const STRATEGY = `import { definePlugin, z } from "gatehouse";
export default definePlugin({
  name: "mine",
  contract: 1,
  config: z.strictObject({}),
  init: () => ({ authenticate: () => ({ outcome: "absent" }) }),
});
`;

const CONFIG = `version: 1
server: { listen: "127.0.0.1:0" }
strategies: { mine: { use: ./strategy.ts } }
routes: [{ match: { path: /** }, access: [mine] }]
`;

const CONFIG_WITH_SECRET = `version: 1
server: { listen: "127.0.0.1:0" }
strategies: { ops: { use: static-env, env: HOSTILE_TOKEN } }
routes: [{ match: { path: /** }, access: [ops] }]
`;

function fill(directory: string): void {
  const files: Record<string, string> = {
    "bunfig.toml": 'preload = ["./preload.cjs"]\n[test]\npreload = ["./preload.cjs"]\n',
    "preload.cjs": trap(directory, "preload"),
    "remapped.cjs": trap(directory, "tsconfig-paths"),
    "tsconfig.json": JSON.stringify({
      compilerOptions: {
        baseUrl: ".",
        paths: { gatehouse: ["./remapped.cjs"], zod: ["./remapped.cjs"] },
      },
    }),
    "package.json": JSON.stringify({
      name: "gatehouse",
      version: "6.6.6",
      type: "commonjs",
      main: "./remapped.cjs",
      imports: { "#*": "./remapped.cjs" },
      exports: { ".": "./remapped.cjs" },
      bun: { preload: ["./preload.cjs"] },
    }),
    "strategy.ts": STRATEGY,
    "config.yaml": CONFIG,
    "with-secret.yaml": CONFIG_WITH_SECRET,
  };
  const env = [
    `HOSTILE_TOKEN=${CANARY}`,
    `GATEHOUSE_STATE_DIR=/${CANARY}`,
    "GATEHOUSE_SERVER__LISTEN=0.0.0.0:1",
    "GATEHOUSE_DEBUG=1",
    "BUN_CONFIG_MAX_HTTP_REQUESTS=1",
    "BUN_OPTIONS=--preload=./preload.cjs",
    "NODE_OPTIONS=--require=./preload.cjs",
  ].join("\n");
  for (const name of [".env", ".env.local", ".env.production", ".env.development", ".env.test"]) {
    files[name] = `${env}\n`;
  }
  for (const name of ["gatehouse", "zod", "yaml", "pino", "commander", "bun:sqlite"]) {
    files[`node_modules/${name}/index.js`] = trap(directory, `module-${name.replace(":", "-")}`);
  }
  for (const [name, text] of Object.entries(files)) {
    mkdirSync(dirname(join(directory, name)), { recursive: true });
    writeFileSync(join(directory, name), text, { mode: 0o644 });
  }
}

function sprung(directory: string): string[] {
  return readdirSync(directory).filter((name) => name.startsWith("sprung-"));
}

describe("the executable in a hostile directory", () => {
  let cwd = "";

  beforeAll(() => {
    cwd = realpathSync(mkdtempSync(join(tmpdir(), "gatehouse-hostile-")));
    fill(cwd);
  });

  afterAll(() => rmSync(cwd, { recursive: true, force: true }));

  test("the traps are armed: the development runtime springs them", async () => {
    const script = "console.log(process.env.HOSTILE_TOKEN); require('zod'); require('yaml')";
    const armed = mkdtempSync(join(tmpdir(), "gatehouse-armed-"));
    try {
      fill(armed);
      const child = Bun.spawn([process.execPath, "-e", script], {
        cwd: armed,
        env: { PATH: process.env.PATH ?? "" },
        stdout: "pipe",
        stderr: "ignore",
      });
      expect(await child.stdout.text()).toContain(CANARY);
      expect(sprung(armed).sort()).toEqual([
        "sprung-module-yaml",
        "sprung-preload",
        "sprung-tsconfig-paths",
      ]);
    } finally {
      rmSync(armed, { recursive: true, force: true });
    }
  });

  test("version answers with its own version and springs no trap", async () => {
    const { code, stdout, stderr } = await runBinary(["version", "--json"], { cwd });
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    expect(JSON.parse(stdout)).toMatchObject({ version: expect.not.stringContaining("6.6.6") });
    expect(sprung(cwd)).toEqual([]);
  });

  test("config show does not see the variables of the .env files", async () => {
    const { code, stdout, stderr } = await runBinary(["config", "show", "-c", "config.yaml"], {
      cwd,
    });
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    expect(stdout).not.toContain(CANARY);
    expect(stdout).not.toContain("0.0.0.0:1");
    expect(sprung(cwd)).toEqual([]);
  });

  test("a secret that only a .env file defines counts as missing and serve refuses to start", async () => {
    const { code, stdout, stderr } = await runBinary(["serve", "-c", "with-secret.yaml"], { cwd });
    expect(code).toBe(78);
    expect(stderr).toContain("HOSTILE_TOKEN");
    expect(stdout + stderr).not.toContain(CANARY);
    expect(sprung(cwd)).toEqual([]);
  });

  test("an external strategy gets the real contract, not a module of the same name beside it", async () => {
    const gateway = await startBinary(["serve", "-c", "config.yaml"], { cwd });
    try {
      expect((await fetch(`${gateway.url}/`)).status).toBe(401);
    } finally {
      await gateway.stop();
    }
    expect(sprung(cwd)).toEqual([]);
  });
});
