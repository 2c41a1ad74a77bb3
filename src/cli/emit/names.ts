/**
 * Header names that a client must not get through a proxy to the application, for proxies that know prefixes and
 * for those that only know names.
 *
 * Invariant: what src/headers.ts drops for our own upstreams is the source; a namespace there that has no members
 * here fails a test.
 */
import { WITHHELD } from "../../headers.ts";

/** Names of a namespace that software in the wild believes, for proxies that cannot strip by prefix. */
const MEMBERS: Readonly<Record<string, readonly string[]>> = {
  "x-gatehouse-": ["identity", "strategy", "name", "role", "owner", "scopes"],
  "x-forwarded-": [
    "for",
    "proto",
    "host",
    "uri",
    "method",
    "prefix",
    "path",
    "port",
    "server",
    "scheme",
    "ssl",
    "user",
    "groups",
    "email",
    "preferred-username",
    "access-token",
  ],
  "x-original-": ["url", "uri", "method", "host", "for", "proto", "forwarded-for"],
  "x-auth-request-": ["user", "email", "groups", "preferred-username", "access-token", "redirect"],
  "x-consumer-": ["id", "custom-id", "username", "groups"],
};

/** Words about the original request that only the gateway's other dialects use; it refuses a question with them. */
export const FOREIGN_WORDS = [
  "x-forwarded-method",
  "x-forwarded-uri",
  "x-original-method",
  "x-original-url",
  "x-original-uri",
  "x-rewrite-url",
  "x-envoy-original-path",
  "x-envoy-original-method",
] as const;

/** Beginnings of names, each with a `-` at its end. */
export const PREFIXES: readonly string[] = WITHHELD.prefixes;

/** Names that are in none of the namespaces. */
export const NAMES: readonly string[] = [
  ...WITHHELD.names,
  ...FOREIGN_WORDS.filter((word) => !PREFIXES.some((prefix) => word.startsWith(prefix))),
].filter((name, index, all) => all.indexOf(name) === index);

/** @throws TypeError for a namespace that nobody wrote members for */
export function membersOf(prefix: string): readonly string[] {
  const members = MEMBERS[prefix];
  if (members === undefined) throw new TypeError(`no members are known of ${prefix}`);
  return members.map((member) => prefix + member);
}

/** Every name, for proxies that know no prefixes. @param except what is set anyway, lower case */
export function strippedNames(except: readonly string[]): readonly string[] {
  return [...NAMES, ...PREFIXES.flatMap(membersOf)].filter((name) => !except.includes(name));
}

/** As people write it: `X-Original-URL`. */
export function shown(name: string): string {
  const word = (text: string): string =>
    ["url", "uri", "ip", "cf"].includes(text)
      ? text.toUpperCase()
      : text.charAt(0).toUpperCase() + text.slice(1);
  return name.split("-").map(word).join("-");
}
