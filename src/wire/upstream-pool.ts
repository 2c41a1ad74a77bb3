/**
 * The connections of one upstream: opening, keeping, reusing.
 *
 * Invariant: a request that could change something is never sent twice, and is not put on a connection that has
 * been idle long enough for the upstream to be closing it at this very moment. There is no cap on calls in
 * flight: thousands of open streams do not delay the next request.
 */
import { checkServerIdentity } from "node:tls";
import { NOBODY, type OwnedSocket, ownedSocketHandlers, probePeer } from "./socket.ts";
import {
  type PendingCall,
  type UpstreamAddress,
  type UpstreamCall,
  type UpstreamDeadlines,
  UpstreamFault,
  type UpstreamResponse,
} from "./upstream-call.ts";
import { type ConnectionOwner, UpstreamConnection } from "./upstream-connection.ts";

/** Idle connections kept; more are closed. */
const MAX_IDLE = 512;
/** Below the 5 s after which Node.js and uvicorn close an idle connection. */
const IDLE_MS = 4000;
/** Below this idle time even a POST goes on a kept connection: no common server closes so soon. */
const FRESH_MS = 1000;
/** How often deadlines are looked at. */
const TICK_MS = 100;

/** A place between the caller and whichever connection carries its call. */
interface Attempt {
  connection: UpstreamConnection | null;
  isAborted: boolean;
}

export class UpstreamPool implements ConnectionOwner {
  private readonly address: UpstreamAddress;
  private readonly deadlines: UpstreamDeadlines;
  private readonly all = new Set<UpstreamConnection>();
  /** Last in, first out: the warmest is reused and the rest can grow cold. */
  private readonly idle: UpstreamConnection[] = [];
  private timer: ReturnType<typeof setInterval> | null = null;
  private isClosed = false;

  constructor(address: UpstreamAddress, deadlines: UpstreamDeadlines) {
    this.address = address;
    this.deadlines = deadlines;
  }

  /** Sends a call on a kept or new connection. The promise rejects with {@link UpstreamFault} only. */
  call(call: UpstreamCall): PendingCall {
    const attempt: Attempt = { connection: null, isAborted: false };
    const response = new Promise<UpstreamResponse>((resolve, reject) => {
      this.dispatch(call, attempt, { resolve, reject });
    });
    return {
      response,
      abort: () => {
        attempt.isAborted = true;
        attempt.connection?.cancel(call);
      },
    };
  }

  private dispatch(
    call: UpstreamCall,
    attempt: Attempt,
    settle: {
      resolve: (response: UpstreamResponse) => void;
      reject: (fault: UpstreamFault) => void;
    },
  ): void {
    const kept = this.takeIdle(call.mayRepeat ? IDLE_MS : FRESH_MS);
    if (kept === null) {
      this.dispatchFresh(call, attempt, settle);
      return;
    }
    attempt.connection = kept;
    kept.start(call, {
      resolve: settle.resolve,
      reject: (fault, isUntouched) => {
        const isStale = fault.code === "closed_early" && isUntouched;
        if (isStale && call.mayRepeat && !attempt.isAborted) {
          this.dispatchFresh(call, attempt, settle);
        } else settle.reject(fault);
      },
    });
  }

  private dispatchFresh(
    call: UpstreamCall,
    attempt: Attempt,
    settle: {
      resolve: (response: UpstreamResponse) => void;
      reject: (fault: UpstreamFault) => void;
    },
  ): void {
    attempt.connection = null;
    this.connect().then(
      (connection) => {
        if (attempt.isAborted) {
          this.released(connection);
          call.body?.cancel();
          settle.reject(new UpstreamFault("cancelled", "the client left", "cancelled"));
          return;
        }
        attempt.connection = connection;
        connection.start(call, settle);
      },
      (fault: UpstreamFault) => {
        call.body?.cancel();
        settle.reject(fault);
      },
    );
  }

  private takeIdle(maxIdleMs: number): UpstreamConnection | null {
    const connection = this.idle[this.idle.length - 1];
    if (connection === undefined) return null;
    const limitMs = Math.min(maxIdleMs, idleLimit(connection));
    if (performance.now() - connection.idleSinceMs > limitMs) return null;
    this.idle.pop();
    return connection;
  }

  private connect(): Promise<UpstreamConnection> {
    return new Promise((resolve, reject) => {
      let isSettled = false;
      let opening: OwnedSocket | null = null;
      const fail = (fault: UpstreamFault): void => {
        if (isSettled) return;
        isSettled = true;
        clearTimeout(timer);
        // A TLS handshake that never ends would keep its socket for ever.
        opening?.terminate();
        reject(fault);
      };
      const opened = (socket: OwnedSocket): void => {
        opening = socket;
        if (isSettled) socket.terminate();
      };
      const ready = (socket: OwnedSocket): void => {
        if (this.isClosed) fail(new UpstreamFault("cancelled", "shutting down", "cancelled"));
        if (isSettled) {
          socket.terminate();
          return;
        }
        isSettled = true;
        clearTimeout(timer);
        resolve(this.adopt(socket));
      };
      const timer = setTimeout(() => {
        fail(
          new UpstreamFault(
            "connect_timeout",
            `no connection within ${this.deadlines.connectMs} ms`,
          ),
        );
      }, this.deadlines.connectMs);
      openSocket(this.address, { opened, ready, fail });
    });
  }

  private adopt(socket: OwnedSocket): UpstreamConnection {
    if (this.address.kind === "tcp") probePeer(socket);
    const connection = new UpstreamConnection(socket, this, this.deadlines);
    this.all.add(connection);
    this.timer ??= setInterval(() => this.tick(), TICK_MS);
    return connection;
  }

  released(connection: UpstreamConnection): void {
    if (this.isClosed || this.idle.length >= MAX_IDLE) connection.destroy();
    else this.idle.push(connection);
  }

  gone(connection: UpstreamConnection): void {
    this.all.delete(connection);
    const index = this.idle.indexOf(connection);
    if (index !== -1) this.idle.splice(index, 1);
    if (this.all.size === 0 && this.timer !== null) {
      clearInterval(this.timer);
      this.timer = null;
    }
  }

  private tick(): void {
    const nowMs = performance.now();
    for (const connection of this.all) connection.tick(nowMs);
    // The oldest are at the front.
    for (let first = this.idle[0]; first !== undefined; first = this.idle[0]) {
      if (nowMs - first.idleSinceMs <= idleLimit(first)) break;
      this.idle.shift();
      first.destroy();
    }
  }

  /** Connections open at the moment. */
  get size(): number {
    return this.all.size;
  }

  /** Closes what is idle now and everything else when its call ends. */
  close(): void {
    this.isClosed = true;
    for (const connection of [...this.idle]) connection.destroy();
  }
}

function idleLimit(connection: UpstreamConnection): number {
  const hintMs = connection.keepAliveHintMs;
  return hintMs === null ? IDLE_MS : Math.min(IDLE_MS, Math.max(0, hintMs - 1000));
}

/** What becomes of a socket on its way up. */
interface Opening {
  /** It exists; nothing is known about the other side yet. */
  opened(socket: OwnedSocket): void;
  ready(socket: OwnedSocket): void;
  fail(fault: UpstreamFault): void;
}

/** Opens a socket; with TLS, the certificate's chain and name are checked before a byte is sent. */
function openSocket(address: UpstreamAddress, { opened, ready, fail }: Opening): void {
  const tls = address.kind === "tcp" ? address.tls : null;
  const unreachable = (error: unknown): void => {
    const code = error instanceof Error && "code" in error ? String(error.code) : "no connection";
    fail(new UpstreamFault("unreachable", code));
  };
  const socket = {
    ...ownedSocketHandlers,
    open: (socket: OwnedSocket) => {
      if (tls === null) ready(socket);
      else opened(socket);
    },
    handshake: (socket: OwnedSocket, isOk: boolean, problem: Error | null) => {
      const error =
        problem ?? (tls && checkServerIdentity(tls.serverName, socket.getPeerCertificate()));
      if (isOk && !error) ready(socket);
      else {
        fail(new UpstreamFault("untrusted_certificate", error?.message ?? "TLS handshake failed"));
        socket.terminate();
      }
    },
    close: (closed: OwnedSocket) => {
      if (closed.data === NOBODY) fail(new UpstreamFault("unreachable", "closed while connecting"));
      closed.data.onClose();
    },
    connectError: (_: OwnedSocket, error: Error) => unreachable(error),
  };
  if (address.kind === "unix") {
    Bun.connect({ unix: address.path, socket, data: NOBODY, allowHalfOpen: true }).catch(
      unreachable,
    );
    return;
  }
  const { host: hostname, port } = address;
  const secured = tls === null ? {} : { tls: tlsOptions(tls) };
  Bun.connect({ hostname, port, socket, data: NOBODY, allowHalfOpen: true, ...secured }).catch(
    unreachable,
  );
}

function tlsOptions(tls: { serverName: string; ca: string | null }): Bun.TLSOptions {
  return {
    serverName: tls.serverName,
    rejectUnauthorized: true,
    ALPNProtocols: "\x08http/1.1",
    ...(tls.ca === null ? {} : { ca: tls.ca }),
  };
}
