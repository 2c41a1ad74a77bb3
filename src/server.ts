/**
 * Listeners: accepting, limits, TLS, who the client is, and the orderly end.
 *
 * Invariant: what a client says about itself (X-Forwarded-*, X-Request-Id) is believed only when the peer is in
 * `server.trusted_proxies`; the list is empty by default and the address is walked from the right.
 */
import { BlockList, isIP } from "node:net";
import { isDeepStrictEqual } from "node:util";
import type { ListenAddress, ServerConfig, TrustedPeer } from "./config/model.ts";
import { EXIT, OperatorError } from "./errors.ts";
import { bindTcp, bindUnix, type Listener, openDuplicate } from "./listener.ts";
import { type ListenerTls, listenerTls } from "./listener-tls.ts";
import type { Origin } from "./request-view.ts";
import { until } from "./until.ts";
import type { Exchange, ExchangeHandler, Peer } from "./wire/exchange.ts";
import { listMembers, lowerCase, onlyValue } from "./wire/fields.ts";
import {
  type ConnectionLimits,
  type ConnectionSettings,
  ServerConnection,
} from "./wire/server-connection.ts";
import { NOBODY, type OwnedSocket, probePeer } from "./wire/socket.ts";

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
  /**
   * Goes over to other settings and another handler in one step: addresses that stay are not touched (a socket whose file
   * was removed is made anew), open
   * connections live on and their next request is for the new handler. Who came by an address that is gone may finish.
   * @throws OperatorError as {@link listen}; nothing has changed then
   */
  change(config: ServerConfig, handler: ExchangeHandler): Promise<Changed>;
  /** Stops accepting and lets connections finish; resolves when all are gone or the deadline has passed. */
  drain(deadlineMs: number): Promise<void>;
}

/** What a change did. */
export interface Changed {
  readonly added: readonly string[];
  readonly removed: readonly string[];
  /** Resolves when the handler before has given its last reply. */
  readonly handedOver: Promise<void>;
}

/** One address of the configuration, and who came by it. */
interface Door {
  readonly wanted: ListenAddress;
  readonly connections: Set<ServerConnection>;
  listener: Listener | null;
  /** Nobody gets in before the configuration that opens it holds. */
  isOpen: boolean;
}

/** A listener that takes another one's place on the same socket. */
interface Successor {
  readonly door: Door;
  readonly before: Listener;
  readonly listener: Listener;
}

/** What holds at the moment; connections look here for each request. */
interface Serving extends ConnectionSettings {
  handler: ExchangeHandler;
  limits: ConnectionLimits;
  maxConnections: number;
  isTrusted: (address: string, isUnix: boolean) => boolean;
}

/**
 * Binds every address or none.
 * @throws OperatorError when an address is taken or not allowed, or TLS files cannot be used
 */
export async function listen(config: ServerConfig, handler: ExchangeHandler): Promise<Server> {
  const server = new Doors(servingFor(config, handler));
  await server.change(config, handler);
  return server;
}

function servingFor(config: ServerConfig, handler: ExchangeHandler): Serving {
  return {
    handler,
    limits: connectionLimits(config),
    maxConnections: config.limits.maxConnections,
    isTrusted: trustCheck(config.trustedProxies),
  };
}

class Doors implements Server {
  private readonly serving: Serving;
  private readonly connections = new Set<ServerConnection>();
  /** Requests that an earlier handler is waited for because of; the one after it need not wait for them, too. */
  private readonly waitedFor = new WeakSet<Exchange>();
  private doors: readonly Door[] = [];
  private handled = 0;
  private isDraining = false;
  private readonly timer: ReturnType<typeof setInterval>;

  constructor(serving: Serving) {
    this.serving = serving;
    const rest = restKeeper(() => this.handled);
    this.timer = setInterval(() => {
      const nowMs = performance.now();
      let isBusy = false;
      for (const connection of this.connections) {
        connection.tick(nowMs);
        isBusy ||= !connection.isIdle;
      }
      rest(nowMs, isBusy);
    }, TICK_MS);
  }

  get addresses(): readonly string[] {
    return this.doors.map(({ listener }) => listener?.address ?? "");
  }

  get connectionCount(): number {
    return this.connections.size;
  }

  async change(config: ServerConfig, handler: ExchangeHandler): Promise<Changed> {
    const before = this.doors;
    const intact = before.filter(({ listener }) => listener?.isReachable() === true);
    const after = doorsFor(config.listen, intact);
    const added = after.filter((door) => !before.includes(door));
    const removed = before.filter((door) => !after.includes(door));
    try {
      const tls = listenerTls(config.tls);
      const kept = after.filter((door) => before.includes(door));
      for (const successor of await this.open(added, kept, tls)) succeed(successor);
    } catch (error) {
      if (before.length === 0) clearInterval(this.timer);
      throw error;
    }
    for (const door of removed) close(door);
    this.doors = after;
    for (const door of after) door.isOpen = true;
    return {
      added: added.map(addressOf),
      removed: removed.map(addressOf),
      handedOver: this.handOver(config, handler),
    };
  }

  /** Binds what is new and, where certificates have changed, makes successors. All or nothing. */
  private async open(
    added: readonly Door[],
    kept: readonly Door[],
    tls: ListenerTls | null,
  ): Promise<readonly Successor[]> {
    const others = kept.filter((door) => isOtherTls(door, tls));
    const duplicate = others.length === 0 ? null : await openDuplicate();
    const opened: Listener[] = [];
    try {
      for (const door of added) {
        const { wanted } = door;
        if (wanted.kind === "tcp") continue;
        const accept = this.acceptBy(door, null);
        door.listener = await bindUnix(wanted.path, 0o660, accept, this.addresses);
        opened.push(door.listener);
      }
      if (this.isDraining) throw new OperatorError(EXIT.failure, "the gateway is stopping");
      // From here on nothing waits, so that nobody meets a half of it.
      for (const door of added) {
        const { wanted } = door;
        if (wanted.kind === "unix") continue;
        door.listener = bindTcp(wanted, tls, this.acceptBy(door, tls), this.addresses);
        opened.push(door.listener);
      }
      return others.map((door) => {
        const { listener } = door;
        if (listener === null) throw new TypeError("a door without a listener");
        const successor = listener.secure(tls, this.acceptBy(door, tls), duplicate);
        opened.push(successor);
        return { door, before: listener, listener: successor };
      });
    } catch (error) {
      for (const listener of opened) listener.stop();
      throw error;
    }
  }

  /** Puts the settings in force; resolves when what was being decided by the handler before is. */
  private handOver(config: ServerConfig, handler: ExchangeHandler): Promise<void> {
    const undecided = [...this.connections]
      .map((connection) => ({ connection, exchange: connection.deciding }))
      .filter(({ exchange }) => exchange !== null && !this.waitedFor.has(exchange));
    for (const { exchange } of undecided) if (exchange !== null) this.waitedFor.add(exchange);
    Object.assign(this.serving, servingFor(config, this.counted(handler)));
    for (const connection of this.connections) {
      const { address, isUnix } = connection.peer;
      const isTrusted = this.serving.isTrusted(address, isUnix);
      connection.peer = { ...connection.peer, isTrusted };
    }
    return until(
      () => undecided.every(({ connection, exchange }) => connection.deciding !== exchange),
      Number.POSITIVE_INFINITY,
    );
  }

  private counted(handler: ExchangeHandler): ExchangeHandler {
    return {
      handle: (exchange) => {
        this.handled += 1;
        return handler.handle(exchange);
      },
      refuse: (refusal, peer) => handler.refuse(refusal, peer),
    };
  }

  private acceptBy(door: Door, tls: ListenerTls | null): (socket: OwnedSocket) => void {
    const isUnix = door.wanted.kind === "unix";
    const isSecure = tls !== null;
    return (socket) => {
      if (!door.isOpen || this.connections.size >= this.serving.maxConnections) {
        socket.data = NOBODY;
        socket.terminate();
        return;
      }
      if (!isUnix) probePeer(socket);
      const address = isUnix ? "" : plainAddress(socket.remoteAddress);
      const isTrusted = this.serving.isTrusted(address, isUnix);
      const peer: Peer = { address, isUnix, isSecure, isTrusted };
      const connection = new ServerConnection(socket, peer, {
        settings: this.serving,
        onGone: (gone) => {
          this.connections.delete(gone);
          door.connections.delete(gone);
        },
      });
      socket.data = connection;
      this.connections.add(connection);
      door.connections.add(connection);
    };
  }

  async drain(deadlineMs: number): Promise<void> {
    this.isDraining = true;
    for (const door of this.doors) close(door);
    await until(() => this.connections.size === 0, deadlineMs);
    clearInterval(this.timer);
    for (const connection of this.connections) connection.destroy();
  }
}

/** In the order of the configuration; those that are there already are taken again. */
function doorsFor(wanted: readonly ListenAddress[], before: readonly Door[]): readonly Door[] {
  const left = [...before];
  return wanted.map((address) => {
    const index = left.findIndex((door) => isDeepStrictEqual(door.wanted, address));
    const [door] = index === -1 ? [] : left.splice(index, 1);
    return (
      door ?? {
        wanted: address,
        connections: new Set(),
        listener: null,
        isOpen: false,
      }
    );
  });
}

function isOtherTls(door: Door, tls: ListenerTls | null): boolean {
  return door.wanted.kind === "tcp" && door.listener?.fingerprint !== (tls?.fingerprint ?? "");
}

/** Connections keep the certificate that they began with, but none stays in the clear where that has ended. */
function succeed({ door, before, listener }: Successor): void {
  before.stop();
  door.listener = listener;
  if ((before.fingerprint === "") === (listener.fingerprint === "")) return;
  for (const connection of door.connections) connection.drain();
}

function close(door: Door): void {
  door.isOpen = false;
  door.listener?.stop();
  for (const connection of door.connections) connection.drain();
}

function addressOf({ listener }: Door): string {
  return listener?.address ?? "";
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
    const proto = lowerCase(singleValue(exchange, "x-forwarded-proto") ?? "");
    const host = lowerCase(singleValue(exchange, "x-forwarded-host") ?? "");
    return {
      requestId: trustedRequestId(exchange) ?? mintRequestId(),
      clientAddress: clientAddress(exchange, isTrusted),
      isPeerTrusted: true,
      scheme: proto === "https" || proto === "http" ? proto : own,
      authority: HOST.test(host) ? host : head.authority,
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
  // One hop, as most proxies say it; the list below would come to the same.
  const only = onlyValue(exchange.head.fields, "x-forwarded-for");
  if (only !== undefined && isIP(only) === 4) return only;
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
