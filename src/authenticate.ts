/**
 * Walks the strategies of a route and merges what they advertise.
 *
 * Invariant: only absence and "not mine" ask the next strategy. A reject stops; a throw is a fault and stops as
 * well. Nothing a strategy does can turn a bad credential into "nobody asked".
 */
import type { Identity, RejectReason } from "./contract/outcome.ts";
import type { Challenge, StrategyInstance } from "./contract/plugin.ts";
import type { AuthRequest } from "./contract/request.ts";

/** A strategy as a route names it. */
export interface NamedStrategy {
  readonly name: string;
  readonly instance: StrategyInstance;
}

/** How the walk ended. */
export type Authentication =
  | { readonly kind: "accepted"; readonly strategy: NamedStrategy; readonly identity: Identity }
  | {
      readonly kind: "refused";
      readonly reason: RejectReason | "no_credential";
      readonly strategy: string | null;
      readonly credentialId: string | null;
    }
  | { readonly kind: "fault"; readonly strategy: string; readonly error: unknown };

/** Asks each strategy in the order of the route's list. */
export async function authenticate(
  strategies: readonly NamedStrategy[],
  request: AuthRequest,
): Promise<Authentication> {
  let isSomethingUnknown = false;
  for (const strategy of strategies) {
    try {
      const said = strategy.instance.authenticate(request);
      const outcome = said instanceof Promise ? await said : said;
      if (outcome.outcome === "accept") {
        return { kind: "accepted", strategy, identity: checkedIdentity(outcome.identity) };
      }
      if (outcome.outcome === "reject") {
        const credentialId = outcome.credentialId ?? null;
        return { kind: "refused", reason: outcome.reason, strategy: strategy.name, credentialId };
      }
      if (outcome.outcome === "unknown") isSomethingUnknown = true;
      else if (outcome.outcome !== "absent") throw new TypeError("not an outcome");
    } catch (error) {
      return { kind: "fault", strategy: strategy.name, error };
    }
  }
  const reason = isSomethingUnknown ? "invalid_token" : "no_credential";
  return { kind: "refused", reason, strategy: null, credentialId: null };
}

/** An external plugin is plain JavaScript: an identity without an id must not pass as one. */
function checkedIdentity(identity: Identity): Identity {
  if (typeof identity?.id !== "string" || identity.id === "") {
    throw new TypeError("accept without an identity");
  }
  return identity;
}

/** What a route's strategies advertise, in config order, each scheme once. */
export function mergeChallenges(strategies: readonly NamedStrategy[]): readonly Challenge[] {
  const merged = new Map<string, Challenge>();
  for (const { instance } of strategies) {
    for (const challenge of instance.challenges?.() ?? []) {
      const key = challenge.scheme.toLowerCase();
      if (!merged.has(key)) merged.set(key, challenge);
    }
  }
  return [...merged.values()];
}
