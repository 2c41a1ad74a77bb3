/**
 * Which addresses everybody can reach, and which only neighbours or this machine.
 *
 * Invariant: an address that is not known to be private is public.
 */
import { BlockList, isIP } from "node:net";

/** `wildcard`: every address of the machine. */
export type Reach = "loopback" | "private" | "public" | "wildcard";

/** RFC 1122, 4291. */
const LOOPBACK = blockList(["127.0.0.0/8", "::1/128"]);
/** RFC 1918, 3927, 4193, 4291, 6598. */
const PRIVATE_NETWORKS = [
  "10.0.0.0/8",
  "172.16.0.0/12",
  "192.168.0.0/16",
  "169.254.0.0/16",
  "100.64.0.0/10",
  "fc00::/7",
  "fe80::/10",
];
const PRIVATE = blockList(PRIVATE_NETWORKS);

/** Of an IP address. */
export function reachOf(address: string): Reach {
  if (address === "0.0.0.0" || address === "::") return "wildcard";
  if (isIn(LOOPBACK, address)) return "loopback";
  return isIn(PRIVATE, address) ? "private" : "public";
}

/** Whether every address of a network `address/bits` is private or loopback. */
export function isPrivateNetwork(cidr: string): boolean {
  const [address = "", bits = ""] = cidr.split("/");
  return [...PRIVATE_NETWORKS, "127.0.0.0/8", "::1/128"].some((outer) => {
    const [network = "", width = ""] = outer.split("/");
    const isSameFamily = isIP(network) === isIP(address);
    return isSameFamily && Number(bits) >= Number(width) && isIn(blockList([outer]), address);
  });
}

/** Whether a host name can only mean this machine. */
export function isLoopbackHost(host: string): boolean {
  const plain = host.toLowerCase().replace(/\.$/, "");
  return plain === "localhost" || plain.endsWith(".localhost") || reachOf(plain) === "loopback";
}

function isIn(list: BlockList, address: string): boolean {
  const version = isIP(address);
  return version !== 0 && list.check(address, version === 6 ? "ipv6" : "ipv4");
}

function blockList(cidrs: readonly string[]): BlockList {
  const list = new BlockList();
  for (const cidr of cidrs) {
    const [network = "", bits = ""] = cidr.split("/");
    list.addSubnet(network, Number(bits), isIP(network) === 6 ? "ipv6" : "ipv4");
  }
  return list;
}
