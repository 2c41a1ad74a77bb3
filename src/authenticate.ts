/**
 * Walks the strategies of a route and merges what they advertise.
 *
 * Invariant: only absence and "not mine" ask the next strategy. A reject stops; a throw is a fault and stops as
 * well. Nothing a strategy does can turn a bad credential into "nobody asked".
 */
import {
  type Identity,
  isSettled,
  type Outcome,
  REJECT_REASONS,
  type RejectReason,
} from "./contract/outcome.ts";
import type { Challenge, StrategyInstance } from "./contract/plugin.ts";
import type { AuthRequest } from "./contract/request.ts";

/** A strategy as a route names it. */
export interface NamedStrategy {
  readonly name: string;
  readonly plugin: { readonly name: string };
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

/**
 * Asks each strategy in the order of the route's list. The answer is a promise only when a strategy's was: most
 * answer at once, and a request should not wait for the event loop for nothing.
 * @param deadlineMs how long one strategy may take, without the time in which it waits for the body
 */
export function authenticate(
  strategies: readonly NamedStrategy[],
  request: AuthRequest,
  deadlineMs: number = DEADLINE_MS,
): Authentication | Promise<Authentication> {
  return walk({ strategies, request, deadlineMs, isSomethingUnknown: false }, 0);
}

interface Walk {
  readonly strategies: readonly NamedStrategy[];
  readonly request: AuthRequest;
  readonly deadlineMs: number;
  isSomethingUnknown: boolean;
}

function walk(state: Walk, from: number): Authentication | Promise<Authentication> {
  for (let index = from; index < state.strategies.length; index++) {
    const strategy = state.strategies[index] as NamedStrategy;
    try {
      const said = strategy.instance.authenticate(state.request);
      if (said instanceof Promise) return walkOn(state, strategy, said, index);
      const end = endOf(state, strategy, said);
      if (end !== null) return end;
    } catch (error) {
      return { kind: "fault", strategy: strategy.name, error };
    }
  }
  const reason = state.isSomethingUnknown ? "invalid_token" : "no_credential";
  return { kind: "refused", reason, strategy: null, credentialId: null };
}

async function walkOn(
  state: Walk,
  strategy: NamedStrategy,
  saying: Promise<Outcome>,
  index: number,
): Promise<Authentication> {
  try {
    const end = endOf(state, strategy, await within(saying, state));
    if (end !== null) return end;
  } catch (error) {
    return { kind: "fault", strategy: strategy.name, error };
  }
  return walk(state, index + 1);
}

/** What a strategy said is not what the contract allows. The message is fixed text, so that it can be logged. */
class ContractBreach extends Error {
  constructor(message: string) {
    super(message);
    this.name = "ContractBreach";
  }
}

/** Far above what any store or issuer takes, and below the patience of most clients. */
const DEADLINE_MS = 30_000;

/** A strategy that never answers is a fault like one that throws. */
function within(saying: Promise<Outcome>, { request, deadlineMs }: Walk): Promise<Outcome> {
  return new Promise((resolve, reject) => {
    let timer: ReturnType<typeof setTimeout>;
    const late = (): void => {
      const isReading = "isReadingBody" in request && request.isReadingBody === true;
      if (isReading) timer = setTimeout(late, deadlineMs);
      else reject(new ContractBreach(`no outcome within ${deadlineMs} ms`));
    };
    timer = setTimeout(late, deadlineMs);
    saying.then(resolve, reject).finally(() => clearTimeout(timer));
  });
}

/** `null` asks the next strategy. @throws ContractBreach when it is no outcome */
function endOf(state: Walk, strategy: NamedStrategy, outcome: Outcome): Authentication | null {
  if (typeof outcome !== "object" || outcome === null) throw new ContractBreach("no outcome");
  switch (outcome.outcome) {
    case "accept":
      return { kind: "accepted", strategy, identity: checkedIdentity(outcome.identity) };
    case "reject":
      return {
        kind: "refused",
        reason: checkedReason(outcome.reason),
        strategy: strategy.name,
        credentialId: outcome.credentialId ?? null,
      };
    case "unknown":
      state.isSomethingUnknown = true;
      return null;
    case "absent":
      return null;
    default:
      throw new ContractBreach("outcome is none of absent, unknown, accept, reject");
  }
}

/** Identities that cannot change and were looked at. */
const sound = new WeakSet<Identity>();

/**
 * An external plugin is plain JavaScript: an identity or a reason that is none of the contract's would end in a
 * header, a log or the reason table, so it is a fault of the strategy.
 */
function checkedIdentity(identity: Identity): Identity {
  if (sound.has(identity)) return identity;
  if (typeof identity !== "object" || identity === null) {
    throw new ContractBreach("accept without an identity");
  }
  const { id, role, name, owner, scopes, expiresAtMs, attributes } = identity;
  const isSound =
    typeof id === "string" &&
    id !== "" &&
    isTextOrNone(name) &&
    isTextOrNone(owner) &&
    (scopes === undefined || (Array.isArray(scopes) && scopes.every(isTextOrNone))) &&
    (attributes === undefined || Object.values(attributes).every(isTextOrNone)) &&
    (role === undefined || role === "admin" || role === "user") &&
    (expiresAtMs === undefined || Number.isFinite(expiresAtMs));
  if (!isSound) throw new ContractBreach("accept with an identity that is none");
  if (isSettled(identity)) sound.add(identity);
  return identity;
}

function isTextOrNone(value: unknown): boolean {
  return value === undefined || typeof value === "string";
}

function checkedReason(reason: RejectReason): RejectReason {
  if (!REJECT_REASONS.includes(reason))
    throw new ContractBreach("reject with a reason that is none");
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
