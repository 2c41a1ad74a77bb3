/**
 * From the parts of a document to the configuration that the core uses: addresses parsed, quantities in base
 * units, paths absolute, presets spelled out.
 *
 * Invariant: every text that cannot be read is reported and the piece that holds it is null; nothing is guessed.
 */
import { resolve } from "node:path";
import { parseDuration, parseSize } from "../contract/quantity.ts";
import {
  type Parsed,
  parseHostPattern,
  parseListen,
  parseOrigin,
  parseTrustedPeer,
  parseUpstreamUrl,
} from "./address.ts";
import { PROXY } from "./check-forward-auth.ts";
import type { ConfigPath, Reporter } from "./issues.ts";
import type {
  CheckConfig,
  CorsConfig,
  IdentityHeaderNames,
  LoggingConfig,
  ModelPolicy,
  RouteConfig,
  ServerConfig,
  SharedConfig,
  StrategyConfig,
  UpstreamConfig,
} from "./model.ts";
import type { DocumentParts, RoutePart, StrategyPart, UpstreamPart } from "./parts.ts";
import { patternProblem } from "./pattern-cover.ts";

/** What is needed to normalise. */
export interface NormaliseContext {
  readonly configDir: string;
  readonly report: Reporter;
}

/** The pieces; null where something was wrong. Lists keep the order of the file. */
export interface NormalisedParts {
  readonly server: ServerConfig | null;
  readonly stateDir: string | null;
  /** Null also when there is none. */
  readonly shared: SharedConfig | null;
  readonly strategies: readonly (StrategyConfig | null)[];
  readonly upstreams: readonly (UpstreamConfig | null)[];
  readonly logging: LoggingConfig | null;
  readonly routes: readonly (RouteConfig | null)[];
}

/** For requests that go to no upstream: 100 MiB, as an upstream's default. */
const DEFAULT_MAX_BODY_BYTES = 104_857_600;
/** Longer timers fire at once (2^31 - 1 ms). */
const MAX_TIMER_MS = 2_147_483_647;

const IDENTITY_PRESETS: Readonly<Record<string, IdentityHeaderNames>> = {
  default: {
    identity: "x-gatehouse-identity",
    strategy: "x-gatehouse-strategy",
    name: "x-gatehouse-name",
    role: "x-gatehouse-role",
  },
  remote: { identity: "remote-user", name: "remote-name", role: "remote-groups" },
  forwarded: { identity: "x-forwarded-user", role: "x-forwarded-groups" },
  none: {},
};

/** Normalises every piece and reports whatever cannot be read. */
export function normalise(parts: DocumentParts, context: NormaliseContext): NormalisedParts {
  const { configDir } = context;
  const upstreams = parts.upstreams.map(([name, part]) =>
    part === null ? null : upstreamConfig(name, part, context),
  );
  const maxBody = new Map(upstreams.map((one) => [one?.name, one?.maxBodyBytes]));
  return {
    server: parts.server === null ? null : serverConfig(parts.server, context),
    stateDir: parts.stateDir === null ? null : resolve(configDir, parts.stateDir),
    shared: sharedConfig(parts.shared),
    strategies: parts.strategies.map(([name, part]) =>
      part === null ? null : strategyConfig(name, part),
    ),
    upstreams,
    logging: parts.logging,
    routes: parts.routes.map((part, index) => {
      if (part === null) return null;
      const inherited = maxBody.get(part.upstream);
      return routeConfig(
        part,
        index,
        inherited === undefined ? DEFAULT_MAX_BODY_BYTES : inherited,
        context,
      );
    }),
  };
}

function serverConfig(
  part: NonNullable<DocumentParts["server"]>,
  { configDir, report }: NormaliseContext,
): ServerConfig {
  const base = ["server"];
  const ms = (path: ConfigPath, text: string, isZeroFine = false) =>
    milliseconds([...base, ...path], text, report, isZeroFine);
  const { limits } = part;
  return {
    listen: readAll(part.listen, [...base, "listen"], parseListen, report),
    tls: listOf(part.tls).map(({ cert, key, name }) => ({
      cert: resolve(configDir, cert),
      key: resolve(configDir, key),
      name: name?.toLowerCase() ?? null,
    })),
    publicUrls: readAll(part.public_url, [...base, "public_url"], parseOrigin, report),
    trustedProxies: readAll(
      part.trusted_proxies,
      [...base, "trusted_proxies"],
      parseTrustedPeer,
      report,
    ),
    healthPath: healthPath(part.health_path, report),
    drainMs: ms(["drain"], part.drain, true),
    limits: {
      headBytes: parseSize(limits.head) ?? 0,
      headTimeoutMs: ms(["limits", "head_timeout"], limits.head_timeout),
      keepAliveMs: ms(["limits", "keep_alive"], limits.keep_alive),
      bodyTimeoutMs: ms(["limits", "body_timeout"], limits.body_timeout),
      bodyMinBytesPerSecond: parseSize(limits.body_min_rate) ?? 0,
      sendTimeoutMs: ms(["limits", "send_timeout"], limits.send_timeout),
      maxConnections: limits.connections,
    },
  };
}

function healthPath(path: string | null, report: Reporter): string | null {
  if (path === null) return null;
  const problem = path.includes("*") ? "expected one path, without *" : patternProblem(path);
  if (problem !== null) report.add(["server", "health_path"], problem);
  return path;
}

function sharedConfig(part: DocumentParts["shared"]): SharedConfig | null {
  if (part === undefined || part === null) return null;
  if (typeof part !== "string") {
    const { prefix, ...valkey } = part;
    return { valkey, prefix };
  }
  return { valkey: { url: part, command_timeout: "2s" }, prefix: "gatehouse:" };
}

function strategyConfig(name: string, { use, sha256, ...settings }: StrategyPart): StrategyConfig {
  return { name, use, sha256: sha256?.toLowerCase() ?? null, settings };
}

function upstreamConfig(
  name: string,
  part: UpstreamPart,
  { configDir, report }: NormaliseContext,
): UpstreamConfig | null {
  const base = ["upstreams", name];
  const address = read(part.url, [...base, "url"], parseUpstreamUrl, report);
  const { connect, response, idle } = part.timeouts;
  const at = (key: string) => [...base, "timeouts", key];
  const config = {
    name,
    connectMs: milliseconds(at("connect"), connect, report),
    responseMs: response === "none" ? null : milliseconds(at("response"), response, report),
    idleMs: idle === "none" ? null : milliseconds(at("idle"), idle, report),
    headers: Object.entries(part.headers).map(
      ([header, value]) => [header.toLowerCase(), value] as const,
    ),
    hostHeader: part.host,
    maxBodyBytes: part.max_body === "none" ? null : parseSize(part.max_body),
    ca: part.ca === undefined ? null : resolve(configDir, part.ca),
  };
  return address === null ? null : { ...config, ...address };
}

function routeConfig(
  part: RoutePart,
  index: number,
  inheritedMaxBody: number | null,
  { report }: NormaliseContext,
): RouteConfig | null {
  const base = ["routes", index];
  const before = report.count();
  const hosts = readAll(part.match.host, [...base, "match", "host"], parseHostPattern, report);
  const paths = readAll(part.match.path, [...base, "match", "path"], parsePattern, report);
  // A route that has lost a host or a path would mean something else in the checks that follow.
  if (report.count() > before) return null;
  return {
    index,
    hosts,
    paths,
    methods: part.match.methods ?? [],
    access: part.access ?? [],
    requireRole: part.require?.role ?? null,
    requireScopes: part.require?.scopes ?? [],
    upstream: part.upstream === PROXY ? null : (part.upstream ?? null),
    isProxied: part.upstream === PROXY,
    check: checkConfig(part),
    surface: surfaceOf(part.surface),
    isAnonymous: part.anonymous,
    refusedSchemes: part.refuse.map((scheme) => scheme.toLowerCase()),
    models: part.models === undefined ? null : modelPolicy(part.models),
    slashes: part.slashes,
    forwardCredential: part.forward_credential,
    identityHeaders: identityHeaders(part.identity_headers),
    attributeHeaders: attributeHeaders(part.identity_headers),
    responseHeaders: Object.entries(part.response_headers),
    cors: part.cors === undefined ? null : corsConfig(part.cors, [...base, "cors"], report),
    errors: part.errors,
    maxBodyBytes: maxBodyBytes(part.max_body, inheritedMaxBody),
    holdsChunked: part.chunked_body === "whole",
    tellsClient: part.forwarded_headers,
  };
}

function parsePattern(text: string): Parsed<string> {
  const problem = patternProblem(text);
  return problem === null ? { value: text } : { problem };
}

function maxBodyBytes(text: string | undefined, inherited: number | null): number | null {
  if (text === undefined) return inherited;
  return text === "none" ? null : parseSize(text);
}

function identityHeaders(part: RoutePart["identity_headers"]): IdentityHeaderNames {
  if (typeof part === "string") return IDENTITY_PRESETS[part] ?? {};
  const { attributes: _, ...facts } = part;
  const names = Object.entries(facts).flatMap(([fact, header]) =>
    header === undefined ? [] : [[fact, header.toLowerCase()]],
  );
  return Object.fromEntries(names);
}

function attributeHeaders(part: RoutePart["identity_headers"]): RouteConfig["attributeHeaders"] {
  if (typeof part === "string") return [];
  return Object.entries(part.attributes ?? {}).map(([name, fact]) => [name.toLowerCase(), fact]);
}

function checkConfig({ access, check }: RoutePart): CheckConfig | null {
  if (check === undefined) return null;
  const { proxy, allow_status } =
    typeof check === "string" ? { proxy: check, allow_status: 200 as const } : check;
  return { proxy, judges: access === undefined ? "original" : "own", allowStatus: allow_status };
}

function surfaceOf(text: string | undefined): RouteConfig["surface"] {
  const [first, name] = text?.split(".") ?? [];
  if (first === undefined) return null;
  return name === undefined ? { strategy: null, name: first } : { strategy: first, name };
}

function modelPolicy(part: NonNullable<RoutePart["models"]>): ModelPolicy {
  return {
    allow: part.allow ?? null,
    from: part.from ?? null,
    header: part.header?.toLowerCase() ?? null,
    failsOpen: part.fail_open,
    maxBodyBytes: parseSize(part.max_body) ?? 0,
  };
}

function corsConfig(
  part: NonNullable<RoutePart["cors"]>,
  path: ConfigPath,
  report: Reporter,
): CorsConfig {
  return {
    origins: part.origins,
    methods: part.methods,
    headers: part.headers.map((name) => name.toLowerCase()),
    expose: part.expose.map((name) => name.toLowerCase()),
    credentials: part.credentials,
    maxAgeSeconds: Math.floor(
      milliseconds([...path, "max_age"], part.max_age, report, true) / 1000,
    ),
  };
}

function milliseconds(
  path: ConfigPath,
  text: string,
  report: Reporter,
  isZeroFine = false,
): number {
  const value = parseDuration(text) ?? 0;
  if (value === 0 && !isZeroFine) report.add(path, "expected more than zero");
  if (value > MAX_TIMER_MS) report.add(path, "expected at most 24d", "a timer cannot be longer");
  return value;
}

function listOf<Value>(value: Value | readonly Value[] | undefined): readonly Value[] {
  if (value === undefined) return [];
  return isList(value) ? value : [value];
}

/** `Array.isArray` does not narrow readonly arrays. */
function isList<Value>(value: Value | readonly Value[]): value is readonly Value[] {
  return Array.isArray(value);
}

function readAll<Value>(
  written: string | readonly string[] | undefined,
  path: ConfigPath,
  parse: (text: string) => Parsed<Value>,
  report: Reporter,
): Value[] {
  return listOf(written).flatMap((text, index) => {
    const value = read(text, isList(written ?? "") ? [...path, index] : path, parse, report);
    return value === null ? [] : [value];
  });
}

function read<Value>(
  text: string,
  path: ConfigPath,
  parse: (text: string) => Parsed<Value>,
  report: Reporter,
): Value | null {
  const parsed = parse(text);
  if ("value" in parsed) return parsed.value;
  report.add(path, parsed.problem, parsed.hint);
  return null;
}
