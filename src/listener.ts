/**
 * Binding one address: TCP, unix sockets, TLS, and what is said when it cannot be done.
 *
 * Invariant: an address that another program uses is never shared or taken away. When the certificate of a bound
 * address changes, the kernel's socket stays the same, so that no client that is just connecting is turned away.
 */
import { lstatSync, renameSync, rmSync, statSync } from "node:fs";
import { isIP } from "node:net";
import { resolve } from "node:path";
import { listenText, parseListen } from "./config/address.ts";
import type { ListenAddress } from "./config/model.ts";
import { EXIT, errorCode, errorMessage, OperatorError } from "./errors.ts";
import type { ListenerTls } from "./listener-tls.ts";
import { type OwnedSocket, ownedSocketHandlers, type SocketOwner } from "./wire/socket.ts";

/** An address that is listened on. */
export interface Listener {
  /** `127.0.0.1:8008`, `[::1]:8008` or `unix:/path`, with the port that was really bound. */
  readonly address: string;
  /** Of its certificates, see {@link ListenerTls}; empty: none. */
  readonly fingerprint: string;
  /** False: the socket's file is gone or another one, so nobody finds this listener any more. */
  isReachable(): boolean;
  stop(): void;
  /**
   * A second one for the same socket, with other certificates or none; then stop this one. For TCP alone.
   * @throws OperatorError when that is not possible here
   */
  secure(tls: ListenerTls | null, accept: Accept, duplicate: Duplicate | null): Listener;
}

/** Takes a new connection. */
export type Accept = (socket: OwnedSocket) => void;

/** Another number for the same open file (dup(2)), or null. */
export type Duplicate = (fd: number) => number | null;

type Handle = Bun.TCPSocketListener<SocketOwner>;

/**
 * @param mode who may connect: 0o660 is the owner and the group
 * @param own what this gateway listens on already
 * @throws OperatorError when the address is taken or not allowed
 */
export async function bindUnix(
  path: string,
  mode: number,
  accept: Accept,
  own: readonly string[] = [],
): Promise<Listener> {
  try {
    await removeStaleSocket(path);
    const handle = bound(path, mode, accept);
    const file = fileAt(path);
    const isReachable = (): boolean => file !== null && fileAt(path) === file;
    return {
      address: `unix:${path}`,
      fingerprint: "",
      isReachable,
      stop() {
        // Asked before, because as long as the socket is open nothing else can get the number of its file.
        const isOwn = isReachable();
        if (isOwn) handle.stop();
        else keepingFile(path, () => handle.stop());
        if (isOwn) remove(path);
      },
      secure() {
        throw new TypeError("a unix socket has no certificates");
      },
    };
  } catch (error) {
    throw bindError({ kind: "unix", path }, error, own);
  }
}

/** Which file has this name now: others may have put another one there, and it is not ours to remove. */
function fileAt(path: string): string | null {
  try {
    const { dev, ino } = lstatSync(path, { bigint: true });
    return `${dev}:${ino}`;
  } catch {
    return null;
  }
}

/** The runtime removes whatever has the name of a socket that it closes; meanwhile the file has another one. */
function keepingFile(path: string, stop: () => void): void {
  const aside = `${path}.${process.pid}`;
  const hasMoved = hasRenamed(path, aside);
  stop();
  if (hasMoved) hasRenamed(aside, path);
}

function hasRenamed(from: string, to: string): boolean {
  try {
    renameSync(from, to);
    return true;
  } catch {
    return false;
  }
}

/** What cannot be removed is in nobody's way: whoever binds it next finds that nobody answers. */
function remove(path: string): void {
  try {
    rmSync(path, { force: true });
  } catch {}
}

/** With its mode from the first moment: whoever connects before it is restricted would stay connected. */
function bound(path: string, mode: number, accept: Accept) {
  const before = process.umask(0o777 & ~mode);
  try {
    return Bun.listen<SocketOwner>({
      unix: path,
      socket: { ...ownedSocketHandlers, open: accept },
      allowHalfOpen: true,
    } as Bun.UnixSocketOptions<SocketOwner>);
  } finally {
    process.umask(before);
  }
}

/**
 * @param own what this gateway listens on already
 * @throws OperatorError when the address is taken or not allowed
 */
export function bindTcp(
  address: { readonly host: string; readonly port: number },
  tls: ListenerTls | null,
  accept: Accept,
  own: readonly string[] = [],
): Listener {
  const { host, port } = address;
  try {
    // Two gateways on one port would each get half of the requests; be told instead.
    const where = { hostname: host, port, exclusive: true };
    const handle = Bun.listen<SocketOwner>({ ...where, ...shared(tls, accept) });
    const place = { kind: "tcp", host, port: handle.port } as const;
    return tcpListener(handle, listenText(place), tls);
  } catch (error) {
    throw bindError({ kind: "tcp", host, port }, error, own);
  }
}

function tcpListener(handle: Handle, address: string, tls: ListenerTls | null): Listener {
  return {
    address,
    fingerprint: tls?.fingerprint ?? "",
    isReachable: () => true,
    stop: () => handle.stop(),
    secure(next, accept, duplicate) {
      const fd = "fd" in handle && typeof handle.fd === "number" ? duplicate?.(handle.fd) : null;
      if (fd == null) {
        throw new OperatorError(
          EXIT.failure,
          `${address}: its certificates cannot be changed while it runs`,
          "Restart it.",
        );
      }
      // The types know only sockets that are connected already.
      const options = {
        fd,
        ...shared(next, accept),
      } as unknown as Bun.TCPSocketListenOptions<SocketOwner>;
      return tcpListener(Bun.listen<SocketOwner>(options), address, next);
    },
  };
}

function shared(tls: ListenerTls | null, accept: Accept) {
  return {
    allowHalfOpen: true,
    socket: { ...ownedSocketHandlers, ...(tls === null ? {} : tls.handlers), open: accept },
    ...(tls === null ? {} : { tls: tls.options }),
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

function bindError(address: ListenAddress, error: unknown, own: readonly string[]): Error {
  if (error instanceof OperatorError) return error;
  const where = listenText(address);
  const code = errorCode(error);
  const mine = own.find((one) => mayBeSame(one, address));
  if (code === "EADDRINUSE" && mine !== undefined) {
    return new OperatorError(
      EXIT.failure,
      `cannot listen on ${where}: it is in use, as it seems by this gateway itself, which listens on ${mine}`,
      "Write that address as it was before, or restart the gateway.",
    );
  }
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

/** Whether an address that is bound could be another one in other words. A name may stand for any address. */
function mayBeSame(bound: string, wanted: ListenAddress): boolean {
  if (wanted.kind === "unix") {
    return bound.startsWith("unix:") && resolve(bound.slice(5)) === resolve(wanted.path);
  }
  const parsed = parseListen(bound);
  if ("problem" in parsed || parsed.value.kind === "unix") return false;
  const { host, port } = parsed.value;
  const isOther = isIP(host) !== 0 && isIP(wanted.host) !== 0 && host !== wanted.host;
  return port === wanted.port && !isOther;
}

/** Gives {@link Duplicate}; on systems without it, one that never can. */
export async function openDuplicate(): Promise<Duplicate> {
  if (process.platform === "win32") return () => null;
  const { openLibc } = await import("./libc.ts");
  if (process.platform === "linux") {
    const { fcntl } = openLibc({ fcntl: { args: ["i32", "i32", "i32"], returns: "i32" } });
    return (fd) => valid(fcntl(fd, DUPLICATE_CLOSE_ON_EXEC, 0));
  }
  const { dup } = openLibc({ dup: { args: ["i32"], returns: "i32" } });
  return (fd) => valid(dup(fd));
}

/** F_DUPFD_CLOEXEC of Linux: no child process gets the listening socket. */
const DUPLICATE_CLOSE_ON_EXEC = 1030;

function valid(fd: number): number | null {
  return fd < 0 ? null : fd;
}
