/**
 * What a proxy in front has to know about a configuration: where to ask, what to copy from the answer, what to take
 * away from requests.
 *
 * Invariant: pure, and every name, path and address in here is made of letters, digits and a few signs, so that no
 * snippet has to quote anything; what is not is refused with what to change.
 */
import { identityHeaderNames } from "../../check.ts";
import { type Parsed, parseUpstreamUrl } from "../../config/address.ts";
import type {
  CheckProxy,
  GatewayConfig,
  ListenAddress,
  RouteConfig,
  StrategyConfig,
} from "../../config/model.ts";
import type { Plugin } from "../../contract/plugin.ts";
import { EXIT, OperatorError } from "../../errors.ts";
import { trustCheck } from "../../server.ts";

/** Programs that a snippet can be made for. */
export type EmitProxy = "traefik" | "nginx" | "caddy" | "envoy" | "haproxy";

/** Where the gateway, or the application, is. */
export type Address =
  | { readonly kind: "tcp"; readonly tls: boolean; readonly host: string; readonly port: number }
  | { readonly kind: "unix"; readonly path: string };

/** Everything that a snippet says about a configuration. */
export interface Facts {
  /** Where questions go, such as `/auth/nginx`; for Envoy it stands before the original path. */
  readonly path: string;
  readonly gateway: Address;
  readonly upstream: Address;
  /** Host names of the application. */
  readonly hosts: readonly string[];
  /** Headers of the answer that are copied to the request, lower case: every identity header. */
  readonly copied: readonly string[];
  /** Headers that carry credentials, lower case; removed before the application unless all routes pass them on. */
  readonly credentials: readonly string[];
  /** What the operator should know, a sentence each. */
  readonly notes: readonly string[];
}

/** What the operator says on the command line. */
export interface FactOptions {
  readonly path?: string;
  readonly gateway?: string;
  readonly upstream?: string;
  readonly credentialHeaders?: readonly string[];
}

/** A config with the plugins of its strategies. */
export interface Loaded {
  readonly config: GatewayConfig;
  readonly plugins: ReadonlyMap<string, Plugin>;
  /** Names of the plugins that are part of the executable. */
  readonly bundled: ReadonlySet<string>;
}

const PLACEHOLDER_HOST = "app.example.com";
const PLACEHOLDER_UPSTREAM = "http://127.0.0.1:9000";
const PLAIN_NAME = /^[a-z0-9-]+$/;
const PLAIN_PATH = /^(?:\/[A-Za-z0-9._~-]+)+$/;
const PLAIN_SOCKET = /^(?:\/[A-Za-z0-9._-]+)+$/;

/** HAProxy asks in words that are nobody's in particular. */
export function dialectOf(proxy: EmitProxy): CheckProxy {
  return proxy === "haproxy" ? "generic" : proxy;
}

/** @throws OperatorError when the config has no route for that proxy, or something cannot be written down */
export function factsOf(proxy: EmitProxy, loaded: Loaded, options: FactOptions): Facts {
  const { config } = loaded;
  const { route, path, others } = checkRoute(proxy, config, options.path);
  const judged = judgedRoutes(route, config.routes);
  const names = identityHeaderNames(route.check?.judges === "own" ? [route] : config.routes);
  const carriers = carriersOf(judged, loaded);
  return {
    path,
    gateway: gatewayAddress(config, options.gateway),
    upstream: upstreamAddress(options.upstream ?? PLACEHOLDER_UPSTREAM),
    hosts: hostsOf(config),
    copied: checkedNames(names),
    credentials: credentialsOf(judged, carriers, loaded, options.credentialHeaders ?? []),
    notes: [
      ...others,
      ...(options.gateway === undefined ? gatewayNotes(config) : []),
      ...routeNotes(route, judged),
      ...pluginNotes(carriers, loaded, options.credentialHeaders ?? []),
    ],
  };
}

interface CheckRoute {
  readonly route: RouteConfig;
  readonly path: string;
  readonly others: readonly string[];
}

function checkRoute(proxy: EmitProxy, config: GatewayConfig, wanted?: string): CheckRoute {
  const dialect = dialectOf(proxy);
  const found = config.routes
    .filter(({ check }) => check?.proxy === dialect)
    .flatMap((route) => route.paths.map((pattern) => ({ route, path: askedPath(pattern) })));
  if (found.length === 0) {
    const example = dialect === "envoy" ? "/auth/envoy/**" : `/auth/${dialect}`;
    throw new OperatorError(
      EXIT.config,
      `no route answers ${proxy}'s questions`,
      [
        "add these lines, the route before all others:",
        "  server: { trusted_proxies: [127.0.0.1/32] }   # the address that the proxy asks from",
        "  routes:",
        `    - { match: { path: ${example} }, check: ${dialect} }`,
      ].join("\n"),
    );
  }
  const first = wanted === undefined ? found[0] : found.find(({ path }) => path === wanted);
  if (first === undefined) {
    throw new OperatorError(
      EXIT.usage,
      `no route answers ${proxy}'s questions at that --path`,
      `there is ${found.map(({ path }) => path).join(", ")}`,
    );
  }
  if (!PLAIN_PATH.test(first.path)) {
    throw new OperatorError(
      EXIT.config,
      `routes[${first.route.index}].match.path cannot be written into every proxy's config`,
      `give it a path of letters and digits, such as /auth/${dialect}`,
    );
  }
  const rest = found.filter((one) => one !== first).map(({ path }) => path);
  const isChosen = wanted !== undefined || rest.length === 0;
  return {
    ...first,
    others: isChosen ? [] : [`asks at ${first.path}; --path chooses another: ${rest.join(", ")}`],
  };
}

/** A path that the pattern matches; of `/auth/envoy/**` what stands before the original path. */
function askedPath(pattern: string): string {
  return pattern.replace(/\/\*\*(?=\/|$)/, "").replaceAll("/*", "/check");
}

/** The routes whose requests the proxy will forward. */
function judgedRoutes(route: RouteConfig, routes: readonly RouteConfig[]): readonly RouteConfig[] {
  if (route.check?.judges === "own") return [route];
  return routes.filter(({ check, surface }) => check === null && surface === null);
}

/** Strategies whose credentials may come along: on a public route anybody's. */
function carriersOf(judged: readonly RouteConfig[], { config }: Loaded): readonly StrategyConfig[] {
  if (judged.some(({ access }) => access === "public")) return config.strategies;
  const named = new Set(judged.flatMap(({ access }) => (access === "public" ? [] : access)));
  return config.strategies.filter(({ name }) => named.has(name));
}

function credentialsOf(
  judged: readonly RouteConfig[],
  carriers: readonly StrategyConfig[],
  { plugins }: Loaded,
  further: readonly string[],
): readonly string[] {
  if (judged.length > 0 && judged.every(({ forwardCredential }) => forwardCredential === true)) {
    return [];
  }
  const names = carriers.flatMap(({ name, settings }) =>
    credentialHeaders(plugins.get(name), settings),
  );
  return checkedNames([...new Set([...names, ...further.map((name) => name.toLowerCase())])]);
}

/**
 * The headers that a bundled strategy reads credentials from, lower case, by its settings alone: starting it would
 * open its stores. The contract suite compares this with what started strategies say.
 */
export function credentialHeaders(
  plugin: Plugin | undefined,
  settings: Readonly<Record<string, unknown>>,
): readonly string[] {
  const parsed = plugin?.config.safeParse(settings);
  const values: Readonly<Record<string, unknown>> = parsed?.success ? parsed.data : settings;
  const own = typeof values.header === "string" ? [values.header.toLowerCase()] : [];
  return values.authorization === false ? own : ["authorization", ...own];
}

function checkedNames(names: readonly string[]): readonly string[] {
  const odd = names.find((name) => !PLAIN_NAME.test(name));
  if (odd === undefined) return names;
  throw new OperatorError(
    EXIT.config,
    `the header ${JSON.stringify(odd)} cannot be written into every proxy's config`,
    "use letters, digits and - in header names",
  );
}

function hostsOf({ server }: GatewayConfig): readonly string[] {
  const hosts = server.publicUrls.map((url) => new URL(url).hostname);
  return hosts.length === 0 ? [PLACEHOLDER_HOST] : [...new Set(hosts)];
}

function gatewayAddress({ server }: Pick<GatewayConfig, "server">, given?: string): Address {
  if (given !== undefined) return addressOf("--gateway", given);
  const plain = server.listen.find(({ kind }) => kind === "unix" || server.tls.length === 0);
  if (plain === undefined) {
    throw new OperatorError(
      EXIT.usage,
      "the gateway speaks TLS, and its certificate is not for 127.0.0.1",
      "name the URL that it is for: --gateway https://gateway.example.com:8443",
    );
  }
  return listenAddress(plain);
}

/** How this machine reaches a listener. */
function listenAddress(address: ListenAddress): Address {
  if (address.kind === "unix") return plainSocket("server.listen", address.path);
  if (address.port === 0) {
    throw new OperatorError(
      EXIT.usage,
      "server.listen has port 0, so the port is not known",
      "name the address with --gateway http://HOST:PORT",
    );
  }
  const host = { "0.0.0.0": "127.0.0.1", "::": "::1" }[address.host] ?? address.host;
  return { kind: "tcp", tls: false, host, port: address.port };
}

/** Of a proxy on this machine, which is all that can be known. */
function gatewayNotes({ server }: GatewayConfig): readonly string[] {
  const address = gatewayAddress({ server });
  const notes: string[] = [];
  const peer = address.kind === "unix" ? "unix" : address.host;
  const isLocal = address.kind === "unix" || isLoopback(address.host);
  if (isLocal && !trustCheck(server.trustedProxies)(peer, address.kind === "unix")) {
    const entry = address.kind === "unix" ? "unix" : `${peer}/${peer.includes(":") ? 128 : 32}`;
    notes.push(`server.trusted_proxies lacks ${entry}, from which a proxy on this machine asks`);
  }
  if (server.listen.some((one) => one.kind === "tcp" && !isLoopback(one.host))) {
    notes.push(
      "server.listen takes in more than this machine: let nobody but the proxy reach that port",
    );
  }
  return notes;
}

function isLoopback(host: string): boolean {
  return host === "localhost" || host === "::1" || host.startsWith("127.");
}

function upstreamAddress(text: string): Address {
  const address = addressOf("--upstream", text);
  if (address.kind === "unix" || !address.tls) return address;
  throw new OperatorError(
    EXIT.usage,
    "--upstream is the application behind the proxy, over http or a unix socket",
    "for https, put a placeholder and change the snippet as the proxy's manual says",
  );
}

function addressOf(option: string, text: string): Address {
  const parsed: Parsed<{ readonly target: Address; readonly basePath: string }> =
    parseUpstreamUrl(text);
  if ("problem" in parsed) {
    throw new OperatorError(EXIT.usage, `${option}: ${parsed.problem}`, parsed.hint);
  }
  const { target, basePath } = parsed.value;
  if (basePath !== "") {
    throw new OperatorError(
      EXIT.usage,
      `${option} has a path`,
      "leave it out: requests go on with the path that was judged",
    );
  }
  return target.kind === "unix" ? plainSocket(option, target.path) : target;
}

function plainSocket(where: string, path: string): Address {
  if (PLAIN_SOCKET.test(path)) return { kind: "unix", path };
  throw new OperatorError(
    EXIT.usage,
    `${where}: the socket's path cannot be written into every proxy's config`,
    "use a path of letters, digits, dots and -",
  );
}

function routeNotes(route: RouteConfig, judged: readonly RouteConfig[]): readonly string[] {
  const notes: string[] = [];
  const tell = (routes: readonly RouteConfig[], text: string): void => {
    if (routes.length > 0) notes.push(`${listed(routes)}: ${text}`);
  };
  if (route.hosts.length > 0) {
    notes.push(
      `routes[${route.index}].match.host: questions come under the host of the original request; leave host out`,
    );
  }
  const passing = judged.filter(({ forwardCredential }) => forwardCredential !== false);
  const isMixed = passing.some((one) => one.forwardCredential !== true);
  if (isMixed || passing.length < judged.length) {
    tell(passing, "forward_credential is not followed, the proxy removes credentials everywhere");
  }
  tell(
    judged.filter(({ models }) => models !== null),
    "models cannot be read, the body stays with the proxy; every request is refused",
  );
  tell(
    judged.filter(({ cors }) => cors !== null),
    "preflights are judged like other requests; give OPTIONS a public route",
  );
  return notes;
}

function listed(routes: readonly RouteConfig[]): string {
  return routes.map(({ index }) => `routes[${index}]`).join(", ");
}

function pluginNotes(
  carriers: readonly StrategyConfig[],
  { plugins, bundled }: Loaded,
  further: readonly string[],
): readonly string[] {
  if (further.length > 0) return [];
  return carriers
    .filter(({ name }) => !bundled.has(plugins.get(name)?.name ?? ""))
    .map(
      ({ name }) =>
        `strategies.${name} is a file of yours: name the headers it reads with --credential-header, or the application gets to see them`,
    );
}
