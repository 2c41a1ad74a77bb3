/**
 * `config validate`, `config show` and `config schema`.
 *
 * Invariant: they read and print. `validate` runs what `serve` runs before it listens; `show` prints references,
 * never what they yield.
 */
import { stringify } from "yaml";
import { expandDocument } from "../config/expand.ts";
import { issuesAsData, renderIssues } from "../config/explain.ts";
import { configJsonSchema, SCHEMA_COMMENT } from "../config/json-schema.ts";
import { type LoadedConfig, loadConfig } from "../config/load.ts";
import type { GatewayConfig } from "../config/model.ts";
import { EXIT, type ExitCode } from "../errors.ts";
import { pluginLoader } from "../loader.ts";
import type { CliContext, CommonOptions } from "./context.ts";

/** `config validate`: 0, or 78 with every problem on standard error (with `--json` on standard output). */
export async function configValidate(
  context: CliContext,
  options: CommonOptions,
): Promise<ExitCode> {
  const loaded = await load(context, options);
  const { config, issues } = loaded;
  const file = shownFile(loaded, options);
  if (options.json === true) {
    const ok = config !== null;
    context.out(`${JSON.stringify({ ok, issues: issuesAsData(issues, file) }, null, 2)}\n`);
  } else if (config !== null) {
    context.out(`${file ?? "configuration"}: ok (${summary(config)})\n`);
  } else {
    context.err(renderIssues(issues, file));
  }
  return config === null ? EXIT.config : EXIT.ok;
}

/** `config show`: the document with variables applied; `expanded` writes out every default. */
export async function configShow(
  context: CliContext,
  options: CommonOptions & { readonly expanded?: boolean },
): Promise<ExitCode> {
  const loaded = await load(context, options);
  if (loaded.config === null || loaded.document === null) {
    const file = shownFile(loaded, options);
    if (options.json === true) {
      context.out(
        `${JSON.stringify({ ok: false, issues: issuesAsData(loaded.issues, file) }, null, 2)}\n`,
      );
    } else {
      context.err(renderIssues(loaded.issues, file));
    }
    return EXIT.config;
  }
  const shown =
    options.expanded === true ? expandDocument(loaded.document, loaded.plugins) : loaded.written;
  context.out(
    options.json === true
      ? `${JSON.stringify(shown, null, 2)}\n`
      : `${SCHEMA_COMMENT}\n${stringify(shown, { lineWidth: 0 })}`,
  );
  return EXIT.ok;
}

/** `config schema`: the JSON Schema of the file with the settings of every bundled strategy. */
export function configSchema(context: CliContext, _options: CommonOptions): ExitCode {
  context.out(`${JSON.stringify(configJsonSchema(context.plugins), null, 2)}\n`);
  return EXIT.ok;
}

function load(context: CliContext, options: CommonOptions): Promise<LoadedConfig> {
  return loadConfig({
    file: options.config ?? null,
    cwd: context.cwd,
    env: context.env,
    loadPlugin: pluginLoader(context.plugins),
    ...(options.preset === undefined ? {} : { preset: { name: options.preset, flags: {} } }),
  });
}

/** As the operator wrote it, so that the line can be clicked on. */
function shownFile(loaded: LoadedConfig, options: CommonOptions): string | null {
  return options.preset ?? options.config ?? loaded.file;
}

function summary({ routes, strategies, upstreams }: GatewayConfig): string {
  const counts = [
    [routes.length, "route"],
    [strategies.length, "strategy", "strategies"],
    [upstreams.length, "upstream"],
  ] as const;
  return counts
    .map(([count, one, many = `${one}s`]) => `${count} ${count === 1 ? one : many}`)
    .join(", ");
}
