/**
 * The configuration as the core uses it: parsed, checked, in base units, immutable.
 *
 * Invariant: no secret is in here. Values that hold references are kept as written and resolved when the piece
 * that needs them is built.
 */
import type { ValkeySettings } from "../contract/valkey-settings.ts";

/** Where to accept connections. */
export type ListenAddress =
  | { readonly kind: "tcp"; readonly host: string; readonly port: number }
  | { readonly kind: "unix"; readonly path: string };

/** Absolute paths. `name` is the server name (SNI), `null` for the default pair. */
export interface TlsPair {
  readonly cert: string;
  readonly key: string;
  readonly name: string | null;
}

/** One trusted network, or every unix-socket peer. */
export type TrustedPeer =
  | { readonly kind: "unix" }
  | { readonly kind: "cidr"; readonly text: string };

export interface Limits {
  readonly headBytes: number;
  readonly headTimeoutMs: number;
  readonly keepAliveMs: number;
  readonly bodyTimeoutMs: number;
  readonly bodyMinBytesPerSecond: number;
  readonly sendTimeoutMs: number;
  readonly maxConnections: number;
}

export interface ServerConfig {
  readonly listen: readonly ListenAddress[];
  readonly tls: readonly TlsPair[];
  /** Origins without trailing slash. */
  readonly publicUrls: readonly string[];
  readonly trustedProxies: readonly TrustedPeer[];
  readonly healthPath: string | null;
  readonly drainMs: number;
  readonly limits: Limits;
}

export interface StrategyConfig {
  readonly name: string;
  readonly use: string;
  readonly sha256: string | null;
  /** The keys beside `use` and `sha256`, references unresolved. */
  readonly settings: Readonly<Record<string, unknown>>;
}

export interface UpstreamConfig {
  readonly name: string;
  readonly target:
    | { readonly kind: "tcp"; readonly tls: boolean; readonly host: string; readonly port: number }
    | { readonly kind: "unix"; readonly path: string };
  /** What a Host header naming it says, e.g. `127.0.0.1:9000`; `localhost` for unix sockets. */
  readonly authority: string;
  /** Put before the request path; empty or `/base` without trailing slash. */
  readonly basePath: string;
  readonly connectMs: number;
  /** `null`: no deadline. */
  readonly responseMs: number | null;
  readonly idleMs: number | null;
  /** Lower-case name and value with references unresolved. */
  readonly headers: readonly (readonly [string, string])[];
  readonly hostHeader: "upstream" | "preserve";
  /** `null`: no limit. */
  readonly maxBodyBytes: number | null;
  /** Absolute path of PEM certificates, or `null` for the system's. */
  readonly ca: string | null;
}

/** Lower-case header name for each fact of an identity; a fact without a name is not sent. */
export interface IdentityHeaderNames {
  readonly identity?: string;
  readonly strategy?: string;
  readonly name?: string;
  readonly role?: string;
  readonly owner?: string;
  readonly scopes?: string;
}

export interface CorsConfig {
  /** Exact origins; `["*"]` means any. */
  readonly origins: readonly string[];
  readonly methods: readonly string[];
  readonly headers: readonly string[];
  readonly expose: readonly string[];
  readonly credentials: boolean;
  readonly maxAgeSeconds: number;
}

export type ErrorDialect =
  | "problem"
  | "openai"
  | "anthropic"
  | "ollama"
  | "dexto"
  | "anvil"
  | "routstrd"
  | "message";

/** Whose forward-auth questions a route answers. */
export type CheckProxy = "traefik" | "nginx" | "caddy" | "envoy" | "generic";

/** How a route answers a proxy's question instead of forwarding. */
export interface CheckConfig {
  readonly proxy: CheckProxy;
  /** `own`: by this route's `access`; `original`: as the routes would decide about the original request. */
  readonly judges: "own" | "original";
  readonly allowStatus: 200 | 204;
}

/** Which models may be asked for. */
export interface ModelPolicy {
  /** Exact names, or `null` when a strategy knows them. */
  readonly allow: readonly string[] | null;
  readonly from: string | null;
  /** Lower case. */
  readonly header: string | null;
  readonly failsOpen: boolean;
  readonly maxBodyBytes: number;
}

export interface RouteConfig {
  /** Position in the file, from 0: how logs and `explain` name a route that has no other name. */
  readonly index: number;
  /** Empty: every host. Lower case, without port. */
  readonly hosts: readonly string[];
  readonly paths: readonly string[];
  /** Empty: every method. */
  readonly methods: readonly string[];
  readonly access: "public" | readonly string[];
  readonly requireRole: "admin" | "user" | null;
  readonly requireScopes: readonly string[];
  readonly upstream: string | null;
  /** Requests are forwarded by the proxy in front that asks about them; here there is nothing to forward to. */
  readonly isProxied: boolean;
  readonly check: CheckConfig | null;
  /** Its `strategy` is `null` for a surface of the gateway's own. */
  readonly surface: { readonly strategy: string | null; readonly name: string } | null;
  /** The surface decides about requests that no strategy accepted. */
  readonly isAnonymous: boolean;
  /** Authorization schemes that are refused, lower case. */
  readonly refusedSchemes: readonly string[];
  readonly models: ModelPolicy | null;
  readonly slashes: "merge" | "keep";
  /** Whose credential is passed on: everybody's, nobody's, or that of the strategies named. */
  readonly forwardCredential: boolean | readonly string[];
  readonly identityHeaders: IdentityHeaderNames;
  /** Header and the attribute it carries; not sent when the identity lacks it. */
  readonly attributeHeaders: readonly (readonly [string, string])[];
  /** Set on answers of the upstream. */
  readonly responseHeaders: readonly (readonly [string, string])[];
  readonly cors: CorsConfig | null;
  readonly errors: "auto" | ErrorDialect;
  /** `null`: no limit. Already merged with the upstream's. */
  readonly maxBodyBytes: number | null;
  /** A chunked body is held and sent with its length; `maxBodyBytes` is then a number. */
  readonly holdsChunked: boolean;
  /** The upstream is told about the client, in X-Forwarded-*. */
  readonly tellsClient: boolean;
}

export interface LoggingConfig {
  readonly level: "debug" | "info" | "warn" | "error";
  readonly access: boolean;
  readonly format: "auto" | "json" | "text";
}

/** Where the state of all replicas is. */
export interface SharedConfig {
  /** References unresolved. */
  readonly valkey: ValkeySettings;
  /** Of every key. */
  readonly prefix: string;
}

export interface GatewayConfig {
  /** Absolute path of the file, or `null` when built from flags. */
  readonly file: string | null;
  readonly configDir: string;
  readonly stateDir: string;
  /** `null`: in the state database. */
  readonly shared: SharedConfig | null;
  readonly server: ServerConfig;
  readonly strategies: readonly StrategyConfig[];
  readonly upstreams: readonly UpstreamConfig[];
  readonly logging: LoggingConfig;
  readonly routes: readonly RouteConfig[];
}

/** One thing that is wrong with a configuration. */
export interface ConfigIssue {
  /** Config path such as `routes[0].upstream`; empty for the document. */
  readonly path: string;
  /** From 1; 0 when there is no place in a file. */
  readonly line: number;
  readonly column: number;
  /** What is wrong and what was expected; never a secret's value. */
  readonly message: string;
  /** What to do, `did you mean …`. */
  readonly hint?: string;
}
