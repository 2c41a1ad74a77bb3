/**
 * Which header lines of a request reach the upstream, and which of its answer reach the client.
 *
 * Invariant: fields named in Connection go first, then everything in our namespaces in every spelling, and only
 * then are ours set; so no client can send, keep or remove one of them (RFC 9110 section 7.6.1, and the CVEs listed
 * in the threat model).
 */
import type { IdentityHeaderNames, RouteConfig } from "./config/model.ts";
import { type Identity, isSettled } from "./contract/outcome.ts";
import type { Origin } from "./request-view.ts";
import { type Fields, listMembers } from "./wire/fields.ts";

/** RFC 9110 section 7.6.1, and what belongs to one connection by other specifications. */
const HOP_BY_HOP = [
  "connection",
  "keep-alive",
  "proxy-connection",
  "proxy-authenticate",
  "proxy-authorization",
  "te",
  "trailer",
  "transfer-encoding",
  "upgrade",
  "http2-settings",
];

/** Set anew for each hop, or consumed by us. */
const REBUILT = ["host", "content-length", "expect", "x-request-id"];

/** Facts about the client that only a proxy may state; upstreams believe some of them. */
const CLIENT_FACTS = [
  "forwarded",
  "x-real-ip",
  "x-client-ip",
  "x-cluster-client-ip",
  "true-client-ip",
  "cf-connecting-ip",
  "fastly-client-ip",
];

/** They change what the upstream serves behind a decision taken on the path and method. */
const REROUTING = ["x-rewrite-url", "x-http-method", "x-http-method-override", "x-method-override"];

/** Names that upstreams take as proof of identity, whoever set them. */
const COMMON_IDENTITY = [
  "remote-user",
  "remote-name",
  "remote-groups",
  "remote-email",
  "x-remote-user",
  "x-remote-groups",
  "x-webauth-user",
  "x-authenticated-user",
];

/** Whole namespaces that are ours, or a proxy's: of forwarding, of rerouting, of identity. */
const OWN_PREFIXES = [
  "x-gatehouse-",
  "x-forwarded-",
  "x-original-",
  "x-auth-request-",
  "x-consumer-",
];

/** What no client may tell an upstream, for the configuration of proxies that forward in our place. */
export const WITHHELD = {
  names: [...CLIENT_FACTS, ...REROUTING, ...COMMON_IDENTITY],
  prefixes: OWN_PREFIXES,
} as const;

const CORS_ANSWER_PREFIX = "access-control-";

/** A lower-case header name to whether a client may send it to an upstream. */
export type RequestFilter = (lower: string) => boolean;

/**
 * The filter for a config: identity headers of all its routes are dropped on every route, public ones included.
 * A name with `_` never passes, because CGI-like backends read it as `-`. Some read every other sign in the same
 * way (lighttpd: `x.gatehouse.name` is X_GATEHOUSE_NAME), so names are compared as such a backend sees them.
 */
export function requestFilter(routes: readonly RouteConfig[]): RequestFilter {
  const dropped = new Set([
    ...HOP_BY_HOP,
    ...REBUILT,
    ...CLIENT_FACTS,
    ...REROUTING,
    ...COMMON_IDENTITY,
    ...routes.flatMap((route) => identityNames(route).map(cgiName)),
  ]);
  const judged = routes.flatMap((route) => route.models?.header ?? []);
  const judgedNames = new Set(judged.map(cgiName));
  const known = new Map<string, boolean>();
  return (lower) => {
    const cached = known.get(lower);
    if (cached !== undefined) return cached;
    const name = cgiName(lower);
    const passes =
      !lower.includes("_") &&
      !dropped.has(name) &&
      // A header that a policy looks at passes in the spelling that was looked at.
      (!judgedNames.has(name) || judged.includes(lower)) &&
      !OWN_PREFIXES.some((prefix) => name.startsWith(prefix));
    if (known.size < 1024) known.set(lower, passes);
    return passes;
  };
}

/** A lower-case name as a backend sees it that knows letters, digits and one separator. */
function cgiName(lower: string): string {
  return lower.replace(/[^a-z0-9]/g, "-");
}

function identityNames(route: IdentityHeaders): string[] {
  const facts: readonly unknown[] = Object.values(route.identityHeaders);
  return [
    ...facts.filter((name) => typeof name === "string"),
    ...route.attributeHeaders.map(([name]) => name),
  ];
}

/** The client's lines that pass, serialised. @param removed credentials and injected names, lower case */
export function passedFields(
  fields: Fields,
  filter: RequestFilter,
  removed: ReadonlySet<string>,
): string {
  const listed = fields.lower.includes("connection") ? listMembers(fields, "connection") : null;
  let text = "";
  for (let i = 0; i < fields.lower.length; i++) {
    const lower = fields.lower[i] ?? "";
    if (!filter(lower) || listed?.includes(lower)) continue;
    if (removed.size > 0 && (removed.has(lower) || removed.has(cgiName(lower)))) continue;
    text += `${fields.raw[i]}: ${fields.values[i]}\r\n`;
  }
  return text;
}

/** `X-Forwarded-*` for the upstream: our peer's word is passed on only when the peer is trusted. */
export function forwardedFields(origin: Origin, fields: Fields, peerAddress: string): string {
  const earlier = origin.isPeerTrusted ? listMembers(fields, "x-forwarded-for") : [];
  const chain = [...earlier, peerAddress].filter((address) => address !== "").join(", ");
  const who = chain === "" ? "" : `X-Forwarded-For: ${chain}\r\n`;
  const host = origin.authority === "" ? "" : `X-Forwarded-Host: ${origin.authority}\r\n`;
  return `${who}X-Forwarded-Proto: ${origin.scheme}\r\n${host}X-Request-Id: ${origin.requestId}\r\n`;
}

/** What of a route says which headers tell who was proven. */
type IdentityHeaders = Pick<RouteConfig, "identityHeaders" | "attributeHeaders">;

/** The identity headers of a route. An attribute that the identity lacks is not sent; other facts that it lacks are sent empty, so that a copy overwrites. */
export function identityFields(
  route: IdentityHeaders,
  strategy: string,
  identity: Identity,
): string {
  const names = route.identityHeaders;
  const facts = identityFacts(strategy, identity);
  let text = "";
  for (const fact of FACTS) {
    const name = names[fact];
    if (name !== undefined) text += `${name}: ${headerText(facts[fact])}\r\n`;
  }
  for (const [name, attribute] of route.attributeHeaders) {
    const value = identity.attributes?.[attribute];
    if (value !== undefined) text += `${name}: ${headerText(value)}\r\n`;
  }
  return text;
}

/** What can be told about an identity; empty when it is unknown. */
export function identityFacts(
  strategy: string,
  identity: Identity,
): Readonly<Record<keyof IdentityHeaderNames, string>> {
  return {
    identity: identity.id,
    strategy,
    name: identity.name ?? "",
    role: identity.role ?? "user",
    owner: identity.owner ?? "",
    scopes: identity.scopes?.join(" ") ?? "",
  };
}

const FACTS = ["identity", "strategy", "name", "role", "owner", "scopes"] as const;

/**
 * Header lines that follow from strategy and identity alone, worked out once for each identity that cannot change.
 * @param make gives the lines
 */
export function remembered(
  make: (strategy: string, identity: Identity) => string,
): (strategy: string, identity: Identity) => string {
  const known = new WeakMap<Identity, { readonly strategy: string; readonly text: string }>();
  return (strategy, identity) => {
    const earlier = known.get(identity);
    if (earlier?.strategy === strategy) return earlier.text;
    const text = make(strategy, identity);
    if (isSettled(identity)) known.set(identity, { strategy, text });
    return text;
  };
}

/**
 * Visible ASCII as it is; everything else, and `%`, percent-encoded as UTF-8, so that a name cannot break a line. So is a
 * blank at an end, which no header can carry there: " alice" must not become "alice".
 */
export function headerText(value: string): string {
  if (PLAIN_VALUE.test(value)) return value;
  const bytes = Buffer.from(value, "utf8");
  let text = "";
  bytes.forEach((byte, index) => {
    const isInside = byte !== 0x20 || (index > 0 && index < bytes.length - 1);
    const isPlain = byte >= 0x20 && byte <= 0x7e && byte !== 0x25 && isInside;
    text += isPlain
      ? String.fromCharCode(byte)
      : `%${byte.toString(16).toUpperCase().padStart(2, "0")}`;
  });
  return text;
}

const PLAIN_VALUE = /^(?:[\x21-\x24\x26-\x7e](?:[\x20-\x24\x26-\x7e]*[\x21-\x24\x26-\x7e])?)?$/;

/** How an upstream's header lines are copied to the client. */
export interface ResponseCopy {
  /** Keep Content-Length: the reply has no body of its own (HEAD, 304). */
  readonly keepsLength: boolean;
  /** The route sets its own CORS fields. */
  readonly dropsCors: boolean;
  /** Set over what the upstream sent. */
  readonly set: readonly (readonly [string, string])[];
}

const RESPONSE_DROPPED = new Set([...HOP_BY_HOP, "content-length"]);

/** The upstream's lines that pass, serialised, and whether it gave a request id of its own. */
export function responseFields(
  fields: Fields,
  copy: ResponseCopy,
): { text: string; hasRequestId: boolean } {
  const listed = fields.lower.includes("connection") ? listMembers(fields, "connection") : null;
  let text = "";
  let hasRequestId = false;
  for (let i = 0; i < fields.lower.length; i++) {
    const lower = fields.lower[i] ?? "";
    if (!isCopied(lower, copy) || listed?.includes(lower)) continue;
    if (lower === "x-request-id") hasRequestId = true;
    text += `${fields.raw[i]}: ${fields.values[i]}\r\n`;
  }
  for (const [name, value] of copy.set) text += `${name}: ${value}\r\n`;
  return { text, hasRequestId };
}

function isCopied(lower: string, { keepsLength, dropsCors, set }: ResponseCopy): boolean {
  if (RESPONSE_DROPPED.has(lower)) return keepsLength && lower === "content-length";
  if (lower.startsWith("x-gatehouse-")) return false;
  if (dropsCors && lower.startsWith(CORS_ANSWER_PREFIX)) return false;
  return !set.some(([name]) => name.toLowerCase() === lower);
}
