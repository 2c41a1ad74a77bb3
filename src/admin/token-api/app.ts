/**
 * The token API over HTTP: from a request to an action and back.
 *
 * Invariant: who asks is known before a body is read, and admins' endpoints are closed to others before anything is said
 * about their subject. What a store throws leaves here as it is, for the gateway to answer 503.
 */
import { OpenAPIHono } from "@hono/zod-openapi";
import type { Context } from "hono";
import { HTTPException } from "hono/http-exception";
import type { SurfaceCaller } from "../../contract/plugin.ts";
import type { IssuedToken } from "../../contract/tokens.ts";
import { Problem, problemAnswer } from "../answers.ts";
import { pathWithin } from "../mount.ts";
import {
  type ActionParts,
  type Call,
  createToken,
  listTokens,
  revokeToken,
  rotateToken,
  showToken,
  type Whose,
} from "./actions.ts";
import { askerOf, mustBeAdmin, mustOwn, type Strategies } from "./asker.ts";
import { describeIssues } from "./issues.ts";
import { pageHeaders, storeQuery } from "./paging.ts";
import { issuedJson, tokenJson } from "./records.ts";
import { ROUTES } from "./routes.ts";
import type { ListQuery, Rotation } from "./schemas.ts";

/** What it needs. */
export interface AppParts extends ActionParts {
  readonly strategies: Strategies;
  /** Where it is mounted. */
  readonly bases: readonly string[];
}

interface Env {
  readonly Bindings: { readonly caller: SurfaceCaller };
  readonly Variables: { readonly call: Call };
}

type AppContext = Context<Env>;

/** How many tokens of everybody's are in a page when nobody says. */
const DEFAULT_LIMIT = 100;

/** The API as a function. It rejects with what the store throws. */
export function tokenApp(
  parts: AppParts,
): (request: Request, caller: SurfaceCaller) => Response | Promise<Response> {
  const app = new OpenAPIHono<Env>({
    // Percent-encoded as it is: an encoded slash is part of a subject.
    getPath: (request) => pathWithin(new URL(request.url).pathname, parts.bases) ?? "/",
    defaultHook: (result) => {
      if (!result.success)
        throw new Problem("invalid_request", describeIssues(result.error.issues));
    },
  });
  app.notFound((c) => problemAnswer(missing(c.req.method, c.req.path), c.env.caller.requestId));
  app.onError((error, c) => {
    if (error instanceof Problem) return problemAnswer(error, c.env.caller.requestId);
    // Of the library, about a body; `strictJson` should have been first.
    if (!(error instanceof HTTPException)) throw error;
    const reason = error.status === 415 ? "unsupported_media_type" : "malformed_json";
    return problemAnswer(new Problem(reason), c.env.caller.requestId);
  });
  for (const path of ["/me/*", "/users/*", "/tokens", "/tokens/*"]) {
    app.use(path, async (c, next) => {
      if (allowedMethods(c.req.path).includes(c.req.method)) identify(c, parts);
      await next();
    });
  }
  addOwn(app);
  addOfUser(app);
  addOfAll(app);
  return (request, caller) => app.fetch(request, { caller });
}

/** @throws Problem when nobody asks, or somebody who may not */
function identify(c: AppContext, parts: AppParts): void {
  const { caller } = c.env;
  const { tokens, clock, log, strategy } = parts;
  const asker = askerOf(caller, parts.strategies);
  if (!c.req.path.startsWith("/me/")) mustBeAdmin(asker);
  const { requestId, clientAddress } = caller;
  c.set("call", { tokens, clock, log, strategy, asker, requestId, clientAddress });
}

function addOwn(app: OpenAPIHono<Env>): void {
  const ownerOf = (c: AppContext) => mustOwn(c.var.call.asker);
  app.openapi(ROUTES.listOwn, (c) => list(c, ownerOf(c), c.req.valid("query")));
  app.openapi(ROUTES.createOwn, async (c) => {
    return created(c, await createToken(c.var.call, ownerOf(c), c.req.valid("json")));
  });
  app.openapi(ROUTES.showOwn, (c) => show(c, ownerOf(c), c.req.valid("param").id));
  app.openapi(ROUTES.rotateOwn, (c) => {
    return rotate(c, { whose: ownerOf(c), id: c.req.valid("param").id }, c.req.valid("json"));
  });
  app.openapi(ROUTES.revokeOwn, (c) => revoke(c, ownerOf(c), c.req.valid("param").id));
}

function addOfUser(app: OpenAPIHono<Env>): void {
  app.openapi(ROUTES.listOfUser, (c) => {
    return list(c, c.req.valid("param").sub.trim(), c.req.valid("query"));
  });
  app.openapi(ROUTES.createForUser, async (c) => {
    const owner = c.req.valid("param").sub.trim();
    return created(c, await createToken(c.var.call, owner, c.req.valid("json")));
  });
  app.openapi(ROUTES.showOfUser, (c) => {
    const { sub, id } = c.req.valid("param");
    return show(c, sub.trim(), id);
  });
  app.openapi(ROUTES.rotateOfUser, (c) => {
    const { sub, id } = c.req.valid("param");
    return rotate(c, { whose: sub.trim(), id }, c.req.valid("json"));
  });
  app.openapi(ROUTES.revokeOfUser, (c) => {
    const { sub, id } = c.req.valid("param");
    return revoke(c, sub.trim(), id);
  });
}

function addOfAll(app: OpenAPIHono<Env>): void {
  app.openapi(ROUTES.listAll, (c) => {
    const query = c.req.valid("query");
    return list(c, query.sub ?? null, { ...query, limit: query.limit ?? DEFAULT_LIMIT });
  });
  app.openapi(ROUTES.createForAny, async (c) => {
    const { sub, ...draft } = c.req.valid("json");
    return created(c, await createToken(c.var.call, sub.trim(), draft));
  });
  app.openapi(ROUTES.show, (c) => show(c, null, c.req.valid("param").id));
  app.openapi(ROUTES.rotate, (c) => {
    return rotate(c, { whose: null, id: c.req.valid("param").id }, c.req.valid("json"));
  });
  app.openapi(ROUTES.revoke, (c) => revoke(c, null, c.req.valid("param").id));
}

async function list(c: AppContext, whose: Whose, query: ListQuery) {
  const { call } = c.var;
  const { limit = null } = query;
  const { records, total } = await listTokens(call, whose, storeQuery(query, limit));
  const shown = limit === null ? records : records.slice(0, limit);
  const last = shown.length < records.length ? shown.at(-1) : undefined;
  const nowMs = call.clock.nowMs();
  const body = shown.map((record) => tokenJson(record, nowMs));
  return c.json(body, 200, pageHeaders(total, last, query));
}

function created(c: AppContext, issued: IssuedToken) {
  const location = `tokens/${encodeURIComponent(issued.record.id)}`;
  return c.json(issuedJson(issued, c.var.call.clock.nowMs()), 201, { location });
}

async function show(c: AppContext, whose: Whose, id: string) {
  const record = await showToken(c.var.call, whose, id);
  return c.json(tokenJson(record, c.var.call.clock.nowMs()), 200);
}

async function rotate(
  c: AppContext,
  wanted: { readonly whose: Whose; readonly id: string },
  { grace }: Rotation,
) {
  const issued = await rotateToken(c.var.call, wanted, grace);
  return c.json(issuedJson(issued, c.var.call.clock.nowMs()), 200);
}

async function revoke(c: AppContext, whose: Whose, id: string) {
  await revokeToken(c.var.call, whose, id);
  return c.body(null, 204);
}

const OPERATIONS = Object.values(ROUTES).map(({ method, path }) => ({
  method: method.toUpperCase(),
  form: new RegExp(`^${path.replace(/\{\w+\}/g, "[^/]+")}$`),
}));

/** What may be done at a path; nothing where there is none of ours. */
function allowedMethods(path: string): string[] {
  return OPERATIONS.filter(({ form }) => form.test(path)).map(({ method }) => method);
}

function missing(method: string, path: string): Problem {
  const allowed = allowedMethods(path);
  if (allowed.length === 0 || allowed.includes(method)) return new Problem("no_route");
  const all = allowed.includes("GET") ? ["HEAD", ...allowed] : allowed;
  return new Problem("method_not_allowed", undefined, { allow: all.sort().join(", ") });
}
