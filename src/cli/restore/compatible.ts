/**
 * Whether this version can work with the databases of a backup.
 *
 * Invariant: a step that this version does not know is found before anything is put in place, not by the gateway that
 * then does not start.
 */
import type { Plugin } from "../../contract/plugin.ts";
import { EXIT, OperatorError } from "../../errors.ts";
import { OWN_NAMESPACE, OWN_STEP } from "../../store/migrations.ts";
import { MIGRATIONS, NAMESPACE } from "../../store/shared-tables.ts";
import type { Steps } from "../../store/snapshot.ts";

/** The steps that this executable knows. A namespace that is not among them belongs to an external plugin. */
export function knownSteps(plugins: readonly Plugin[]): ReadonlyMap<string, readonly string[]> {
  const ofPlugins = plugins.flatMap(({ migrations }) => Object.entries(migrations ?? {}));
  const all = [...ofPlugins, [NAMESPACE, MIGRATIONS] as const];
  return new Map([
    [OWN_NAMESPACE, [OWN_STEP]],
    ...all.map(([namespace, steps]) => [namespace, steps.map(({ name }) => name)] as const),
  ]);
}

/** @throws OperatorError when `steps` go further than this version does */
export function refuseNewer(
  steps: Steps,
  known: ReadonlyMap<string, readonly string[]>,
  made: { readonly madeBy: string; readonly version: string },
): void {
  for (const [namespace, applied] of Object.entries(steps)) {
    const mine = known.get(namespace);
    const strange = mine && applied.find((name, index) => name !== mine[index]);
    if (strange === undefined) continue;
    throw new OperatorError(
      EXIT.failure,
      `the backup is of a newer version (${made.madeBy}) than this one (${made.version}): its database has the step ${namespace}: ${strange}`,
      "Install that version, or a newer one, and restore with it. Nothing was changed.",
    );
  }
}
