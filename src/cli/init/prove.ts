/**
 * The proof: a running gateway is asked without a token, with a wrong one and with the right one.
 *
 * Invariant: it asks the gateway that runs on the written configuration, over the network, as a client would; every
 * claim of the report is an answer that came back.
 */
import { makeBuiltInSurfaces } from "../../admin/surfaces.ts";
import { systemClock } from "../../clock.ts";
import { renderIssues } from "../../config/explain.ts";
import { loadConfig } from "../../config/load.ts";
import type { Log } from "../../contract/host.ts";
import { EXIT, OperatorError } from "../../errors.ts";
import { pluginLoader } from "../../loader.ts";
import { startGateway } from "../../start.ts";
import type { CliContext } from "../context.ts";
import { error, type Finding, info, ok, warning } from "../doctor/finding.ts";
import { localOrigin } from "./addresses.ts";
import { type Asked, askHttp } from "./ask-http.ts";
import type { Decision } from "./decision.ts";
import type { Interruption } from "./interruption.ts";
import { serviceEnv } from "./service.ts";
import type { Guarded } from "./upstreams.ts";

const ANSWER_MS = 10_000;
const STOP_MS = 500;
/** Of the right form for nobody. */
const WRONG_TOKEN = "not-a-token";

/** What of a decision, or of a configuration that is there, the proof looks at. */
export type Provable = Pick<Decision, "service" | "upstreams" | "listen" | "tls" | "publicUrl"> & {
  readonly places: Pick<Decision["places"], "configFile" | "configDir" | "secretsDir">;
};

/** What is proven, and with which credential. */
export interface Proving {
  readonly context: CliContext;
  readonly decision: Provable;
  readonly interruption: Interruption;
  /** The headers of somebody who may enter an upstream, for a URL that is asked for; null: nobody is known. */
  credentialFor(upstream: Guarded, url: string): Readonly<Record<string, string>> | null;
  /** Role of that somebody. */
  readonly role: "admin" | "user";
}

/**
 * Proves it on the service, or on a gateway of our own that ends afterwards.
 * @throws OperatorError when that does not start, or lets somebody in without a token
 */
export async function prove(proving: Proving): Promise<readonly Finding[]> {
  const { decision, interruption } = proving;
  if (decision.service !== null) return interruption.until(findings(proving));
  const stop = await startOwn(proving);
  try {
    return await interruption.until(findings(proving));
  } finally {
    await stop();
  }
}

/** Returns how to stop it. */
async function startOwn({ context, decision }: Proving): Promise<() => Promise<void>> {
  const { places } = decision;
  const loadPlugin = pluginLoader(context.plugins);
  const env = serviceEnv(context, decision);
  const { config, issues } = await loadConfig({
    file: places.configFile,
    cwd: places.configDir,
    env,
    loadPlugin,
  });
  if (config === null) {
    throw new OperatorError(EXIT.config, renderIssues(issues, places.configFile).trimEnd());
  }
  const gateway = await startGateway({
    config,
    loadPlugin,
    env,
    log: SILENT,
    clock: systemClock,
    version: context.version,
    builtInSurfaces: makeBuiltInSurfaces,
  });
  return () => gateway.stop(STOP_MS);
}

const quiet = (): void => undefined;
const SILENT: Log = { debug: quiet, info: quiet, warn: quiet, error: quiet };

async function findings(proving: Proving): Promise<readonly Finding[]> {
  const all: Finding[] = [];
  for (const upstream of proving.decision.upstreams)
    all.push(...(await proveOne(proving, upstream)));
  return all;
}

async function proveOne(proving: Proving, upstream: Guarded): Promise<readonly Finding[]> {
  const { name, system } = upstream;
  const ask = askerFor(proving, upstream);
  const without = await ask(system.proof, {});
  const wrong = await ask(system.proof, headerFor(upstream, WRONG_TOKEN));
  const refused = [
    refusal(name, "without a token", without),
    refusal(name, "with a wrong token", wrong),
  ];
  const credential = proving.credentialFor(upstream, ask.urlOf(system.proof));
  if (credential === null) return [...refused, notTried(name)];
  const right = passed(upstream, await ask(system.proof, credential));
  if (system.closed === undefined || proving.role === "admin") return [...refused, right];
  const { path, status } = system.closed;
  const fresh = proving.credentialFor(upstream, ask.urlOf(path)) ?? credential;
  return [...refused, right, closed(name, { path, status, asked: await ask(path, fresh) })];
}

interface Ask {
  (path: string, headers: Readonly<Record<string, string>>): Promise<Asked>;
  /** The URL as clients write it, for those that sign it. */
  urlOf(path: string): string;
}

function askerFor({ decision, interruption }: Proving, { host }: Guarded): Ask {
  const { listen, tls, publicUrl } = decision;
  const base = localOrigin(listen, tls !== null);
  const site = publicUrl === null ? null : new URL(publicUrl).host;
  // A pattern such as *.example.com stands for some name in it.
  const wanted = host === null ? site : host.replace("*", "gatehouse-proof");
  const ask = (path: string, headers: Readonly<Record<string, string>>): Promise<Asked> =>
    askHttp({
      base,
      path,
      headers: wanted === null ? headers : { host: wanted, ...headers },
      withinMs: ANSWER_MS,
      isVerified: false,
      signal: interruption.signal,
    });
  return Object.assign(ask, { urlOf: (path: string) => `${publicUrl ?? base}${path}` });
}

/** Where an upstream's strategies look for a token. */
export function headerFor(
  { tokenSettings }: Pick<Guarded, "tokenSettings">,
  token: string,
): Readonly<Record<string, string>> {
  const header = tokenSettings?.authorization === false ? tokenSettings.header : undefined;
  return typeof header === "string" ? { [header]: token } : { authorization: `Bearer ${token}` };
}

function refusal(name: string, how: string, asked: Asked): Finding {
  if ("problem" in asked) {
    return error("gateway_silent", `${name}: the gateway did not answer (${asked.problem})`, {
      why: "What is not answered is not proven.",
      next: "gatehouse healthcheck, and look at its log",
    });
  }
  const isOurs = asked.headers["x-gatehouse-reason"] !== undefined;
  if (asked.status === 401 && isOurs) return ok("refused", `${name}: ${how} the answer is 401`);
  const whose = asked.status === 401 ? "401 of the upstream itself" : `${asked.status}, not 401`;
  return error("let_in", `${name}: ${how} the answer is ${whose}`, {
    why: "Somebody who should not may enter.",
    next: "gatehouse config show --expanded, and look which route that is",
  });
}

function passed({ name, system }: Guarded, asked: Asked): Finding {
  if ("problem" in asked) return refusal(name, "with the token", asked);
  const { status } = asked;
  const what = `${name}: with the token the answer is ${status}`;
  const isOurs = asked.headers["x-gatehouse-reason"] !== undefined;
  if (status >= 200 && status < 400) return ok("let_through", `${what} (GET ${system.proof})`);
  if (isOurs && status >= 502) {
    return warning(
      "upstream_unreachable",
      `${what}: the token is right, but the upstream does not answer`,
      {
        why: "Every request to it ends like that until it runs.",
        next: `start ${system.title}, or correct its url in the configuration`,
      },
    );
  }
  if (isOurs) {
    return error("not_let_through", `${what}: the gateway refused it`, {
      why: "Who should enter may not.",
      next: "gatehouse config show --expanded, and look which route that is",
    });
  }
  return info("let_through", `${what}, from the upstream itself (GET ${system.proof})`);
}

function closed(
  name: string,
  {
    path,
    status,
    asked,
  }: { readonly path: string; readonly status: number; readonly asked: Asked },
): Finding {
  const got = "problem" in asked ? asked.problem : asked.status;
  if (got === status) {
    return ok(
      "closed",
      `${name}: ${path}, which is not for everybody, answers ${status} to this token`,
    );
  }
  return warning(
    "not_closed",
    `${name}: ${path} answered ${got}, not ${status}, to a token of role user`,
    {
      why: "It is for admins, or for nobody.",
      next: "gatehouse config show --expanded, and look which route that is",
    },
  );
}

function notTried(name: string): Finding {
  return info(
    "not_tried",
    `${name}: with a credential it was not tried, because none was made here`,
    {
      next: "ask it as one of those who may enter; below is how",
    },
  );
}

/** Whether somebody came in who should not: then nothing of it may stay. */
export function isOpen(found: readonly Finding[]): boolean {
  return found.some(({ code }) => code === "let_in");
}
