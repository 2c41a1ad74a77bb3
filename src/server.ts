/**
 * Listeners: accepting, limits, TLS, who the client is, and the orderly end.
 *
 * Invariant: what a client says about itself (X-Forwarded-*, X-Request-Id) is believed only when the peer is in
 * `server.trusted_proxies`; the list is empty by default and the address is walked from the right.
 */
import { chmodSync, readFileSync, rmSync, statSync } from "node:fs";
import { BlockList, isIP } from "node:net";
import { createSecureContext } from "node:tls";
import type { ListenAddress, ServerConfig, TlsPair, TrustedPeer } from "./config/model.ts";
import { EXIT, errorCode, errorMessage, OperatorError } from "./errors.ts";
import type { Origin } from "./request-view.ts";
import type { Exchange, ExchangeHandler, Peer } from "./wire/exchange.ts";
import { listMembers, onlyValue } from "./wire/fields.ts";
import { type ConnectionLimits, ServerConnection } from "./wire/server-connection.ts";
import {
  NOBODY,
  type OwnedSocket,
  ownedSocketHandlers,
  probePeer,
  type SocketOwner,
} from "./wire/socket.ts";

/** How often deadlines of client connections are looked at. */
const TICK_MS = 250;

/**
 * After so long without a request the heap is collected, once: the runtime by itself keeps what a burst has left
 * (a quarter of its memory) for as long as nothing happens. It takes 5 to 15 ms in which nobody is asking.
 */
const REST_MS = 1000;

/** Running listeners. */
export interface Server {
  /** `127.0.0.1:8008`, `[::1]:8008` or `unix:/path`, with the port that was really bound. */
  readonly addresses: readonly string[];
  readonly connectionCount: number;
  /** Stops accepting and lets connections finish; resolves when all are gone or the deadline has passed. */
  drain(deadlineMs: number): Promise<void>;
}

/**
 * Binds every address or none.
 * @throws OperatorError when an address is taken or not allowed, or TLS files cannot be used
 */
export async function listen(config: ServerConfig, handler: ExchangeHandler): Promise<Server> {
  const connections = new Set<ServerConnection>();
  const limits = connectionLimits(config);
  let handled = 0;
  const counted: ExchangeHandler = {
    handle(exchange) {
      handled += 1;
      return handler.handle(exchange);
    },
    refuse: (refusal, peer) => handler.refuse(refusal, peer),
  };
  const isTrusted = trustCheck(config.trustedProxies);
  const accept = (socket: OwnedSocket, isUnix: boolean, isSecure: boolean): void => {
    if (connections.size >= config.limits.maxConnections) {
      socket.data = NOBODY;
      socket.terminate();
      return;
    }
    if (!isUnix) probePeer(socket);
    const address = isUnix ? "" : plainAddress(socket.remoteAddress);
    const peer: Peer = { address, isUnix, isSecure, isTrusted: isTrusted(address, isUnix) };
    const connection = new ServerConnection(socket, peer, {
      handler: counted,
      limits,
      onGone: (gone) => connections.delete(gone),
    });
    socket.data = connection;
    connections.add(connection);
  };
  const tls = config.tls.length === 0 ? null : tlsOptions(config.tls);
  const bound: Bound[] = [];
  try {
    for (const address of config.listen) bound.push(await bind(address, tls, accept));
  } catch (error) {
    for (const listener of bound) listener.stop();
    throw error;
  }
  const rest = restKeeper(() => handled);
  const timer = setInterval(() => {
    const nowMs = performance.now();
    let isBusy = false;
    for (const connection of connections) {
      connection.tick(nowMs);
      isBusy ||= !connection.isIdle;
    }
    rest(nowMs, isBusy);
  }, TICK_MS);
  return {
    addresses: bound.map((listener) => listener.address),
    get connectionCount() {
      return connections.size;
    },
    async drain(deadlineMs) {
      for (const listener of bound) listener.stop();
      for (const connection of connections) connection.drain();
      await emptied(connections, deadlineMs);
      clearInterval(timer);
      for (const connection of connections) connection.destroy();
    },
  };
}

/** Collects the heap once after each burst of requests. */
function restKeeper(handled: () => number): (nowMs: number, isBusy: boolean) => void {
  let seen = 0;
  let sinceMs = 0;
  let isOwed = false;
  return (nowMs, isBusy) => {
    if (isBusy || handled() !== seen) {
      isOwed ||= handled() !== seen;
      seen = handled();
      sinceMs = nowMs;
    } else if (isOwed && nowMs - sinceMs > REST_MS) {
      isOwed = false;
      Bun.gc(true);
    }
  };
}

function emptied(connections: ReadonlySet<unknown>, deadlineMs: number): Promise<void> {
  const endMs = performance.now() + deadlineMs;
  return new Promise((resolve) => {
    const look = (): void => {
      if (connections.size === 0 || performance.now() >= endMs) resolve();
      else setTimeout(look, 20);
    };
    look();
  });
}

function connectionLimits(config: ServerConfig): ConnectionLimits {
  const { limits } = config;
  return {
    headBytes: limits.headBytes,
    headTimeoutMs: limits.headTimeoutMs,
    keepAliveMs: limits.keepAliveMs,
    sendTimeoutMs: limits.sendTimeoutMs,
    pace: { timeoutMs: limits.bodyTimeoutMs, minBytesPerSecond: limits.bodyMinBytesPerSecond },
  };
}

interface Bound {
  readonly address: string;
  stop(): void;
}

/** What `Bun.listen` takes for TLS. */
interface ListenerTls {
  readonly options: Bun.TLSOptions;
  readonly handlers: object;
}

type Accept = (socket: OwnedSocket, isUnix: boolean, isSecure: boolean) => void;

async function bind(
  address: ListenAddress,
  tls: ListenerTls | null,
  accept: Accept,
): Promise<Bound> {
  try {
    return address.kind === "unix"
      ? await bindUnix(address.path, accept)
      : bindTcp(address, tls, accept);
  } catch (error) {
    throw bindError(address, error);
  }
}

function bindTcp(
  address: { readonly host: string; readonly port: number },
  tls: ListenerTls | null,
  accept: Accept,
): Bound {
  const listener = Bun.listen<SocketOwner>({
    hostname: address.host,
    port: address.port,
    // Two gateways on one port would each get half of the requests; be told instead.
    exclusive: true,
    allowHalfOpen: true,
    socket: {
      ...ownedSocketHandlers,
      ...(tls === null ? {} : tls.handlers),
      open: (socket) => accept(socket, false, tls !== null),
    },
    ...(tls === null ? {} : { tls: tls.options }),
  });
  const host = address.host.includes(":") ? `[${address.host}]` : address.host;
  return { address: `${host}:${listener.port}`, stop: () => listener.stop() };
}

async function bindUnix(path: string, accept: Accept): Promise<Bound> {
  await removeStaleSocket(path);
  const listener = Bun.listen<SocketOwner>({
    unix: path,
    socket: { ...ownedSocketHandlers, open: (socket) => accept(socket, true, false) },
    allowHalfOpen: true,
  } as Bun.UnixSocketOptions<SocketOwner>);
  // The group may connect, for instance a reverse proxy's; others may not.
  chmodSync(path, 0o660);
  return {
    address: `unix:${path}`,
    stop: () => {
      listener.stop();
      rmSync(path, { force: true });
    },
  };
}

/** A socket file that a killed process left behind is removed; one that answers, or any other file, is not. */
async function removeStaleSocket(path: string): Promise<void> {
  const found = statSync(path, { throwIfNoEntry: false });
  if (found === undefined) return;
  if (!found.isSocket())
    throw new OperatorError(EXIT.cannotCreate, `${path} exists and is no socket`);
  const isAlive = await new Promise<boolean>((resolve) => {
    Bun.connect({
      unix: path,
      socket: {
        open: (socket) => {
          socket.end();
          resolve(true);
        },
        data: () => {},
        connectError: (_, error) => resolve(isSomebodyThere(error)),
      },
    }).catch((error: unknown) => resolve(isSomebodyThere(error)));
  });
  if (isAlive) throw Object.assign(new Error("in use"), { code: "EADDRINUSE" });
  rmSync(path, { force: true });
}

/** A listener that closes at once, or lets only others in, is alive; it must not lose its socket file. */
function isSomebodyThere(error: unknown): boolean {
  const code = errorCode(error);
  return code !== "ECONNREFUSED" && code !== "ENOENT";
}

function bindError(address: ListenAddress, error: unknown): Error {
  if (error instanceof OperatorError) return error;
  const where =
    address.kind === "unix" ? `unix:${address.path}` : `${address.host}:${address.port}`;
  const code = errorCode(error);
  if (code === "EADDRINUSE") {
    return new OperatorError(
      EXIT.failure,
      `cannot listen on ${where}: another program is listening there`,
      "stop it, or choose another address with server.listen or --listen",
    );
  }
  if (code === "EACCES" || code === "EPERM") {
    return new OperatorError(
      EXIT.permission,
      `cannot listen on ${where}: not permitted`,
      address.kind === "unix"
        ? "the service user must be able to write to its directory"
        : "ports below 1024 need CAP_NET_BIND_SERVICE; choose a higher port or grant the capability",
    );
  }
  return new OperatorError(
    EXIT.failure,
    `cannot listen on ${where}: ${code ?? errorMessage(error)}`,
  );
}

/**
 * TLS for a listener. Bun's `Bun.listen` takes one pair; further names are chosen in the handshake by its
 * `serverName` handler, which node:tls uses too and test/scenarios/listeners.test.ts holds to its word.
 * HTTP/1.1 is the only protocol offered: see docs/decisions/001-own-wire.md.
 */
function tlsOptions(pairs: readonly TlsPair[]): ListenerTls {
  const loaded = pairs.map(loadPair);
  const first = loaded[0];
  if (first === undefined) throw new TypeError("no TLS pair");
  const contexts = new Map(loaded.map((pair) => [pair.name, pair.context]));
  return {
    options: { cert: first.cert, key: first.key, ALPNProtocols: "\x08http/1.1" },
    handlers: {
      serverName: (_socket: unknown, name: string): unknown => contexts.get(name.toLowerCase()),
    },
  };
}

/** @throws OperatorError that names the files; before anything is bound */
function loadPair(pair: TlsPair) {
  try {
    const cert = readFileSync(pair.cert, "utf8");
    const key = readFileSync(pair.key, "utf8");
    const name = pair.name?.toLowerCase() ?? null;
    return { name, cert, key, context: createSecureContext({ cert, key }).context };
  } catch (error) {
    throw new OperatorError(
      EXIT.config,
      `server.tls: ${pair.cert} and ${pair.key} cannot be used: ${errorCode(error) ?? errorMessage(error)}`,
    );
  }
}

/** `::ffff:192.0.2.1` is 192.0.2.1. */
function plainAddress(address: string): string {
  return address.startsWith("::ffff:") && address.includes(".") ? address.slice(7) : address;
}

/** Whether a peer is one of the trusted proxies. */
export function trustCheck(
  trusted: readonly TrustedPeer[],
): (address: string, isUnix: boolean) => boolean {
  const networks = new BlockList();
  let trustsUnix = false;
  for (const peer of trusted) {
    if (peer.kind === "unix") trustsUnix = true;
    else {
      const [network = "", bits] = peer.text.split("/");
      const family = isIP(network) === 6 ? "ipv6" : "ipv4";
      if (bits === undefined) networks.addAddress(network, family);
      else networks.addSubnet(network, Number(bits), family);
    }
  }
  return (address, isUnix) => {
    if (isUnix) return trustsUnix;
    const version = isIP(address);
    return version !== 0 && networks.check(address, version === 6 ? "ipv6" : "ipv4");
  };
}

/** Reads who asks, under which name and scheme. */
export function originReader(
  config: ServerConfig,
  mintRequestId: () => string,
): (exchange: Exchange) => Origin {
  const isTrusted = trustCheck(config.trustedProxies);
  return (exchange) => {
    const { head, peer } = exchange;
    const own = peer.isSecure ? "https" : "http";
    if (!peer.isTrusted) {
      return {
        requestId: mintRequestId(),
        clientAddress: peer.address,
        isPeerTrusted: false,
        scheme: own,
        authority: head.authority,
      };
    }
    const proto = singleValue(exchange, "x-forwarded-proto")?.toLowerCase();
    const host = singleValue(exchange, "x-forwarded-host")?.toLowerCase();
    return {
      requestId: trustedRequestId(exchange) ?? mintRequestId(),
      clientAddress: clientAddress(exchange, isTrusted),
      isPeerTrusted: true,
      scheme: proto === "https" || proto === "http" ? proto : own,
      authority: host !== undefined && HOST.test(host) ? host : head.authority,
    };
  };
}

const HOST = /^(?:[a-z0-9](?:[a-z0-9._-]*[a-z0-9.])?|\[[0-9a-f:.]+\])(?::\d{1,5})?$/;
const REQUEST_ID = /^[A-Za-z0-9][A-Za-z0-9_.:-]{0,127}$/;

/** One line with one value, else undefined: two opinions are none. */
function singleValue(exchange: Exchange, name: string): string | undefined {
  const value = onlyValue(exchange.head.fields, name);
  return value?.includes(",") ? undefined : value;
}

function trustedRequestId(exchange: Exchange): string | null {
  const id = singleValue(exchange, "x-request-id");
  return id !== undefined && REQUEST_ID.test(id) ? id : null;
}

/** The first address from the right that is no trusted proxy. */
function clientAddress(
  exchange: Exchange,
  isTrusted: (address: string, isUnix: boolean) => boolean,
): string {
  if (!exchange.head.fields.lower.includes("x-forwarded-for")) return exchange.peer.address;
  const hops = listMembers(exchange.head.fields, "x-forwarded-for");
  let address = exchange.peer.address;
  for (let i = hops.length - 1; i >= 0; i--) {
    const hop = plainAddress(hops[i] ?? "");
    if (isIP(hop) === 0) break;
    address = hop;
    if (i > 0 && !isTrusted(hop, false)) break;
  }
  return address;
}
