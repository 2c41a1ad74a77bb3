/**
 * The shape of the config file: the one source for validation, JSON Schema, editor help and documentation.
 *
 * Invariant: every key has a description with unit and default; unknown keys are errors. Meaning (unknown names,
 * shadowed routes, file modes) is checked in check.ts, because it needs the whole document.
 */
import { z } from "zod";
import { parseDuration, parseSize } from "../contract/quantity.ts";
import {
  checkValkeySettings,
  valkeyAddressProblem,
  valkeyShape,
} from "../contract/valkey-settings.ts";

const DURATION = { error: "expected a duration such as 500ms, 30s, 5m, 24h or 30d" };
const SIZE = { error: "expected a size such as 64KiB, 10MiB or 1GB" };

// A config is parsed once: writing and compiling code for each schema first costs more than it saves (5 of 50 ms of
// a start), and nothing here has to make code from text.
z.config({ jitless: true });

/** Milliseconds. */
const duration = z.string(DURATION).refine((text) => parseDuration(text) !== null, DURATION);

const durationOrNone = z.union([z.literal("none"), duration], {
  error: "expected a duration such as 30s, or none",
});

const size = z.string(SIZE).refine((text) => parseSize(text) !== null, SIZE);

const sizeOrNone = z.union([z.literal("none"), size], {
  error: "expected a size such as 10MiB, or none",
});

/** Lower-case names of strategies and upstreams, as they appear in logs and headers. */
const slug = z.string().regex(/^[a-z][a-z0-9_-]{0,62}$/, {
  error: "expected a name of lower-case letters, digits, - and _ that starts with a letter",
});

/** RFC 9110 section 5.6.2. */
const fieldName = z.string().regex(/^[!#$%&'*+.^`|~0-9A-Za-z-]{1,100}$/, {
  error: "expected a header name (letters, digits and -; no underscore)",
});

const tlsPair = z
  .strictObject({
    cert: z.string().min(1).describe("Path of the certificate chain, PEM."),
    key: z
      .string()
      .min(1)
      .describe("Path of the private key, PEM; must not be readable by others."),
    name: z
      .string()
      .min(1)
      .optional()
      .describe(
        "Server name (SNI) this pair answers for. Default: the first pair answers for every other name.",
      ),
  })
  .describe("A certificate and its key.");

const limits = z
  .strictObject({
    head: size
      .default("16KiB")
      .describe("Largest request head, request line and all headers. Default 16KiB; over it 431."),
    head_timeout: duration
      .default("10s")
      .describe(
        "How long a client may take to send a request head. Default 10s; then the connection is closed.",
      ),
    keep_alive: duration
      .default("75s")
      .describe("How long an idle client connection is kept. Default 75s."),
    body_timeout: duration
      .default("30s")
      .describe(
        "How long a request body may pause, and how long before body_min_rate applies. Default 30s; then 408.",
      ),
    body_min_rate: size
      .default("500B")
      .describe(
        "Bytes per second that a request body must reach on average after body_timeout. Default 500B.",
      ),
    send_timeout: duration
      .default("60s")
      .describe(
        "How long a client may take not a byte of a waiting answer. Default 60s; then the connection is closed.",
      ),
    connections: z
      .int()
      .min(1)
      .max(1_000_000)
      .default(10_000)
      .describe("Client connections held at once. Default 10000; more are closed at once."),
  })
  .describe("Limits of every listener.");

const server = z
  .strictObject({
    listen: z
      .union([z.string().min(1), z.array(z.string().min(1)).min(1)])
      .default("127.0.0.1:8008")
      .describe("host:port, [ipv6]:port or unix:/path, or a list of them. Default 127.0.0.1:8008."),
    tls: z
      .union([tlsPair, z.array(tlsPair).min(1)])
      .optional()
      .describe(
        "Serve HTTPS on the TCP listeners; a list serves several names. Default: plain HTTP.",
      ),
    public_url: z
      .union([z.string().min(1), z.array(z.string().min(1)).min(1)])
      .optional()
      .describe(
        "Origin(s) under which clients reach this gateway, for instance https://llm.example.com.",
      ),
    trusted_proxies: z
      .array(z.string().min(1))
      .default([])
      .describe(
        "CIDRs (or unix) whose X-Forwarded-* and X-Request-Id are believed. Default: none.",
      ),
    health_path: z
      .string()
      .startsWith("/")
      .nullable()
      .default("/healthz")
      .describe(
        "Own liveness endpoint, GET and HEAD. Default /healthz; null gives the path to the routes.",
      ),
    drain: duration
      .default("30s")
      .describe("How long SIGTERM waits for requests and streams to end. Default 30s."),
    limits: limits.prefault({}),
  })
  .describe("Listeners and what is believed about clients.");

const strategy = z
  .looseObject({
    use: z
      .string()
      .min(1)
      .describe(
        "A bundled strategy (static-env, bearer-sqlite) or the path of a .ts or .js file, relative to this file.",
      ),
    sha256: z
      .string()
      .regex(/^[0-9a-f]{64}$/i, { error: "expected 64 hexadecimal digits" })
      .optional()
      .describe("Refuse an external file whose SHA-256 is another."),
  })
  .describe("One authenticating strategy; the other keys are its own.");

const shared = z
  .union([
    z.string().superRefine((text, issues) => {
      const problem = valkeyAddressProblem(text);
      if (problem !== null) issues.addIssue({ code: "custom", message: problem });
    }),
    z
      .strictObject({
        ...valkeyShape(),
        prefix: z
          .string()
          .regex(/^[A-Za-z0-9:_.-]{1,64}$/, {
            error: "expected 1 to 64 letters, digits and : _ . -",
          })
          .default("gatehouse:")
          .describe("First part of every key in it. Default gatehouse:."),
      })
      .superRefine(checkValkeySettings),
  ])
  .optional()
  .describe(
    "A Valkey with the state that all replicas have in common, used Nostr proofs and revocations: redis://HOST:PORT/N, or a map. Default: none, they lie in the state database. See docs/replicas.md.",
  );

const timeouts = z
  .strictObject({
    connect: duration
      .default("5s")
      .describe("Until the connection stands, TLS included. Default 5s; then 504."),
    response: durationOrNone
      .default("600s")
      .describe("From the end of the request body to the response head. Default 600s; then 504."),
    idle: durationOrNone
      .default("none")
      .describe("Longest silence inside a response body or WebSocket. Default none."),
  })
  .describe("Deadlines towards the upstream.");

const upstream = z
  .strictObject({
    url: z
      .string()
      .min(1)
      .describe(
        "http://host:port, https://host, with an optional base path, or unix:/path/of.sock.",
      ),
    timeouts: timeouts.prefault({}),
    headers: z
      .record(fieldName, z.string())
      .default({})
      .describe(
        "Set on every request to it, over what the client sent. Secrets as ${env:NAME}, ${file:/path}, ${cred:name}.",
      ),
    host: z
      .enum(["upstream", "preserve"])
      .default("upstream")
      .describe(
        "Host header: the upstream's own authority, or the client's preserved. Default upstream.",
      ),
    max_body: sizeOrNone
      .default("100MiB")
      .describe("Largest request body. Default 100MiB; over it 413. A route may say otherwise."),
    ca: z
      .string()
      .min(1)
      .optional()
      .describe("Path of PEM certificates to trust for https instead of the system's."),
  })
  .describe("Where allowed requests go.");

const cors = z
  .strictObject({
    origins: z
      .array(z.string().min(1))
      .min(1)
      .describe(
        "Allowed origins, exact (https://app.example.com), or * alone for any without credentials.",
      ),
    methods: z
      .array(z.string().min(1))
      .default(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"])
      .describe("Methods a page may use. Default GET, HEAD, POST, PUT, PATCH, DELETE."),
    headers: z
      .array(fieldName)
      .default(["authorization", "content-type", "x-api-key"])
      .describe("Request headers a page may send. Default authorization, content-type, x-api-key."),
    expose: z
      .array(fieldName)
      .default([])
      .describe("Response headers a page may read. Default: none."),
    credentials: z.boolean().default(false).describe("Allow cookies. Default false."),
    max_age: duration.default("10m").describe("How long a preflight is remembered. Default 10m."),
  })
  .describe(
    "Cross-origin rules, answered before authentication; the upstream's own CORS headers are replaced.",
  );

const identityHeaders = z
  .union([
    z.enum(["default", "remote", "forwarded", "none"]),
    z.strictObject({
      identity: fieldName.optional().describe("Header that carries the identity's id."),
      strategy: fieldName.optional().describe("Header that carries the strategy's name."),
      name: fieldName.optional().describe("Header that carries the identity's name."),
      role: fieldName.optional().describe("Header that carries the role."),
      owner: fieldName.optional().describe("Header that carries the owner."),
      scopes: fieldName.optional().describe("Header that carries the scopes, joined with spaces."),
      attributes: z
        .record(fieldName, z.string().min(1))
        .optional()
        .describe("Further headers, each with the attribute of the identity that it carries."),
    }),
  ])
  .default("default")
  .describe(
    "Headers that tell the upstream who was proven: default (x-gatehouse-*), remote (Remote-User, -Name, -Groups), forwarded (X-Forwarded-User, -Groups), none, or own names.",
  );

const models = z
  .strictObject({
    allow: z.array(z.string().min(1)).min(1).optional().describe("Models by exact name."),
    from: slug
      .optional()
      .describe(
        "A strategy that knows models, for instance one with use: routstrd; added to allow.",
      ),
    header: fieldName
      .optional()
      .describe("A request header that may name a model too, and is then checked as well."),
    fail_open: z
      .boolean()
      .default(false)
      .describe(
        "Let requests pass whose model, or the list itself, cannot be read. Default false.",
      ),
    max_body: size
      .default("10MiB")
      .describe("Largest body that is read to find the model; over it 413. Default 10MiB."),
  })
  .optional()
  .describe(
    "Only these models: the body of every request that has one must be plain JSON with one `model` on the list; otherwise 403.",
  );

const match = z
  .strictObject({
    host: z
      .union([z.string().min(1), z.array(z.string().min(1)).min(1)])
      .optional()
      .describe("Host name(s), exact or *.example.com. Default: every host."),
    path: z
      .union([z.string().startsWith("/"), z.array(z.string().startsWith("/")).min(1)])
      .describe("Path pattern(s): exact, * for one segment, ** for any depth."),
    methods: z
      .array(
        z.string().regex(/^[A-Z]{1,20}$/, { error: "expected an upper-case method such as GET" }),
      )
      .min(1)
      .optional()
      .describe("Methods. Default: every method but TRACE and CONNECT."),
  })
  .describe("Which requests this route is for; the first route that matches wins.");

const checkProxy = z.enum(["traefik", "nginx", "caddy", "envoy", "generic"], {
  error: "expected traefik, nginx, caddy, envoy or generic",
});

const check = z
  .union([
    checkProxy,
    z.strictObject({
      proxy: checkProxy.describe("Whose questions these are."),
      allow_status: z
        .union([z.literal(200), z.literal(204)], { error: "expected 200 or 204" })
        .default(200)
        .describe("Status of the answer that lets a request pass. Default 200."),
    }),
  ])
  .describe(
    "Answer a reverse proxy's forward-auth question here: traefik, nginx, caddy, envoy or generic. Without access the original request is judged by the other routes. See docs/forward-auth.md.",
  );

const route = z
  .strictObject({
    match,
    access: z
      .union([z.literal("public"), z.array(slug).min(1)], {
        error: "expected public or a list of strategies",
      })
      .optional()
      .describe(
        "public, or the strategies that are asked, in this order. Only a route with check may leave it out.",
      ),
    check: check.optional(),
    require: z
      .strictObject({
        role: z
          .enum(["admin", "user"])
          .optional()
          .describe("admin, or user (which an admin also satisfies)."),
        scopes: z
          .array(z.string().min(1))
          .min(1)
          .optional()
          .describe("Scopes that the identity must all have."),
      })
      .optional()
      .describe("What the identity must satisfy besides being proven; otherwise 403."),
    upstream: slug
      .optional()
      .describe(
        "Name of the upstream, or proxy where the reverse proxy in front forwards. Absent: 404 once the credential was accepted.",
      ),
    surface: z
      .string()
      .regex(/^[a-z][a-z0-9_-]{0,62}\.[a-z][a-z0-9-]{0,62}$/, {
        error: "expected STRATEGY.NAME, such as nostr.npubs",
      })
      .optional()
      .describe(
        "Endpoints of a strategy that answer here instead of the upstream, as STRATEGY.NAME; they may use the upstream. Every strategy has health; those that keep tokens have tokens (a token API) and docs. See docs/token-api.md.",
      ),
    anonymous: z
      .boolean()
      .default(false)
      .describe(
        "Let the surface decide about requests that no strategy accepted. Only with surface. Default false.",
      ),
    refuse: z
      .array(z.string().regex(/^[A-Za-z][A-Za-z0-9-]{0,30}$/, { error: "expected a scheme" }))
      .default([])
      .describe(
        "Authorization schemes (bearer, basic, nostr) that are answered 403 before any strategy is asked. Default: none.",
      ),
    models,
    slashes: z
      .enum(["merge", "keep"])
      .default("merge")
      .describe(
        "Whether empty path segments are merged before matching and forwarding. Default merge.",
      ),
    forward_credential: z
      .union([z.boolean(), z.array(slug).min(1)])
      .default(false)
      .describe(
        "Pass the client's credential on to the upstream: true, false, or only that of these strategies. Default false.",
      ),
    identity_headers: identityHeaders,
    response_headers: z
      .record(fieldName, z.string().regex(/^[\x20-\x7e]*$/, { error: "expected visible ASCII" }))
      .default({})
      .describe("Set on every answer of the upstream, over what it sent. Default: none."),
    cors: cors.optional(),
    errors: z
      .enum([
        "auto",
        "problem",
        "openai",
        "anthropic",
        "ollama",
        "dexto",
        "anvil",
        "routstrd",
        "message",
      ])
      .default("auto")
      .describe("Shape of our own errors. Default auto: by the path."),
    max_body: sizeOrNone
      .optional()
      .describe("Largest request body; over it 413. Default: the upstream's."),
    chunked_body: z
      .enum(["stream", "whole"])
      .default("stream")
      .describe(
        "A request body without a length: stream passes it on as it comes; whole holds it in memory, up to max_body, and sends it with Content-Length, for upstreams that refuse chunked bodies. Default stream.",
      ),
    forwarded_headers: z
      .boolean()
      .default(true)
      .describe(
        "Tell the upstream who asks and where, in X-Forwarded-For, -Proto and -Host; false for an upstream of somebody else. Default true.",
      ),
  })
  .describe("A route.");

/** The whole file. */
export const documentSchema = z
  .strictObject({
    version: z.literal(1, { error: "expected 1" }).describe("Version of this file's format."),
    server: server.prefault({}),
    state_dir: z
      .string()
      .min(1)
      .default("./state")
      .describe(
        "Directory of the database and keys, mode 0700, relative to this file. Default ./state.",
      ),
    shared,
    strategies: z.record(slug, strategy).default({}).describe("Strategies by name."),
    upstreams: z.record(slug, upstream).default({}).describe("Upstreams by name."),
    logging: z
      .strictObject({
        level: z.enum(["debug", "info", "warn", "error"]).default("info").describe("Default info."),
        access: z
          .boolean()
          .default(true)
          .describe("One access and one decision event per request. Default true."),
        format: z
          .enum(["auto", "json", "text"])
          .default("auto")
          .describe("auto is text on a terminal and JSON elsewhere. Default auto."),
      })
      .prefault({})
      .describe("What is logged, to standard output."),
    routes: z
      .array(route)
      .min(1, { error: "expected at least one route" })
      .describe("Routes; the first match wins, no match is 404."),
  })
  .describe("Gatehouse configuration");

/** The file as parsed, defaults filled in. */
export type ConfigDocument = z.infer<typeof documentSchema>;
