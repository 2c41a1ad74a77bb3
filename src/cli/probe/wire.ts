/**
 * Exact bytes to a server and its answers, each exchange on a connection of its own.
 *
 * Invariant: what is sent is what was written, nothing is added or mended; it ends within its deadline and never rejects.
 * Nothing is sent on a connection that was used before, so that no request can be taken for a part of another one.
 */
import { connect as connectPlain, isIP, type Socket } from "node:net";
import { connect as connectTls, type PeerCertificate, type TLSSocket } from "node:tls";
import { errorCode, errorMessage } from "../../errors.ts";
import { type Answer, readAnswers } from "./answer.ts";
import type { Target } from "./target.ts";

/** What came of sending. */
export interface Exchanged {
  /** In the order in which they came; empty when there was none. */
  readonly answers: readonly Answer[];
  /** Why there is no (whole) answer: a code, or a sentence; null when all that was expected came. */
  readonly problem: string | null;
}

/** What to send, and for how many answers to wait. */
export interface Sending {
  /** latin1 */
  readonly bytes: string;
  /** Of the requests in it: a HEAD has no body in its answer. */
  readonly methods: readonly string[];
  readonly withinMs: number;
}

/** What the handshake showed. */
export interface TlsFacts {
  /** `TLSv1.3` */
  readonly protocol: string;
  /** Why the certificate is not trusted; null when it is. */
  readonly distrust: string | null;
  readonly certificate: PeerCertificate;
}

/** Largest part of the answers that is kept. */
const MOST_BYTES = 131_072;

/** Sends and waits for the answers. */
export function exchange(
  target: Target,
  { bytes, methods, withinMs }: Sending,
): Promise<Exchanged> {
  const { promise, resolve } = Promise.withResolvers<Exchanged>();
  let text = "";
  const socket = open(target, withinMs);
  const end = (problem: string | null, isOver: boolean): void => {
    const answers = readAnswers(text, methods, isOver);
    resolve({ answers, problem: answers.length >= methods.length ? null : problem });
  };
  const timer = setTimeout(() => end(`no answer within ${withinMs} ms`, false), withinMs);
  socket.once(target.isTls ? "secureConnect" : "connect", () => socket.write(bytes, "latin1"));
  socket.on("data", (chunk: Buffer) => {
    if (text.length < MOST_BYTES) text += chunk.toString("latin1");
    const isEnough =
      readAnswers(text, methods, false).length >= methods.length || text.length >= MOST_BYTES;
    if (isEnough) end(null, true);
  });
  socket.once("error", (error) => end(errorCode(error) ?? errorMessage(error), true));
  socket.once("close", () => end("the connection was closed", true));
  return promise.finally(() => {
    clearTimeout(timer);
    socket.destroy();
  });
}

/** Makes a handshake and sends nothing. A text says why there was none. */
export function handshake(
  target: Target,
  withinMs: number,
  version?: { readonly maxVersion: "TLSv1.1" | "TLSv1.2"; readonly minVersion: "TLSv1" },
): Promise<TlsFacts | string> {
  const { promise, resolve } = Promise.withResolvers<TlsFacts | string>();
  const socket = openTls(target, version ?? {});
  const timer = setTimeout(() => resolve(`no handshake within ${withinMs} ms`), withinMs);
  socket.once("secureConnect", () => {
    const { authorized, authorizationError } = socket;
    const code = errorCode(authorizationError) ?? String(authorizationError);
    resolve({
      protocol: socket.getProtocol() ?? "unknown",
      distrust: authorized ? null : code,
      certificate: socket.getPeerCertificate(),
    });
  });
  socket.once("error", (error) => resolve(errorCode(error) ?? errorMessage(error)));
  socket.once("close", () => resolve("the connection was closed"));
  return promise.finally(() => {
    clearTimeout(timer);
    socket.destroy();
  });
}

/** Whether a port takes connections. */
export function isOpen(host: string, port: number, withinMs: number): Promise<boolean> {
  const { promise, resolve } = Promise.withResolvers<boolean>();
  const socket = connectPlain({ host, port });
  const timer = setTimeout(resolve, withinMs, false);
  socket.once("connect", () => resolve(true));
  socket.once("error", () => resolve(false));
  return promise.finally(() => {
    clearTimeout(timer);
    socket.destroy();
  });
}

function open(target: Target, withinMs: number): Socket {
  const { host, port, isTls } = target;
  const socket = isTls ? openTls(target, {}) : connectPlain({ host, port });
  socket.setTimeout(withinMs, () => socket.destroy());
  return socket;
}

/** Who is not trusted is not told anything: probe.ts keeps the token back. */
function openTls({ host, port }: Target, version: object): TLSSocket {
  return connectTls({
    host,
    port,
    rejectUnauthorized: false,
    ALPNProtocols: ["http/1.1"],
    ...(isIP(host) === 0 ? { servername: host } : {}),
    ...version,
  });
}
