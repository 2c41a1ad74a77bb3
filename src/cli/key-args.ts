/**
 * Finds secret keys where they must not be: among the arguments of a command.
 *
 * Invariant: nothing of what was found is repeated.
 */
import { EXIT, OperatorError } from "../errors.ts";

/** Verbs that work with a secret key, where 64 hex digits alone can be nothing else. */
const WITH_SECRET_KEY: readonly (readonly string[])[] = [["sign"], ["clients"], ["npub", "new"]];

/**
 * Refuses `nsec1…` anywhere, and 64 hex digits alone (or as the value of an option) for verbs that use a secret key.
 * Part of a URL they may be a public key or a hash and pass.
 * @throws OperatorError with EXIT.usage
 */
export function refuseKeys(args: readonly string[]): void {
  refuseIdentities(args);
  const usesSecret = WITH_SECRET_KEY.some((verb) => verb.every((word, at) => args[at] === word));
  const isSecret = (arg: string): boolean =>
    /nsec1/i.test(arg) || (usesSecret && /^(?:-.*=)?\s*[0-9a-f]{64}\s*$/i.test(arg));
  if (!args.some(isSecret)) return;
  throw new OperatorError(
    EXIT.usage,
    "a secret key must not be an argument: the shell's history and the process list keep it",
    "Use --key-file FILE or the variable NOSTR_NSEC, and take that key for known to others: make a new one with `gatehouse npub new`.",
  );
}

/** The secret key of a backup. */
function refuseIdentities(args: readonly string[]): void {
  if (!args.some((arg) => /AGE-SECRET-KEY-/i.test(arg))) return;
  throw new OperatorError(
    EXIT.usage,
    "a secret key must not be an argument: the shell's history and the process list keep it",
    "Put it into a file of mode 0600 and name that: --identity FILE. Take this one for known to others: `gatehouse backup --new-identity FILE` makes a new one.",
  );
}
