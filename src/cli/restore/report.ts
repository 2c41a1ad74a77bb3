/**
 * What a restore says: what it is going to do, and what it has done.
 *
 * Invariant: whatever is replaced is named with the place where it is kept. Texts from a backup are plain lines.
 */
import { statSync } from "node:fs";
import { dirname, join } from "node:path";
import { sizeText } from "../backup/words.ts";
import type { CliContext, CommonOptions } from "../context.ts";
import type { Placed } from "./place.ts";
import { type Plan, replacedConfig } from "./plan.ts";

/** What decides about the words. */
interface ReportOptions extends CommonOptions {
  readonly dryRun?: boolean;
}

/** The plan: on standard output for `--dry-run`, where it is the result, else on standard error. */
export function reportPlan(context: CliContext, options: ReportOptions, plan: Plan): void {
  const isDry = options.dryRun === true;
  if (options.json === true) {
    if (isDry) context.out(`${JSON.stringify(planJson(plan, true), null, 2)}\n`);
    return;
  }
  const say = isDry ? context.out : context.err;
  for (const line of planLines(plan)) say(`${line}\n`);
}

/** The result. `problems` is what `config validate` would say. */
export function reportDone(
  context: CliContext,
  options: ReportOptions,
  result: { readonly plan: Plan; readonly done: Placed; readonly problems: string },
): void {
  const { plan, done, problems } = result;
  const { stateAside, configAside, tookBack } = done;
  if (options.json === true) {
    const kept = { state: stateAside, config: configAside };
    context.out(`${JSON.stringify({ ...planJson(plan, false), kept }, null, 2)}\n`);
  }
  if (tookBack) context.err("An earlier restore had been interrupted; it was taken back first.\n");
  context.err("Restored.\n");
  for (const aside of [stateAside, configAside]) {
    if (aside !== null)
      context.err(`What was there before is in ${aside}; remove it when all is well.\n`);
  }
  if (plan.stateDir !== null) {
    context.err(
      `Tokens are as of ${plan.manifest.createdAt}: what was made since is gone, and what was revoked since works again.\n`,
    );
  }
  for (const note of [...plan.notes, ...ownerNote(plan)]) context.err(`${note}\n`);
  if (problems !== "")
    context.err(`For this user, in this shell, the configuration says:\n${problems}`);
}

/** Root made it, or owns it anyway; the service perhaps runs as somebody else. */
function ownerNote({ stateDir }: Plan): readonly string[] {
  if (stateDir === null || process.geteuid?.() !== 0 || statSync(stateDir).uid !== 0) return [];
  return [`${stateDir} belongs to root: if the service is another user, chown -R USER ${stateDir}`];
}

function planLines(plan: Plan): readonly string[] {
  const { manifest, stateDir, stateFiles, stateBytes, replacesState, configFile, changes } = plan;
  const { createdAt, madeBy, host, leftOut } = manifest;
  const lines = [`backup of ${host}, ${createdAt}, made by gatehouse ${madeBy.version}`];
  if (plan.isUnfinished) lines.push("an earlier restore was interrupted: it is taken back first");
  if (stateDir !== null) {
    const count = stateFiles.length === 1 ? "1 file" : `${stateFiles.length} files`;
    const old = replacesState ? ", in place of what is there, which is moved aside" : "";
    lines.push(`state: ${count} (${sizeText(stateBytes)}) to ${stateDir}${old}`);
  }
  if (configFile !== null) {
    const changed = [...changes].filter(([, change]) => change !== "unchanged");
    for (const [name, change] of changed) {
      lines.push(`configuration: ${join(dirname(configFile), name)} ${change}`);
    }
    if (changed.length === 0) lines.push(`configuration: ${configFile} unchanged`);
  }
  if (leftOut.length > 0) lines.push("not in the backup, and needed:");
  return [...lines, ...leftOut.map((line) => `  ${line}`)];
}

function planJson(plan: Plan, isDry: boolean): Record<string, unknown> {
  const { manifest, stateDir, stateFiles, stateBytes, replacesState, configFile, changes } = plan;
  return {
    dry_run: isDry,
    made_at: manifest.createdAt,
    made_by: manifest.madeBy.version,
    host: manifest.host,
    state:
      stateDir === null
        ? null
        : {
            dir: stateDir,
            files: stateFiles.map(({ name }) => name.slice("state/".length)),
            bytes: stateBytes,
            replaces: replacesState,
          },
    config:
      configFile === null
        ? null
        : {
            file: configFile,
            changes: Object.fromEntries(changes),
            replaces: replacedConfig(plan),
          },
    not_included: manifest.leftOut,
    notes: plan.notes,
  };
}
