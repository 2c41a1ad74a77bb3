/**
 * What will be made: the answers with every default filled in, checked against the machine.
 *
 * Invariant: looks, never changes. What is decided can be written down as it is; what cannot be is an OperatorError
 * that says which answer to change.
 */

import { systemClock } from "../../clock.ts";
import { parseOrigin } from "../../config/address.ts";
import type { ListenAddress } from "../../config/model.ts";
import type { TokenDraft } from "../../contract/tokens.ts";
import { EXIT, OperatorError } from "../../errors.ts";
import type { CliContext } from "../context.ts";
import { Systemd } from "../service/systemd.ts";
import { findUnit } from "../service/unit-file.ts";
import { draftOf } from "../token-input.ts";
import {
  checkedListen,
  clientOrigin,
  domainProblem,
  freePort,
  isLoopback,
  listenProblem,
  nextFree,
} from "./addresses.ts";
import { type Answers, accessKinds, type InitOptions } from "./answers.ts";
import { type Places, placesFor, type ServiceScope } from "./places.ts";
import { type ChosenStrategy, chooseStrategies, type Secret, type Typed } from "./strategies.ts";
import { type Guarded, guardedUpstreams, type LookUp } from "./upstreams.ts";

/** The service that will run it. */
export interface ServiceDecision {
  readonly scope: "system" | "user";
  readonly name: string;
  readonly account: string | null;
}

/** TLS files as they are now, absolute. */
export interface TlsDecision {
  readonly cert: string;
  readonly key: string;
}

/** Everything that is to be made. */
export interface Decision {
  readonly places: Places;
  readonly upstreams: readonly Guarded[];
  readonly strategies: readonly ChosenStrategy[];
  readonly secrets: readonly Secret[];
  readonly listen: ListenAddress;
  readonly publicUrl: string | null;
  readonly trustedProxies: readonly string[];
  readonly tls: TlsDecision | null;
  /** Origin that clients use. */
  readonly url: string;
  readonly draft: TokenDraft & { readonly name: string };
  readonly service: ServiceDecision | null;
  /** One sentence each: what was decided without asking. */
  readonly notes: readonly string[];
}

/** Loopback, in both families. */
const LOCAL_PROXIES = ["127.0.0.1/32", "::1/128"];
const USUAL_PORT = 8008;

/** What deciding takes besides the answers. */
export interface Deciding {
  readonly context: CliContext;
  readonly options: InitOptions;
  readonly scope: ServiceScope;
  readonly lookUp: LookUp;
  readonly typed: Typed;
}

/** @throws OperatorError for an answer that cannot be */
export async function decide(answers: Answers, deciding: Deciding): Promise<Decision> {
  const { context, options, scope, lookUp, typed } = deciding;
  const service = serviceOf(answers, scope);
  const serviceName = service?.name ?? "gatehouse";
  const places = placesFor(context, options, { answers, scope, serviceName });
  if (service !== null) refuseOtherService(context, service, places.configFile);
  const notes: string[] = [];
  const upstreams = await guardedUpstreams(answers, { context, service, lookUp, typed });
  const { strategies, secrets } = chooseStrategies(answers, { context, upstreams, service, typed });
  const tls = tlsOf(answers, context.cwd);
  const listen = listenOf(answers, { isTls: tls !== null, service, notes });
  await checkDomain(answers);
  const publicUrl = publicUrlOf(answers, listen, { isTls: tls !== null, strategies });
  return {
    places,
    upstreams,
    strategies,
    secrets: [...upstreams.flatMap(({ secret }) => secret ?? []), ...secrets],
    listen,
    publicUrl,
    trustedProxies: answers.trusted_proxies ?? (answers.clients === "proxy" ? LOCAL_PROXIES : []),
    tls,
    url: publicUrl ?? clientOrigin(listen, { domain: null, isTls: tls !== null }),
    draft: draftFor(context, answers),
    service,
    notes,
  };
}

/** Which way in there is for a service: what was asked for, or what the machine has. */
export function serviceOf(answers: Answers, scope: ServiceScope): ServiceDecision | null {
  if (scope === null) return null;
  const { service_name: name = "gatehouse", service_account: account = null } = answers;
  return { scope, name, account };
}

/** A second gateway on one machine has its own name; the first one's unit is not taken over. */
function refuseOtherService(
  context: CliContext,
  { scope, name }: ServiceDecision,
  configFile: string,
): void {
  const found = findUnit(new Systemd(context, { scope, name, root: null }).unitPath);
  if (found.kind !== "ours" || found.input.config === configFile) return;
  throw new OperatorError(
    EXIT.cannotCreate,
    `there is a service ${name} already, for ${found.input.config}`,
    "Change that one (gatehouse init -c FILE), or make another: --service-name NAME, or --no-service.",
  );
}

/** The token that the answers ask for. */
export function draftFor(
  context: CliContext,
  { token }: Answers,
  name = token?.name ?? "first",
): Decision["draft"] {
  const { role, expires } = token ?? {};
  const draft = draftOf(
    context,
    {
      name,
      ...(role === undefined ? {} : { role }),
      ...(expires === undefined ? {} : { expires }),
    },
    systemClock.nowMs(),
  );
  return { ...draft, name };
}

function tlsOf({ tls, clients, domain }: Answers, cwd: string): TlsDecision | null {
  if (tls !== undefined) return { cert: absolute(tls.cert, cwd), key: absolute(tls.key, cwd) };
  if (clients !== "public" && domain === undefined) return null;
  const name = domain ?? "llm.example.com";
  throw new OperatorError(
    EXIT.usage,
    "clients from everywhere need TLS, or their tokens cross the network in clear",
    `Name the files: --tls-cert FILE --tls-key FILE. To get them: certbot certonly --standalone -d ${name}`,
  );
}

function absolute(path: string, cwd: string): string {
  return path.startsWith("/") ? path : `${cwd}/${path}`;
}

interface Listening {
  readonly isTls: boolean;
  readonly service: ServiceDecision | null;
  readonly notes: string[];
}

/** @throws OperatorError when one cannot listen there */
function listenOf(answers: Answers, { isTls, service, notes }: Listening): ListenAddress {
  if (answers.listen !== undefined) {
    const wanted = checkedListen(answers.listen);
    if (wanted.kind === "tcp" && wanted.port === 0) {
      const port = freePort(wanted.host);
      notes.push(`port ${port} was free; it is written into the configuration`);
      return { ...wanted, port };
    }
    const problem = listenProblem(wanted);
    if (problem !== null) throw problem;
    return wanted;
  }
  if (isTls) return publicListen(service);
  const port = nextFree("127.0.0.1", USUAL_PORT);
  if (port === null) throw listenProblem({ kind: "tcp", host: "127.0.0.1", port: USUAL_PORT });
  if (port !== USUAL_PORT) notes.push(`port ${USUAL_PORT} is taken; ${port} is free`);
  return { kind: "tcp", host: "127.0.0.1", port };
}

/** 443 where that may be had, else 8443. */
function publicListen(service: ServiceDecision | null): ListenAddress {
  const mayBeLow = process.geteuid?.() === 0 && service?.scope !== "user";
  const address: ListenAddress = { kind: "tcp", host: "0.0.0.0", port: mayBeLow ? 443 : 8443 };
  const problem = listenProblem(address);
  if (problem !== null) throw problem;
  return address;
}

async function checkDomain({ domain, offline }: Answers): Promise<void> {
  if (domain === undefined || offline === true) return;
  const problem = await domainProblem(domain);
  if (problem !== null) throw problem;
}

/** Signed requests name the address that they are for, so one must be written down for them. */
function publicUrlOf(
  answers: Answers,
  listen: ListenAddress,
  {
    isTls,
    strategies,
  }: { readonly isTls: boolean; readonly strategies: readonly ChosenStrategy[] },
): string | null {
  if (answers.public_url !== undefined) {
    const parsed = parseOrigin(answers.public_url);
    if ("value" in parsed) return parsed.value;
    throw new OperatorError(EXIT.usage, `--public-url: ${parsed.problem}`, parsed.hint);
  }
  if (answers.clients === "proxy") {
    throw new OperatorError(
      EXIT.usage,
      "behind a proxy the address that clients use has to be known",
      "Name it: --public-url https://llm.example.com",
    );
  }
  const domain = answers.domain ?? null;
  const isSigned = strategies.some(({ use }) => use === "nip98");
  if (domain === null && !isSigned) return null;
  return clientOrigin(listen, { domain, isTls });
}

/** Whether tokens would cross a network in clear. */
export function isInClear({ listen, tls, trustedProxies }: Decision): boolean {
  return tls === null && !isLoopback(listen) && trustedProxies.length === 0;
}

/** For the summary and the report. */
export function kindsText(answers: Answers): string {
  return accessKinds(answers).join(", ");
}
