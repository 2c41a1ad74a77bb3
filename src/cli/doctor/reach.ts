/**
 * Whether something answers at an address: connects, says HEAD without any credential, reads the head of the answer.
 *
 * Invariant: it ends within its deadline and never rejects; nothing that is configured as a header or a credential is
 * sent; redirects are not followed.
 */
import { readFileSync } from "node:fs";
import { connect as connectPlain, isIP, type Socket } from "node:net";
import { connect as connectTls, type TLSSocket } from "node:tls";
import { errorCode, errorMessage } from "../../errors.ts";

/** Where to look. */
export type Place =
  | { readonly kind: "unix"; readonly path: string }
  | {
      readonly kind: "tcp";
      readonly host: string;
      readonly port: number;
      /** Null for plain HTTP; `ca` is a file of certificates, or null for the system's. */
      readonly tls: { readonly ca: string | null } | null;
    };

/** What came of it. */
export interface Reached {
  /** Connected, TLS included. */
  readonly isReached: boolean;
  /** Null when it was reached; else a code such as `ECONNREFUSED` or a sentence. */
  readonly problem: string | null;
  /** What the certificate has against it; null without TLS and when it is trusted. */
  readonly tlsProblem: string | null;
  /** Its clock minus ours in ms, exact to a second; null when it said no date. */
  readonly skewMs: number | null;
}

/** Asks for `path` of `authority` there. */
export async function reach(
  place: Place,
  { authority, path, withinMs }: { authority: string; path: string; withinMs: number },
): Promise<Reached> {
  const { promise, resolve } = Promise.withResolvers<Reached>();
  let socket: Socket | null = null;
  const state = { isReached: false, tlsProblem: null as string | null };
  const end = (problem: string | null, skewMs: number | null): void => {
    const isWell = state.isReached && state.tlsProblem === null;
    resolve({ ...state, problem: isWell ? null : (problem ?? state.tlsProblem), skewMs });
  };
  // An upstream that takes the connection and says nothing is reached all the same.
  const timer = setTimeout(() => end(`no answer within ${withinMs} ms`, null), withinMs);
  try {
    socket = open(place);
    let text = "";
    let sentMs = Date.now();
    const onOpen = (): void => {
      state.isReached = true;
      state.tlsProblem = distrust(socket);
      sentMs = Date.now();
      socket?.write(`HEAD ${path} HTTP/1.1\r\nHost: ${authority}\r\nConnection: close\r\n\r\n`);
    };
    socket.once(place.kind === "tcp" && place.tls !== null ? "secureConnect" : "connect", onOpen);
    socket.on("data", (chunk: Buffer) => {
      text = `${text}${chunk.toString("latin1")}`.slice(0, 16_384);
      if (text.includes("\r\n\r\n")) end(null, skewOf(text, sentMs, Date.now()));
    });
    socket.once("error", (problem) => end(errorCode(problem) ?? errorMessage(problem), null));
    socket.once("close", () => end("the connection was closed", null));
  } catch (problem) {
    end(errorCode(problem) ?? errorMessage(problem), null);
  }
  try {
    return await promise;
  } finally {
    clearTimeout(timer);
    socket?.destroy();
  }
}

function open(place: Place): Socket {
  if (place.kind === "unix") return connectPlain({ path: place.path });
  const { host, port, tls } = place;
  if (tls === null) return connectPlain({ host, port });
  return connectTls({
    host,
    port,
    // The reason is wanted, not only the end of the connection; nothing is sent that needs trust.
    rejectUnauthorized: false,
    ...(isIP(host) === 0 ? { servername: host } : {}),
    ...(tls.ca === null ? {} : { ca: readFileSync(tls.ca, "utf8") }),
  });
}

function distrust(socket: Socket | null): string | null {
  if (socket === null || !("authorized" in socket)) return null;
  const { authorized, authorizationError } = socket as TLSSocket;
  if (authorized) return null;
  return (
    errorCode(authorizationError) ?? String(authorizationError ?? "the certificate is not trusted")
  );
}

/**
 * The `Date` of an answer minus our own time, in ms. A date has whole seconds, so the middle of its second is compared
 * with the middle of the time that the answer took.
 */
export function skewOf(head: string, sentMs: number, gotMs: number): number | null {
  const text = /^date:[ \t]*(.+?)[ \t]*\r?$/im.exec(head)?.[1];
  const dateMs = text === undefined ? Number.NaN : Date.parse(text);
  return Number.isNaN(dateMs) ? null : dateMs + 500 - (sentMs + gotMs) / 2;
}
