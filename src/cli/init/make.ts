/**
 * Makes what was decided: directories, schema, secrets, configuration, state, first token, service.
 *
 * Invariant: each thing is in the journal before it is made; a failure or an interruption leaves the rest to whoever
 * takes away what the journal says.
 */
import { existsSync, readdirSync, symlinkSync } from "node:fs";
import { dirname, join } from "node:path";
import { renderIssues } from "../../config/explain.ts";
import { configJsonSchema } from "../../config/json-schema.ts";
import { loadConfig } from "../../config/load.ts";
import type { IssuedToken } from "../../contract/tokens.ts";
import { EXIT, OperatorError } from "../../errors.ts";
import { pluginLoader } from "../../loader.ts";
import { openStrategy } from "../../open-keeper.ts";
import type { CliContext } from "../context.ts";
import { explained } from "../token-input.ts";
import { configText } from "./config-text.ts";
import type { Decision } from "./decision.ts";
import { createFile, makeDirectories, missingDirectories, sumOf, unwritable } from "./files.ts";
import type { Interruption } from "./interruption.ts";
import type { Journal } from "./journal.ts";
import { installService, serviceEnv } from "./service.ts";
import type { Secret } from "./strategies.ts";

/** What making takes. */
export interface Making {
  readonly context: CliContext;
  readonly decision: Decision;
  readonly journal: Journal;
  readonly interruption: Interruption;
  /** Says what was done. */
  done(text: string): void;
}

/** A token that was made, with the strategy that keeps it. */
export interface FirstToken {
  readonly strategy: string;
  readonly issued: IssuedToken;
}

/** What only this run knows. */
export interface MadeThings {
  readonly tokens: readonly FirstToken[];
  /** What the operator should know, one sentence each. */
  readonly notes: readonly string[];
  /** Words before a verb that works on the state; empty: this program alone. */
  readonly command: readonly string[];
}

/** Name of the schema, as the first line of the configuration has it. */
const SCHEMA_FILE = "gatehouse.schema.json";

/** @throws OperatorError, Stopped */
export async function make(making: Making): Promise<MadeThings> {
  const { decision, interruption, done } = making;
  const { places } = decision;
  const hadState = existsSync(places.stateDir) && readdirSync(places.stateDir).length > 0;
  makeDirs(making, hadState);
  writeFiles(making);
  await checkConfig(making);
  interruption.check();
  done(`Wrote ${places.configFile}`);
  const tokens = await makeTokens(making, hadState);
  interruption.check();
  const notes = stateNotes(places.stateDir, hadState);
  if (decision.service === null) return { tokens, notes, command: [] };
  const installed = await installService(
    { ...making, configFile: places.configFile },
    decision.service,
  );
  interruption.check();
  return { tokens, notes: [...notes, ...installed.notes], command: installed.command };
}

function stateNotes(stateDir: string, hadState: boolean): readonly string[] {
  return hadState ? [`${stateDir} was there before: tokens in it work as they did`] : [];
}

function makeDirs(
  { decision: { places, tls, service }, journal }: Making,
  hadState: boolean,
): void {
  makeNoted(journal, places.configDir, places.dirMode);
  if (tls !== null && service?.scope === "system") makeNoted(journal, places.secretsDir, 0o700);
  makeNoted(journal, dirname(places.stateDir), places.dirMode);
  if (hadState) return;
  journal.note({ kind: "state", path: places.stateDir });
  makeDirectories(places.stateDir, 0o700);
}

function makeNoted(journal: Journal, path: string, mode: number): void {
  const missing = missingDirectories(path);
  if (missing.length === 0) return;
  journal.note(...missing.map((dir) => ({ kind: "directory" as const, path: dir })));
  makeDirectories(path, mode);
}

function writeFiles(making: Making): void {
  const { context, decision } = making;
  const { places, secrets, tls, service } = decision;
  const schema = `${JSON.stringify(configJsonSchema(context.plugins), null, 2)}\n`;
  writeNoted(making, join(places.configDir, SCHEMA_FILE), {
    text: schema,
    mode: places.configMode,
  });
  writeSecrets(making, places.secretsDir, secrets);
  if (tls !== null && service?.scope === "system") {
    linkNoted(making.journal, join(places.secretsDir, "tls-cert"), tls.cert);
    linkNoted(making.journal, join(places.secretsDir, "tls-key"), tls.key);
  }
  writeNoted(making, places.configFile, { text: configText(decision), mode: places.configMode });
}

/** Each in a file of its own, for its owner alone. @throws OperatorError, Stopped */
export function writeSecrets(writing: Writing, dir: string, secrets: readonly Secret[]): void {
  if (secrets.length > 0) makeNoted(writing.journal, dir, 0o700);
  for (const { name, value } of secrets) {
    writeNoted(writing, join(dir, name), { text: `${value}\n`, mode: 0o600 });
  }
}

type Writing = Pick<Making, "journal" | "interruption">;

function writeNoted(
  { journal, interruption }: Writing,
  path: string,
  { text, mode }: { readonly text: string; readonly mode: number },
): void {
  interruption.check();
  // Somebody else's is neither written over nor taken away later.
  if (existsSync(path)) throw unwritable(path, Object.assign(new Error(), { code: "EEXIST" }));
  journal.note({ kind: "file", path, sha256: sumOf(text) });
  createFile(path, text, mode);
}

function linkNoted(journal: Journal, path: string, target: string): void {
  journal.note({ kind: "link", path, target });
  try {
    symlinkSync(target, path);
  } catch (error) {
    throw unwritable(path, error);
  }
}

/** What `serve` checks before it listens; credentials have their paths only while a service runs. */
async function checkConfig({ context, decision }: Making): Promise<void> {
  const { places, service } = decision;
  const { config, issues } = await loadConfig({
    file: places.configFile,
    cwd: places.configDir,
    env: serviceEnv(context, decision),
    loadPlugin: pluginLoader(context.plugins),
    depth: service?.scope === "system" ? "shape" : "full",
  });
  if (config !== null) return;
  throw new OperatorError(EXIT.config, renderIssues(issues, places.configFile).trimEnd());
}

async function makeTokens(making: Making, hadState: boolean): Promise<readonly FirstToken[]> {
  const { context, decision, journal, interruption, done } = making;
  const { places, strategies, draft } = decision;
  const tokens: FirstToken[] = [];
  for (const { name, use } of strategies.filter(({ keepsTokens }) => keepsTokens)) {
    interruption.check();
    const opened = await openStrategy({
      context: { ...context, env: serviceEnv(context, decision) },
      config: places.configFile,
      strategy: name,
    });
    try {
      const issued = await explained(() => opened.tokens.create(draft), {
        stateDir: places.stateDir,
      });
      tokens.push({ strategy: name, issued });
      // A state directory of ours goes as a whole.
      if (hadState || use !== "bearer-sqlite") {
        journal.note({ kind: "token", strategy: name, id: issued.record.id });
      }
    } finally {
      await opened.close();
    }
    done(`Made the token ${draft.name} in ${name}`);
  }
  return tokens;
}
