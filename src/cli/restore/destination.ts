/**
 * Where a backup is restored to.
 *
 * Invariant: places come from the operator and this machine. What the backup says about places is believed only where
 * it stays in the directory that was chosen anyway: whoever made the file must not choose where root writes.
 */
import { basename, dirname, resolve } from "node:path";
import { renderIssues } from "../../config/explain.ts";
import { findConfigFile } from "../../config/find.ts";
import { EXIT, OperatorError } from "../../errors.ts";
import { isBelow } from "../backup/config-files.ts";
import { readConfig } from "../backup/loading.ts";
import type { Manifest } from "../backup/manifest.ts";
import type { CliContext, CommonOptions } from "../context.ts";
import type { WantedFile } from "./config-place.ts";

/** Options that say where to. */
export interface DestinationOptions extends CommonOptions {
  /** `--state-dir DIR`. */
  readonly stateDir?: string;
  /** `--only state|config`. */
  readonly only?: string;
}

/** What goes where; null: it is left alone. */
export interface Destination {
  /** Absolute. */
  readonly stateDir: string | null;
  /** Absolute path of the config file. */
  readonly configFile: string | null;
  /** What does not fit together, one sentence each. */
  readonly notes: readonly string[];
}

/** The configuration that will be in effect, and whether it comes out of the backup. */
interface Expected {
  readonly stateDir: string | null;
  readonly isFromBackup: boolean;
}

/**
 * @param texts files of the configuration in the backup
 * @throws OperatorError when a place is missing, or would be one that only the backup chose
 */
export async function destinationOf(
  context: CliContext,
  options: DestinationOptions,
  backup: { readonly manifest: Manifest; readonly texts: readonly WantedFile[] },
): Promise<Destination> {
  const { manifest } = backup;
  const wants = wanted(options, manifest);
  const configFile = configFileOf(context, options);
  if (wants.config && configFile === null) {
    throw new OperatorError(
      EXIT.usage,
      "it is not clear where the configuration belongs: there is none here yet",
      `Say it with -c FILE (it was ${manifest.configFile}), or leave it out with --only state.`,
    );
  }
  const notes: string[] = [];
  const stateDir = wants.state
    ? await stateDirOf(context, options, {
        ...backup,
        configFile,
        takesConfig: wants.config,
        notes,
      })
    : null;
  return { stateDir, configFile: wants.config ? configFile : null, notes };
}

function wanted(
  { only }: DestinationOptions,
  { files, configEntry }: Manifest,
): { readonly state: boolean; readonly config: boolean } {
  if (only !== undefined && only !== "state" && only !== "config") {
    throw new OperatorError(EXIT.usage, "--only: expected state or config");
  }
  const hasState = files.some(({ name }) => name.startsWith("state/"));
  const wants = {
    state: hasState && only !== "config",
    config: configEntry !== null && only !== "state",
  };
  if (wants.state || wants.config) return wants;
  throw new OperatorError(
    EXIT.failure,
    `the backup has nothing of that kind${only ? ` (${only})` : ""}`,
  );
}

/** `-c FILE`, else the one that every command would find here, else null. */
function configFileOf(context: CliContext, { config }: DestinationOptions): string | null {
  return config === undefined ? findConfigFile(context).file : resolve(context.cwd, config);
}

interface StateQuestion {
  readonly manifest: Manifest;
  readonly texts: readonly WantedFile[];
  readonly configFile: string | null;
  readonly takesConfig: boolean;
  readonly notes: string[];
}

async function stateDirOf(
  context: CliContext,
  options: DestinationOptions,
  question: StateQuestion,
): Promise<string> {
  const expected = await expectedStateDir(context, options, question);
  if (options.stateDir !== undefined) {
    const chosen = resolve(context.cwd, options.stateDir);
    if (expected.stateDir !== null && expected.stateDir !== chosen) {
      question.notes.push(
        `the configuration says state_dir ${expected.stateDir}: change it to ${chosen}, or set GATEHOUSE_STATE_DIR`,
      );
    }
    return chosen;
  }
  if (expected.stateDir === null) {
    throw new OperatorError(
      EXIT.usage,
      "it is not clear where the state belongs",
      `Say it with --state-dir DIR (it was ${question.manifest.stateDir}).`,
    );
  }
  if (!expected.isFromBackup) return expected.stateDir;
  const { configFile } = question;
  if (configFile !== null && isBelow(dirname(configFile), expected.stateDir))
    return expected.stateDir;
  throw new OperatorError(
    EXIT.usage,
    `the backup's configuration says state_dir ${expected.stateDir}, which only the backup says`,
    `If that is right, say so: --state-dir ${expected.stateDir}`,
  );
}

/** What the gateway will take for its state directory once the restore is done. */
async function expectedStateDir(
  context: CliContext,
  { preset }: DestinationOptions,
  { manifest, texts, configFile, takesConfig }: StateQuestion,
): Promise<Expected> {
  if (preset !== undefined) {
    const loaded = await readConfig(context, {
      file: null,
      depth: "shape",
      preset: { name: preset, flags: {} },
    });
    return { stateDir: loaded.config?.stateDir ?? null, isFromBackup: false };
  }
  const here =
    configFile === null ? null : await readConfig(context, { file: configFile, depth: "shape" });
  const stateDirHere = here?.config?.stateDir ?? null;
  if (!takesConfig || configFile === null) return { stateDir: stateDirHere, isFromBackup: false };
  const name = manifest.configEntry?.slice("config/".length);
  const text = texts.find((file) => file.name === name);
  const loaded = await readConfig(context, {
    file: configFile,
    text: new TextDecoder().decode(text?.bytes ?? new Uint8Array()),
    depth: "shape",
  });
  if (loaded.config === null) {
    throw new OperatorError(
      EXIT.config,
      `the configuration in the backup is not one for this version:\n${renderIssues(loaded.issues, basename(configFile)).trimEnd()}`,
      "`--only state` leaves it out.",
    );
  }
  const { stateDir } = loaded.config;
  return { stateDir, isFromBackup: stateDir !== stateDirHere };
}
