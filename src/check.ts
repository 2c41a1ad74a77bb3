/**
 * Forward-auth: a reverse proxy asks about a request that it holds. What was the request, and which answers does
 * that proxy understand?
 *
 * Invariant: pure. A question counts only if it says everything about the original request, once, in that proxy's
 * words and in nobody else's: whatever is missing, said twice, or said in another proxy's words was perhaps said by
 * the client, and is refused.
 */
import type { CheckProxy, IdentityHeaderNames, RouteConfig } from "./config/model.ts";
import type { Identity } from "./contract/outcome.ts";
import { headerText, identityFacts } from "./headers.ts";
import { type Fields, lowerCase, onlyValue } from "./wire/fields.ts";
import { isRequestLine, type RequestHead } from "./wire/head.ts";

/** The request that the proxy holds. */
export interface Original {
  readonly method: string;
  readonly scheme: "http" | "https";
  /** Host with optional port, lower case. */
  readonly authority: string;
  /** Path and query as the proxy got them. */
  readonly target: string;
}

/** Everything of the question that says something about the original. */
const DIALECTS = {
  forwarded: ["x-forwarded-method", "x-forwarded-uri"],
  original: ["x-original-method", "x-original-url", "x-original-uri"],
} as const;

/** Names that other software gives to the same facts; nobody whom we know asks with them. */
const STRANGERS = ["x-rewrite-url", "x-envoy-original-path", "x-envoy-original-method"];

type Words = keyof typeof DIALECTS | "start line";

const FOREIGN: Readonly<Record<Words, readonly string[]>> = {
  forwarded: [...DIALECTS.original, ...STRANGERS],
  original: [...DIALECTS.forwarded, ...STRANGERS],
  "start line": [...DIALECTS.forwarded, ...DIALECTS.original, ...STRANGERS],
};

const WORDS: Readonly<Record<CheckProxy, Words>> = {
  traefik: "forwarded",
  caddy: "forwarded",
  generic: "forwarded",
  nginx: "original",
  envoy: "start line",
};

/** Whether the question names an original request in any proxy's words. */
export function namesOriginal({ lower }: Fields): boolean {
  return [...DIALECTS.forwarded, ...DIALECTS.original].some((name) => lower.includes(name));
}

/**
 * Reads the original request. `null` when the question does not say it in so many words.
 * @param patterns the route's paths; for envoy what follows their `/**` is the original path
 * @param isSecure whether the question came over TLS, where the proxy does not say what the original used
 */
export function readOriginal(
  proxy: CheckProxy,
  head: RequestHead,
  patterns: readonly string[],
  isSecure: boolean,
): Original | null {
  const words = WORDS[proxy];
  for (const name of FOREIGN[words]) if (head.fields.lower.includes(name)) return null;
  if (words === "start line") return fromStartLine(head, patterns, isSecure);
  return words === "original" ? fromOriginalUrl(head, isSecure) : fromForwarded(head.fields);
}

/** Traefik, Caddy, HAProxy, APISIX: `X-Forwarded-Method`, `-Proto`, `-Host`, `-Uri`. */
function fromForwarded(fields: Fields): Original | null {
  return checked({
    method: only(fields, "x-forwarded-method"),
    scheme: schemeOf(only(fields, "x-forwarded-proto")),
    authority: only(fields, "x-forwarded-host"),
    target: only(fields, "x-forwarded-uri"),
  });
}

/** nginx: `X-Original-Method` with `X-Original-URL`, or with `X-Original-URI` and the Host passed on. */
function fromOriginalUrl({ fields, authority }: RequestHead, isSecure: boolean): Original | null {
  const method = only(fields, "x-original-method");
  const hasUri = fields.lower.includes("x-original-uri");
  if (!fields.lower.includes("x-original-url")) {
    if (!hasUri) return null;
    const scheme = schemeOrOwn(fields, isSecure);
    return checked({ method, scheme, authority, target: only(fields, "x-original-uri") });
  }
  // Two opinions about one path.
  if (hasUri) return null;
  const parts = /^(https?):\/\/([^/?#]+)(\/.*)$/s.exec(only(fields, "x-original-url") ?? "");
  return checked({
    method,
    scheme: schemeOf(parts?.[1] ?? null),
    authority: parts?.[2] ?? null,
    target: parts?.[3] ?? null,
  });
}

/** Envoy sends the original's method and Host, and its path behind a prefix. */
function fromStartLine(
  { method, authority, target, fields }: RequestHead,
  patterns: readonly string[],
  isSecure: boolean,
): Original | null {
  const prefixes = patterns.map((pattern) => pattern.replace(/\/\*\*$/, ""));
  const prefix = prefixes.find((one) => target.startsWith(`${one}/`));
  if (prefix === undefined) return null;
  const scheme = schemeOrOwn(fields, isSecure);
  return checked({ method, scheme, authority, target: target.slice(prefix.length) });
}

function checked(parts: {
  readonly method: string | null;
  readonly scheme: Original["scheme"] | null;
  readonly authority: string | null;
  readonly target: string | null;
}): Original | null {
  const { method, scheme, target } = parts;
  const authority = lowerCase(parts.authority ?? "");
  if (method === null || scheme === null || target === null) return null;
  return isRequestLine(method, target, authority) ? { method, scheme, authority, target } : null;
}

/** The value of the one line with this name; `null` when there is none or more than one. */
function only(fields: Fields, name: string): string | null {
  return onlyValue(fields, name) ?? null;
}

/** Traefik says `ws` and `wss` of a WebSocket handshake. */
function schemeOf(text: string | null): Original["scheme"] | null {
  const lower = lowerCase(text ?? "");
  if (lower === "http" || lower === "ws") return "http";
  return lower === "https" || lower === "wss" ? "https" : null;
}

function schemeOrOwn(fields: Fields, isSecure: boolean): Original["scheme"] | null {
  if (!fields.lower.includes("x-forwarded-proto")) return isSecure ? "https" : "http";
  return schemeOf(only(fields, "x-forwarded-proto"));
}

/**
 * What of a refusal a proxy can pass on. nginx makes 500 of everything but 401 and 403 (a fault may as well be one), and
 * before 1.23 it keeps one line of WWW-Authenticate.
 */
export function checkAnswer(
  proxy: CheckProxy,
  status: number,
): { readonly status: number; readonly hasOneChallengeLine: boolean } {
  const isNginx = proxy === "nginx";
  const isKnown = !isNginx || status === 401 || status >= 500;
  return { status: isKnown ? status : 403, hasOneChallengeLine: isNginx };
}

/** Names of headers that carry identities anywhere in a config, lower case, each once. */
export function identityHeaderNames(
  routes: readonly Pick<RouteConfig, "identityHeaders" | "attributeHeaders">[],
): readonly string[] {
  const names = routes.flatMap(({ identityHeaders, attributeHeaders }) => [
    ...Object.values(identityHeaders as Readonly<Record<string, string>>),
    ...attributeHeaders.map(([name]) => name),
  ]);
  return [...new Set(names)];
}

/** What the proxy copies to the request that it lets pass. */
export interface Passing {
  /** The route that was judged by. */
  readonly route: Pick<RouteConfig, "identityHeaders" | "attributeHeaders">;
  /** Every name that the proxy may be told to copy. */
  readonly names: readonly string[];
  readonly strategy: string | null;
  readonly identity: Identity | null;
}

/** Every identity header, empty when its fact is unknown, so that a copy overwrites what the client sent. */
export function passingFields({ route, names, strategy, identity }: Passing): string {
  const values = new Map(names.map((name) => [name, ""]));
  if (identity !== null && strategy !== null) {
    const facts = identityFacts(strategy, identity);
    for (const fact of Object.keys(facts) as (keyof IdentityHeaderNames)[]) {
      const name = route.identityHeaders[fact];
      if (name !== undefined) values.set(name, headerText(facts[fact]));
    }
    for (const [name, attribute] of route.attributeHeaders) {
      values.set(name, headerText(identity.attributes?.[attribute] ?? ""));
    }
  }
  return [...values].map(([name, value]) => `${name}: ${value}\r\n`).join("");
}
