/**
 * What is attacked: the one host of a URL, and whether that may be done without asking.
 *
 * Invariant: pure but for one look-up of the name; nothing but this host and, where asked for, other ports of it is ever
 * connected to.
 */
import { lookup } from "node:dns/promises";
import { isIP } from "node:net";
import { EXIT, errorCode, OperatorError } from "../../errors.ts";
import { reachOf } from "../doctor/networks.ts";
import { canonicalAddress, ownAddresses } from "../doctor/proc-net.ts";

/** Where requests go. */
export interface Target {
  readonly isTls: boolean;
  /** Name or address without brackets. */
  readonly host: string;
  readonly port: number;
  /** For the Host header. */
  readonly authority: string;
  /** `https://host:port`, for people. */
  readonly origin: string;
  /** The path of the URL, `/` when it has none. */
  readonly path: string;
  /** What the name stands for, one spelling each. */
  readonly addresses: readonly string[];
  /** Every address is loopback, private or this machine's own. */
  readonly isNear: boolean;
}

/** @throws OperatorError with EXIT.usage for a URL that cannot be meant, EXIT.unavailable for a name that is none */
export async function readTarget(text: string): Promise<Target> {
  const url = URL.parse(text);
  if (url === null || !/^https?:$/.test(url.protocol)) {
    throw new OperatorError(EXIT.usage, "--probe takes an http:// or https:// URL");
  }
  if (url.username !== "" || url.password !== "") {
    throw new OperatorError(
      EXIT.usage,
      "the URL holds a credential, which the shell's history and the process list keep",
      "Leave it out; give a token with --token-env NAME or --token-file FILE.",
    );
  }
  const isTls = url.protocol === "https:";
  const host = url.hostname.replace(/^\[|\]$/g, "");
  const addresses = await addressesOf(host);
  const own = ownAddresses();
  return {
    isTls,
    host,
    port: url.port === "" ? (isTls ? 443 : 80) : Number(url.port),
    authority: url.host,
    origin: url.origin,
    path: url.pathname,
    addresses,
    isNear: addresses.every((one) => reachOf(one) !== "public" || own.has(one)),
  };
}

async function addressesOf(host: string): Promise<readonly string[]> {
  if (isIP(host) !== 0) return [canonicalAddress(host)];
  try {
    const found = await lookup(host, { all: true });
    return found.map(({ address }) => canonicalAddress(address));
  } catch (error) {
    throw new OperatorError(
      EXIT.unavailable,
      `${host} cannot be found (${errorCode(error) ?? "no address"})`,
      "Is it spelled right, and does this machine have a name server?",
    );
  }
}
