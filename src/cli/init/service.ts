/**
 * The service of a set-up: installed, asked about, taken away, over the functions of `gatehouse service`.
 *
 * Invariant: what those print is not shown; what they did is told once, in the words of init.
 */
import { existsSync, statSync } from "node:fs";
import { EXIT, errorMessage, OperatorError } from "../../errors.ts";
import { openStrategy } from "../../open-keeper.ts";
import type { CliContext } from "../context.ts";
import { Systemd } from "../service/systemd.ts";
import { findUnit } from "../service/unit-file.ts";
import { serviceInstall } from "../service-install.ts";
import { serviceUninstall } from "../service-uninstall.ts";
import type { Decision, ServiceDecision } from "./decision.ts";
import type { Making } from "./make.ts";
import type { Places } from "./places.ts";
import type { TakeAwayTools } from "./take-away.ts";

/** Which services this machine could run for this user; null, or why not. */
export interface ServiceChoices {
  readonly system: string | null;
  readonly user: string | null;
}

/** Asks the managers. */
export async function serviceChoices(context: CliContext): Promise<ServiceChoices> {
  const [system, user] = await Promise.all([why(context, "system"), why(context, "user")]);
  const isRoot = process.geteuid?.() === 0;
  return { system: system ?? (isRoot ? null : needsRoot(context)), user };
}

function needsRoot({ env }: CliContext): string {
  const hasSudo = Bun.which("sudo", { PATH: env.PATH ?? "" }) !== null;
  return hasSudo
    ? "a service of the machine is installed by root: sudo gatehouse init"
    : "a service of the machine is installed by root, and there is no sudo here: log in as root (su -)";
}

async function why(context: CliContext, scope: "system" | "user"): Promise<string | null> {
  try {
    await new Systemd(context, { scope, name: "gatehouse", root: null }).version();
    return null;
  } catch (error) {
    return errorMessage(error);
  }
}

/** The variables that the gateway will have: a service has none of this shell's. */
export function serviceEnv(
  { env }: Pick<CliContext, "env">,
  { service, places }: Pick<Decision, "service"> & { readonly places: Pick<Places, "secretsDir"> },
): CliContext["env"] {
  if (service === null) return env;
  return service.scope === "system" ? { CREDENTIALS_DIRECTORY: places.secretsDir } : {};
}

/** What the service says of itself. */
export interface Installed {
  /** One sentence each. */
  readonly notes: readonly string[];
  /** Words before a verb that works on its state, such as `token create`. */
  readonly command: readonly string[];
}

/** What installing takes. */
export type Installing = Omit<Making, "decision"> & { readonly configFile: string };

/** Installs and starts it. @throws OperatorError, and then no unit is left */
export async function installService(
  { context, configFile, journal, interruption, done }: Installing,
  { scope, name, account }: ServiceDecision,
): Promise<Installed> {
  interruption.check();
  journal.note({ kind: "service", scope, name });
  const said: string[] = [];
  await serviceInstall(quiet(context, said), {
    json: true,
    config: configFile,
    name,
    ...(scope === "user" ? { user: true } : { system: true }),
    ...(account === null ? {} : { userAccount: account }),
  });
  done(`Installed and started ${name}.service`);
  return installedOf(said.join(""));
}

/** The command that starts the service by hand. */
export function serviceStart({ scope, name }: ServiceDecision): string {
  if (scope === "user") return `systemctl --user start ${name}`;
  return process.geteuid?.() === 0 ? `systemctl start ${name}` : `sudo systemctl start ${name}`;
}

/** Starts it anew with a changed configuration. @throws OperatorError with what systemd said */
export async function restartService(
  context: CliContext,
  { scope, name }: Pick<ServiceDecision, "scope" | "name">,
): Promise<void> {
  await new Systemd(context, { scope, name, root: null }).order("restart", `${name}.service`);
}

/** Our service for a configuration, if it is installed. */
export function serviceFor(
  context: CliContext,
  configFile: string,
  names: readonly string[],
): Pick<ServiceDecision, "scope" | "name"> | null {
  for (const name of new Set([...names, "gatehouse"])) {
    for (const scope of ["system", "user"] as const) {
      const found = unitOf(context, scope, name);
      if (found?.kind === "ours" && found.input.config === configFile) return { scope, name };
    }
  }
  return null;
}

function unitOf(
  context: CliContext,
  scope: "system" | "user",
  name: string,
): ReturnType<typeof findUnit> | null {
  try {
    return findUnit(new Systemd(context, { scope, name, root: null }).unitPath);
  } catch {
    // Without HOME a user has no units.
    return null;
  }
}

/** What taking away needs besides files. */
export function takeAwayTools(
  context: CliContext,
  places: Pick<Places, "configFile"> & { readonly secretsDir?: string },
): TakeAwayTools {
  return {
    async removeService({ scope, name }) {
      const unit = unitOf(context, scope, name);
      if (unit === null || unit.kind === "none") return "absent";
      if (unit.kind === "ours" && unit.input.config !== places.configFile) {
        return `it is for ${unit.input.config} now`;
      }
      await serviceUninstall(quiet(context, []), {
        json: true,
        name,
        ...(scope === "user" ? { user: true } : { system: true }),
      });
      return null;
    },
    async revokeToken({ strategy, id }) {
      const { secretsDir } = places;
      const env = secretsDir === undefined ? context.env : credentialEnv(context, secretsDir);
      const opened = await openStrategy({
        context: { ...context, env, err: () => undefined },
        config: places.configFile,
        strategy,
      });
      try {
        await opened.tokens.revoke(id, "init was undone");
        return null;
      } finally {
        await opened.close();
      }
    },
  };
}

function credentialEnv({ env }: CliContext, secretsDir: string): CliContext["env"] {
  const isThere = existsSync(secretsDir) && statSync(secretsDir).isDirectory();
  return isThere ? { ...env, CREDENTIALS_DIRECTORY: secretsDir } : env;
}

/** Keeps what a command prints to itself. */
function quiet(context: CliContext, said: string[]): CliContext {
  return {
    ...context,
    // A getter: what asks for it listens for signals.
    get stop() {
      return context.stop;
    },
    out: (text) => void said.push(text),
    err: () => undefined,
  };
}

function installedOf(json: string): Installed {
  const list = (value: unknown): readonly string[] =>
    Array.isArray(value) ? value.map(String) : [];
  try {
    const { notes, command } = JSON.parse(json) as { notes?: unknown; command?: unknown };
    return { notes: list(notes), command: list(command) };
  } catch {
    throw new OperatorError(
      EXIT.failure,
      "the service was installed, but what it said is unreadable",
    );
  }
}
