/**
 * What the exit codes mean, for help and the manual page.
 *
 * Invariant: every code that there is has a meaning here; the type sees to it.
 */
import { EXIT } from "../errors.ts";

/** One exit code. */
interface Meaning {
  readonly code: number;
  readonly meaning: string;
}

/** By name, in ascending order of the codes. */
export const EXIT_MEANINGS: Readonly<Record<keyof typeof EXIT, Meaning>> = {
  ok: { code: EXIT.ok, meaning: "it went well" },
  failure: { code: EXIT.failure, meaning: "it failed" },
  usage: { code: EXIT.usage, meaning: "the command line is wrong" },
  negative: { code: EXIT.negative, meaning: "a check came out negative" },
  unavailable: { code: EXIT.unavailable, meaning: "something it needs is not available" },
  cannotCreate: { code: EXIT.cannotCreate, meaning: "a file or directory cannot be made" },
  permission: { code: EXIT.permission, meaning: "a right is missing, or others have too many" },
  config: { code: EXIT.config, meaning: "the configuration is wrong" },
};
