/**
 * Services for tests: what a configuration text makes, and the tools of systemd where they are.
 *
 * Invariant: nothing here touches the service manager of the machine.
 */

import { tmpdir } from "node:os";
import type { ServiceInput } from "../../src/cli/service/input.ts";
import { needsOf, type ServiceNeeds } from "../../src/cli/service/needs.ts";
import { type Places, placesOf } from "../../src/cli/service/places.ts";
import type { CredentialSource } from "../../src/cli/service/systemd-unit.ts";
import { loadConfig } from "../../src/config/load.ts";
import { pluginLoader } from "../../src/loader.ts";
import { bundledPlugins } from "../../src/registry.ts";

/** A gateway with its state where systemd makes it. */
export const SERVICE_CONFIG = `version: 1
server: { listen: 127.0.0.1:8008 }
state_dir: /var/lib/gatehouse
strategies: { team: { use: bearer-sqlite } }
upstreams: { api: { url: "http://127.0.0.1:9000" } }
routes: [{ match: { path: /** }, access: [team], upstream: api }]
`;

export const SYSTEM_INPUT: ServiceInput = {
  scope: "system",
  name: "gatehouse",
  config: "/etc/gatehouse/config.yaml",
  exec: "/usr/bin/gatehouse",
  account: null,
  environmentFile: null,
  lowPorts: false,
  readWrite: [],
};

/** What a plan is made of, without a look at the machine. */
export interface ServiceParts {
  readonly input: ServiceInput;
  readonly needs: ServiceNeeds;
  readonly credentials: readonly CredentialSource[];
  readonly places: Places;
}

/** The parts of a service whose configuration is this text. */
export async function serviceParts(
  text: string = SERVICE_CONFIG,
  changes: Partial<ServiceInput> = {},
): Promise<ServiceParts> {
  const input = { ...SYSTEM_INPUT, ...changes };
  const { config, written, issues } = await loadConfig({
    file: input.config,
    text,
    cwd: "/",
    env: {},
    loadPlugin: pluginLoader(bundledPlugins),
    depth: "shape",
  });
  if (config === null) throw new Error(JSON.stringify(issues));
  const needs = needsOf(config, written, { name: input.name, root: null });
  return { input, needs, credentials: [], places: placesOf(input, needs) };
}

/** `systemd-analyze` and whether it can judge a unit without a running systemd (since 250). */
const analyze = Bun.which("systemd-analyze");
const version = analyze === null ? 0 : versionOf(Bun.spawnSync([analyze, "--version"]).stdout);

/** Why units cannot be judged here, or null. */
export const NO_SYSTEMD_ANALYZE =
  version >= 250 ? null : `systemd-analyze 250 or newer is not there (found ${version || "none"})`;

/** What `systemd-analyze ARGS` says on both streams, and its exit code. */
export function systemdAnalyze(...args: readonly string[]): { code: number; said: string } {
  const { exitCode, stdout, stderr } = Bun.spawnSync([analyze ?? "systemd-analyze", ...args], {
    env: {
      PATH: process.env.PATH ?? "",
      HOME: process.env.HOME ?? "/",
      // It wants one to judge units of users, and puts nothing there.
      XDG_RUNTIME_DIR: process.env.XDG_RUNTIME_DIR ?? tmpdir(),
      SYSTEMD_COLORS: "0",
      LC_ALL: "C.UTF-8",
    },
  });
  return { code: exitCode, said: `${stdout}${stderr}` };
}

function versionOf(said: Uint8Array): number {
  return Number(/^systemd (\d+)/.exec(new TextDecoder().decode(said))?.[1] ?? 0);
}
