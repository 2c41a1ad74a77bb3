/**
 * What a service is made from: the options of the `service` verbs, checked, and as they are recorded in the unit.
 *
 * Invariant: everything that ends up in a unit file passed through here; a name or path that a unit, a shell script
 * and a property list cannot all express plainly is refused.
 */
import { resolve } from "node:path";
import { z } from "zod";
import { EXIT, OperatorError } from "../../errors.ts";
import type { CliContext, CommonOptions } from "../context.ts";

/** Whose manager runs it. */
export type Scope = "system" | "user";

/** Options that say which service is meant. */
export interface WhichOptions extends CommonOptions {
  readonly system?: boolean;
  readonly user?: boolean;
  /** Name of the unit without `.service`. Default gatehouse. */
  readonly name?: string;
  /** Prepare a system that is not running, for instance an image: files go below this directory. */
  readonly root?: string;
}

/** Options of the verbs that write or print one. */
export interface ServiceOptions extends WhichOptions {
  readonly userAccount?: string;
  readonly environmentFile?: string;
  readonly lowPorts?: boolean;
  readonly readWrite?: readonly string[];
  readonly exec?: string;
}

/** Which unit. */
export interface Which {
  readonly scope: Scope;
  readonly name: string;
  /** Absolute; null for the running system. */
  readonly root: string | null;
}

/** Everything that decides the text of a unit, beside the configuration itself. Paths are absolute. */
export interface ServiceInput {
  readonly scope: Scope;
  readonly name: string;
  readonly config: string;
  readonly exec: string;
  /** An account that exists; null: one that systemd makes for the time the service runs. */
  readonly account: string | null;
  readonly environmentFile: string | null;
  /** Asked for, whether or not the configuration needs it. */
  readonly lowPorts: boolean;
  readonly readWrite: readonly string[];
}

/** Also a user name that systemd accepts, so at most 31 characters. */
const NAME = /^[a-z][a-z0-9-]{0,30}$/;
const ACCOUNT = /^[a-z_][a-z0-9_-]{0,30}$/;
/** Blanks and `%` are escaped where they must be; these have a meaning of their own in one place or another. */
const UNFIT = /[\0-\x1f\x7f"'`\\:;#$<>&|*?!{}[\]]/;

const recorded = z.strictObject({
  scope: z.enum(["system", "user"]),
  name: z.string().regex(NAME),
  config: z.string().refine(isFit),
  exec: z.string().refine(isFit),
  account: z.string().regex(ACCOUNT).nullable(),
  environmentFile: z.string().refine(isFit).nullable(),
  lowPorts: z.boolean(),
  readWrite: z.array(z.string().refine(isFit)),
});

/** @throws OperatorError with EXIT.usage */
export function whichService({ cwd }: Pick<CliContext, "cwd">, options: WhichOptions): Which {
  if (options.system === true && options.user === true) {
    throw new OperatorError(EXIT.usage, "--system and --user exclude each other");
  }
  if (options.user === true && options.root !== undefined) {
    throw new OperatorError(EXIT.usage, "--root prepares another system; --user is about you here");
  }
  const name = options.name ?? "gatehouse";
  if (!NAME.test(name)) {
    throw new OperatorError(
      EXIT.usage,
      "--name takes lower-case letters, digits and -, at most 31, beginning with a letter",
    );
  }
  const scope = options.user === true ? "user" : "system";
  const root = options.root === undefined ? null : resolve(cwd, options.root);
  return { scope, name, root };
}

/**
 * @param config absolute path of the configuration
 * @param self absolute path of the running executable
 * @throws OperatorError with EXIT.usage
 */
export function serviceInput(
  context: Pick<CliContext, "cwd">,
  options: ServiceOptions,
  { config, self }: { readonly config: string; readonly self: string },
): ServiceInput {
  const { scope, name, root } = whichService(context, options);
  const path = (what: string, text: string) =>
    fitPath(what, insideRoot(resolve(context.cwd, text), root));
  if (root !== null && insideRoot(config, root) === config) {
    throw new OperatorError(
      EXIT.usage,
      `with --root the configuration is the one of that system: ${config} is not below ${root}`,
    );
  }
  const { userAccount, environmentFile, exec } = options;
  if (userAccount !== undefined) checkAccount(userAccount, scope);
  return {
    scope,
    name,
    config: path("the path of the configuration", config),
    exec: path("--exec", exec ?? self),
    account: userAccount ?? null,
    environmentFile:
      environmentFile === undefined ? null : path("--environment-file", environmentFile),
    lowPorts: options.lowPorts === true,
    readWrite: (options.readWrite ?? []).map((one) => path("--read-write", one)),
  };
}

/** A path as the system sees it that lies below `root`; one that is not below it is taken as it is. */
export function insideRoot(path: string, root: string | null): string {
  return root !== null && path.startsWith(`${root}/`) ? path.slice(root.length) : path;
}

function checkAccount(account: string, scope: Scope): void {
  if (scope === "user") {
    throw new OperatorError(EXIT.usage, "--user-account is for system services; --user is you");
  }
  if (account === "root") {
    throw new OperatorError(
      EXIT.usage,
      "a gateway does not run as root",
      "Leave --user-account out: systemd makes an account for it. Low ports need no root.",
    );
  }
  if (!ACCOUNT.test(account)) {
    throw new OperatorError(EXIT.usage, "--user-account takes the name of an account");
  }
}

function fitPath(what: string, path: string): string {
  if (isFit(path)) return path;
  throw new OperatorError(
    EXIT.usage,
    `${what} holds a character that means something else in a unit file: ${JSON.stringify(path)}`,
    "Use a path of letters, digits, blanks and . _ - + @ % = ,",
  );
}

/** An absolute path without characters that have a meaning in units or scripts. */
export function isFit(path: string): boolean {
  return path.startsWith("/") && !UNFIT.test(path);
}

/** One line, for the head of the unit. */
export function recordInput(input: ServiceInput): string {
  return JSON.stringify(recorded.parse(input));
}

/** Null when the line is not one of {@link recordInput}. */
export function readInput(line: string): ServiceInput | null {
  try {
    return recorded.parse(JSON.parse(line));
  } catch {
    return null;
  }
}
