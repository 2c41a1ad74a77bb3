/**
 * `gatehouse healthcheck`: asks a running gateway whether it is alive, for container and load balancer checks.
 *
 * Invariant: it answers within two seconds, speaks to no one but the address it prints (no proxy, no redirect),
 * and sends no credential.
 */

import { get as httpGet, type IncomingMessage, type RequestOptions } from "node:http";
import { get as httpsGet } from "node:https";
import { parseListen } from "../config/address.ts";
import { renderIssues } from "../config/explain.ts";
import { loadConfig } from "../config/load.ts";
import type { ListenAddress } from "../config/model.ts";
import { EXIT, type ExitCode, errorCode, errorMessage, OperatorError } from "../errors.ts";
import { hostPort } from "../host-port.ts";
import type { CliContext, CommonOptions } from "./context.ts";

/** Container runtimes wait 30 s by default; a gateway that takes longer than this is not well. */
const DEADLINE_MS = 2000;

/** Options of `gatehouse healthcheck`. */
export interface HealthcheckOptions extends CommonOptions {
  /** `--url URL`: asked instead of what the configuration says. */
  readonly url?: string;
}

/** What is asked, and how it is named in the answer. */
interface Target {
  readonly name: string;
  readonly tls: boolean;
  readonly request: RequestOptions;
  /** False for our own address: the certificate is for the public name, and nothing is sent that needs trust. */
  readonly isVerified: boolean;
}

/** Exit code 0 when the answer is 200, else 3. */
export async function healthcheck(
  context: CliContext,
  options: HealthcheckOptions,
): Promise<ExitCode> {
  const target =
    options.url === undefined ? await configTarget(context, options) : urlTarget(options.url);
  const start = performance.now();
  const { status, problem } = await ask(target);
  const isAlive = status === 200;
  const ms = Math.round(performance.now() - start);
  if (options.json === true) {
    const facts = { alive: isAlive, url: target.name, status, problem, duration_ms: ms };
    context.out(`${JSON.stringify(facts)}\n`);
  } else if (isAlive) {
    context.out(`alive: ${target.name} (${ms} ms)\n`);
  } else {
    context.err(`not alive: ${target.name}: ${problem ?? `status ${status}`}\n`);
  }
  return isAlive ? EXIT.ok : EXIT.negative;
}

/**
 * The first listener; one that accepts on every address is asked on the loopback one. A running gateway does not
 * stop being alive because its file was edited since, so only the file's shape matters and no plugin is loaded.
 */
async function configTarget(context: CliContext, options: CommonOptions): Promise<Target> {
  const { document, issues, file } = await loadConfig({
    file: options.config ?? null,
    cwd: context.cwd,
    env: context.env,
    loadPlugin: () => Promise.reject(new Error("not loaded")),
  });
  if (document === null) {
    throw new OperatorError(EXIT.config, renderIssues(issues, file).trimEnd());
  }
  const { health_path: path, listen, tls } = document.server;
  const parsed = parseListen(typeof listen === "string" ? listen : (listen[0] ?? ""));
  if ("problem" in parsed) {
    throw new OperatorError(EXIT.config, `server.listen: ${parsed.problem}`, parsed.hint);
  }
  if (path === null) {
    throw new OperatorError(
      EXIT.usage,
      "server.health_path is null, so there is nothing to ask",
      "name an endpoint with --url",
    );
  }
  return addressTarget(parsed.value, path, tls !== undefined);
}

function addressTarget(address: ListenAddress, path: string, tls: boolean): Target {
  if (address.kind === "unix") {
    const request = { socketPath: address.path, path };
    return { name: `unix:${address.path}${path}`, tls: false, request, isVerified: false };
  }
  const host = { "0.0.0.0": "127.0.0.1", "::": "::1" }[address.host] ?? address.host;
  return {
    name: `${tls ? "https" : "http"}://${hostPort(host, address.port)}${path}`,
    tls,
    request: { host, port: address.port, path },
    isVerified: false,
  };
}

function urlTarget(text: string): Target {
  const url = URL.parse(text);
  if (url === null || !/^https?:$/.test(url.protocol)) {
    throw new OperatorError(EXIT.usage, "--url is not an http:// or https:// URL");
  }
  if (url.username !== "" || url.password !== "") {
    throw new OperatorError(EXIT.usage, "--url holds a credential; the health endpoint needs none");
  }
  const host = url.hostname.replace(/^\[|\]$/g, "");
  const isTls = url.protocol === "https:";
  const port = url.port === "" ? (isTls ? 443 : 80) : Number(url.port);
  return {
    name: `${url.origin}${url.pathname}`,
    tls: isTls,
    request: { host, port, path: `${url.pathname}${url.search}` },
    isVerified: !/^(localhost|127\.\d+\.\d+\.\d+|::1)$/.test(host),
  };
}

/** What came of asking. */
export interface HealthAnswer {
  /** Null when there was none. */
  readonly status: number | null;
  /** Null when there was an answer; else a code such as `ECONNREFUSED`, or a sentence. */
  readonly problem: string | null;
}

/** Asks a listener of this machine for its health path; never rejects. */
export function askHealth(
  address: ListenAddress,
  path: string,
  tls: boolean,
): Promise<HealthAnswer> {
  return ask(addressTarget(address, path, tls));
}

/** Not `fetch`: that one goes through the proxy that the environment names. */
function ask({ tls, request, isVerified }: Target): Promise<HealthAnswer> {
  const { promise, resolve } = Promise.withResolvers<HealthAnswer>();
  const onAnswer = (message: IncomingMessage) => {
    message.resume();
    resolve({ status: message.statusCode ?? null, problem: null });
  };
  const timer = setTimeout(() => {
    resolve({ status: null, problem: `no answer within ${DEADLINE_MS} ms` });
    sent.destroy();
  }, DEADLINE_MS);
  const options = { ...request, agent: false as const, headers: { connection: "close" } };
  const sent = tls
    ? httpsGet({ ...options, rejectUnauthorized: isVerified }, onAnswer)
    : httpGet(options, onAnswer);
  sent.once("error", (error) =>
    resolve({ status: null, problem: errorCode(error) ?? errorMessage(error) }),
  );
  return promise.finally(() => clearTimeout(timer));
}
