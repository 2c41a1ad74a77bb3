/**
 * Whether what is guarded can be reached past the gateway.
 *
 * Invariant: only looks at the sockets of this machine; nobody's ports are tried from here.
 */

import { parseUpstreamUrl } from "../../config/address.ts";
import { hostPort } from "../../host-port.ts";
import { bindAdvice } from "../doctor/bind-advice.ts";
import { error, type Finding, info, ok, warning } from "../doctor/finding.ts";
import { isLoopbackHost, type Reach, reachOf } from "../doctor/networks.ts";
import {
  canonicalAddress,
  type Listener,
  type OwnerProcess,
  ownAddresses,
  ownerOf,
} from "../doctor/proc-net.ts";
import type { Guarded } from "./upstreams.ts";

const RANK: Readonly<Record<Reach, number>> = { loopback: 0, private: 1, public: 2, wildcard: 3 };

/** One finding for an upstream. @param listening null where the kernel does not say who listens */
export function exposureOf(upstream: Guarded, listening: readonly Listener[] | null): Finding {
  const { name, url, system } = upstream;
  const parsed = parseUpstreamUrl(url);
  const target = "value" in parsed ? parsed.value.target : null;
  if (target === null || target.kind === "unix") {
    return ok("upstream_hidden", `${name} listens on a socket of this machine alone`);
  }
  const host = canonicalAddress(target.host);
  if (!isLoopbackHost(host) && !ownAddresses().has(host)) return elsewhere(upstream);
  if (listening === null) {
    return info(
      "exposure_unknown",
      `whether ${name} can be reached past the gateway is not known here`,
      {
        next: `from another machine: curl http://THIS-MACHINE:${target.port}/`,
      },
    );
  }
  const [worst] = listening
    .filter(({ port, address }) => port === target.port && reachOf(address) !== "loopback")
    .toSorted((a, b) => RANK[reachOf(b.address)] - RANK[reachOf(a.address)]);
  if (worst === undefined) {
    return ok("upstream_hidden", `${name} listens on this machine alone, not past the gateway`);
  }
  return exposed(name, worst, adviceFor(system.id, ownerOf(worst.inode), worst.port));
}

function elsewhere({ name, url, system, preset }: Guarded): Finding {
  // A vendor has its own gate.
  if (preset.usual?.key?.isOptional === false && url.startsWith("https:")) {
    return ok(
      "upstream_elsewhere",
      `${system.title} has a gate of its own; clients never see its key`,
    );
  }
  return info("upstream_elsewhere", `${name} is on another machine (${url})`, {
    why: "Whether others reach it past the gateway cannot be seen from here.",
    next: "let its firewall accept this machine alone",
  });
}

function exposed(name: string, { address, port }: Listener, next: string): Finding {
  const where = hostPort(address, port);
  const what = `${name} listens on ${where}: it can be reached past the gateway, without a token`;
  const reach = worstReach(reachOf(address));
  if (reach !== "public") {
    return warning("upstream_exposed", what, {
      why: "Whoever is in a network of this machine uses it without any credential.",
      next,
    });
  }
  return error("upstream_exposed", what, {
    why: "Unless a firewall closes the port, everybody uses it without any credential.",
    next,
  });
}

/** Every address of the machine is as open as the most open one. */
function worstReach(reach: Reach): Reach {
  if (reach !== "wildcard") return reach;
  const own = [...ownAddresses()].map(reachOf);
  return own.includes("public") ? "public" : "private";
}

/** A program that is started by another (Python, Node) is known by what it answered. */
function adviceFor(id: string, owner: OwnerProcess | null, port: number): string {
  if (owner?.name === "docker-proxy") return bindAdvice(owner, port);
  const known = ADVICE[id];
  if (known !== undefined) return known(port);
  return bindAdvice(owner === null ? null : { ...owner, argv: [...owner.argv] }, port);
}

const LOOPBACK = "127.0.0.1";
const byName = (name: string) => (port: number) => bindAdvice({ pid: 0, name, argv: [] }, port);

/** From each program's own documentation. */
const ADVICE: Readonly<Record<string, (port: number) => string>> = {
  ollama: byName("ollama"),
  vllm: byName("vllm"),
  "llama-cpp": byName("llama-server"),
  "lm-studio": byName("lmstudio"),
  "open-webui": byName("open-webui"),
  anvil: (port) =>
    `bind it to ${LOOPBACK}; in its compose file: ROUTER_PUBLISH=${LOOPBACK} (port ${port})`,
  authsome: () => `start it with AUTHSOME_HOST=${LOOPBACK}`,
  dexto: (port) =>
    `it has no switch for that: close the port (sudo ufw deny ${port}/tcp), or publish its container with -p ${LOOPBACK}:${port}:${port}`,
};
