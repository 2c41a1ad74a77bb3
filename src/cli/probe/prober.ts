/**
 * Sends the requests of a probe: slowly, one after the other, to one host, and remembers what came.
 *
 * Invariant: never faster than the rate and never more than the budget; the token goes into no line but the one that
 * carries credentials, never to a host whose certificate is not trusted and never in clear over the internet. Nothing of
 * it is kept.
 */
import type { Answer } from "./answer.ts";
import type { Target } from "./target.ts";
import { exchange } from "./wire.ts";

/** A header line. */
export type Line = readonly [name: string, value: string];

/** One request. Everything has a default. */
export interface Shot {
  /** Default GET. */
  readonly method?: string;
  /** As it stands in the request line. Default the path of the URL. */
  readonly path?: string;
  readonly lines?: readonly Line[];
  /** Default: the URL's; null: no such line. */
  readonly host?: string | null;
  /** Default 1.1. */
  readonly version?: "1.0" | "1.1";
  /** With the token, if there is one. Default false. */
  readonly isAuthorized?: boolean;
  readonly body?: string;
}

/** How a probe is done. */
export interface ProberOptions {
  readonly target: Target;
  /** Null when there is none, or it must not be sent. */
  readonly token: string | null;
  /** Name of the header with the token; `authorization` carries it as Bearer. */
  readonly tokenHeader: string;
  readonly perSecond: number;
}

/** An answer with what it answers, for checks that look at all of them. */
export interface Remembered {
  readonly shot: Shot;
  readonly answer: Answer;
}

/** The other side does not answer any more; what was found until then counts. */
export class ProbeEnded extends Error {
  constructor(why: string) {
    super(why);
    this.name = "ProbeEnded";
  }
}

/** On this machine and its network, and elsewhere. */
const NEAR_MS = 1500;
const FAR_MS = 5000;
/** What is served with a token may take its time. */
const SERVED_MS = 10_000;
const MOST_MS = 120_000;
const MOST_REQUESTS = 600;
const MOST_SILENT = 3;
const USER_AGENT = "gatehouse-doctor";

/** The sender. */
export class Prober {
  readonly target: Target;
  readonly hasToken: boolean;
  readonly remembered: Remembered[] = [];
  private readonly options: ProberOptions;
  private readonly endMs = performance.now() + MOST_MS;
  private sentCount = 0;
  private silent = 0;
  private nextMs = 0;

  constructor(options: ProberOptions) {
    this.options = options;
    this.target = options.target;
    this.hasToken = options.token !== null;
  }

  /** Requests so far. */
  get sent(): number {
    return this.sentCount;
  }

  /** Null when there was no answer. @throws ProbeEnded */
  async ask(shot: Shot): Promise<Answer | null> {
    const text = requestText(shot, this.options);
    const withinMs = shot.isAuthorized === true ? SERVED_MS : this.usualMs();
    const [answer = null] = await this.send(text, [shot.method ?? "GET"], withinMs);
    if (answer !== null) this.remembered.push({ shot, answer });
    return answer;
  }

  /** Exact bytes. @throws ProbeEnded */
  async raw(bytes: string, methods: readonly string[] = ["GET"]): Promise<Answer | null> {
    return (await this.send(bytes, methods, this.usualMs()))[0] ?? null;
  }

  /** The credential lines for other texts than the token's own; empty without one. */
  credentialLines(change: (token: string) => string): readonly Line[] {
    const { token, tokenHeader } = this.options;
    return token === null ? [] : [credentialLine(tokenHeader, change(token))];
  }

  /** Whether a text holds the token. */
  isLeakedIn(text: string): boolean {
    return this.options.token !== null && text.includes(this.options.token);
  }

  private usualMs(): number {
    return this.target.isNear ? NEAR_MS : FAR_MS;
  }

  private async send(
    bytes: string,
    methods: readonly string[],
    withinMs: number,
  ): Promise<readonly Answer[]> {
    const nowMs = performance.now();
    if (nowMs > this.endMs) throw new ProbeEnded(`it took more than ${MOST_MS / 1000} s`);
    if (this.sentCount >= MOST_REQUESTS)
      throw new ProbeEnded(`${MOST_REQUESTS} requests were sent`);
    if (this.nextMs > nowMs) await Bun.sleep(this.nextMs - nowMs);
    this.nextMs = Math.max(nowMs, this.nextMs) + 1000 / this.options.perSecond;
    this.sentCount += 1;
    const { answers, problem } = await exchange(this.target, { bytes, methods, withinMs });
    // A connection that is closed without a word is an answer of a kind; silence is none.
    this.silent =
      problem?.startsWith("no answer") || problem === "ECONNREFUSED" ? this.silent + 1 : 0;
    if (this.silent >= MOST_SILENT)
      throw new ProbeEnded(`${MOST_SILENT} requests in a row had no answer`);
    return answers;
  }
}

function credentialLine(header: string, token: string): Line {
  return header.toLowerCase() === "authorization"
    ? ["Authorization", `Bearer ${token}`]
    : [header, token];
}

/** The bytes of a request. `Connection: close`, unless the lines say something about the connection. */
export function requestText(
  shot: Shot,
  { target, token, tokenHeader }: Pick<ProberOptions, "target" | "token" | "tokenHeader">,
): string {
  const {
    method = "GET",
    path = target.path,
    version = "1.1",
    host = target.authority,
    body,
  } = shot;
  const own: Line[] = host === null ? [] : [["Host", host]];
  const given = shot.lines ?? [];
  const has = (name: string): boolean => given.some(([one]) => one.toLowerCase() === name);
  if (!has("user-agent")) own.push(["User-Agent", USER_AGENT]);
  if (!has("accept")) own.push(["Accept", "*/*"]);
  if (shot.isAuthorized === true && token !== null) own.push(credentialLine(tokenHeader, token));
  if (!has("connection")) own.push(["Connection", "close"]);
  if (body !== undefined) own.push(["Content-Length", String(body.length)]);
  const lines = [...own, ...given].map(([name, value]) => `${name}: ${value}\r\n`).join("");
  return `${method} ${path} HTTP/${version}\r\n${lines}\r\n${body ?? ""}`;
}
