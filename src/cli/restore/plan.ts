/**
 * What a restore is going to do, before it does it.
 *
 * Invariant: making the plan changes nothing, and what it says is all that will be done.
 */
import { dirname, join } from "node:path";
import { EXIT, OperatorError } from "../../errors.ts";
import { asOwnerOf } from "../backup/as-owner.ts";
import { type Manifest, type ManifestFile, sum } from "../backup/manifest.ts";
import { type Change, changesOf, type WantedFile } from "./config-place.ts";
import type { Destination } from "./destination.ts";
import { stateEntries, unfinishedMove } from "./swap.ts";

/** The plan. */
export interface Plan {
  readonly manifest: Manifest;
  /** Null: the state is left alone. */
  readonly stateDir: string | null;
  readonly stateFiles: readonly ManifestFile[];
  readonly stateBytes: number;
  /** Whether there is state that would be moved aside. */
  readonly replacesState: boolean;
  /** Whether an earlier restore has to be taken back first. */
  readonly isUnfinished: boolean;
  /** Null: the configuration is left alone. */
  readonly configFile: string | null;
  /** Files of the configuration under the names they get here. */
  readonly configFiles: readonly WantedFile[];
  readonly changes: ReadonlyMap<string, Change>;
  readonly notes: readonly string[];
}

/** @throws OperatorError when a file of the configuration cannot be put where it belongs */
export function planOf({
  manifest,
  texts,
  destination,
}: {
  readonly manifest: Manifest;
  readonly texts: readonly WantedFile[];
  readonly destination: Destination;
}): Plan {
  const { stateDir, configFile, notes } = destination;
  const configFiles = configFile === null ? [] : renamed(manifest, texts, configFile);
  const stateFiles =
    stateDir === null ? [] : manifest.files.filter(({ name }) => name.startsWith("state/"));
  const before = stateDir === null ? NO_STATE : asOwnerOf(stateDir, () => stateBefore(stateDir));
  return {
    manifest,
    stateDir,
    stateFiles,
    stateBytes: sum(stateFiles),
    ...before,
    configFile,
    configFiles,
    changes: configFile === null ? new Map() : changesOf(dirname(configFile), configFiles),
    notes,
  };
}

/** Paths of the files of the configuration that are replaced. */
export function replacedConfig({ configFile, changes }: Plan): readonly string[] {
  if (configFile === null) return [];
  return [...changes]
    .filter(([, change]) => change === "replaced")
    .map(([name]) => join(dirname(configFile), name));
}

/** @throws OperatorError when something would be replaced and that was not asked for */
export function checkPlan(plan: Plan, mayReplace: boolean): void {
  const { stateDir, replacesState } = plan;
  const there = [
    ...(replacesState && stateDir !== null ? [stateDir] : []),
    ...replacedConfig(plan),
  ];
  if (mayReplace || there.length === 0) return;
  throw new OperatorError(
    EXIT.cannotCreate,
    `there is something already, and it is not written over: ${there.join(", ")}`,
    "--replace moves it aside first, to a directory that is kept. Nothing was changed.",
  );
}

const NO_STATE = { replacesState: false, isUnfinished: false } as const;

function stateBefore(stateDir: string): Pick<Plan, "replacesState" | "isUnfinished"> {
  const isUnfinished = unfinishedMove(stateDir) !== null;
  return { replacesState: stateEntries(stateDir).length > 0, isUnfinished };
}

/** The config file gets the name it has here; the others keep theirs, because it names them. */
function renamed(
  { configEntry }: Manifest,
  texts: readonly WantedFile[],
  configFile: string,
): readonly WantedFile[] {
  const main = configEntry?.slice("config/".length);
  const name = configFile.slice(dirname(configFile).length).replace(/^\//, "");
  return texts.map((file) => (file.name === main ? { ...file, name } : file));
}
