/**
 * The gateway and its peers, each doing the same job: a request with the right key goes to the upstream, without
 * the key and with the client's address; everything else gets a 401.
 *
 * Invariant: one worker each, keep-alive on every side, no access log unless it is what is measured; each peer is
 * configured as its manual advises, and where there is a choice, in its favour. Before it is measured every
 * contender has proven that it answers right.
 */
import { randomBytes } from "node:crypto";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { type LoadTarget, parseResponse, rawRequest } from "./load.ts";
import {
  freePort,
  installed,
  type Lab,
  listening,
  processTree,
  type Service,
  startScript,
  startService,
} from "./support.ts";
import { BODY } from "./upstream.ts";

/** What a contender is asked, and what it answers to the key. */
export interface Question {
  /** @param key `null`: without one */
  request(key: string | null): string;
  readonly body: string;
}

const PROXIED: Question = { request: (key) => rawRequest("/v1/models", key), body: BODY };

/** Ready to be started, as often as wanted. */
export interface Prepared {
  readonly name: string;
  readonly port: number;
  readonly isTls: boolean;
  /** The first process, started anew each time. */
  start(): Service;
  /** Processes that it needs and that count as its own, running already. */
  readonly helpers: readonly Service[];
  /** What clients present: one key for all connections or one each in turn. */
  readonly keys: readonly string[];
  /** Default: a request that is forwarded. */
  readonly question?: Question;
}

/** Running, and proven to answer right. */
export interface Contender {
  readonly name: string;
  readonly port: number;
  readonly isTls: boolean;
  readonly keys: readonly string[];
  readonly question: Question;
  /** Its processes without the helpers. */
  own(): number[];
  /** All its processes. */
  all(): number[];
  stop(): Promise<void>;
}

export interface Options {
  readonly upstreamPort: number;
  readonly hasAccessLog?: boolean;
  readonly tls?: Certificate | null;
  /** Added to the name. */
  readonly label?: string;
}

/** PEM files. */
export interface Certificate {
  readonly cert: string;
  readonly key: string;
}

/** `null`: it is not installed. */
export type Recipe = (lab: Lab, options: Options) => Promise<Prepared | null>;

/** As many as there are connections, so that a cache for one token is no help. */
const OWN_TOKENS = 64;
/** The rest of the thousand comes from elsewhere, as after a migration. */
const FOREIGN_TOKENS = 936;
/** Enough for streams on both sides. */
const FILES = 16_384;

const newKey = (): string => `sk-bench-${randomBytes(24).toString("hex")}`;

/** What Gatehouse is configured with besides its strategy. */
function gatehouseConfig(port: number, options: Options, strategy: string): string {
  const { tls } = options;
  const pair = tls ? `\n  tls: { cert: ${tls.cert}, key: ${tls.key} }` : "";
  return `version: 1
server:
  listen: 127.0.0.1:${port}${pair}
strategies:
  keys: ${strategy}
upstreams:
  app: { url: "http://127.0.0.1:${options.upstreamPort}" }
logging: { access: ${options.hasAccessLog === true} }
routes:
  - match: { path: /** }
    access: [keys]
    upstream: app
`;
}

/** A thousand tokens in the database; every connection presents its own. */
export const gatehouseSqlite: Recipe = async (lab, options) => {
  const port = await freePort();
  const directory = lab.makeDirectory("gatehouse-sqlite");
  const config = join(directory, "config.yaml");
  writeFileSync(config, gatehouseConfig(port, options, "{ use: bearer-sqlite }"));
  const run = async (args: readonly string[], stdin: string): Promise<string> => {
    const command = [lab.gatehouse, "token", ...args, "-c", config];
    const child = Bun.spawn(command, { cwd: directory, stdin: Buffer.from(stdin), stderr: "pipe" });
    const [out, err] = await Promise.all([
      new Response(child.stdout).text(),
      new Response(child.stderr).text(),
    ]);
    if ((await child.exited) !== 0) throw new Error(`token ${args[0]}: ${err}`);
    return out.trim();
  };
  const foreign = Array.from({ length: FOREIGN_TOKENS }, (_, index) =>
    JSON.stringify({ token: newKey(), name: `foreign ${index}` }),
  );
  await run(["import", "--json-lines"], foreign.join("\n"));
  const keys: string[] = [];
  for (let index = 0; index < OWN_TOKENS; index += 1) {
    keys.push(await run(["create", "--name", `client ${index}`], ""));
  }
  return gatehouse(lab, { name: "Gatehouse bearer-sqlite", directory, port, options, keys });
};

/** One key from the environment. */
export const gatehouseStatic: Recipe = async (lab, options) => {
  const port = await freePort();
  const directory = lab.makeDirectory("gatehouse-static");
  const strategy = "{ use: static-env, env: BENCH_KEY }";
  writeFileSync(join(directory, "config.yaml"), gatehouseConfig(port, options, strategy));
  const keys = [newKey()];
  return gatehouse(lab, { name: "Gatehouse static-env", directory, port, options, keys });
};

function gatehouse(
  lab: Lab,
  made: {
    readonly name: string;
    readonly directory: string;
    readonly port: number;
    readonly options: Options;
    readonly keys: readonly string[];
  },
): Prepared {
  const { directory, port, options, keys } = made;
  const name = labelled(made.name, options);
  const command = [lab.gatehouse, "serve", "-c", join(directory, "config.yaml")];
  const env = { BENCH_KEY: keys[0] ?? "" };
  const stdout = join(directory, "stdout");
  return {
    name,
    port,
    isTls: isTls(options),
    keys,
    helpers: [],
    start: () => startService(lab, name, command, { cwd: directory, env, stdout }),
  };
}

/** `auth_request` to a service on a kept connection. */
export const nginxAuthRequest: Recipe = async (lab, options) => {
  if (installed("nginx") === null) return null;
  const auth = await startAuthService(lab);
  const http = `upstream auth { server 127.0.0.1:${auth.port}; ${NGINX_KEPT} }`;
  const server = `
      auth_request /_auth;
      ${NGINX_PROXY}
    }
    location = /_auth {
      internal;
      proxy_pass http://auth;
      proxy_http_version 1.1;
      proxy_pass_request_body off;
      proxy_set_header Connection "";
      proxy_set_header Content-Length "";`;
  return nginx(lab, options, { name: "nginx auth_request + service", http, server, auth });
};

/** The key in the configuration itself. */
export const nginxMap: Recipe = async (lab, options) => {
  if (installed("nginx") === null) return null;
  const key = newKey();
  const http = `map $http_authorization $allowed { default 0; "Bearer ${key}" 1; }`;
  const server = `
      if ($allowed = 0) { return 401; }
      ${NGINX_PROXY}`;
  return nginx(lab, options, { name: "nginx, key in a map", http, server, auth: { key } });
};

/** Never closed by count: that would measure connecting. */
const NGINX_KEPT = "keepalive 64; keepalive_requests 100000000;";
const NGINX_PROXY = `proxy_pass http://app;
      proxy_http_version 1.1;
      proxy_buffering off;
      proxy_set_header Connection "";
      proxy_set_header Authorization "";
      proxy_set_header X-Forwarded-For $remote_addr;`;

interface NginxParts {
  readonly name: string;
  readonly http: string;
  readonly server: string;
  readonly auth: { readonly key: string; readonly service?: Service };
}

async function nginx(lab: Lab, options: Options, parts: NginxParts): Promise<Prepared> {
  const port = await freePort();
  const directory = lab.makeDirectory("nginx");
  const { tls } = options;
  const pair = tls ? `ssl_certificate ${tls.cert}; ssl_certificate_key ${tls.key};` : "";
  const log = options.hasAccessLog === true ? join(directory, "access.log") : "off";
  writeFileSync(
    join(directory, "nginx.conf"),
    `${nginxMain(directory)}
http {
  access_log ${log};
  keepalive_requests 100000000;
  server_tokens off;
  map_hash_bucket_size 256;
  upstream app { server 127.0.0.1:${options.upstreamPort}; ${NGINX_KEPT} }
  ${parts.http}
  server {
    listen 127.0.0.1:${port}${tls ? " ssl" : ""};
    ${pair}
    location = /healthz { access_log off; return 200 "ok"; }
    location / {${parts.server}
    }
  }
}
`,
  );
  return {
    name: labelled(parts.name, options),
    port,
    isTls: isTls(options),
    keys: [parts.auth.key],
    helpers: parts.auth.service === undefined ? [] : [parts.auth.service],
    start: () => startNginx(lab, labelled(parts.name, options), directory),
  };
}

function nginxMain(directory: string): string {
  return `daemon off;
worker_processes 1;
worker_rlimit_nofile ${FILES};
pid ${join(directory, "nginx.pid")};
error_log stderr crit;
events { worker_connections ${FILES}; }`;
}

function startNginx(lab: Lab, name: string, directory: string): Service {
  const config = join(directory, "nginx.conf");
  const program = installed("nginx") ?? "nginx";
  return startService(lab, name, [program, "-p", directory, "-c", config, "-e", "stderr"]);
}

/** The key in an acl. */
export const haproxyAcl: Recipe = async (lab, options) => {
  const program = installed("haproxy");
  if (program === null) return null;
  const port = await freePort();
  const key = newKey();
  const config = join(lab.makeDirectory("haproxy"), "haproxy.cfg");
  writeFileSync(
    config,
    `global
  nbthread 1
  maxconn ${FILES / 4}
defaults
  mode http
  option http-keep-alive
  option http-no-delay
  http-reuse always
  timeout connect 5s
  timeout client 75s
  timeout server 600s
frontend gate
  bind 127.0.0.1:${port}
  monitor-uri /healthz
  http-request deny deny_status 401 unless { req.hdr(authorization) -m str "Bearer ${key}" }
  http-request del-header authorization
  option forwardfor
  default_backend app
backend app
  server app 127.0.0.1:${options.upstreamPort}
`,
  );
  const name = labelled("HAProxy, key in an acl", options);
  return {
    name,
    port,
    isTls: false,
    keys: [key],
    helpers: [],
    start: () => startService(lab, name, [program, "-db", "-f", config]),
  };
};

/** As many kept connections as clients. */
const CADDY_KEPT = "transport http { \n keepalive_idle_conns_per_host 64 \n }";
const ONE_THREAD = { GOMAXPROCS: "1" };

/** `forward_auth` to a service, with as many kept connections as clients instead of 32. */
export const caddyForwardAuth: Recipe = (lab, options) =>
  caddy(lab, options, { kept: CADDY_KEPT, threads: ONE_THREAD });

/** The same as its package starts it: as many threads as there are processors. */
export const caddyAllThreads: Recipe = (lab, options) =>
  caddy(lab, { ...options, label: "all threads" }, { kept: CADDY_KEPT, threads: {} });

/** As its documentation writes it: of the connections to a host 32 are kept, the rest are made anew. */
export const caddyDefaults: Recipe = (lab, options) =>
  caddy(lab, { ...options, label: "its defaults" }, { kept: "", threads: {} });

async function caddy(
  lab: Lab,
  options: Options,
  { kept, threads }: { readonly kept: string; readonly threads: Readonly<Record<string, string>> },
): Promise<Prepared | null> {
  const program = installed("caddy");
  if (program === null) return null;
  const auth = await startAuthService(lab);
  const port = await freePort();
  const directory = lab.makeDirectory("caddy");
  const config = join(directory, "Caddyfile");
  writeFileSync(
    config,
    `{
  admin off
  auto_https off
  log { 
    output discard
  }
}
http://:${port} {
  bind 127.0.0.1
  handle /healthz { 
    respond "ok" 200
  }
  handle {
    forward_auth 127.0.0.1:${auth.port} {
      uri /auth
      ${kept}
    }
    reverse_proxy 127.0.0.1:${options.upstreamPort} {
      header_up -Authorization
      ${kept}
    }
  }
}
`,
  );
  const name = labelled("Caddy forward_auth + service", options);
  const env = { XDG_DATA_HOME: directory, XDG_CONFIG_HOME: directory, ...threads };
  const command = [program, "run", "--adapter", "caddyfile", "--config", config];
  return {
    name,
    port,
    isTls: false,
    keys: [auth.key],
    helpers: [auth.service],
    start: () => startService(lab, name, command, { env }),
  };
}

/** For reference. */
export const bareProxy: Recipe = async (lab, options) => {
  const port = await freePort();
  const key = newKey();
  const env = {
    PORT: String(port),
    UPSTREAM: String(options.upstreamPort),
    KEY: key,
    BUN_CONFIG_MAX_HTTP_REQUESTS: "65336",
  };
  return {
    name: "bare Bun.serve + fetch",
    port,
    isTls: false,
    keys: [key],
    helpers: [],
    start: () => startScript(lab, "bare-proxy.ts", env),
  };
};

export async function startAuthService(
  lab: Lab,
): Promise<{ port: number; key: string; service: Service }> {
  const port = await freePort();
  const key = newKey();
  const service = startScript(lab, "auth-service.ts", { PORT: String(port), KEY: key });
  await listening(port, service);
  return { port, key, service };
}

/** nginx if it is installed, because it is the cheapest; the same for all contenders. */
export async function startFixedUpstream(lab: Lab): Promise<{ port: number; service: Service }> {
  if (installed("nginx") === null) return startStreamUpstream(lab);
  const port = await freePort();
  const directory = lab.makeDirectory("upstream");
  writeFileSync(
    join(directory, "nginx.conf"),
    `${nginxMain(directory)}
http {
  access_log off;
  keepalive_requests 100000000;
  default_type application/json;
  server {
    listen 127.0.0.1:${port};
    location / { return 200 '${BODY}'; }
  }
}
`,
  );
  const service = startNginx(lab, "upstream", directory);
  await listening(port, service);
  return { port, service };
}

export async function startStreamUpstream(lab: Lab): Promise<{ port: number; service: Service }> {
  const port = await freePort();
  const service = startScript(lab, "upstream.ts", { PORT: String(port) });
  await listening(port, service);
  return { port, service };
}

/** A certificate for the run, or `null` when openssl is not installed. */
export function makeCertificate(lab: Lab): Certificate | null {
  const program = installed("openssl");
  if (program === null) return null;
  const directory = lab.makeDirectory("certificate");
  const pair = { cert: join(directory, "cert.pem"), key: join(directory, "key.pem") };
  const made = Bun.spawnSync([
    ...[program, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"],
    ...["-nodes", "-days", "2", "-subj", "/CN=gate.example"],
    ...["-keyout", pair.key, "-out", pair.cert],
  ]);
  return made.success ? pair : null;
}

/** Starts it and proves it: 200 and the body with the key, 401 without and with another. */
export async function startContender(prepared: Prepared): Promise<Contender> {
  const { name, port, keys, helpers } = prepared;
  const service = prepared.start();
  await listening(port, service);
  const contender: Contender = {
    name,
    port,
    isTls: prepared.isTls,
    keys,
    question: prepared.question ?? PROXIED,
    own: () => processTree(service.pid),
    all: () => [service, ...helpers].flatMap((one) => processTree(one.pid)),
    async stop() {
      await Promise.all([service, ...helpers].map((one) => one.stop()));
    },
  };
  await prove(contender, keys[0] ?? "", 200);
  await prove(contender, null, 401);
  await prove(contender, newKey(), 401);
  return contender;
}

/** A contender that lets in or keeps out the wrong ones. */
export class WrongAnswer extends Error {}

async function prove(contender: Contender, key: string | null, status: number): Promise<void> {
  const { request, body } = contender.question;
  const said = await askOnce(contender, request(key));
  if (said.status === status && (status !== 200 || said.body === body)) return;
  const what = key === null ? "no key" : status === 200 ? "the key" : "a wrong key";
  throw new WrongAnswer(`${contender.name}: ${what} gave ${said.status} ${said.body}`);
}

/** One request on a connection of its own. */
export function askOnce(
  target: { readonly port: number; readonly isTls: boolean },
  request: string,
): Promise<{ status: number; body: string }> {
  return new Promise((resolve, reject) => {
    let bytes = Buffer.alloc(0);
    Bun.connect({
      hostname: "127.0.0.1",
      port: target.port,
      ...(target.isTls ? { tls: { rejectUnauthorized: false } } : {}),
      socket: {
        open: (socket) => void socket.write(request),
        data(socket, chunk) {
          bytes = Buffer.concat([bytes, chunk]);
          const response = parseResponse(bytes);
          if (response === null) return;
          resolve(response);
          socket.end();
        },
        close: () => reject(new Error("closed without an answer")),
        error: (_, error) => reject(error),
      },
    }).catch(reject);
  });
}

/** What the load process is told: so many connections, the keys in turn. */
export function loadTarget(contender: Contender, connections: number): LoadTarget {
  const { port, isTls, keys, question } = contender;
  const requests = Array.from({ length: connections }, (_, index) =>
    question.request(keys[index % keys.length] ?? null),
  );
  return { port, isTls, requests, body: question.body };
}

/** Those that are installed, started; the names of the others. */
export async function startAll(
  lab: Lab,
  wanted: readonly (readonly [Recipe, Options])[],
): Promise<Contender[]> {
  const contenders: Contender[] = [];
  for (const [recipe, options] of wanted) {
    const prepared = await recipe(lab, options);
    if (prepared !== null) contenders.push(await startContender(prepared));
  }
  return contenders;
}

export async function stopAll(contenders: readonly Contender[]): Promise<void> {
  await Promise.all(contenders.map((contender) => contender.stop()));
}

/** Peers that this machine lacks, with what would bring them. */
export function missingPeers(): string | null {
  const missing = ["nginx", "caddy", "haproxy"].filter((name) => installed(name) === null);
  if (missing.length === 0) return null;
  const all = missing.join(" ");
  return `not installed, so not measured: ${all} (apt-get install ${all})`;
}

function labelled(name: string, options: Options): string {
  return options.label === undefined ? name : `${name}, ${options.label}`;
}

function isTls(options: Options): boolean {
  return options.tls !== undefined && options.tls !== null;
}
