/**
 * A gateway under test, started from a config text: in this process, and as the compiled executable.
 *
 * Invariant: both faces are the real thing with real listeners on port 0; a scenario does not know which it talks to.
 */
import { afterAll, describe } from "bun:test";
import { mkdirSync, mkdtempSync, realpathSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { makeBuiltInSurfaces } from "../../src/admin/surfaces.ts";
import { reloads } from "../../src/cli/reloads.ts";
import { systemClock } from "../../src/clock.ts";
import { renderIssues } from "../../src/config/explain.ts";
import { loadConfig } from "../../src/config/load.ts";
import { EXIT, OperatorError } from "../../src/errors.ts";
import { pluginLoader } from "../../src/loader.ts";
import { createLog } from "../../src/log.ts";
import { bundledPlugins } from "../../src/registry.ts";
import { startGateway } from "../../src/start.ts";
import { runBinary, startBinary } from "./binary.ts";

/** What a gateway is started with. */
export interface GatewaySetup {
  /** The config file's text; `listen` should use port 0. */
  readonly config: string;
  readonly env?: Readonly<Record<string, string>>;
  /** Further files of the config's directory by name. */
  readonly files?: Readonly<Record<string, string>>;
  /** Listeners in the config. Default 1. */
  readonly listeners?: number;
}

export interface GatewayUnderTest {
  /** The first listener, `127.0.0.1:PORT`. */
  readonly address: string;
  readonly addresses: readonly string[];
  readonly url: string;
  /** Directory of the config file, `gatehouse.yaml`. */
  readonly dir: string;
  readonly configFile: string;
  /** Everything logged so far, one JSON object a line. */
  logs(): string;
  /** The events of this name so far. */
  events(name: string): Record<string, unknown>[];
  /** Writes the config file anew and has it read; null, or why it was refused. */
  reload(config: string): Promise<string | null>;
  stop(): Promise<void>;
}

export type StartGateway = (setup: GatewaySetup) => Promise<GatewayUnderTest>;

const started: GatewayUnderTest[] = [];

/** For the end of a suite: whatever it started and did not stop. */
async function stopStarted(): Promise<void> {
  await Promise.all(started.splice(0).map((gateway) => gateway.stop()));
}

/** A directory only we can read, removed at the end. */
export function scratch(): string {
  const dir = realpathSync(mkdtempSync(join(tmpdir(), "gatehouse-test-")));
  afterAll(() => rmSync(dir, { recursive: true, force: true }));
  return dir;
}

function lay(setup: GatewaySetup): { dir: string; file: string } {
  const dir = realpathSync(mkdtempSync(join(tmpdir(), "gatehouse-test-")));
  mkdirSync(join(dir, "state"), { mode: 0o700 });
  const file = join(dir, "gatehouse.yaml");
  writeFileSync(file, setup.config, { mode: 0o600 });
  for (const [name, text] of Object.entries(setup.files ?? {})) {
    writeFileSync(join(dir, name), text, { mode: 0o600 });
  }
  return { dir, file };
}

function eventsIn(text: string, name: string): Record<string, unknown>[] {
  return text
    .split("\n")
    .filter((line) => line.includes(`"event":"${name}"`))
    .map((line) => JSON.parse(line) as Record<string, unknown>);
}

/** Starts it in this process. */
export const startInProcess: StartGateway = async (setup) => {
  const { dir, file } = lay(setup);
  let text = "";
  const env = { ...setup.env };
  const load = async () => {
    const loadPlugin = pluginLoader(bundledPlugins);
    const { config, issues } = await loadConfig({ file, cwd: dir, env, loadPlugin });
    if (config !== null) return { config, loadPlugin };
    throw new OperatorError(EXIT.config, renderIssues(issues, file));
  };
  const { config, loadPlugin } = await load();
  const log = createLog({
    level: config.logging.level,
    format: "json",
    sink: { write: (line) => (text += line), flush: async () => {} },
  });
  const gateway = await startGateway({
    config,
    loadPlugin,
    env,
    log,
    clock: systemClock,
    version: "0.0.0-test",
    builtInSurfaces: makeBuiltInSurfaces,
  });
  const inForce = (): void => {};
  const reload = reloads({ gateway, config, manager: null, log, load, inForce });
  let stopping: Promise<void> | null = null;
  const under: GatewayUnderTest = {
    address: gateway.addresses[0] ?? "",
    addresses: gateway.addresses,
    url: `http://${gateway.addresses[0]}`,
    dir,
    configFile: file,
    logs: () => text,
    events: (name) => eventsIn(text, name),
    async reload(config) {
      writeFileSync(file, config, { mode: 0o600 });
      const verdict = await reload();
      return verdict.ok ? null : verdict.error;
    },
    stop: () => {
      stopping ??= gateway.stop(200).then(() => rmSync(dir, { recursive: true, force: true }));
      return stopping;
    },
  };
  started.push(under);
  return under;
};

/** Starts the compiled executable. */
export const startCompiled: StartGateway = async (setup) => {
  const { dir, file } = lay(setup);
  const running = await startBinary(["serve", "-c", file], {
    cwd: dir,
    env: { ...setup.env },
    expected: setup.listeners ?? 1,
  });
  let stopping: Promise<void> | null = null;
  const under: GatewayUnderTest = {
    address: running.address,
    addresses: running.addresses,
    url: running.url,
    dir,
    configFile: file,
    logs: () => running.stdout(),
    events: (name) => eventsIn(running.stdout(), name),
    async reload(config) {
      writeFileSync(file, config, { mode: 0o600 });
      const args = ["reload", "-c", file, "--json"];
      const { code, stdout, stderr } = await runBinary(args, { cwd: dir });
      if (stdout === "") return stderr;
      const verdict = JSON.parse(stdout) as { ok: boolean; error?: string; exit_code?: number };
      if ((code === 0) !== verdict.ok) throw new Error(`exit code ${code}: ${stdout}`);
      return verdict.error ?? null;
    },
    stop: () => {
      stopping ??= running.kill().then(() => rmSync(dir, { recursive: true, force: true }));
      return stopping;
    },
  };
  started.push(under);
  return under;
};

const FACES = [
  ["in process", startInProcess],
  ["compiled", startCompiled],
] as const;

/** Runs a suite of scenarios twice: against this process and against the executable. */
export function describeBoth(title: string, suite: (start: StartGateway) => void): void {
  for (const [face, start] of FACES) {
    describe(`${title} (${face})`, () => {
      afterAll(stopStarted);
      suite(start);
    });
  }
}

/** A token that the scenarios' `ops` strategy knows. */
export const OPS_TOKEN = "ops-token-0123456789-abcdefghij";

/** A config with one guarded route `/**` and one public `/public/**` in front of an upstream. */
export function simpleConfig(
  upstreamUrl: string,
  extra: { server?: string; routes?: string; upstream?: string } = {},
): string {
  return `version: 1
server:
  listen: 127.0.0.1:0
${extra.server ?? ""}
strategies:
  ops: { use: static-env, env: OPS_TOKEN }
upstreams:
  api:
    url: ${upstreamUrl}
${extra.upstream ?? ""}
routes:
${extra.routes ?? ""}
  - { match: { path: /public/** }, access: public, upstream: api }
  - { match: { path: /** }, access: [ops], upstream: api }
`;
}

/** Environment for {@link simpleConfig}. */
export const OPS_ENV = { OPS_TOKEN } as const;
