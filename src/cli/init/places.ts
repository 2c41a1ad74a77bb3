/**
 * Where a set-up puts things, and what is there already.
 *
 * Invariant: only looks. The same options name the same places for `init`, for running it again and for `--undo`.
 */
import { accessSync, constants, existsSync, readFileSync, readlinkSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { findConfigFile } from "../../config/find.ts";
import { readSource } from "../../config/source.ts";
import { parseYaml } from "../../config/yaml.ts";
import { EXIT, OperatorError } from "../../errors.ts";
import type { CliContext } from "../context.ts";
import type { Answers, InitOptions } from "./answers.ts";
import { type JournalRecord, readJournal } from "./journal.ts";

/** Whose service it will be; null: none. */
export type ServiceScope = "system" | "user" | null;

/** Absolute paths. */
export interface Places {
  readonly configFile: string;
  readonly configDir: string;
  readonly stateDir: string;
  /** `state_dir` as it is written: relative to the configuration where it lies beside it. */
  readonly stateText: string;
  /** Mode of the configuration's directory. */
  readonly dirMode: number;
  readonly configMode: number;
  readonly secretsDir: string;
}

type Where = Pick<CliContext, "cwd" | "env">;

/** Where the configuration is, or will be. */
export function configFileFor(context: Where, options: InitOptions, { dir }: Answers): string {
  if (options.config !== undefined) return resolve(context.cwd, options.config);
  if (dir !== undefined) return join(resolve(context.cwd, dir), "config.yaml");
  const named = context.env.GATEHOUSE_CONFIG?.trim() ?? "";
  if (named !== "") return resolve(context.cwd, named);
  return join(defaultDirs(context, "gatehouse").config, "config.yaml");
}

/** All places. */
export function placesFor(
  context: Where,
  options: InitOptions,
  {
    answers,
    scope,
    serviceName,
  }: { readonly answers: Answers; readonly scope: ServiceScope; readonly serviceName: string },
): Places {
  const configFile = configFileFor(context, options, answers);
  const configDir = dirname(configFile);
  const stateText = answers.state_dir ?? defaultState(context, { configDir, scope, serviceName });
  // Others have to read it: the account that systemd makes for the service. It holds references, no secrets.
  const isShared = scope === "system" || configDir.startsWith("/etc/");
  return {
    configFile,
    configDir,
    stateDir: resolve(configDir, stateText),
    stateText,
    dirMode: isShared ? 0o755 : 0o700,
    configMode: isShared ? 0o644 : 0o600,
    secretsDir: join(configDir, scope === "system" ? "credentials" : "secrets"),
  };
}

function defaultState(
  context: Where,
  {
    configDir,
    scope,
    serviceName,
  }: { readonly configDir: string; readonly scope: ServiceScope; readonly serviceName: string },
): string {
  // The only place that systemd makes for an account of its own.
  if (scope === "system") return `/var/lib/${serviceName}`;
  const dirs = defaultDirs(context, "gatehouse");
  return configDir === dirs.config ? dirs.state : "./state";
}

/** /etc and /var/lib for root, the XDG directories for everybody else. @throws OperatorError without HOME */
function defaultDirs({ env }: Where, name: string): { config: string; state: string } {
  if (process.geteuid?.() === 0) return { config: `/etc/${name}`, state: `/var/lib/${name}` };
  const home = env.HOME ?? "";
  const at = (variable: string | undefined, fallback: string): string => {
    if (variable?.startsWith("/")) return join(variable, name);
    if (home.startsWith("/")) return join(home, fallback, name);
    throw new OperatorError(EXIT.usage, "HOME is not set", "Name a place with --dir DIR.");
  };
  return {
    config: at(env.XDG_CONFIG_HOME, ".config"),
    state: at(env.XDG_STATE_HOME, ".local/state"),
  };
}

/**
 * The configuration that is there already: the one that was named, or the one that `serve` would find.
 * @returns null when there is none; one that may not be changed from here counts as none, and `note` says so
 */
export function existingConfig(
  context: Where,
  options: InitOptions,
  answers: Answers,
): { readonly file: string | null; readonly note: string | null } {
  const own = configFileFor(context, options, answers);
  if (existsSync(own)) return { file: own, note: null };
  if (options.config !== undefined || answers.dir !== undefined) return { file: null, note: null };
  const { file } = findConfigFile(context);
  if (file === null || !existsSync(file) || !isOurs(file)) return { file: null, note: null };
  if (isWritable(file)) return { file, note: null };
  return {
    file: null,
    note: `there is a configuration of this machine, ${file}; to change that one run: sudo gatehouse init`,
  };
}

/** Other programs have a config.yaml, too, and this one is in whatever directory somebody happens to be. */
function isOurs(file: string): boolean {
  const source = readSource(file);
  if (!("text" in source)) return true;
  const { value } = parseYaml(source.text);
  const keys = typeof value === "object" && value !== null ? Object.keys(value) : [];
  return ["strategies", "upstreams", "routes"].some((key) => keys.includes(key));
}

/** The journal of a run that was cut short; null when there is none. @throws OperatorError while it is still at it */
export function leftover(configDir: string): JournalRecord | null {
  const journal = readJournal(configDir);
  if (journal === null || journal.pid === null) return null;
  if (isAlive(journal.pid)) {
    throw new OperatorError(
      EXIT.unavailable,
      `another init is at work on ${configDir} (process ${journal.pid})`,
      "Wait until it is done, or end it.",
    );
  }
  return journal;
}

/** A number is given to another process sooner or later; only the same program counts. */
function isAlive(pid: number): boolean {
  if (pid === process.pid) return false;
  try {
    const isSame = readlinkSync(`/proc/${pid}/exe`) === readlinkSync("/proc/self/exe");
    return isSame && readFileSync(`/proc/${pid}/cmdline`, "utf8").split("\0").includes("init");
  } catch {
    return false;
  }
}

function isWritable(path: string): boolean {
  try {
    accessSync(path, constants.W_OK);
    return true;
  } catch {
    return false;
  }
}
