/**
 * Shared state without `shared` in the config: the state database, common to the processes on one state directory.
 *
 * Invariant: it answers as soon as the database does; what any process committed holds for the next question.
 */
import type { Claim, Revocation, SharedState } from "../contract/shared.ts";
import type { RevocationRow } from "./revocations-table.ts";
import type { SharedTables } from "./shared-tables.ts";

/** The state on these tables. */
export function embeddedState(tables: SharedTables, nowMs: () => number): SharedState {
  return {
    isReplicated: false,
    open: () => void tables.claims(),
    claim(claim) {
      checkClaim(claim);
      const { space, key, untilMs } = claim;
      // Others may have forgotten it by now.
      if (nowMs() >= untilMs) return Promise.resolve(false);
      return tables.claim({ space, key, until: untilMs });
    },
    isClaimed: (space, key) => tables.claims().has(space, key),
    async revoke(space, revocations) {
      tables.revocations().insert(revocationRows(space, revocations), false);
    },
    isRevoked: (space, id) => tables.revocations().has(space, id),
    // Whoever has its strategies in the database says what is wrong with that.
    health: () => [],
  };
}

const SPACE = /^[a-z][a-z0-9-]{0,62}$/;
const NAME = /^[\x21-\x7e]{1,200}$/;

/** @throws TypeError: a mistake of the plugin, not of the request */
export function checkClaim({ space, key, bornMs, untilMs }: Claim): void {
  checkName(space, key);
  if (!Number.isSafeInteger(bornMs) || !Number.isSafeInteger(untilMs)) {
    throw new TypeError("a claim needs two times in whole milliseconds");
  }
}

/** @throws TypeError */
export function checkName(space: string, name: string): void {
  if (!SPACE.test(space)) throw new TypeError("a space is a lower-case word with digits and -");
  if (!NAME.test(name)) throw new TypeError("a key has 1 to 200 visible ASCII characters");
}

/** @throws TypeError */
export function revocationRows(
  space: string,
  revocations: readonly Revocation[],
): readonly RevocationRow[] {
  return revocations.map(({ id, untilMs }) => {
    checkName(space, id);
    if (untilMs !== null && !Number.isSafeInteger(untilMs)) {
      throw new TypeError("the end of a revocation is a time in whole milliseconds or null");
    }
    return { space, id, until: untilMs };
  });
}
