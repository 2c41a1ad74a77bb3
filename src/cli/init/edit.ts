/**
 * Writes a changed configuration: checked first, with the old one kept beside it, and back again when it does not run.
 *
 * Invariant: what is written passes every check of `serve`; the old text stays as a copy; what somebody wrote in
 * between is never lost.
 */
import { statSync } from "node:fs";
import { dirname } from "node:path";
import { systemClock } from "../../clock.ts";
import { renderIssues } from "../../config/explain.ts";
import { loadConfig } from "../../config/load.ts";
import { EXIT, OperatorError } from "../../errors.ts";
import { pluginLoader } from "../../loader.ts";
import type { CliContext } from "../context.ts";
import { difference } from "../service/difference.ts";
import { type Existing, textNow } from "./existing.ts";
import { createFile, replaceFile, sumOf } from "./files.ts";
import type { Journal } from "./journal.ts";

/** Lines that go and come. */
export function diffOf({ text }: Pick<Existing, "text">, changed: string): readonly string[] {
  return difference(text, changed);
}

/** @throws OperatorError with every problem; nothing is written then */
export async function checkChanged(
  context: CliContext,
  { file }: Pick<Existing, "file">,
  {
    changed,
    env,
    depth,
  }: {
    readonly changed: string;
    readonly env: CliContext["env"];
    readonly depth: "full" | "shape";
  },
): Promise<void> {
  const { config, issues } = await loadConfig({
    file,
    text: changed,
    cwd: dirname(file),
    env,
    loadPlugin: pluginLoader(context.plugins),
    depth,
  });
  if (config !== null) return;
  throw new OperatorError(
    EXIT.config,
    `the changed configuration would be wrong; nothing was changed\n${renderIssues(issues, file).trimEnd()}`,
  );
}

/** Puts the changed text in place. @returns where the old one is kept */
export function writeChanged(existing: Existing, changed: string, journal: Journal): string {
  const { file, text } = existing;
  if (textNow(file) !== text) {
    throw new OperatorError(
      EXIT.failure,
      `${file} was changed by somebody else meanwhile; nothing was written`,
      "Run init again.",
    );
  }
  const { mode } = statSync(file);
  const backup = `${file}.${new Date(systemClock.nowMs()).toISOString().replace(/[:.]/g, "-")}.bak`;
  const own = journal.made.findIndex(
    (one) => one.kind === "file" && one.path === file && one.sha256 === sumOf(text),
  );
  if (own === -1) journal.note({ kind: "edit", path: file, backup, sha256: sumOf(changed) });
  else journal.note({ kind: "file", path: backup, sha256: sumOf(text) });
  createFile(backup, text, mode & 0o777);
  replaceFile(file, changed, mode & 0o777);
  if (own !== -1) journal.replace(withSum(journal, own, changed));
  return backup;
}

/** Takes the change back, before the rest of the journal is taken back. */
export function writeBack({ file, text }: Existing, changed: string, journal: Journal): void {
  const own = journal.made.findIndex(
    (one) => one.kind === "file" && one.path === file && one.sha256 === sumOf(changed),
  );
  // Somebody's own configuration is brought back from its copy, as the journal says.
  if (own === -1 || textNow(file) !== changed) return;
  const { mode } = statSync(file);
  replaceFile(file, text, mode & 0o777);
  journal.replace(withSum(journal, own, text));
}

function withSum(journal: Journal, index: number, text: string): Journal["made"] {
  return journal.made.map((one, at) =>
    at === index && one.kind === "file" ? { ...one, sha256: sumOf(text) } : one,
  );
}
