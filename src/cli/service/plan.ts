/**
 * From options and a configuration to the unit that they make: what `print` shows and `install` writes.
 *
 * Invariant: looks, never changes; the same plan is made for `print`, `install` and the drift check of `status`.
 */
import { existsSync } from "node:fs";
import { join, resolve } from "node:path";
import { findConfigFile } from "../../config/find.ts";
import { EXIT, OperatorError } from "../../errors.ts";
import type { CliContext } from "../context.ts";
import { type ServiceInput, type ServiceOptions, serviceInput, whichService } from "./input.ts";
import { readNeeds, readServiceEnv, type ServiceEnv, type ServiceNeeds } from "./needs.ts";
import { type Places, type Problem, placesOf } from "./places.ts";
import { type CredentialSource, credentialsDir, systemUnit, userUnit } from "./systemd-unit.ts";

/** What would be written, and what speaks against it. */
export interface ServicePlan {
  readonly input: ServiceInput;
  readonly needs: ServiceNeeds;
  readonly env: ServiceEnv;
  readonly credentials: readonly CredentialSource[];
  /** Null for user services, which have no sandbox of files. */
  readonly places: Places | null;
  /** The unit. */
  readonly text: string;
  /** One sentence each, for the operator. */
  readonly notes: readonly string[];
  /** Why it cannot be installed like this, on whatever machine. */
  readonly problems: readonly Problem[];
}

/** @throws OperatorError for options that cannot be and a configuration that is wrong */
export async function planService(
  context: CliContext,
  options: ServiceOptions,
): Promise<ServicePlan> {
  if (options.preset !== undefined) {
    throw new OperatorError(
      EXIT.usage,
      "a service is made from a configuration file, not from --preset",
      `Write one first: gatehouse config show --preset ${options.preset} > /etc/gatehouse/config.yaml`,
    );
  }
  const { env, cwd } = context;
  const { file, searched } = findConfigFile({ env, cwd });
  const config = options.config === undefined ? file : resolve(cwd, options.config);
  if (config === null) {
    throw new OperatorError(
      EXIT.config,
      `no configuration file: looked for ${searched.join(", ")}`,
      "pass -c FILE",
    );
  }
  const input = serviceInput(context, options, { config, self: process.execPath });
  return planFor(context, input, whichService(context, options).root);
}

/**
 * The plan for an input, for instance one that an installed unit records.
 * @param root of a system that is not running; default: this one
 * @throws OperatorError as above
 */
export async function planFor(
  context: CliContext,
  input: ServiceInput,
  root: string | null = null,
): Promise<ServicePlan> {
  const { environmentFile } = input;
  const env = readServiceEnv(environmentFile === null ? null : join(root ?? "/", environmentFile));
  const needs = await readNeeds(context, input, { env, depth: "shape", root });
  const credentials = credentialSources(input, needs, root);
  const parts = { input, needs, credentials };
  const places = input.scope === "system" ? placesOf(input, needs) : null;
  return {
    ...parts,
    env,
    places,
    text: places === null ? userUnit(parts) : systemUnit(parts, places),
    notes: [...(places?.notes ?? []), ...shellNotes(context, env)],
    problems: [...(places?.problems ?? []), ...variableProblems(input, needs, env)],
  };
}

/**
 * How a command works on the state of the service, which belongs to the service's account: words to put before
 * `token create` and the like.
 */
export function commandPrefix(
  { env }: Pick<CliContext, "env">,
  { input, places }: Pick<ServicePlan, "input" | "places">,
): string[] {
  const { scope, account, name, exec } = input;
  if (scope === "user") return [exec];
  const hasSudo = Bun.which("sudo", { PATH: env.PATH ?? "" }) !== null;
  if (account !== null) {
    return [...(hasSudo ? ["sudo", "-u", account] : ["runuser", "-u", account, "--"]), exec];
  }
  const state = places?.stateDirectory ?? name;
  const properties = ["DynamicUser=yes", `User=${name}`, `StateDirectory=${state}`];
  return [
    ...(hasSudo ? ["sudo"] : []),
    "systemd-run",
    ...["--quiet", "--pipe", "--wait", "--collect"],
    ...[...properties, "StateDirectoryMode=0700"].flatMap((property) => ["-p", property]),
    exec,
  ];
}

/** An encrypted one, `NAME.cred`, goes before a plain one. */
function credentialSources(
  input: ServiceInput,
  needs: ServiceNeeds,
  root: string | null,
): CredentialSource[] {
  const dir = credentialsDir(input);
  return needs.credentials.map((name) => {
    const path = `${dir}/${name}`;
    const isEncrypted = existsSync(join(root ?? "/", `${path}.cred`));
    return { name, path: isEncrypted ? `${path}.cred` : path, isEncrypted };
  });
}

/** A service has none of the variables of the shell that installs it. */
function variableProblems(input: ServiceInput, needs: ServiceNeeds, env: ServiceEnv): Problem[] {
  const missing = needs.variables.filter((name) => env[name] === undefined);
  if (missing.length === 0) return [];
  const names = missing.join(", ");
  const [first = ""] = missing;
  if (input.environmentFile !== null) {
    return [{ message: `${input.environmentFile} lacks ${names}`, hint: "add a line NAME=value" }];
  }
  return [
    {
      message: `the configuration takes ${names} from the environment, and a service has none of your shell's`,
      hint: `write \${cred:${first.toLowerCase()}} and put the secret into ${credentialsDir(input)}/${first.toLowerCase()} (mode 600), or keep the variables in a file: --environment-file /etc/gatehouse/environment`,
    },
  ];
}

/** What is set here would otherwise be missed without a word. */
function shellNotes({ env }: CliContext, serviceEnv: ServiceEnv): string[] {
  return Object.keys(env)
    .filter((name) => /^GATEHOUSE_(?!CONFIG$|DEBUG$)/.test(name) && serviceEnv[name] === undefined)
    .map((name) => `${name} is set in this shell; the service will not have it`);
}
