/**
 * Who asks for tokens, and what they may make: the rules against getting more rights than one has.
 *
 * Invariant: pure; what is not allowed in so many words is refused. Nobody makes a token with more rights than their
 * own; and no token makes another one, so that whoever steals one does not keep what he has stolen after it is revoked.
 */
import type { Identity, Role } from "../../contract/outcome.ts";
import type { SurfaceCaller } from "../../contract/plugin.ts";
import { Problem } from "../answers.ts";

/** The strategies of a route of the token API. */
export interface Strategies {
  /** Whose tokens these are. */
  readonly keeper: string;
  /** What `access` says on the routes of these tokens that are for own ones, in their order, and on this one. */
  readonly access: readonly string[];
}

/** Who asks. */
export interface Asker {
  readonly identity: Identity;
  readonly strategy: string;
  /** Owner of what they make; a Problem when they cannot own anything. */
  readonly subject: string | Problem;
  readonly isAdmin: boolean;
  readonly scopes: readonly string[];
  /** They showed one of the very tokens that this is about. */
  readonly isToken: boolean;
}

/** Rights of a token. */
export interface Rights {
  readonly role: Role;
  readonly scopes: readonly string[];
}

/** @throws Problem when nobody was proven */
export function askerOf(
  { identity, strategy, refusal }: Pick<SurfaceCaller, "identity" | "strategy" | "refusal">,
  strategies: Strategies,
): Asker {
  if (identity === null || strategy === null) {
    const isWrong = refusal !== null && refusal !== "no_credential";
    throw new Problem("no_credential", isWrong ? "the credential is not valid" : undefined);
  }
  return {
    identity,
    strategy,
    subject: subjectOf(identity, strategy, strategies),
    isAdmin: identity.role === "admin",
    scopes: identity.scopes ?? [],
    isToken: strategy === strategies.keeper,
  };
}

/**
 * Ids are unique within a strategy only, so only one strategy's are taken as they are: the first that people log in
 * with. Those of others are `STRATEGY:ID`, and who is called like that in the first one owns nothing.
 */
function subjectOf(
  identity: Identity,
  strategy: string,
  { keeper, access }: Strategies,
): string | Problem {
  if (strategy === keeper) return identity.owner ?? new Problem("subject_missing");
  if (identity.id.trim() === "") return new Problem("subject_missing");
  const [first, ...others] = access.filter((name) => name !== keeper);
  if (strategy !== first) return `${strategy}:${identity.id}`;
  const isAlike = others.some((name) => identity.id.startsWith(`${name}:`));
  return isAlike ? new Problem("subject_ambiguous") : identity.id;
}

/** The subject whose tokens are their own. @throws Problem when they have none */
export function mustOwn({ subject }: Asker): string {
  if (typeof subject === "string") return subject;
  throw subject;
}

/** @throws Problem unless an admin asks */
export function mustBeAdmin({ isAdmin }: Asker): void {
  if (!isAdmin) throw new Problem("insufficient_role");
}

/** @throws Problem when who asks may not hand out these rights, whether in a new token or with a new secret */
export function mustBeAbleToMint(asker: Asker, { role, scopes }: Rights): void {
  if (asker.isToken) throw new Problem("token_cannot_mint");
  if (asker.isAdmin) return;
  if (role === "admin") throw new Problem("rights_exceeded");
  const isMore = scopes.some((scope) => !asker.scopes.includes(scope));
  if (isMore) {
    throw new Problem("rights_exceeded", "a token cannot have scopes that you do not have");
  }
}
