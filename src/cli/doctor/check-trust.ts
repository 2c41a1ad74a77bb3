/**
 * Who is believed: trusted proxies, and the questions of proxies.
 *
 * Invariant: pure, on the configuration alone.
 */
import type { GatewayConfig } from "../../config/model.ts";
import { type Finding, info, ok, someOf, warning } from "./finding.ts";
import { isLoopbackHost, isPrivateNetwork } from "./networks.ts";
import { needingConfig } from "./subject.ts";

/** Half the private networks that people have are smaller. */
const WIDE_BITS = 16;

export const checkTrust = needingConfig("Trust", "who is trusted", (config) => [
  ...proxyFindings(config),
  ...questionFindings(config),
]);

function proxyFindings({ server }: GatewayConfig): readonly Finding[] {
  const networks = server.trustedProxies.flatMap((peer) =>
    peer.kind === "cidr" ? [peer.text] : [],
  );
  const open = networks.filter((text) => !isPrivateNetwork(text) && !isOneHost(text));
  const wide = networks.filter(
    (text) => isPrivateNetwork(text) && bitsOf(text) < WIDE_BITS && !text.includes(":"),
  );
  const findings: Finding[] = [];
  if (open.length > 0) {
    findings.push(
      warning("proxies_public", `server.trusted_proxies names public networks: ${someOf(open)}`, {
        why: "Everybody with an address in there can say who the client is, by which name and scheme he came, and ask for forward-auth.",
        next: "name the addresses of your own proxies; for a CDN, close the port to everybody else in the firewall",
      }),
    );
  }
  if (wide.length > 0) {
    findings.push(
      info("proxies_wide", `server.trusted_proxies is wider than one network: ${someOf(wide)}`, {
        why: "Every machine and container in it is believed about who the client is.",
        next: "name the addresses of your proxies alone",
      }),
    );
  }
  if (findings.length > 0 || networks.length === 0) return findings;
  return [ok("proxies_narrow", `trusted proxies: ${someOf(networks)}`)];
}

/** Only a proxy should be able to ask; whoever else does, chooses the request that is asked about. */
function questionFindings({ routes, server }: GatewayConfig): readonly Finding[] {
  const asked = routes.filter(({ check }) => check !== null);
  const open = server.listen.filter((one) => one.kind === "tcp" && !isLoopbackHost(one.host));
  if (asked.length === 0 || open.length === 0) return [];
  const where = someOf(open.map((one) => (one.kind === "tcp" ? `${one.host}:${one.port}` : "")));
  const paths = someOf(asked.flatMap((route) => route.paths));
  return [
    warning(
      "check_route_public",
      `${paths} answers proxies' questions and is reachable on ${where}`,
      {
        why: "Whoever reaches it can try credentials there; a generic route tells everybody whether one is good.",
        next: "let the proxy ask on a loopback address or a unix socket: add one to `server.listen` and close the port to others",
      },
    ),
  ];
}

function bitsOf(cidr: string): number {
  return Number(cidr.split("/")[1]);
}

function isOneHost(cidr: string): boolean {
  return bitsOf(cidr) === (cidr.includes(":") ? 128 : 32);
}
