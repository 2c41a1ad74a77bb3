/**
 * Where the gateway will listen, under which address clients reach it, and whether that can be.
 *
 * Invariant: only looks; a port that is free is tried by listening there for a moment. Names are looked up with a
 * deadline.
 */

import { lookup } from "node:dns/promises";
import { listenText, parseListen } from "../../config/address.ts";
import type { ListenAddress } from "../../config/model.ts";
import { EXIT, errorCode, errorMessage, OperatorError } from "../../errors.ts";
import { hostPort } from "../../host-port.ts";
import { reachOf } from "../doctor/networks.ts";
import { ownAddresses } from "../doctor/proc-net.ts";
import { holderOf } from "./scan.ts";

const LOOKUP_MS = 5000;
/** How many ports above the wanted one are tried. */
const NEXT_PORTS = 40;

/** @throws OperatorError with EXIT.usage */
export function checkedListen(text: string): ListenAddress {
  const parsed = parseListen(text);
  if ("value" in parsed) return parsed.value;
  throw new OperatorError(EXIT.usage, `--listen: ${parsed.problem}`, parsed.hint);
}

/** Null when one can listen there; otherwise why not. */
export function listenProblem(address: ListenAddress): OperatorError | null {
  if (address.kind === "unix") return null;
  const { host, port } = address;
  const code = tryListen(host, port);
  if (code === null) return null;
  const where = listenText(address);
  if (code === "EADDRINUSE") {
    const owner = holderOf(port);
    const who = owner === null ? "another program" : `${owner.name} (process ${owner.pid})`;
    const free = nextFree(host, port);
    const other =
      free === null ? "another port" : `--listen ${listenText({ ...address, port: free })}`;
    return new OperatorError(
      EXIT.unavailable,
      `${where} is taken by ${who}`,
      `Stop it, or choose ${other}.`,
    );
  }
  if (code === "EACCES") {
    const hint = "Choose a port of 1024 or above, or run it with sudo.";
    return new OperatorError(EXIT.permission, `this user may not listen on ${where}`, hint);
  }
  return new OperatorError(
    EXIT.usage,
    `nobody can listen on ${where}: ${code}`,
    "Name an address of this machine, such as 127.0.0.1:8008.",
  );
}

/** The port itself when it is free, else the next that is; null when there is none near. */
export function nextFree(host: string, port: number): number | null {
  for (let at = port; at < Math.min(port + NEXT_PORTS, 65_536); at++) {
    if (tryListen(host, at) === null) return at;
  }
  return null;
}

/** A port that nobody has; it is written down, so that it stays the same. */
export function freePort(host: string): number {
  const listener = Bun.listen({ hostname: host, port: 0, socket: { data() {} } });
  const { port } = listener;
  listener.stop(true);
  return port;
}

function tryListen(hostname: string, port: number): string | null {
  try {
    Bun.listen({ hostname, port, exclusive: true, socket: { data() {} } }).stop(true);
    return null;
  } catch (error) {
    return errorCode(error) ?? errorMessage(error);
  }
}

/** Null when the name leads somewhere; otherwise why not. */
export async function domainProblem(domain: string): Promise<OperatorError | null> {
  if (!/^(?=.{1,253}$)[a-z0-9-]+(?:\.[a-z0-9-]+)*$/i.test(domain)) {
    return new OperatorError(EXIT.usage, "--domain: expected a host name such as llm.example.com");
  }
  const { promise, resolve } = Promise.withResolvers<OperatorError | null>();
  const unknown = (why: string): OperatorError =>
    new OperatorError(
      EXIT.unavailable,
      `the name ${domain} does not lead anywhere (${why})`,
      "Make an A or AAAA record for it that names this machine, or go on with --offline.",
    );
  const timer = setTimeout(
    () => resolve(unknown(`no answer within ${LOOKUP_MS / 1000} s`)),
    LOOKUP_MS,
  );
  lookup(domain).then(
    () => resolve(null),
    (error) => resolve(unknown(errorCode(error) ?? errorMessage(error))),
  );
  return promise.finally(() => clearTimeout(timer));
}

/** Whether only this machine can connect there. */
export function isLoopback(address: ListenAddress): boolean {
  if (address.kind === "unix") return true;
  return address.host === "localhost" || reachOf(address.host) === "loopback";
}

/** Origin under which this machine reaches a listener. */
export function localOrigin(address: ListenAddress, isTls: boolean): string {
  if (address.kind === "unix") return `unix:${address.path}`;
  const host = { "0.0.0.0": "127.0.0.1", "::": "::1" }[address.host] ?? address.host;
  return `${isTls ? "https" : "http"}://${hostPort(host, address.port)}`;
}

/** Origin under which clients reach a listener, as far as it can be known. */
export function clientOrigin(
  address: ListenAddress,
  { domain, isTls }: { readonly domain: string | null; readonly isTls: boolean },
): string {
  if (address.kind === "unix" || (domain === null && reachOf(address.host) !== "wildcard")) {
    return localOrigin(address, isTls);
  }
  const usual = isTls ? 443 : 80;
  const port = address.port === usual ? "" : `:${address.port}`;
  return `${isTls ? "https" : "http"}://${domain ?? networkAddress(address.host)}${port}`;
}

/** An address of this machine that others may reach; public ones first. */
function networkAddress(wildcard: string): string {
  const isSix = wildcard === "::";
  const rank = { public: 0, private: 1, loopback: 2, wildcard: 3 } as const;
  const [best] = [...ownAddresses()]
    .filter((one) => one.includes(":") === isSix && !one.startsWith("fe80"))
    .toSorted((a, b) => rank[reachOf(a)] - rank[reachOf(b)]);
  if (best === undefined) return isSix ? "[::1]" : "127.0.0.1";
  return isSix ? `[${best}]` : best;
}
