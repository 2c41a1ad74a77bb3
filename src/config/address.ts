/**
 * Addresses as people write them in the config: listeners, upstream URLs, origins, host patterns, networks.
 *
 * Invariant: each parser accepts one unambiguous spelling of a thing and never repeats user info in a message.
 */

import { BlockList, isIP } from "node:net";
import { hostPort } from "../host-port.ts";
import type { ListenAddress, TrustedPeer, UpstreamConfig } from "./model.ts";

/** A value, or what is wrong with the text and what to do. */
export type Parsed<Value> =
  | { readonly value: Value }
  | { readonly problem: string; readonly hint?: string };

/** sockaddr_un.sun_path with its NUL (unix(7)); macOS has four less. */
const MAX_SOCKET_PATH_BYTES = 103;
const HOST_NAME =
  /^(?=.{1,253}$)[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?(?:\.[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?)*$/;

/** `host:port`, `[v6]:port`, `:port` (every IPv4 address) or `unix:/path`. Port 0 takes a free one. */
export function parseListen(text: string): Parsed<ListenAddress> {
  if (text.startsWith("unix:")) return parseSocket(text);
  const form = "expected host:port, [ipv6]:port, :port or unix:/path";
  if (/^https?:/i.test(text)) return { problem: form, hint: "leave out the scheme" };
  if (/^\d+$/.test(text)) return { problem: form, hint: `write 127.0.0.1:${text}` };
  const match = /^(?:\[([^\]]*)\]|([^:[\]]*)):(\d{1,5})$/.exec(text);
  const port = Number(match?.[3]);
  if (match === null || port > 65_535) return { problem: form };
  if (match[1] !== undefined) {
    return isIP(match[1]) === 6
      ? { value: { kind: "tcp", host: match[1].toLowerCase(), port } }
      : { problem: "expected an IPv6 address between the brackets" };
  }
  const host = (match[2] ?? "").toLowerCase();
  if (host === "" || host === "*") return { value: { kind: "tcp", host: "0.0.0.0", port } };
  return isHost(host)
    ? { value: { kind: "tcp", host, port } }
    : { problem: "expected a host name or an IPv4 address before the port" };
}

/** Absolute socket path after `unix:`. */
function parseSocket(text: string): Parsed<{ readonly kind: "unix"; readonly path: string }> {
  const path = text.slice("unix:".length);
  if (!path.startsWith("/") || path.startsWith("//") || /[\0-\x1f\x7f]/.test(path)) {
    return {
      problem: "expected an absolute path after unix:",
      hint: "for instance unix:/run/app.sock",
    };
  }
  return Buffer.byteLength(path) > MAX_SOCKET_PATH_BYTES
    ? { problem: `expected a socket path of at most ${MAX_SOCKET_PATH_BYTES} bytes` }
    : { value: { kind: "unix", path } };
}

/** Where an upstream is, out of its URL. */
export type UpstreamAddress = Pick<UpstreamConfig, "target" | "authority" | "basePath">;

/** `http://host:port/base`, `https://host`, `unix:/path`. */
export function parseUpstreamUrl(text: string): Parsed<UpstreamAddress> {
  if (text.startsWith("unix:")) {
    const socket = parseSocket(text);
    if ("problem" in socket) return socket;
    return { value: { target: socket.value, authority: "localhost", basePath: "" } };
  }
  const parts = parseHttpUrl(text);
  if ("problem" in parts) return parts;
  const { url, path } = parts.value;
  if (/\/\/|\/\.{1,2}(?:\/|$)/.test(path) || !/^[A-Za-z0-9._~!$&'()*+,;=:@%/-]*$/.test(path)) {
    return { problem: "expected a base path without //, . or .. segments and special characters" };
  }
  const tls = url.protocol === "https:";
  const port = url.port === "" ? (tls ? 443 : 80) : Number(url.port);
  const host = url.hostname.replace(/^\[|\]$/g, "");
  const target = { kind: "tcp", tls, host, port } as const;
  return { value: { target, authority: url.host, basePath: path.replace(/\/$/, "") } };
}

/** An origin such as `https://llm.example.com`, without trailing slash. */
export function parseOrigin(text: string): Parsed<string> {
  const parts = parseHttpUrl(text);
  if ("problem" in parts) return parts;
  return parts.value.path === "" || parts.value.path === "/"
    ? { value: parts.value.url.origin }
    : {
        problem: "expected an origin without a path",
        hint: "for instance https://llm.example.com",
      };
}

/**
 * The URL parser mends what it does not like (back slashes, tabs, missing slashes, `..`), so the form is checked
 * on the text and only the host is left to it.
 */
function parseHttpUrl(text: string): Parsed<{ readonly url: URL; readonly path: string }> {
  const form = "expected http://host:port or https://host";
  const match = /^(https?):\/\/([^/?#\\\s]+)([^?#\\\s]*)$/i.exec(text);
  if (match === null) {
    if (/^https?:\/\/[^?#]*[?#]/i.test(text)) {
      return { problem: "a query or fragment cannot be part of it", hint: "leave it out" };
    }
    const isBare = /^[\w.-]+(?::\d+)?$/.test(text);
    return isBare ? { problem: form, hint: "is http:// missing?" } : { problem: form };
  }
  const authority = match[2] ?? "";
  if (authority.includes("@")) {
    return {
      problem: "credentials cannot be part of the URL",
      hint: 'use headers: { authorization: "Bearer ${env:NAME}" }',
    };
  }
  const url = URL.parse(`${(match[1] ?? "").toLowerCase()}://${authority}/`);
  if (url === null || url.port === "0" || /:$/.test(authority)) return { problem: form };
  return { value: { url, path: match[3] ?? "" } };
}

/** A host pattern of a route: exact, or `*.example.com`; lower case, without trailing dot. */
export function parseHostPattern(text: string): Parsed<string> {
  const host = text.toLowerCase().replace(/\.$/, "");
  if (host === "*") return { problem: "* is every host", hint: "leave host out" };
  if (/^\[.*\]$/.test(host)) {
    return isIP(host.slice(1, -1)) === 6
      ? { value: host }
      : { problem: "expected an IPv6 address" };
  }
  if (isIP(host) === 6) return { problem: "an IPv6 address needs brackets", hint: `[${host}]` };
  if (/:\d+$/.test(host))
    return { problem: "a host is matched without its port", hint: "leave it out" };
  return isHost(host.replace(/^\*\./, ""))
    ? { value: host }
    : { problem: "expected a host name such as a.example.com or *.example.com" };
}

/** `unix`, one address, or a network; every network that takes in all addresses is refused. */
export function parseTrustedPeer(text: string): Parsed<TrustedPeer> {
  if (text === "unix") return { value: { kind: "unix" } };
  const match = /^([0-9a-fA-F:.]+)(?:\/(\d{1,3}))?$/.exec(text);
  const family = isIP(match?.[1] ?? "");
  const bits = family === 6 ? 128 : 32;
  const prefix = match?.[2] === undefined ? bits : Number(match[2]);
  if (match?.[1] === undefined || family === 0 || prefix > bits) {
    return { problem: "expected a network such as 10.0.0.0/8, an address, or unix" };
  }
  if (takesInEveryone(match[1], prefix, family)) {
    return {
      problem: "this trusts every client to say who it is",
      hint: "name the addresses of your proxies",
    };
  }
  return { value: { kind: "cidr", text: `${match[1].toLowerCase()}/${prefix}` } };
}

/** `/0`, and the IPv6 networks in which every IPv4 address appears (RFC 4291 section 2.5.5.2). */
function takesInEveryone(address: string, prefix: number, family: number): boolean {
  // Two halves are everyone as well; the widest private networks are 10.0.0.0/8 and fc00::/7.
  if (prefix < (family === 6 ? 7 : 8)) return true;
  if (family !== 6 || prefix > 96) return false;
  const network = new BlockList();
  network.addSubnet(address, prefix, "ipv6");
  return network.check("::ffff:0.0.0.0", "ipv6") && network.check("::ffff:255.255.255.255", "ipv6");
}

function isHost(text: string): boolean {
  // Digits and dots alone must be a real address: `1.2.3` and `300.1.1.1` mean something else to every reader.
  return /^[\d.]+$/.test(text) ? isIP(text) === 4 : HOST_NAME.test(text);
}

/** As `server.listen` is written. */
export function listenText(address: ListenAddress): string {
  if (address.kind === "unix") return `unix:${address.path}`;
  return hostPort(address.host, address.port);
}
