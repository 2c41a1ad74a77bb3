/**
 * Reads a configuration for `backup` and `restore`.
 *
 * Invariant: no code of an external plugin runs, neither to make a copy of it nor before it is known to be wanted on
 * this machine.
 */
import { type LoadedConfig, type LoadOptions, loadConfig } from "../../config/load.ts";
import { definePlugin, z } from "../../contract/gatehouse.ts";
import { isPath, type LoadPlugin, pluginLoader } from "../../loader.ts";
import type { CliContext } from "../context.ts";

/** Takes any settings; nothing is ever started with it. */
const UNSEEN = definePlugin({
  name: "unseen",
  contract: 1,
  config: z.looseObject({}),
  init: () => Promise.reject(new Error("this plugin was not loaded")),
});

/** What to read, beside what the context says. */
export type ReadOptions = Pick<LoadOptions, "file" | "text" | "preset" | "depth" | "overrides">;

/** {@link loadConfig} without external plugins. Problems are in `issues`. */
export function readConfig(context: CliContext, options: ReadOptions): Promise<LoadedConfig> {
  const bundled = pluginLoader(context.plugins);
  const loadPlugin: LoadPlugin = async (use, sha256, configDir) =>
    isPath(use) ? UNSEEN : bundled(use, sha256, configDir);
  const { cwd, env } = context;
  return loadConfig({ cwd, env, loadPlugin, ...options });
}
