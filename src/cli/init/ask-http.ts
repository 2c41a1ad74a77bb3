/**
 * One GET, for looking at servers and for the proof.
 *
 * Invariant: it ends within its deadline and never rejects; it goes to the address that was named and no other (no
 * proxy of the environment, no redirect), and reads at most 64 KiB.
 */
import { get as httpGet, type IncomingMessage, type RequestOptions } from "node:http";
import { get as httpsGet } from "node:https";
import { isIP } from "node:net";
import { errorCode, errorMessage } from "../../errors.ts";

/** Where and how to ask. */
export interface Question {
  /** `http://host:port`, `https://host`, with an optional base path, or `unix:/path`. */
  readonly base: string;
  /** Begins with a slash; put behind the base path. */
  readonly path: string;
  /** In lower case. `host` names the site where it is not that of the address. */
  readonly headers?: Readonly<Record<string, string>>;
  readonly withinMs: number;
  /** Default true; false where the certificate is looked at elsewhere. */
  readonly isVerified?: boolean;
  readonly signal?: AbortSignal;
}

/** What came back. */
export interface HttpAnswer {
  readonly status: number;
  /** By name in lower case; several lines of one name are joined. */
  readonly headers: Readonly<Record<string, string>>;
  readonly text: string;
}

/** An answer, or a code such as `ECONNREFUSED` or a sentence. */
export type Asked = HttpAnswer | { readonly problem: string };

const MOST_BYTES = 65_536;

/** Asks once. */
export async function askHttp(question: Question): Promise<Asked> {
  const { promise, resolve } = Promise.withResolvers<Asked>();
  const { isTls, options } = requestOf(question);
  const end = (asked: Asked): void => {
    resolve(asked);
    sent.destroy();
  };
  const onAnswer = (message: IncomingMessage): void => {
    collect(message, (text) =>
      end({ status: message.statusCode ?? 0, headers: headersOf(message), text }),
    );
  };
  const sent = isTls ? httpsGet(options, onAnswer) : httpGet(options, onAnswer);
  sent.once("error", (error) => end({ problem: errorCode(error) ?? errorMessage(error) }));
  const onAbort = (): void => end({ problem: "stopped" });
  question.signal?.addEventListener("abort", onAbort, { once: true });
  const timer = setTimeout(
    () => end({ problem: `no answer within ${question.withinMs} ms` }),
    question.withinMs,
  );
  try {
    return await promise;
  } finally {
    clearTimeout(timer);
    question.signal?.removeEventListener("abort", onAbort);
  }
}

/** The body as JSON, or undefined. */
export function jsonOf({ text }: HttpAnswer): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function requestOf({ base, path, headers, isVerified }: Question): {
  readonly isTls: boolean;
  readonly options: RequestOptions & { rejectUnauthorized?: boolean; servername?: string };
} {
  const common = { agent: false as const, headers: { connection: "close", ...headers } };
  if (base.startsWith("unix:")) {
    return { isTls: false, options: { ...common, socketPath: base.slice("unix:".length), path } };
  }
  const url = new URL(base);
  const isTls = url.protocol === "https:";
  const host = url.hostname.replace(/^\[|\]$/g, "");
  const site = (headers?.host ?? host).replace(/:\d+$/, "");
  return {
    isTls,
    options: {
      ...common,
      host,
      port: url.port === "" ? (isTls ? 443 : 80) : Number(url.port),
      path: `${url.pathname.replace(/\/$/, "")}${path}`,
      ...(isTls ? { rejectUnauthorized: isVerified !== false } : {}),
      ...(isTls && isIP(site) === 0 ? { servername: site } : {}),
    },
  };
}

function headersOf(message: IncomingMessage): Readonly<Record<string, string>> {
  const lines = Object.entries(message.headers).map(([name, value]) => [
    name,
    Array.isArray(value) ? value.join(", ") : (value ?? ""),
  ]);
  return Object.fromEntries(lines);
}

/** An endless body is cut. */
function collect(message: IncomingMessage, done: (text: string) => void): void {
  const chunks: Buffer[] = [];
  let length = 0;
  const finish = (): void => done(Buffer.concat(chunks).toString("utf8"));
  message.on("data", (chunk: Buffer) => {
    chunks.push(chunk);
    length += chunk.length;
    if (length >= MOST_BYTES) finish();
  });
  message.once("end", finish);
  message.once("error", finish);
}
