/**
 * The way of a request, whole: route, authenticate, authorise, forward or answer, record.
 *
 * Invariant: every request ends in exactly one decision and one reply; each step returns a value to this file and
 * nothing calls back up. What is not allowed in so many words is refused.
 */
import type { Audit, DecisionFacts } from "./audit.ts";
import { type Authentication, authenticate, type NamedStrategy } from "./authenticate.ts";
import { authorize } from "./authorize.ts";
import { beforeAsking } from "./before-asking.ts";
import { type BuiltInSurface, type BuiltRoute, buildRoute } from "./built-route.ts";
import { namesOriginal, type Original, readOriginal } from "./check.ts";
import type { CheckConfig, GatewayConfig } from "./config/model.ts";
import type { Identity } from "./contract/outcome.ts";
import type { Surface } from "./contract/plugin.ts";
import { corsFields, isPreflight, preflightFields } from "./cors.ts";
import { ALLOWED, Ending, type Step } from "./ending.ts";
import { bodyReason, type Forwarded, forward, type Upstream } from "./forward.ts";
import { type RequestFilter, requestFilter } from "./headers.ts";
import { askedAt, asOriginal, matchAsked, matchFor, splitTarget } from "./matching.ts";
import { checkModel } from "./models.ts";
import type { Reason } from "./reasons.ts";
import { type Origin, RequestView } from "./request-view.ts";
import { answer } from "./respond.ts";
import { createRouter, type RouteMatch, type Router } from "./router.ts";
import type { StreamWatch } from "./streams.ts";
import { askSurface } from "./surface.ts";
import { CLOSE, isWebSocketHandshake, relay } from "./upgrade.ts";
import { BodyReadError } from "./wire/collect.ts";
import type { Exchange, ExchangeHandler, Reply } from "./wire/exchange.ts";
import type { UpstreamResponse } from "./wire/upstream-call.ts";

/** What a gateway is made of. */
export interface GatewayParts {
  readonly config: GatewayConfig;
  readonly strategies: ReadonlyMap<string, NamedStrategy>;
  readonly upstreams: ReadonlyMap<string, Upstream>;
  readonly builtInSurface?: BuiltInSurface;
  readonly audit: Audit;
  readonly streams: StreamWatch;
  /** Who asks, and under which name; the listener knows. */
  originOf(exchange: Exchange): Origin;
  mintRequestId(): string;
}

/** A value now where possible: a request that needs not wait does not. */
type Later<T> = T | Promise<T>;

/** What a step is made of; `head` is that of the request which is judged. */
interface StepParts {
  readonly exchange: Exchange;
  readonly head: Exchange["head"];
  readonly origin: Origin;
  readonly match: RouteMatch<BuiltRoute>;
  readonly check: CheckConfig | null;
}

/** A proxy's question, read. */
interface Question {
  readonly exchange: Exchange;
  readonly origin: Origin;
  readonly original: Original;
  /** The route that the question came in by. */
  readonly asking: BuiltRoute;
  readonly check: CheckConfig;
}

type Allowed = {
  readonly strategy: NamedStrategy | null;
  readonly identity: Identity | null;
  /** On a route with an anonymous surface: why nobody was proven. */
  readonly refusal?: Reason;
};

const PUBLIC: Allowed = { strategy: null, identity: null };

/** Builds the handler of every listener. */
export function createGateway(parts: GatewayParts): ExchangeHandler {
  const router = createRouter(parts.config.routes, (route) => buildRoute(route, parts));
  const ending = new Ending(parts);
  const gateway = new Gateway(parts, router, ending);
  return {
    handle: (exchange) => {
      const { method, target } = exchange.head;
      if (target === parts.config.server.healthPath && (method === "GET" || method === "HEAD")) {
        return answer(200, "Cache-Control: no-store\r\n", "ok\n");
      }
      const origin = parts.originOf(exchange);
      const fail = (error: unknown): Reply => gateway.fail(exchange, origin, error);
      try {
        const match = matchFor(router, exchange.head, origin.authority);
        const reply = gateway.handle(exchange, origin, match);
        return reply instanceof Promise ? reply.catch(fail) : reply;
      } catch (error) {
        return fail(error);
      }
    },
    refuse: (refusal, peer) => ending.refuseUnread(refusal, peer),
  };
}

class Gateway {
  private readonly parts: GatewayParts;
  private readonly router: Router<BuiltRoute>;
  private readonly ending: Ending;
  private readonly filter: RequestFilter;
  private readonly isAskedAt: (target: string) => boolean;

  constructor(parts: GatewayParts, router: Router<BuiltRoute>, ending: Ending) {
    this.parts = parts;
    this.router = router;
    this.ending = ending;
    this.filter = requestFilter(parts.config.routes);
    this.isAskedAt = askedAt(parts.config.routes);
  }

  /** The story of a request. */
  handle(exchange: Exchange, origin: Origin, match: RouteMatch<BuiltRoute>): Later<Reply> {
    if (match.kind === "route" && match.route.config.check !== null) {
      return this.checkFor(exchange, origin, match, match.route.config.check);
    }
    const step = this.stepOf({ exchange, head: exchange.head, origin, match, check: null });
    if (match.kind === "refused") return this.ending.deny(step, match.reason);
    if (match.kind === "none" || this.isAskedAt(exchange.head.target)) {
      return this.ending.deny(step, "no_route");
    }
    const { route } = match;
    const { cors } = route.config;
    if (cors !== null && isPreflight(exchange.head.method, exchange.head.fields)) {
      return this.ending.finish(
        step,
        ALLOWED,
        answer(204, preflightFields(cors, exchange.head.fields), null),
        null,
      );
    }
    const view = this.viewOf(exchange, origin, match);
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

  /**
   * A reverse proxy asks about a request that it holds: the same way but for the last step, where nothing is
   * forwarded.
   */
  private checkFor(
    exchange: Exchange,
    origin: Origin,
    match: RouteMatch<BuiltRoute> & { readonly kind: "route" },
    check: CheckConfig,
  ): Later<Reply> {
    const asking = match.route;
    const asked = (): Step => this.stepOf({ exchange, head: exchange.head, origin, match, check });
    const mayBeBare = check.proxy === "generic" && check.judges === "own";
    if (mayBeBare && !(origin.isPeerTrusted && namesOriginal(exchange.head.fields))) {
      return this.judge(asked(), asking, this.viewOf(exchange, origin, match), check);
    }
    if (!origin.isPeerTrusted) return this.ending.deny(asked(), "untrusted_proxy");
    const { paths } = asking.config;
    const original = readOriginal(check.proxy, exchange.head, paths, exchange.peer.isSecure);
    if (original === null) return this.ending.deny(asked(), "original_unreadable");
    return this.judgeOriginal({ exchange, origin, original, asking, check });
  }

  private judgeOriginal({ exchange, origin, original, asking, check }: Question): Later<Reply> {
    const { method, target, authority } = original;
    const { head, from } = asOriginal(exchange.head, origin, original);
    const isOwn = check.judges === "own";
    const match = isOwn
      ? matchAsked(asking, target)
      : this.router.matchAsSent(authority, method, target);
    const step = this.stepOf({ exchange, head, origin: from, match, check });
    if (match.kind === "refused") return this.ending.deny(step, match.reason);
    // A question about a question leads nowhere.
    const isLoop = !isOwn && match.kind === "route" && match.route.config.check !== null;
    if (match.kind === "none" || isLoop) return this.ending.deny(step, "no_route");
    const view = this.viewOf({ head, body: exchange.body }, from, match, !BODILESS.has(method));
    return this.judge(step, match.route, view, check);
  }

  private judge(
    step: Step,
    route: BuiltRoute,
    view: RequestView,
    check: CheckConfig,
  ): Later<Reply> {
    const admitted = this.admit(step, route, view);
    return admitted instanceof Promise
      ? admitted.then((settled) => this.letPass(step, route, check, settled))
      : this.letPass(step, route, check, admitted);
  }

  /** The last step of a question: what would be forwarded may pass, with every identity header. */
  private letPass(
    step: Step,
    route: BuiltRoute,
    check: CheckConfig,
    admitted: Allowed | Reply,
  ): Reply {
    if (!("identity" in admitted)) return admitted;
    const { identity } = admitted;
    const who = { strategy: admitted.strategy?.name ?? null, identity };
    if (check.judges === "original") {
      const { models, isProxied } = route.config;
      // The body, which says the model, stays with the proxy.
      if (models !== null) return this.ending.deny(step, "model_unreadable", who);
      const isForwarded = route.surface === null && (isProxied || route.upstream !== null);
      if (!isForwarded) return this.ending.deny(step, "no_upstream", who);
    }
    const decision = allowing(who);
    this.parts.audit.decision(step.facts, decision);
    const fields = route.passingFields(who.strategy, identity);
    const about = `Cache-Control: no-store\r\nX-Request-Id: ${step.origin.requestId}\r\n`;
    return this.ending.finish(
      step,
      decision,
      answer(check.allowStatus, about + fields, null),
      null,
    );
  }

  /** Something that must not happen did: closed, with a request id, and in the log. */
  fail(exchange: Exchange, origin: Origin, error: unknown): Reply {
    const match = { kind: "none", path: "-" } as const;
    const step = this.stepOf({ exchange, head: exchange.head, origin, match, check: null });
    this.parts.audit.fault(step.facts, "gateway", error);
    return this.ending.deny(step, "internal_fault");
  }

  private stepOf({ exchange, head, origin, match, check }: StepParts): Step {
    const route = match.kind === "route" ? match.route : null;
    const path = match.kind === "refused" ? splitTarget(head.target).path : match.path;
    const cors = route?.config.cors ?? null;
    return {
      exchange,
      origin,
      route,
      path,
      check: check?.proxy ?? null,
      corsFields: cors === null ? null : corsFields(cors, head.fields),
      facts: {
        requestId: origin.requestId,
        clientAddress: origin.clientAddress,
        method: head.method,
        host: origin.authority,
        path,
        route: route?.config.index ?? null,
        check: check?.proxy,
      },
    };
  }

  private viewOf(
    request: Pick<Exchange, "head" | "body">,
    origin: Origin,
    { path, query }: { readonly path: string; readonly query: string },
    isBodyElsewhere = false,
  ): RequestView {
    const { publicUrls } = this.parts.config.server;
    return new RequestView(request, origin, { path, query, publicUrls, isBodyElsewhere });
  }

  /** Who is it, and may they? A reply is a refusal. */
  private admit(step: Step, route: BuiltRoute, view: RequestView): Later<Allowed | Reply> {
    if (route.config.access === "public") return PUBLIC;
    const refusal = beforeAsking(view, route.config);
    if (refusal !== null) return this.ending.deny(step, refusal);
    const said = authenticate(route.strategies, view);
    return said instanceof Promise
      ? said.then((settled) => this.authorized(step, route, settled))
      : this.authorized(step, route, said);
  }

  private authorized(step: Step, route: BuiltRoute, said: Authentication): Allowed | Reply {
    if (said.kind === "accepted") {
      const denial = authorize(route.config, said.identity);
      if (denial === null) return said;
      return this.ending.deny(step, denial, {
        strategy: said.strategy.name,
        identity: said.identity,
      });
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
      return this.ending.deny(step, said.reason, {
        strategy: said.strategy,
        credentialId: said.credentialId,
      });
    }
    // A body that the client broke off is the client's fault, not the strategy's.
    if (said.error instanceof BodyReadError)
      return this.ending.deny(step, bodyReason(said.error.fault));
    this.parts.audit.fault(step.facts, `strategy ${said.strategy}`, said.error);
    return this.ending.deny(step, "strategy_fault", { strategy: said.strategy });
  }

  private serve(step: Step, route: BuiltRoute, view: RequestView, allowed: Allowed): Later<Reply> {
    const { upstream, config } = route;
    const who = { strategy: allowed.strategy?.name ?? null, identity: allowed.identity };
    if (upstream === null) return this.ending.deny(step, "no_upstream", who);
    const decision = allowing(who);
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
          : route.identityFields(allowed.strategy.name, allowed.identity),
      responseHeaders: config.responseHeaders,
      maxBodyBytes: config.maxBodyBytes,
      holdsChunked: config.holdsChunked,
      tellsClient: config.tellsClient,
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
      return this.ending.finish(
        step,
        { ...decision, reason: forwarded.reason },
        this.ending.refusal(step, forwarded.reason),
        upstream,
      );
    }
    return this.watched(
      this.ending.finish(step, decision, forwarded.reply, upstream),
      step,
      allowed,
    );
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
      if (answered.kind === "too_large") return this.ending.deny(step, "body_too_large", who);
      this.parts.audit.decision(step.facts, decision);
      return this.ending.finish(step, decision, answered.reply, null);
    } catch (error) {
      if (error instanceof BodyReadError)
        return this.ending.deny(step, bodyReason(error.fault), who);
      this.parts.audit.fault(step.facts, `surface ${surface.name}`, error);
      return this.ending.deny(step, "strategy_fault", who);
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
      return this.ending.deny(step, "model_unreadable");
    }
    try {
      const denial = await checkModel(view, models, route.modelSource);
      return denial === null ? null : this.ending.deny(step, denial);
    } catch (error) {
      if (error instanceof BodyReadError) return this.ending.deny(step, bodyReason(error.fault));
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
          this.ending.recordAccess(step, decision, 101, upstream.name, {
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
}

/** Requests of these have no body that anybody looks at. */
const BODILESS: ReadonlySet<string> = new Set(["GET", "HEAD", "OPTIONS"]);

function allowing({
  strategy,
  identity,
}: Pick<DecisionFacts, "strategy" | "identity">): DecisionFacts {
  return { decision: "allow", reason: null, strategy, identity, credentialId: null };
}
