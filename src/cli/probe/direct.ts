/**
 * The way around: the ports of the upstreams, on the host of the URL.
 *
 * Invariant: connects to ports that the configuration names and to no others, on this host alone, and sends nothing but
 * one GET without a credential.
 */
import type { GatewayConfig, UpstreamConfig } from "../../config/model.ts";
import { error, type Finding, info, ok, someOf } from "../doctor/finding.ts";
import { isLoopbackHost } from "../doctor/networks.ts";
import { canonicalAddress } from "../doctor/proc-net.ts";
import type { Target } from "./target.ts";
import { exchange, isOpen } from "./wire.ts";

const WITHIN_MS = 3000;

/** Never rejects. */
export async function checkDirect(
  target: Target,
  config: GatewayConfig | null,
): Promise<readonly Finding[]> {
  if (config === null) {
    return [
      info("direct_not_tried", "whether upstreams can be reached past the gateway was not tried", {
        next: "give the configuration, which names their ports: `-c FILE`",
      }),
    ];
  }
  const others = config.upstreams.filter((upstream) => isWorthTrying(upstream, target));
  const open: string[] = [];
  for (const { name, target: at } of others) {
    if (at.kind === "unix" || !(await isOpen(target.host, at.port, WITHIN_MS))) continue;
    open.push(
      `${name} on port ${at.port}${await spoken({ ...target, port: at.port, isTls: at.tls })}`,
    );
  }
  if (open.length > 0) {
    return [
      error("upstream_direct", `reached past the gateway on ${target.host}: ${someOf(open)}`, {
        why: "Whoever finds the port needs no credential at all.",
        next: "let it listen on 127.0.0.1, or close the port; `gatehouse doctor` on that machine says which program it is",
      }),
    ];
  }
  if (others.length === 0) {
    return [
      info(
        "direct_not_tried",
        "the upstreams' own addresses are those of the URL, so their ports say nothing from here",
      ),
    ];
  }
  return [ok("upstream_not_direct", `no upstream's port is open on ${target.host}`)];
}

/** On the very address that the gateway uses there is nothing to learn; nor on the gateway's own port. */
function isWorthTrying({ target: at }: UpstreamConfig, target: Target): boolean {
  if (at.kind === "unix" || at.port === target.port) return false;
  const own = canonicalAddress(at.host);
  if (target.addresses.includes(own)) return false;
  const isBothLocalhost = isLoopbackHost(target.host) && at.host === "localhost";
  return !isBothLocalhost;
}

async function spoken(target: Target): Promise<string> {
  const bytes = `GET / HTTP/1.1\r\nHost: ${target.host}\r\nConnection: close\r\n\r\n`;
  const { answers } = await exchange(target, { bytes, methods: ["GET"], withinMs: WITHIN_MS });
  const [answer] = answers;
  return answer === undefined ? "" : ` (it answers ${answer.status})`;
}
