/**
 * What upstreams mean: no loop back into this gateway, no secret in the file, no header that would break a request.
 *
 * Invariant: a header's resolved value is looked at and never shown.
 */
import { networkInterfaces } from "node:os";
import type { ConfigPath, Reporter } from "./issues.ts";
import type { ListenAddress, ServerConfig, UpstreamConfig } from "./model.ts";
import type { DocumentParts } from "./parts.ts";
import { hasReference, type ReferenceSources, resolveReferences } from "./references.ts";

/** RFC 9110 section 7.6.1 and what carries a message's own framing. */
const FRAMING_HEADERS = new Set([
  "connection",
  "content-length",
  "expect",
  "host",
  "keep-alive",
  "proxy-connection",
  "te",
  "trailer",
  "transfer-encoding",
  "upgrade",
]);

const SECRET_HEADER =
  /^(?:proxy-)?authorization$|^cookie$|^x-goog-api-key$|^(?:x-)?api-key$|token|secret|key|password/;

/** Whether a header belongs to the connection or the message's framing, so that no one may set it. */
export function isFramingHeader(name: string): boolean {
  return FRAMING_HEADERS.has(name.toLowerCase());
}

/** Names and values of `upstreams.*.headers`. */
export function checkUpstreamHeaders(
  parts: DocumentParts,
  sources: ReferenceSources,
  report: Reporter,
): void {
  for (const [name, part] of parts.upstreams) {
    const seen = new Set<string>();
    for (const [header, value] of Object.entries(part?.headers ?? {})) {
      const path = ["upstreams", name, "headers", header];
      const lower = header.toLowerCase();
      if (seen.has(lower)) report.addKey(path, "this header is set twice", "remove one");
      seen.add(lower);
      if (isFramingHeader(lower)) {
        const hint = lower === "host" ? "see the key `host` of the upstream" : "remove it";
        report.addKey(path, "this header belongs to the connection and cannot be set", hint);
      } else {
        checkHeaderValue(lower, value, path, { sources, report });
      }
    }
  }
}

interface ValueContext {
  readonly sources: ReferenceSources;
  readonly report: Reporter;
}

function checkHeaderValue(
  name: string,
  value: string,
  path: ConfigPath,
  { sources, report }: ValueContext,
): void {
  if (SECRET_HEADER.test(name) && !hasReference(value)) {
    const wanted = name === "authorization" ? '"Bearer ${env:API_KEY}"' : '"${env:API_KEY}"';
    report.add(path, "a secret is not written into this file", `write a reference: ${wanted}`);
    return;
  }
  const resolved = resolveReferences(value, sources);
  if ("problem" in resolved) {
    report.add(path, resolved.problem, "provide it, or remove this header");
  } else if (/[^\t\x20-\x7e\x80-\xff]/.test(resolved.value)) {
    // RFC 9110 section 5.5; a line break would be a second header.
    report.add(
      path,
      "the value has characters that a header cannot carry",
      "is there a line break?",
    );
  }
}

/** Reports upstreams that are this gateway itself: every request would go round until something gives in. */
export function checkLoops(
  upstreams: readonly (UpstreamConfig | null)[],
  server: ServerConfig | null,
  report: Reporter,
): void {
  if (server === null) return;
  for (const upstream of upstreams) {
    if (upstream === null) continue;
    const path = ["upstreams", upstream.name, "url"];
    const hint = "name the service behind this gateway";
    if (server.listen.some((listen) => reaches(upstream.target, listen))) {
      report.add(path, "this is where the gateway itself listens", hint);
    } else if (server.publicUrls.includes(originOf(upstream))) {
      report.add(path, "this is the gateway's own public_url", hint);
    }
  }
}

function reaches(target: UpstreamConfig["target"], listen: ListenAddress): boolean {
  if (target.kind === "unix" || listen.kind === "unix") {
    return target.kind === "unix" && listen.kind === "unix" && target.path === listen.path;
  }
  if (target.port !== listen.port) return false;
  const [to, at] = [addressOf(target.host), addressOf(listen.host)];
  if (to === at) return true;
  return isAny(listen.host) && (to.startsWith("127.") || localAddresses().has(to));
}

/** One name for this machine's loopback; connecting to the any-address ends there as well. */
function addressOf(host: string): string {
  const isLoopback = host === "localhost" || host.endsWith(".localhost") || host === "::1";
  return isLoopback || isAny(host) ? "127.0.0.1" : host;
}

function isAny(host: string): boolean {
  return host === "0.0.0.0" || host === "::";
}

/** Empty where a sandbox does not let the addresses be listed: `config validate` outside of it sees them. */
function localAddresses(): ReadonlySet<string> {
  try {
    const all = Object.values(networkInterfaces()).flatMap((list) => list ?? []);
    return new Set(all.map(({ address }) => address));
  } catch {
    return new Set();
  }
}

function originOf({ target, authority }: UpstreamConfig): string {
  return target.kind === "unix" ? "" : `${target.tls ? "https" : "http"}://${authority}`;
}
