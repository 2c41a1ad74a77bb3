/**
 * The systemd unit that runs this configuration, if there is one: found on disk, and what systemd says about it.
 *
 * Invariant: only looks, and never waits longer than a few seconds for systemd.
 */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { basename, join } from "node:path";
import { errorMessage } from "../../errors.ts";
import type { CliContext } from "../context.ts";
import type { ServiceInput } from "../service/input.ts";
import { readServiceEnv } from "../service/needs.ts";
import { run } from "../service/programs.ts";
import { credentialsDir } from "../service/systemd-unit.ts";
import { type FoundUnit, findUnit } from "../service/unit-file.ts";

/** A unit that `gatehouse service install` wrote. */
export interface InstalledUnit {
  readonly path: string;
  /** Without `.service`. */
  readonly name: string;
  readonly found: Extract<FoundUnit, { kind: "ours" }>;
}

/** What the service's process gets that this shell may not have. */
export interface UnitSurroundings {
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Why some of it is not known here; null when all is. */
  readonly unknown: string | null;
}

/** systemd's answers; empty texts where it says nothing, `null` when it cannot be asked. */
export type UnitFacts = Readonly<Record<UnitProperty, string>> | null;

const PROPERTIES = [
  "ActiveState",
  "MainPID",
  "MemoryDenyWriteExecute",
  "Environment",
  "NeedDaemonReload",
  "DropInPaths",
] as const;
type UnitProperty = (typeof PROPERTIES)[number];

const SYSTEM_DIR = "/etc/systemd/system";
const SYSTEMCTL_MS = 2500;

/** Units of ours in the administrator's and the user's directory. */
export function installedUnits(context: Pick<CliContext, "env">): readonly InstalledUnit[] {
  return [SYSTEM_DIR, userUnitDir(context)].flatMap((dir) => (dir === null ? [] : unitsIn(dir)));
}

/** The unit of this configuration file; a system service goes before one of a user. */
export function unitFor(
  context: Pick<CliContext, "env">,
  config: string | null,
): InstalledUnit | null {
  if (config === null) return null;
  return installedUnits(context).find(({ found }) => found.input.config === config) ?? null;
}

function unitsIn(dir: string): readonly InstalledUnit[] {
  if (!existsSync(dir)) return [];
  return namesIn(dir).flatMap((file) => {
    if (!file.endsWith(".service")) return [];
    const path = join(dir, file);
    const found = findUnit(path);
    return found.kind === "ours" ? [{ path, name: basename(file, ".service"), found }] : [];
  });
}

/** Files that add to the unit. */
export function dropInsOf(unit: InstalledUnit): readonly { path: string; text: string }[] {
  const dir = `${unit.path}.d`;
  return namesIn(dir)
    .filter((name) => name.endsWith(".conf"))
    .flatMap((name) => {
      try {
        return [{ path: join(dir, name), text: readFileSync(join(dir, name), "utf8") }];
      } catch {
        return [];
      }
    });
}

/** The variables and credentials of the service instead of those of this shell. */
export function surroundingsOf({ found }: InstalledUnit): UnitSurroundings {
  const { input } = found;
  const env = { CREDENTIALS_DIRECTORY: credentialsPlace(input) };
  if (input.scope === "system" && process.getuid?.() !== 0) {
    return { env, unknown: "root alone may see what the service sees" };
  }
  const sealed = namesIn(credentialsDir(input)).filter((name) => name.endsWith(".cred"));
  const unknown = sealed.length === 0 ? null : `systemd alone opens ${sealed.join(", ")}`;
  try {
    return { env: { ...readServiceEnv(input.environmentFile), ...env }, unknown };
  } catch (problem) {
    return { env, unknown: errorMessage(problem) };
  }
}

/** What a running service has, or what it will be given. */
function credentialsPlace(input: ServiceInput): string {
  const held = `/run/credentials/${input.name}.service`;
  return input.scope === "system" && namesIn(held).length > 0 ? held : credentialsDir(input);
}

/** Asks systemd; null when there is none, it is not running here, or it does not answer. */
export async function askSystemd(
  context: Pick<CliContext, "env">,
  { name, found }: InstalledUnit,
): Promise<UnitFacts> {
  const scope = found.input.scope === "user" ? ["--user"] : [];
  const ran = await run(
    context,
    ["systemctl", ...scope, "--no-pager", "show", `${name}.service`, `--property=${PROPERTIES}`],
    SYSTEMCTL_MS,
  );
  if (ran === null || ran.code !== 0) return null;
  const said = new Map(
    ran.stdout.split("\n").map((line) => {
      const equals = line.indexOf("=");
      return [line.slice(0, equals), line.slice(equals + 1)] as const;
    }),
  );
  const facts = PROPERTIES.map((property) => [property, said.get(property) ?? ""] as const);
  return Object.fromEntries(facts) as Record<UnitProperty, string>;
}

/** The directory of units that a user writes; null when it is not known. */
function userUnitDir({ env }: Pick<CliContext, "env">): string | null {
  const own = env.XDG_CONFIG_HOME ?? "";
  const base = own.startsWith("/") ? own : join(env.HOME ?? "", ".config");
  return base.startsWith("/") ? join(base, "systemd/user") : null;
}

function namesIn(dir: string): readonly string[] {
  try {
    return readdirSync(dir);
  } catch {
    return [];
  }
}

/** Where a unit's text would be changed by hand. */
export function editCommand({ name, found }: InstalledUnit): string {
  return found.input.scope === "user"
    ? `systemctl --user edit ${name}`
    : `sudo systemctl edit ${name}`;
}

/** How the service is started anew. */
export function restartCommand({ name, found }: InstalledUnit): string {
  return found.input.scope === "user"
    ? `systemctl --user restart ${name}`
    : `sudo systemctl restart ${name}`;
}
