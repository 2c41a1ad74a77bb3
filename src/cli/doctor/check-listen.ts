/**
 * The addresses of the gateway: who listens there now, and could the gateway.
 *
 * Invariant: nothing is bound; a gateway that runs is asked for its liveness and nothing else.
 */

import { existsSync, statSync } from "node:fs";
import { dirname } from "node:path";
import type { GatewayConfig, ListenAddress } from "../../config/model.ts";
import { hostPort } from "../../host-port.ts";
import { askHealth } from "../healthcheck.ts";
import { error, type Finding, info, ok, warning } from "./finding.ts";
import { isLoopbackHost, reachOf } from "./networks.ts";
import {
  canonicalAddress,
  type Listener,
  listeners,
  ownAddresses,
  ownerOf,
  textOf,
} from "./proc-net.ts";
import { needingConfig, type Subject } from "./subject.ts";

type TcpAddress = Extract<ListenAddress, { kind: "tcp" }>;

/** capabilities(7): CAP_NET_BIND_SERVICE. */
const BIND_SERVICE = 10n;
const USUAL_FIRST_PORT = 1024;

export const checkListen = needingConfig("Listeners", "the listeners", async (config, subject) => {
  const all = await Promise.all(
    config.server.listen.map((address) =>
      address.kind === "unix"
        ? unixFindings(address, config)
        : tcpFindings(address, config, subject),
    ),
  );
  return all.flat();
});

async function tcpFindings(
  address: TcpAddress,
  config: GatewayConfig,
  subject: Subject,
): Promise<readonly Finding[]> {
  const where = placeText(address);
  if (address.port === 0)
    return [info("listen_any_port", `${where} takes a port that is free at each start`)];
  const absent = absentAddress(address);
  // Whoever answers there is another machine.
  if (absent.length > 0) return absent;
  const holder = (listeners() ?? []).find((one) => meets(address, one));
  const { healthPath, tls } = config.server;
  const health = await askHealth(address, healthPath ?? "/", tls.length > 0);
  const isAlive = healthPath === null ? health.status !== null : health.status === 200;
  const owner = holder === undefined ? null : ownerOf(holder.inode);
  const who = owner === null ? "" : ` (${owner.name}, process ${owner.pid})`;
  if (isAlive) return [ok("gateway_alive", `a gateway answers on ${where}${who}`)];
  if (holder !== undefined || health.status !== null) {
    return [
      error("port_taken", `another program listens on ${where}${who}`, {
        why: "The gateway cannot start, or it is the gateway and does not answer.",
        next: `see who it is with \`sudo ss -ltnp sport = :${address.port}\`; stop it, or choose another \`server.listen\``,
      }),
    ];
  }
  return [
    info("gateway_not_running", `nothing listens on ${where}: the gateway is not running`),
    ...lowPort(address, subject),
  ];
}

/** Whether the two could not be bound beside each other. */
function meets({ host, port }: TcpAddress, listener: Listener): boolean {
  if (listener.port !== port) return false;
  const own = host === "localhost" ? "127.0.0.1" : canonicalAddress(host);
  if (own === listener.address) return true;
  const isSameFamily = own.includes(":") === listener.address.includes(":");
  const isWide = reachOf(own) === "wildcard" || reachOf(listener.address) === "wildcard";
  // A socket on :: usually takes IPv4 as well.
  return isWide && (isSameFamily || listener.address === "::" || own === "::");
}

function absentAddress({ host }: TcpAddress): readonly Finding[] {
  const address = canonicalAddress(host);
  const isAddress = /^[\d.]+$/.test(address) || address.includes(":");
  if (!isAddress || reachOf(address) === "wildcard" || isLoopbackHost(address)) return [];
  if (ownAddresses().has(address)) return [];
  return [
    error("listen_foreign_address", `${host} is no address of this machine`, {
      why: "The gateway cannot listen there.",
      next: "`ip address` shows those that there are; 0.0.0.0 stands for all of them",
    }),
  ];
}

function lowPort({ port }: TcpAddress, { unit }: Subject): readonly Finding[] {
  const first = Number(textOf("/proc/sys/net/ipv4/ip_unprivileged_port_start") ?? USUAL_FIRST_PORT);
  if (port >= first || process.platform !== "linux") return [];
  if (unit !== null) {
    if (/^AmbientCapabilities=.*CAP_NET_BIND_SERVICE/m.test(unit.found.text)) return [];
    return [
      error("port_not_allowed", `${unit.name}.service may not listen on port ${port}`, {
        why: "Ports below 1024 need a capability, which its unit does not give.",
        next: "`gatehouse service install` again: it gives the capability when the configuration needs it",
      }),
    ];
  }
  if (hasCapability()) return [];
  return [
    warning("port_not_allowed", `this user may not listen on port ${port}`, {
      why: "Ports below 1024 need root or a capability.",
      next: "`gatehouse service install` gives it to the service alone; or choose a higher port",
    }),
  ];
}

function hasCapability(): boolean {
  const effective = /^CapEff:\s*([0-9a-f]+)$/m.exec(textOf("/proc/self/status") ?? "")?.[1] ?? "0";
  return ((BigInt(`0x${effective}`) >> BIND_SERVICE) & 1n) === 1n;
}

async function unixFindings(
  address: Extract<ListenAddress, { kind: "unix" }>,
  config: GatewayConfig,
): Promise<readonly Finding[]> {
  const { path } = address;
  if (!existsSync(dirname(path))) {
    return [
      error(
        "socket_no_directory",
        `${dirname(path)} is not there, so no socket can be made in it`,
        {
          why: "The gateway does not start. (The service makes a directory of its own below /run.)",
          next: `\`install -d -m 750 ${dirname(path)}\`, owned by the user that runs the gateway`,
        },
      ),
    ];
  }
  if (!existsSync(path))
    return [
      info("gateway_not_running", `nothing listens on unix:${path}: the gateway is not running`),
    ];
  if (!statSync(path).isSocket()) {
    return [
      error("socket_not_one", `${path} is there and is no socket`, {
        why: "The gateway does not start, because it removes nobody's file.",
        next: "move it away, or choose another `server.listen`",
      }),
    ];
  }
  const { status, problem } = await askHealth(address, config.server.healthPath ?? "/", false);
  if (status !== null) return [ok("gateway_alive", `a gateway answers on unix:${path}`)];
  return [
    info("socket_silent", `unix:${path} is there and nobody answers (${problem})`, {
      why: "A process that was killed leaves it behind; the next start removes it.",
    }),
  ];
}

function placeText({ host, port }: TcpAddress): string {
  return hostPort(host, port);
}
