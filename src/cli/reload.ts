/**
 * `gatehouse reload`: asks the running gateway to read its configuration anew, and says what came of it.
 *
 * Invariant: it ends with 0 only when the new configuration is in force. What is right is judged by the gateway, with
 * its own variables and rights.
 */
import { dirname, resolve } from "node:path";
import { renderIssues } from "../config/explain.ts";
import { loadConfig } from "../config/load.ts";
import { documentSchema } from "../config/schema.ts";
import { EXIT, type ExitCode, OperatorError } from "../errors.ts";
import type { CliContext, CommonOptions } from "./context.ts";
import { askReload, type Verdict } from "./control.ts";

/** With `--json` the verdict on standard output, also when it is a refusal. */
export async function reload(context: CliContext, options: CommonOptions): Promise<ExitCode> {
  const place = await stateDirOf(context, options);
  const verdict = typeof place === "string" ? await askReload(place) : place;
  if (options.json === true) context.out(`${JSON.stringify(shown(verdict))}\n`);
  if (!verdict.ok) {
    if (options.json === true) return verdict.exitCode;
    throw new OperatorError(verdict.exitCode, verdict.error, hintFor(verdict.hint));
  }
  if (options.json === true) return EXIT.ok;
  const { changed, added, removed, summary } = verdict;
  context.out(`reloaded: ${summary}\n`);
  context.out(`changed: ${changed.length === 0 ? NOTHING : changed.join(", ")}\n`);
  if (added.length > 0) context.out(`listening now: ${added.join(", ")}\n`);
  if (removed.length > 0) context.out(`listening no more: ${removed.join(", ")}\n`);
  return EXIT.ok;
}

const NOTHING = "nothing in the configuration; files that it names were read again";
const KEPT = "The gateway goes on with the configuration that it had.";

function hintFor(hint: string | undefined): string {
  return hint === undefined ? KEPT : `${hint} ${KEPT}`;
}

function shown(verdict: Verdict): object {
  if (verdict.ok) return verdict;
  const { ok, exitCode, error, hint = null } = verdict;
  return { ok, exit_code: exitCode, error, hint };
}

/** From the file as it is written. Where it cannot even be read, the gateway need not be asked what it makes of it. */
async function stateDirOf(context: CliContext, options: CommonOptions): Promise<string | Verdict> {
  const { config, preset } = options;
  const { written, issues, file } = await loadConfig({
    file: config ?? null,
    cwd: context.cwd,
    env: context.env,
    loadPlugin: () => Promise.reject(new Error("not loaded")),
    ...(preset === undefined ? {} : { preset: { name: preset, flags: {} } }),
  });
  const said = typeof written === "object" && written !== null ? written : null;
  const value = said !== null && "state_dir" in said ? said.state_dir : undefined;
  const stateDir = documentSchema.shape.state_dir.safeParse(value);
  if (said === null || !stateDir.success) {
    const error = renderIssues(issues, preset ?? file).trimEnd();
    return { ok: false, exitCode: EXIT.config, error };
  }
  return resolve(file === null ? context.cwd : dirname(file), stateDir.data);
}
