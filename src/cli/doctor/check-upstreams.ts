/**
 * Upstreams: do they answer, is the way to them safe, and can they be reached past the gateway.
 *
 * Invariant: no credential is sent; only sockets of this machine are looked at, nobody's ports are tried.
 */

import type { GatewayConfig, UpstreamConfig } from "../../config/model.ts";
import { hostPort } from "../../host-port.ts";
import { bindAdvice } from "./bind-advice.ts";
import { error, type Finding, info, ok, warning } from "./finding.ts";
import { isLoopbackHost, reachOf } from "./networks.ts";
import type { AskedUpstream } from "./outside.ts";
import { canonicalAddress, type Listener, listeners, ownAddresses, ownerOf } from "./proc-net.ts";
import { needingConfig } from "./subject.ts";

export const checkUpstreams = needingConfig(
  "Upstreams",
  "the upstreams",
  async (config, subject) => {
    const asked = await subject.upstreams();
    const listening = listeners();
    const findings = asked.flatMap((one) => [
      reachFinding(one),
      ...plainFindings(one.upstream),
      ...(listening === null ? [] : exposureFindings(one.upstream, listening, config)),
    ]);
    if (listening !== null || asked.length === 0) return findings;
    return [
      ...findings,
      info(
        "exposure_unknown",
        "whether upstreams can be reached past the gateway cannot be told on this system",
        {
          next: "from another machine: `gatehouse doctor --probe URL -c FILE`",
        },
      ),
    ];
  },
);

function reachFinding({ upstream, reached }: AskedUpstream): Finding {
  const { name } = upstream;
  const place = placeText(upstream);
  if (reached.tlsProblem !== null) {
    return error(
      "upstream_tls",
      `${name} (${place}): its certificate is not trusted (${reached.tlsProblem})`,
      {
        why: "The gateway does not talk to it: every request to it is answered 502.",
        next: `name the certificates to trust in \`upstreams.${name}.ca\`, or renew the certificate`,
      },
    );
  }
  if (!reached.isReached) {
    return error(
      "upstream_unreachable",
      `${name} (${place}) cannot be reached: ${reached.problem}`,
      {
        why: "Every request to it is answered 502 or 504.",
        next: `start it, or correct \`upstreams.${name}.url\``,
      },
    );
  }
  return ok("upstream_answers", `${name} answers at ${place}`);
}

/** Over a network that others share, in clear. */
function plainFindings({ name, target, headers }: UpstreamConfig): readonly Finding[] {
  if (target.kind === "unix" || target.tls || !isElsewhere(target.host)) return [];
  const also = headers.length === 0 ? "" : `, with the headers of \`upstreams.${name}.headers\``;
  return [
    warning("upstream_plain", `${name} is reached over the internet without TLS`, {
      why: `Requests and answers cross it in clear${also}.`,
      next: `use https:// in \`upstreams.${name}.url\`, or a tunnel (WireGuard, ssh)`,
    }),
  ];
}

/** A name may stand for anything, also for a container beside us; an address that is public does not. */
function isElsewhere(host: string): boolean {
  const isAddress = /^[\d.]+$/.test(host) || host.includes(":");
  return (
    isAddress &&
    reachOf(canonicalAddress(host)) === "public" &&
    !ownAddresses().has(canonicalAddress(host))
  );
}

/** An upstream of this machine that also listens where others come by. */
function exposureFindings(
  upstream: UpstreamConfig,
  listening: readonly Listener[],
  config: GatewayConfig,
): readonly Finding[] {
  const { target } = upstream;
  if (target.kind === "unix" || !isHere(target.host)) return [];
  const there = listening.filter((one) => one.port === target.port && !isOurs(one, config));
  if (there.length === 0) return [];
  const [worst] = there.toSorted((a, b) => RANK[reachOf(b.address)] - RANK[reachOf(a.address)]);
  if (worst === undefined || reachOf(worst.address) === "loopback") {
    return [ok("upstream_hidden", `${upstream.name} listens on no address but this machine's own`)];
  }
  return [exposure(upstream, worst)];
}

const RANK = { loopback: 0, private: 1, public: 2, wildcard: 3 } as const;

function exposure({ name }: UpstreamConfig, listener: Listener): Finding {
  const { address, port, inode } = listener;
  const owner = ownerOf(inode);
  const who = owner === null ? "" : ` by ${owner.name} (process ${owner.pid})`;
  const where = hostPort(address, port);
  const next = bindAdvice(owner, port);
  if (reachOf(address) === "private") {
    return warning(
      "upstream_exposed",
      `${name} listens on ${where}${who}: neighbours reach it past the gateway`,
      {
        why: "Whoever is in that network uses it without any credential.",
        next,
      },
    );
  }
  return error(
    "upstream_exposed",
    `${name} listens on ${where}${who}: it can be reached past the gateway`,
    {
      why: "Unless a firewall closes the port, everybody uses it without any credential; the gateway guards nothing.",
      next,
    },
  );
}

function isHere(host: string): boolean {
  return isLoopbackHost(host) || ownAddresses().has(canonicalAddress(host));
}

/** A gateway may have the same port on another address. */
function isOurs({ address, port }: Listener, { server }: GatewayConfig): boolean {
  return server.listen.some(
    (one) => one.kind === "tcp" && one.port === port && canonicalAddress(one.host) === address,
  );
}

function placeText({ target }: UpstreamConfig): string {
  if (target.kind === "unix") return `unix:${target.path}`;
  return `${target.tls ? "https" : "http"}://${hostPort(target.host, target.port)}`;
}
