/**
 * The way of a request, whole: route, authenticate, authorise, forward or answer, record.
 *
 * Invariant: every request ends in exactly one decision and one reply; each step returns a value to this file and
 * nothing calls back up. What is not allowed in so many words is refused.
 */
import type { Audit, DecisionFacts, RequestFacts } from "./audit.ts";
import { type Authentication, authenticate, type NamedStrategy } from "./authenticate.ts";
import { authorize } from "./authorize.ts";
import { type BuiltRoute, buildRoute } from "./built-route.ts";
import type { GatewayConfig } from "./config/model.ts";
import type { Identity } from "./contract/outcome.ts";
import type { Surface } from "./contract/plugin.ts";
import { corsFields, isPreflight, preflightFields } from "./cors.ts";
import { bodyReason, type Forwarded, forward, type Upstream } from "./forward.ts";
import { identityFields, type RequestFilter, requestFilter } from "./headers.ts";
import { checkModel } from "./models.ts";
import type { Reason } from "./reasons.ts";
import { type Origin, RequestView } from "./request-view.ts";
import { answer, dialectOf, refuse } from "./respond.ts";
import { createRouter, type RouteMatch, type Router } from "./router.ts";
import type { StreamWatch } from "./streams.ts";
import { askSurface } from "./surface.ts";
import { CLOSE, isWebSocketHandshake, relay } from "./upgrade.ts";
import { BodyReadError } from "./wire/collect.ts";
import type { Exchange, ExchangeHandler, Peer, Reply, Sent, WireRefusal } from "./wire/exchange.ts";
import { firstValue } from "./wire/fields.ts";
import type { UpstreamResponse } from "./wire/upstream-call.ts";

/** What a gateway is made of. */
export interface GatewayParts {
  readonly config: GatewayConfig;
  readonly strategies: ReadonlyMap<string, NamedStrategy>;
  readonly upstreams: ReadonlyMap<string, Upstream>;
  readonly audit: Audit;
  readonly streams: StreamWatch;
  /** Who asks, and under which name; the listener knows. */
  originOf(exchange: Exchange): Origin;
  mintRequestId(): string;
}

/** One request in the middle of its way. */
interface Step {
  readonly exchange: Exchange;
  readonly origin: Origin;
  readonly route: BuiltRoute | null;
  readonly facts: RequestFacts;
  readonly path: string;
  readonly corsFields: string | null;
}

/** A value now where possible: a request that needs not wait does not. */
type Later<T> = T | Promise<T>;

type Allowed = {
  readonly strategy: NamedStrategy | null;
  readonly identity: Identity | null;
  /** On a route with an anonymous surface: why nobody was proven. */
  readonly refusal?: Reason;
};

const PUBLIC: Allowed = { strategy: null, identity: null };
const ALLOWED: DecisionFacts = {
  decision: "allow",
  reason: null,
  strategy: null,
  identity: null,
  credentialId: null,
};

/** Builds the handler of every listener. */
export function createGateway(parts: GatewayParts): ExchangeHandler {
  const router = createRouter(parts.config.routes, (route) => buildRoute(route, parts));
  const gateway = new Gateway(parts, requestFilter(parts.config.routes));
  return {
    handle: (exchange) => {
      const { method, target } = exchange.head;
      if (target === parts.config.server.healthPath && (method === "GET" || method === "HEAD")) {
        return answer(200, "Cache-Control: no-store\r\n", "ok\n");
      }
      const origin = parts.originOf(exchange);
      const fail = (error: unknown): Reply => gateway.fail(exchange, origin, error);
      try {
        const match = matchFor(router, exchange, origin.authority);
        const reply = gateway.handle(exchange, origin, match);
        return reply instanceof Promise ? reply.catch(fail) : reply;
      } catch (error) {
        return fail(error);
      }
    },
    refuse: (refusal, peer) => gateway.refuseUnread(refusal, peer),
  };
}

/**
 * A preflight asks about another request: it belongs to the route of that one, where that has CORS rules, so that
 * `methods` of a route need not name OPTIONS.
 */
function matchFor(
  router: Router<BuiltRoute>,
  exchange: Exchange,
  authority: string,
): RouteMatch<BuiltRoute> {
  const { method, target, fields } = exchange.head;
  if (isPreflight(method, fields)) {
    const wanted = firstValue(fields, "access-control-request-method") ?? "";
    const asked = router.match(authority, wanted, target);
    if (asked.kind === "route" && asked.route.config.cors !== null) return asked;
  }
  return router.match(authority, method, target);
}

class Gateway {
  private readonly parts: GatewayParts;
  private readonly filter: RequestFilter;

  constructor(parts: GatewayParts, filter: RequestFilter) {
    this.parts = parts;
    this.filter = filter;
  }

  /** The story of a request. */
  handle(exchange: Exchange, origin: Origin, match: RouteMatch<BuiltRoute>): Later<Reply> {
    const step = this.stepOf(exchange, origin, match);
    if (match.kind === "refused") return this.deny(step, match.reason);
    if (match.kind === "none") return this.deny(step, "no_route");
    const { route } = match;
    const { cors } = route.config;
    if (cors !== null && isPreflight(exchange.head.method, exchange.head.fields)) {
      return this.finish(
        step,
        ALLOWED,
        answer(204, preflightFields(cors, exchange.head.fields), null),
        null,
      );
    }
    const view = new RequestView(exchange, origin, {
      path: match.path,
      query: match.query,
      publicUrls: this.parts.config.server.publicUrls,
    });
    const admitted = this.admit(step, route, view);
    return admitted instanceof Promise
      ? admitted.then((settled) => this.proceed(step, route, view, settled))
      : this.proceed(step, route, view, admitted);
  }

  /** What the route is for, once it is known who asks. */
  private proceed(
    step: Step,
    route: BuiltRoute,
    view: RequestView,
    admitted: Allowed | Reply,
  ): Later<Reply> {
    if (!("identity" in admitted)) return admitted;
    if (route.surface !== null) return this.answerHere(step, route.surface, view, admitted);
    if (route.config.models === null) return this.serve(step, route, view, admitted);
    return this.modelDenial(step, route, view).then(
      (denial) => denial ?? this.serve(step, route, view, admitted),
    );
  }

  /** Something that must not happen did: closed, with a request id, and in the log. */
  fail(exchange: Exchange, origin: Origin, error: unknown): Reply {
    const step = this.stepOf(exchange, origin, { kind: "none", path: "-" });
    this.parts.audit.fault(step.facts, "gateway", error);
    return this.deny(step, "internal_fault");
  }

  private stepOf(exchange: Exchange, origin: Origin, match: RouteMatch<BuiltRoute>): Step {
    const route = match.kind === "route" ? match.route : null;
    const target = exchange.head.target;
    const mark = target.indexOf("?");
    const path =
      match.kind === "refused" ? (mark === -1 ? target : target.slice(0, mark)) : match.path;
    const cors = route?.config.cors ?? null;
    return {
      exchange,
      origin,
      route,
      path,
      corsFields: cors === null ? null : corsFields(cors, exchange.head.fields),
      facts: {
        requestId: origin.requestId,
        clientAddress: origin.clientAddress,
        method: exchange.head.method,
        host: origin.authority,
        path,
        route: route?.config.index ?? null,
      },
    };
  }

  /** Who is it, and may they? A reply is a refusal. */
  private admit(step: Step, route: BuiltRoute, view: RequestView): Later<Allowed | Reply> {
    if (route.config.access === "public") return PUBLIC;
    if (CREDENTIAL_IN_QUERY.test(view.query)) return this.deny(step, "credential_in_url");
    if (isRefusedScheme(view, route.config.refusedSchemes))
      return this.deny(step, "scheme_refused");
    const said = authenticate(route.strategies, view);
    return said instanceof Promise
      ? said.then((settled) => this.authorized(step, route, settled))
      : this.authorized(step, route, said);
  }

  private authorized(step: Step, route: BuiltRoute, said: Authentication): Allowed | Reply {
    if (said.kind === "accepted") {
      const denial = authorize(route.config, said.identity);
      if (denial === null) return said;
      return this.deny(step, denial, { strategy: said.strategy.name, identity: said.identity });
    }
    return this.refuseAuthentication(step, said);
  }

  private refuseAuthentication(
    step: Step,
    said: Exclude<Authentication, { kind: "accepted" }>,
  ): Reply | Allowed {
    if (said.kind === "refused") {
      if (step.route?.config.isAnonymous === true) {
        return { strategy: null, identity: null, refusal: said.reason };
      }
      return this.deny(step, said.reason, {
        strategy: said.strategy,
        credentialId: said.credentialId,
      });
    }
    // A body that the client broke off is the client's fault, not the strategy's.
    if (said.error instanceof BodyReadError) return this.deny(step, bodyReason(said.error.fault));
    this.parts.audit.fault(step.facts, `strategy ${said.strategy}`, said.error);
    return this.deny(step, "strategy_fault", { strategy: said.strategy });
  }

  private serve(step: Step, route: BuiltRoute, view: RequestView, allowed: Allowed): Later<Reply> {
    const { upstream, config } = route;
    const who = { strategy: allowed.strategy?.name ?? null, identity: allowed.identity };
    if (upstream === null) return this.deny(step, "no_upstream", who);
    const decision: DecisionFacts = {
      decision: "allow",
      reason: null,
      strategy: who.strategy,
      identity: who.identity,
      credentialId: null,
    };
    this.parts.audit.decision(step.facts, decision);
    const isHandshake = isWebSocketHandshake(step.exchange.head);
    const forwarding = forward({
      exchange: step.exchange,
      view,
      origin: step.origin,
      upstream,
      filter: this.filter,
      removed: route.removedFor.get(who.strategy ?? "") ?? route.removed,
      identityFields:
        allowed.identity === null || allowed.strategy === null
          ? ""
          : identityFields(config, allowed.strategy.name, allowed.identity),
      responseHeaders: config.responseHeaders,
      maxBodyBytes: config.maxBodyBytes,
      corsFields: step.corsFields,
      upgrade: isHandshake ? (response) => this.tunnel(step, decision, allowed, response) : null,
    });
    return forwarding.then((forwarded) => this.forwarded(step, decision, allowed, forwarded));
  }

  private forwarded(
    step: Step,
    decision: DecisionFacts,
    allowed: Allowed,
    forwarded: Forwarded,
  ): Reply {
    const upstream = step.route?.upstream?.name ?? null;
    if (forwarded.kind === "refused") {
      if (forwarded.error !== null && forwarded.reason !== "client_closed") {
        this.parts.audit.fault(step.facts, `upstream ${upstream}`, forwarded.error);
      }
      return this.finish(
        step,
        { ...decision, reason: forwarded.reason },
        this.refusal(step, forwarded.reason),
        upstream,
      );
    }
    return this.watched(this.finish(step, decision, forwarded.reply, upstream), step, allowed);
  }

  /** Endpoints of our own: a plugin's, with a whole request and a whole answer. */
  private async answerHere(
    step: Step,
    surface: Surface,
    view: RequestView,
    allowed: Allowed,
  ): Promise<Reply> {
    const who = { strategy: allowed.strategy?.name ?? null, identity: allowed.identity };
    const refusal = allowed.refusal ?? null;
    const decision: DecisionFacts = { ...ALLOWED, ...who, reason: refusal };
    try {
      const answered = await askSurface({
        exchange: step.exchange,
        view,
        surface,
        caller: {
          ...who,
          refusal,
          clientAddress: step.origin.clientAddress,
          requestId: step.origin.requestId,
        },
        upstream: step.route?.upstream ?? null,
        extraFields: step.corsFields ?? "",
      });
      if (answered.kind === "too_large") return this.deny(step, "body_too_large", who);
      this.parts.audit.decision(step.facts, decision);
      return this.finish(step, decision, answered.reply, null);
    } catch (error) {
      if (error instanceof BodyReadError) return this.deny(step, bodyReason(error.fault), who);
      this.parts.audit.fault(step.facts, `surface ${surface.name}`, error);
      return this.deny(step, "strategy_fault", who);
    }
  }

  /** What the route's model policy has against the request, if anything. */
  private async modelDenial(
    step: Step,
    route: BuiltRoute,
    view: RequestView,
  ): Promise<Reply | null> {
    const { models } = route.config;
    if (models === null) return null;
    // What is asked for inside a tunnel is never seen.
    if (isWebSocketHandshake(step.exchange.head) && !models.failsOpen) {
      return this.deny(step, "model_unreadable");
    }
    try {
      const denial = await checkModel(view, models, route.modelSource);
      return denial === null ? null : this.deny(step, denial);
    } catch (error) {
      if (error instanceof BodyReadError) return this.deny(step, bodyReason(error.fault));
      throw error;
    }
  }

  /** A reply that streams is ended when its credential is. */
  private watched(reply: Reply, step: Step, allowed: Allowed): Reply {
    const isStream = reply.body !== null && !(reply.body instanceof Uint8Array);
    if (!isStream || allowed.identity === null) return reply;
    const forget = this.parts.streams.add({
      ...allowed,
      requestId: step.origin.requestId,
      end: () => watched.abort?.(),
    });
    const watched: Reply = {
      ...reply,
      onSent: (sent) => {
        forget();
        reply.onSent?.(sent);
      },
    };
    return watched;
  }

  private tunnel(
    step: Step,
    decision: DecisionFacts,
    allowed: Allowed,
    response: UpstreamResponse,
  ): Reply["tunnel"] {
    const upstreamWire = response.upgraded;
    const upstream = step.route?.upstream;
    if (upstreamWire === null || upstream == null) return undefined;
    return (client) => {
      let forget = (): void => {};
      const running = relay(client, upstreamWire, {
        idleMs: upstream.idleMs,
        onEnd: ({ bytesToClient }) => {
          forget();
          this.recordAccess(step, decision, 101, upstream.name, {
            bodyBytes: bytesToClient,
            isComplete: true,
          });
        },
      });
      forget = this.parts.streams.add({
        ...allowed,
        requestId: step.origin.requestId,
        end: (why) => running.stop(why === "shutdown" ? CLOSE.goingAway : CLOSE.policy),
      });
    };
  }

  /** Refuses, with the decision recorded. */
  private deny(step: Step, reason: Reason, facts: Partial<DecisionFacts> = {}): Reply {
    const reply = this.refusal(step, reason);
    const decision: DecisionFacts = {
      ...ALLOWED,
      decision: decisionOf(reply.status),
      reason,
      ...facts,
    };
    this.parts.audit.decision(step.facts, decision);
    return this.finish(step, decision, reply, null);
  }

  private refusal(step: Step, reason: Reason): Reply {
    const { exchange, origin, route } = step;
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
    });
  }

  /** Hangs the access event on the end of the reply. */
  private finish(
    step: Step,
    decision: DecisionFacts,
    reply: Reply,
    upstream: string | null,
  ): Reply {
    if (reply.tunnel !== undefined) return reply;
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

  private recordAccess(
    step: Step,
    decision: DecisionFacts,
    status: number,
    upstream: string | null,
    sent: Sent,
  ): void {
    this.parts.audit.access(step.facts, decision, {
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
      requestId: this.parts.mintRequestId(),
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
    this.parts.audit.decision(facts, { ...ALLOWED, decision: "deny", reason: refusal });
    return reply;
  }
}

/** Whether the Authorization is of a scheme that the route answers 403 whoever sends it. */
function isRefusedScheme(view: RequestView, schemes: readonly string[]): boolean {
  if (schemes.length === 0) return false;
  return view.headers.all("authorization").some((value) => {
    const scheme = /^[^ \t]+/.exec(value)?.[0].toLowerCase();
    return scheme !== undefined && schemes.includes(scheme);
  });
}

/** RFC 6750 section 2.3 in a query: such URLs end in logs and histories (RFC 9700 section 4.3.2). */
const CREDENTIAL_IN_QUERY = /[?&](?:access_token|api_key|apikey)=/i;

function decisionOf(status: number): DecisionFacts["decision"] {
  if (status === 401) return "challenge";
  return status >= 500 ? "fault" : "deny";
}
