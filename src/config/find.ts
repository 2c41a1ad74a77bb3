/**
 * Where the config file is looked for when no `-c` says so.
 *
 * Invariant: the first place that has a file wins, and the places are the same for every command.
 */
import { existsSync } from "node:fs";
import { join, resolve } from "node:path";

/** The process as far as it matters here. */
export interface FindOptions {
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly cwd: string;
}

/** `file` is absolute, or null when no place has one; `searched` are the places, best first. */
export interface FoundConfig {
  readonly file: string | null;
  readonly searched: string[];
}

/**
 * $GATEHOUSE_CONFIG, ./gatehouse.yaml, ./config.yaml, $XDG_CONFIG_HOME/gatehouse/config.yaml (default ~/.config),
 * /etc/gatehouse/config.yaml. A file that the variable names is the answer even if it does not exist: falling back
 * to another would hide the mistake.
 */
export function findConfigFile({ env, cwd }: FindOptions): FoundConfig {
  const named = env.GATEHOUSE_CONFIG;
  if (named !== undefined && named.trim() !== "") {
    const file = resolve(cwd, named);
    return { file, searched: [file] };
  }
  const searched = [resolve(cwd, "gatehouse.yaml"), resolve(cwd, "config.yaml")];
  const home = env.XDG_CONFIG_HOME || (env.HOME ? join(env.HOME, ".config") : "");
  // The specification says to ignore relative paths.
  if (home.startsWith("/")) searched.push(join(home, "gatehouse", "config.yaml"));
  searched.push("/etc/gatehouse/config.yaml");
  return { file: searched.find((path) => existsSync(path)) ?? null, searched };
}
