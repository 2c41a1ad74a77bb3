/**
 * The snippet for Traefik: a dynamic configuration, or the same middlewares as Docker labels.
 *
 * Invariant: both are made from one object, so they cannot disagree.
 */

import { stringify } from "yaml";
import { EXIT, OperatorError } from "../../errors.ts";
import { hostPort } from "../../host-port.ts";
import type { Address, Facts } from "./facts.ts";
import { FOREIGN_WORDS, membersOf, NAMES, PREFIXES, shown } from "./names.ts";

/** Set by Traefik's entry point, in place of what a client says. */
const OWN = [
  "x-forwarded-for",
  "x-forwarded-proto",
  "x-forwarded-host",
  "x-forwarded-port",
  "x-forwarded-server",
  "x-real-ip",
];

/** What Traefik gets to read, without comments. */
type Middlewares = Readonly<Record<string, Readonly<Record<string, unknown>>>>;

/** A file for Traefik's file provider. */
export function traefikSnippet(facts: Facts): string {
  const { hosts, upstream, notes } = facts;
  const rule = hosts.map((host) => `Host(\`${host}\`)`).join(" || ");
  return `# Gatehouse decides, Traefik 2.11.9, 3.1.3 or newer forwards: older ones let a client remove headers by naming them in
# Connection. Made by \`gatehouse emit traefik\`; \`--labels\` prints the middlewares as Docker labels.
# Put this where the file provider looks. Entry points: no forwardedHeaders.insecure, and from Traefik 3.7.12
# on http.aliasHeadersStrategy: delete.
${notes.map((note) => `# Note: ${note}\n`).join("")}http:
  routers:
    app:
      rule: ${rule}
      entryPoints: [websecure]
      tls: {}  # and your certResolver
      # First in the list: whatever changes the path before it is judged after the change.
      middlewares: [gatehouse]
      service: app
  services:
    app:
      loadBalancer:
        servers:
          - url: ${addressText(upstream)}  # your application
  middlewares:
${middlewareText(facts)}`;
}

/** Lines of a Docker Compose file's \`labels\`. */
export function traefikLabels(facts: Facts): string {
  return flattened(middlewares(facts), "traefik.http.middlewares")
    .map(([key, value]) => `      - ${JSON.stringify(`${key}=${value}`.replaceAll("$", "$$$$"))}\n`)
    .join("");
}

const COMMENTS: Readonly<Record<string, string>> = {
  gatehouse: "What routers name.",
  "gatehouse-words":
    "Words about a request that are not Traefik's; the gateway refuses to answer a question that has them.",
  "gatehouse-ask":
    "The question: method, host and path are Traefik's own word, not the client's. The body stays here (forwardBody\nand maxBodySize are left out: the gateway does not look into it), and every header goes along, because strategies\nread them (no authRequestHeaders). What the regex matches is removed from the request, then taken from the answer.",
  "gatehouse-credentials":
    "Credentials were for the gateway; the application must not see them, on public paths either.",
};

function middlewareText(facts: Facts): string {
  return Object.entries(middlewares(facts))
    .map(([name, value]) => {
      const comment = (COMMENTS[name] ?? "").replaceAll(/^/gm, "# ");
      return `${comment}\n${stringify({ [name]: value }, { lineWidth: 0 })}`;
    })
    .join("")
    .replaceAll(/^(?=.)/gm, "    ");
}

function middlewares({ path, gateway, copied, credentials }: Facts): Middlewares {
  const removed = (names: readonly string[]) => ({
    headers: { customRequestHeaders: Object.fromEntries(names.map((name) => [shown(name), ""])) },
  });
  const ask = {
    address: addressText(gateway) + path,
    trustForwardHeader: false,
    authResponseHeaders: [...copied, "x-request-id"].map(shown),
    authResponseHeadersRegex: withheldPattern(copied),
  };
  const steps = ["gatehouse-words", "gatehouse-ask"];
  if (credentials.length > 0) steps.push("gatehouse-credentials");
  return {
    gatehouse: { chain: { middlewares: steps } },
    "gatehouse-words": removed([...FOREIGN_WORDS, "x-request-id"]),
    "gatehouse-ask": { forwardAuth: ask },
    ...(credentials.length > 0 ? { "gatehouse-credentials": removed(credentials) } : {}),
  };
}

/** Names that Traefik removes before it copies from the answer; any sign but `-` in a name is reason enough. */
function withheldPattern(copied: readonly string[]): string {
  const whole = PREFIXES.filter((prefix) => !OWN.some((name) => name.startsWith(prefix)));
  const partly = PREFIXES.filter((prefix) => !whole.includes(prefix)).flatMap(membersOf);
  const names = [...NAMES, ...partly, ...copied].filter((name) => !OWN.includes(name));
  const exact = [...new Set(names)].filter((name) => !whole.some((one) => name.startsWith(one)));
  return `(?i)[^a-z0-9-]|^(${whole.join("|")})|^(${exact.join("|")})$`;
}

function addressText(address: Address): string {
  if (address.kind === "unix") {
    throw new OperatorError(
      EXIT.usage,
      "Traefik asks and forwards over TCP only",
      "give server.listen a host:port too, and name it with --gateway http://HOST:PORT",
    );
  }
  return `${address.tls ? "https" : "http"}://${hostPort(address.host, address.port)}`;
}

function flattened(value: unknown, key: string): [string, string][] {
  if (Array.isArray(value)) return [[key, value.join(",")]];
  if (typeof value !== "object" || value === null) return [[key, String(value)]];
  return Object.entries(value).flatMap(([name, part]) => flattened(part, `${key}.${name}`));
}
