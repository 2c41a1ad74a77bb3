/**
 * Walks the strategies of a route and merges what they advertise.
 *
 * Invariant: only absence and "not mine" ask the next strategy. A reject stops; a throw is a fault and stops as
 * well. Nothing a strategy does can turn a bad credential into "nobody asked".
 */
import { type Identity, REJECT_REASONS, type RejectReason } from "./contract/outcome.ts";
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
        const reason = checkedReason(outcome.reason);
        const credentialId = outcome.credentialId ?? null;
        return { kind: "refused", reason, strategy: strategy.name, credentialId };
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

/**
 * An external plugin is plain JavaScript: an identity or a reason that is none of the contract's would end in a
 * header, a log or the reason table, so it is a fault of the strategy.
 */
function checkedIdentity(identity: Identity): Identity {
  if (typeof identity !== "object" || identity === null) {
    throw new TypeError("accept without an identity");
  }
  const { id, role, name, owner, scopes = [], expiresAtMs, attributes = {} } = identity;
  const texts = [id, name ?? "", owner ?? "", ...(Array.isArray(scopes) ? scopes : [null])];
  const isSound =
    [...texts, ...Object.values(attributes)].every((text) => typeof text === "string") &&
    id !== "" &&
    (role === undefined || role === "admin" || role === "user") &&
    (expiresAtMs === undefined || Number.isFinite(expiresAtMs));
  if (!isSound) throw new TypeError("accept with an identity that is none");
  return identity;
}

function checkedReason(reason: RejectReason): RejectReason {
  if (!REJECT_REASONS.includes(reason)) throw new TypeError("reject with a reason that is none");
  return reason;
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
