/**
 * How a request ends: a reply of ours or of the upstream, with its decision and its access event.
 *
 * Invariant: every reply that leaves here is followed by exactly one access event where somebody wants those, every
 * refusal is preceded by exactly one decision event, and neither knows more of the request than `RequestFacts`.
 */
import type { Audit, DecisionFacts, RequestFacts } from "./audit.ts";
import type { BuiltRoute } from "./built-route.ts";
import { checkAnswer } from "./check.ts";
import type { CheckProxy } from "./config/model.ts";
import { REASONS, type Reason } from "./reasons.ts";
import type { Origin } from "./request-view.ts";
import { dialectOf, refuse } from "./respond.ts";
import type { Exchange, Peer, Reply, Sent, WireRefusal } from "./wire/exchange.ts";

/** One request in the middle of its way. */
export interface Step {
  readonly exchange: Exchange;
  readonly origin: Origin;
  readonly route: BuiltRoute | null;
  readonly facts: RequestFacts;
  readonly path: string;
  readonly corsFields: string | null;
  /** Which proxy's question this is, when it is not the request itself. */
  readonly check: CheckProxy | null;
}

/** A decision about which nothing else is known. */
export const ALLOWED: DecisionFacts = {
  decision: "allow",
  reason: null,
  strategy: null,
  identity: null,
  credentialId: null,
};

export class Ending {
  private readonly audit: Audit;
  private readonly mintRequestId: () => string;

  constructor({ audit, mintRequestId }: { audit: Audit; mintRequestId: () => string }) {
    this.audit = audit;
    this.mintRequestId = mintRequestId;
  }

  /** Refuses, with the decision recorded. */
  deny(step: Step, reason: Reason, facts: Partial<DecisionFacts> = {}): Reply {
    const decision: DecisionFacts = {
      ...ALLOWED,
      decision: decisionOf(REASONS[reason].status),
      reason,
      ...facts,
    };
    this.audit.decision(step.facts, decision);
    return this.finish(step, decision, this.refusal(step, reason), null);
  }

  /** The reply to a refused request, nothing recorded. */
  refusal(step: Step, reason: Reason): Reply {
    const { exchange, origin, route, check } = step;
    const isAnthropic = exchange.head.fields.lower.includes("anthropic-version");
    const configured = route?.config.errors ?? "auto";
    return refuse({
      reason,
      requestId: origin.requestId,
      dialect: configured === "auto" ? dialectOf(step.path, isAnthropic) : configured,
      challenges: route?.challenges ?? [],
      scopes: route?.config.requireScopes ?? [],
      extraFields: step.corsFields ?? "",
      method: exchange.head.method,
      ...(check === null ? {} : checkAnswer(check, REASONS[reason].status)),
    });
  }

  /** Hangs the access event on the end of the reply. */
  finish(step: Step, decision: DecisionFacts, reply: Reply, upstream: string | null): Reply {
    if (reply.tunnel !== undefined || !this.audit.wantsAccess) return reply;
    // Written out: copying with a spread showed in profiles.
    return {
      status: reply.status,
      reason: reply.reason,
      fields: reply.fields,
      body: reply.body,
      close: reply.close === true,
      onSent: (sent) => this.recordAccess(step, decision, reply.status, upstream, sent),
    };
  }

  recordAccess(
    step: Step,
    decision: DecisionFacts,
    status: number,
    upstream: string | null,
    sent: Sent,
  ): void {
    this.audit.access(step.facts, decision, {
      status,
      durationMs: performance.now() - step.exchange.startedMs,
      bodyBytes: sent.bodyBytes,
      isComplete: sent.isComplete,
      upstream,
    });
  }

  /** A request that could not be read has no route, no path and no credential to speak of. */
  refuseUnread(refusal: WireRefusal, peer: Peer): Reply {
    const facts: RequestFacts = {
      requestId: this.mintRequestId(),
      clientAddress: peer.address,
      method: "-",
      host: "",
      path: "-",
      route: null,
    };
    const reply = refuse({
      reason: refusal,
      requestId: facts.requestId,
      dialect: "problem",
      challenges: [],
      method: "GET",
      close: true,
    });
    this.audit.decision(facts, { ...ALLOWED, decision: "deny", reason: refusal });
    return reply;
  }
}

function decisionOf(status: number): DecisionFacts["decision"] {
  if (status === 401) return "challenge";
  return status >= 500 ? "fault" : "deny";
}
