/**
 * Carries out a plan: stage, check, swap, and back again when anything goes wrong.
 *
 * Invariant: the configuration and the state change together or not at all. The mark in the state directory goes last.
 */
import { dirname } from "node:path";
import { systemClock } from "../../clock.ts";
import { EXIT, errorMessage, OperatorError } from "../../errors.ts";
import type { Steps } from "../../store/snapshot.ts";
import type { ManifestFile } from "../backup/manifest.ts";
import type { FileSink } from "../backup/unpack.ts";
import { type ConfigPlacing, prepareConfig } from "./config-place.ts";
import type { Plan } from "./plan.ts";
import { openStage, type Stage, undoUnfinished } from "./stage.ts";

/** What was done. */
export interface Placed {
  /** Where the old state is now; null when there was none. */
  readonly stateAside: string | null;
  readonly configAside: string | null;
  /** Whether an earlier restore was taken back first. */
  readonly tookBack: boolean;
}

/** What the carrying out needs. */
export interface PlaceTools {
  /** Reads the backup once more, into sinks. */
  fill(sink: (file: ManifestFile) => FileSink | null): Promise<void>;
  /** @throws OperatorError when a database has steps that this version does not know */
  mustBeKnown(steps: Steps): void;
}

/** @throws OperatorError with everything as it was before */
export async function putInPlace(plan: Plan, tools: PlaceTools): Promise<Placed> {
  const { stateDir } = plan;
  const tookBack = stateDir !== null && undoUnfinished(stateDir) !== null;
  const stage = stateDir === null ? null : openStage(stateDir, plan.stateBytes);
  let config: ConfigPlacing | null = null;
  try {
    if (stage !== null) await fillAndCheck(stage, plan, tools);
    config = prepare(plan, stage);
    const stateAside = stage?.swap() ?? null;
    const configAside = config?.commit() ?? null;
    stage?.confirm();
    config?.done();
    return { stateAside, configAside, tookBack };
  } catch (error) {
    takeAllBack(error, [config, stage]);
    throw error;
  }
}

/** @throws OperatorError when that is impossible as well; the mark then keeps everybody from the state */
function takeAllBack(error: unknown, parts: readonly ({ dispose(): void } | null)[]): void {
  try {
    for (const part of parts) part?.dispose();
  } catch (other) {
    throw new OperatorError(
      EXIT.failure,
      `${errorMessage(error)}; and it cannot be taken back: ${errorMessage(other)}`,
      "Mend that, then: gatehouse restore --undo",
    );
  }
}

async function fillAndCheck(
  stage: Stage,
  { stateFiles }: Plan,
  { fill, mustBeKnown }: PlaceTools,
): Promise<void> {
  await fill((file) => (file.name.startsWith("state/") ? stage.sink(file) : null));
  const databases = stateFiles.filter(({ isDatabase }) => isDatabase).map(({ name }) => name);
  stage.check(databases, mustBeKnown);
}

function prepare(
  { configFile, configFiles, changes }: Plan,
  stage: Stage | null,
): ConfigPlacing | null {
  if (configFile === null) return null;
  const wanted = configFiles.filter(({ name }) => changes.get(name) !== "unchanged");
  // The same name as beside the state, so that one can be found from the other.
  const aside = stage?.aside ?? asideNow();
  return prepareConfig(dirname(configFile), wanted, aside);
}

function asideNow(): string {
  return `replaced-${new Date(systemClock.nowMs()).toISOString().replaceAll(/[-:]|\.\d+/g, "")}`;
}
