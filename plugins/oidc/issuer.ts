/**
 * Asks an issuer for its keys: by discovery (OpenID Connect Discovery 1.0, RFC 8414) or at an address that is given.
 *
 * Invariant: nothing of what was fetched is believed but a document of the very issuer that is configured, over https
 * or on this machine. What goes wrong is an IssuerError whose words are ours; no answer is quoted.
 */
import type { Host } from "gatehouse";
import { isObject, own } from "./json.ts";
import { urlProblem } from "./settings.ts";

/** Largest document that is read. */
export const MAX_DOCUMENT_BYTES = 1_048_576;

/** How long an address that discovery gave is used. */
const DISCOVERY_MS = 3_600_000;

/** Why there are no (new) keys. A throw of the strategy ends as 503. */
export class IssuerError extends Error {
  /** `issuer_mismatch` is a mistake in the configuration; everything else may pass by itself. */
  readonly code: "issuer_mismatch" | "issuer_failed";
  constructor(message: string, code: IssuerError["code"] = "issuer_failed") {
    super(message);
    this.name = "IssuerError";
    this.code = code;
  }
}

/** Where to ask. */
export interface IssuerOptions {
  readonly issuer: string;
  /** Absent: discovery. */
  readonly jwksUrl: string | undefined;
  /** For each of its answers. */
  readonly timeoutMs: number;
  readonly host: Pick<Host, "fetch" | "clock">;
  /** Ends what is under way. */
  readonly signal: AbortSignal;
}

/** Gives the current key document, parsed. @throws (rejects) IssuerError */
export type FetchKeys = () => Promise<unknown>;

/** Remembers where the keys are, until they cannot be had from there. */
export function openIssuer(options: IssuerOptions): FetchKeys {
  const { issuer, jwksUrl, host } = options;
  const get: Get = (url) => fetchDocument(url, options);
  let found: { readonly url: string; readonly atMs: number } | null = null;
  async function locate(): Promise<string> {
    if (jwksUrl !== undefined) return jwksUrl;
    const nowMs = host.clock.nowMs();
    if (found !== null && Math.abs(nowMs - found.atMs) < DISCOVERY_MS) return found.url;
    const url = await discover(issuer, get);
    found = { url, atMs: nowMs };
    return url;
  }
  return async () => {
    const url = await locate();
    try {
      return await get(url);
    } catch (error) {
      found = null;
      throw error;
    }
  };
}

type Get = (url: string) => Promise<unknown>;

/** Both ways to write it; for an issuer without a path they differ in the document's name alone. */
export function discoveryUrls(issuer: string): readonly string[] {
  const { origin, pathname } = new URL(issuer);
  const path = pathname.replace(/\/$/, "");
  return [
    `${origin}${path}/.well-known/openid-configuration`,
    `${origin}/.well-known/oauth-authorization-server${path}`,
  ];
}

async function discover(issuer: string, get: Get): Promise<string> {
  let first: unknown = null;
  for (const url of discoveryUrls(issuer)) {
    try {
      return keysAddress(await get(url), issuer);
    } catch (error) {
      first ??= error;
      // Only an answer that is not one says that the document may be elsewhere.
      if (!(error instanceof WrongAnswer)) break;
    }
  }
  throw first;
}

/** It answered, but not with what was asked for. */
class WrongAnswer extends IssuerError {}

function keysAddress(document: unknown, issuer: string): string {
  if (!isObject(document)) throw new WrongAnswer("the discovery document is no JSON object");
  const named = own(document, "issuer");
  if (named !== issuer) {
    const hint = isShowable(named) ? `; it says ${named}` : "";
    throw new IssuerError(
      `the discovery document is of another issuer than the setting \`issuer\` says${hint}`,
      "issuer_mismatch",
    );
  }
  const address = own(document, "jwks_uri");
  if (typeof address !== "string") {
    throw new WrongAnswer("the discovery document names no `jwks_uri`; set `jwks_url`");
  }
  if (!mayLeadTo(address, issuer)) {
    throw new WrongAnswer("the discovery document names a `jwks_uri` that is not https");
  }
  return address;
}

/** An issuer that is reached over https cannot lead to plain http, wherever that is. */
function mayLeadTo(address: string, issuer: string): boolean {
  if (urlProblem(address) !== null) return false;
  return new URL(address).protocol === "https:" || new URL(issuer).protocol === "http:";
}

function isShowable(value: unknown): value is string {
  return typeof value === "string" && /^https?:\/\/[\x21\x23-\x7e]{1,300}$/.test(value);
}

async function fetchDocument(url: string, options: IssuerOptions): Promise<unknown> {
  const place = `${new URL(url).origin}${new URL(url).pathname}`;
  const response = await ask(url, place, options);
  const { status } = response;
  if (status >= 300 && status < 400) {
    throw new WrongAnswer(`${place} leads elsewhere (${status}); redirects are not followed`);
  }
  if (status !== 200) throw new WrongAnswer(`${place} answered ${status}`);
  const bytes = await response.bytes();
  if (bytes.length > MAX_DOCUMENT_BYTES) {
    throw new WrongAnswer(`${place} answered with more than 1 MiB`);
  }
  try {
    const text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
    const document: unknown = JSON.parse(text);
    return document;
  } catch {
    throw new WrongAnswer(`${place} answered with something that is not JSON`);
  }
}

async function ask(
  url: string,
  place: string,
  { host, timeoutMs, signal }: IssuerOptions,
): Promise<Response> {
  const deadline = AbortSignal.timeout(timeoutMs);
  try {
    return await host.fetch(url, {
      headers: { accept: "application/json, application/jwk-set+json" },
      signal: AbortSignal.any([deadline, signal]),
    });
  } catch (error) {
    const why = deadline.aborted ? `no answer within ${timeoutMs} ms` : causeOf(error);
    throw new IssuerError(`${place} cannot be asked: ${why}`);
  }
}

const CAUSES: Readonly<Record<string, string>> = {
  unreachable: "no connection",
  untrusted_certificate: "its certificate is not trusted",
  connect_timeout: "no connection in time",
  response_timeout: "no answer in time",
  broken_response: "its answer is not HTTP",
  closed_early: "it closed the connection",
};

/** The errors of `host.fetch` have codes; their texts are not shown. */
function causeOf(error: unknown): string {
  const code = error instanceof Error && "code" in error ? String(error.code) : "";
  return CAUSES[code] ?? "it failed, or its answer is too large";
}
