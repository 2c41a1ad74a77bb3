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

/** Where descriptions lie. `describe()` would make a copy of every schema, which is a fifth of a start. */
const said = z.globalRegistry;

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
    cert: z.string().min(1).register(said, { description: "Path of the certificate chain, PEM." }),
    key: z.string().min(1).register(said, {
      description: "Path of the private key, PEM; must not be readable by others.",
    }),
    name: z.string().min(1).optional().register(said, {
      description:
        "Server name (SNI) this pair answers for. Default: the first pair answers for every other name.",
    }),
  })
  .register(said, { description: "A certificate and its key." });

const limits = z
  .strictObject({
    head: size.default("16KiB").register(said, {
      description:
        "Largest request head, request line and all headers. Default 16KiB; over it 431.",
    }),
    head_timeout: duration.default("10s").register(said, {
      description:
        "How long a client may take to send a request head. Default 10s; then the connection is closed.",
    }),
    keep_alive: duration
      .default("75s")
      .register(said, { description: "How long an idle client connection is kept. Default 75s." }),
    body_timeout: duration.default("30s").register(said, {
      description:
        "How long a request body may pause, and how long before body_min_rate applies. Default 30s; then 408.",
    }),
    body_min_rate: size.default("500B").register(said, {
      description:
        "Bytes per second that a request body must reach on average after body_timeout. Default 500B.",
    }),
    send_timeout: duration.default("60s").register(said, {
      description:
        "How long a client may take not a byte of a waiting answer. Default 60s; then the connection is closed.",
    }),
    connections: z.int().min(1).max(1_000_000).default(10_000).register(said, {
      description: "Client connections held at once. Default 10000; more are closed at once.",
    }),
  })
  .register(said, { description: "Limits of every listener." });

const server = z
  .strictObject({
    listen: z
      .union([z.string().min(1), z.array(z.string().min(1)).min(1)])
      .default("127.0.0.1:8008")
      .register(said, {
        description:
          "host:port, [ipv6]:port or unix:/path, or a list of them. Default 127.0.0.1:8008.",
      }),
    tls: z
      .union([tlsPair, z.array(tlsPair).min(1)])
      .optional()
      .register(said, {
        description:
          "Serve HTTPS on the TCP listeners; a list serves several names. Default: plain HTTP.",
      }),
    public_url: z
      .union([z.string().min(1), z.array(z.string().min(1)).min(1)])
      .optional()
      .register(said, {
        description:
          "Origin(s) under which clients reach this gateway, for instance https://llm.example.com.",
      }),
    trusted_proxies: z.array(z.string().min(1)).default([]).register(said, {
      description:
        "CIDRs (or unix) whose X-Forwarded-* and X-Request-Id are believed. Default: none.",
    }),
    health_path: z.string().startsWith("/").nullable().default("/healthz").register(said, {
      description:
        "Own liveness endpoint, GET and HEAD. Default /healthz; null gives the path to the routes.",
    }),
    drain: duration.default("30s").register(said, {
      description: "How long SIGTERM waits for requests and streams to end. Default 30s.",
    }),
    limits: limits.prefault({}),
  })
  .register(said, { description: "Listeners and what is believed about clients." });

const strategy = z
  .looseObject({
    use: z.string().min(1).register(said, {
      description:
        "A bundled strategy (static-env, bearer-sqlite) or the path of a .ts or .js file, relative to this file.",
    }),
    sha256: z
      .string()
      .regex(/^[0-9a-f]{64}$/i, { error: "expected 64 hexadecimal digits" })
      .optional()
      .register(said, { description: "Refuse an external file whose SHA-256 is another." }),
  })
  .register(said, { description: "One authenticating strategy; the other keys are its own." });

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
          .register(said, { description: "First part of every key in it. Default gatehouse:." }),
      })
      .superRefine(checkValkeySettings),
  ])
  .optional()
  .register(said, {
    description:
      "A Valkey with the state that all replicas have in common, used Nostr proofs and revocations: redis://HOST:PORT/N, or a map. Default: none, they lie in the state database. See docs/replicas.md.",
  });

const timeouts = z
  .strictObject({
    connect: duration.default("5s").register(said, {
      description: "Until the connection stands, TLS included. Default 5s; then 504.",
    }),
    response: durationOrNone.default("600s").register(said, {
      description: "From the end of the request body to the response head. Default 600s; then 504.",
    }),
    idle: durationOrNone.default("none").register(said, {
      description: "Longest silence inside a response body or WebSocket. Default none.",
    }),
  })
  .register(said, { description: "Deadlines towards the upstream." });

const upstream = z
  .strictObject({
    url: z.string().min(1).register(said, {
      description:
        "http://host:port, https://host, with an optional base path, or unix:/path/of.sock.",
    }),
    timeouts: timeouts.prefault({}),
    headers: z.record(fieldName, z.string()).default({}).register(said, {
      description:
        "Set on every request to it, over what the client sent. Secrets as ${env:NAME}, ${file:/path}, ${cred:name}.",
    }),
    host: z.enum(["upstream", "preserve"]).default("upstream").register(said, {
      description:
        "Host header: the upstream's own authority, or the client's preserved. Default upstream.",
    }),
    max_body: sizeOrNone.default("100MiB").register(said, {
      description: "Largest request body. Default 100MiB; over it 413. A route may say otherwise.",
    }),
    ca: z.string().min(1).optional().register(said, {
      description: "Path of PEM certificates to trust for https instead of the system's.",
    }),
  })
  .register(said, { description: "Where allowed requests go." });

const cors = z
  .strictObject({
    origins: z.array(z.string().min(1)).min(1).register(said, {
      description:
        "Allowed origins, exact (https://app.example.com), or * alone for any without credentials.",
    }),
    methods: z
      .array(z.string().min(1))
      .default(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"])
      .register(said, {
        description: "Methods a page may use. Default GET, HEAD, POST, PUT, PATCH, DELETE.",
      }),
    headers: z
      .array(fieldName)
      .default(["authorization", "content-type", "x-api-key"])
      .register(said, {
        description:
          "Request headers a page may send. Default authorization, content-type, x-api-key.",
      }),
    expose: z
      .array(fieldName)
      .default([])
      .register(said, { description: "Response headers a page may read. Default: none." }),
    credentials: z
      .boolean()
      .default(false)
      .register(said, { description: "Allow cookies. Default false." }),
    max_age: duration
      .default("10m")
      .register(said, { description: "How long a preflight is remembered. Default 10m." }),
  })
  .register(said, {
    description:
      "Cross-origin rules, answered before authentication; the upstream's own CORS headers are replaced.",
  });

const identityHeaders = z
  .union([
    z.enum(["default", "remote", "forwarded", "none"]),
    z.strictObject({
      identity: fieldName
        .optional()
        .register(said, { description: "Header that carries the identity's id." }),
      strategy: fieldName
        .optional()
        .register(said, { description: "Header that carries the strategy's name." }),
      name: fieldName
        .optional()
        .register(said, { description: "Header that carries the identity's name." }),
      role: fieldName.optional().register(said, { description: "Header that carries the role." }),
      owner: fieldName.optional().register(said, { description: "Header that carries the owner." }),
      scopes: fieldName
        .optional()
        .register(said, { description: "Header that carries the scopes, joined with spaces." }),
      attributes: z.record(fieldName, z.string().min(1)).optional().register(said, {
        description: "Further headers, each with the attribute of the identity that it carries.",
      }),
    }),
  ])
  .default("default")
  .register(said, {
    description:
      "Headers that tell the upstream who was proven: default (x-gatehouse-*), remote (Remote-User, -Name, -Groups), forwarded (X-Forwarded-User, -Groups), none, or own names.",
  });

const models = z
  .strictObject({
    allow: z
      .array(z.string().min(1))
      .min(1)
      .optional()
      .register(said, { description: "Models by exact name." }),
    from: slug.optional().register(said, {
      description:
        "A strategy that knows models, for instance one with use: routstrd; added to allow.",
    }),
    header: fieldName.optional().register(said, {
      description: "A request header that may name a model too, and is then checked as well.",
    }),
    fail_open: z.boolean().default(false).register(said, {
      description:
        "Let requests pass whose model, or the list itself, cannot be read. Default false.",
    }),
    max_body: size.default("10MiB").register(said, {
      description: "Largest body that is read to find the model; over it 413. Default 10MiB.",
    }),
  })
  .optional()
  .register(said, {
    description:
      "Only these models: the body of every request that has one must be plain JSON with one `model` on the list; otherwise 403.",
  });

const match = z
  .strictObject({
    host: z
      .union([z.string().min(1), z.array(z.string().min(1)).min(1)])
      .optional()
      .register(said, {
        description: "Host name(s), exact or *.example.com. Default: every host.",
      }),
    path: z
      .union([z.string().startsWith("/"), z.array(z.string().startsWith("/")).min(1)])
      .register(said, {
        description: "Path pattern(s): exact, * for one segment, ** for any depth.",
      }),
    methods: z
      .array(
        z.string().regex(/^[A-Z]{1,20}$/, { error: "expected an upper-case method such as GET" }),
      )
      .min(1)
      .optional()
      .register(said, { description: "Methods. Default: every method but TRACE and CONNECT." }),
  })
  .register(said, {
    description: "Which requests this route is for; the first route that matches wins.",
  });

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
        .register(said, {
          description: "Status of the answer that lets a request pass. Default 200.",
        }),
    }),
  ])
  .register(said, {
    description:
      "Answer a reverse proxy's forward-auth question here: traefik, nginx, caddy, envoy or generic. Without access the original request is judged by the other routes. See docs/forward-auth.md.",
  });

const route = z
  .strictObject({
    match,
    access: z
      .union([z.literal("public"), z.array(slug).min(1)], {
        error: "expected public or a list of strategies",
      })
      .optional()
      .register(said, {
        description:
          "public, or the strategies that are asked, in this order. Only a route with check may leave it out.",
      }),
    check: check.optional(),
    require: z
      .strictObject({
        role: z
          .enum(["admin", "user"])
          .optional()
          .register(said, { description: "admin, or user (which an admin also satisfies)." }),
        scopes: z
          .array(z.string().min(1))
          .min(1)
          .optional()
          .register(said, { description: "Scopes that the identity must all have." }),
      })
      .optional()
      .register(said, {
        description: "What the identity must satisfy besides being proven; otherwise 403.",
      }),
    upstream: slug.optional().register(said, {
      description:
        "Name of the upstream, or proxy where the reverse proxy in front forwards. Absent: 404 once the credential was accepted.",
    }),
    surface: z
      .union([
        z.enum(["metrics"]),
        z.string().regex(/^[a-z][a-z0-9_-]{0,62}\.[a-z][a-z0-9-]{0,62}$/, {
          error: "expected STRATEGY.NAME, such as nostr.npubs, or metrics",
        }),
      ])
      .optional()
      .register(said, {
        description:
          "Endpoints of a strategy that answer here instead of the upstream, as STRATEGY.NAME; they may use the upstream. Every strategy has health; those that keep tokens have tokens (a token API) and docs. See docs/token-api.md. Or metrics: the gateway's own numbers for Prometheus. See docs/metrics.md.",
      }),
    anonymous: z.boolean().default(false).register(said, {
      description:
        "Let the surface decide about requests that no strategy accepted. Only with surface. Default false.",
    }),
    refuse: z
      .array(z.string().regex(/^[A-Za-z][A-Za-z0-9-]{0,30}$/, { error: "expected a scheme" }))
      .default([])
      .register(said, {
        description:
          "Authorization schemes (bearer, basic, nostr) that are answered 403 before any strategy is asked. Default: none.",
      }),
    models,
    slashes: z.enum(["merge", "keep"]).default("merge").register(said, {
      description:
        "Whether empty path segments are merged before matching and forwarding. Default merge.",
    }),
    forward_credential: z
      .union([z.boolean(), z.array(slug).min(1)])
      .default(false)
      .register(said, {
        description:
          "Pass the client's credential on to the upstream: true, false, or only that of these strategies. Default false.",
      }),
    identity_headers: identityHeaders,
    response_headers: z
      .record(fieldName, z.string().regex(/^[\x20-\x7e]*$/, { error: "expected visible ASCII" }))
      .default({})
      .register(said, {
        description: "Set on every answer of the upstream, over what it sent. Default: none.",
      }),
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
      .register(said, { description: "Shape of our own errors. Default auto: by the path." }),
    max_body: sizeOrNone.optional().register(said, {
      description: "Largest request body; over it 413. Default: the upstream's.",
    }),
    chunked_body: z.enum(["stream", "whole"]).default("stream").register(said, {
      description:
        "A request body without a length: stream passes it on as it comes; whole holds it in memory, up to max_body, and sends it with Content-Length, for upstreams that refuse chunked bodies. Default stream.",
    }),
    forwarded_headers: z.boolean().default(true).register(said, {
      description:
        "Tell the upstream who asks and where, in X-Forwarded-For, -Proto and -Host; false for an upstream of somebody else. Default true.",
    }),
  })
  .register(said, { description: "A route." });

/** The whole file. */
export const documentSchema = z
  .strictObject({
    version: z
      .literal(1, { error: "expected 1" })
      .register(said, { description: "Version of this file's format." }),
    server: server.prefault({}),
    state_dir: z.string().min(1).default("./state").register(said, {
      description:
        "Directory of the database and keys, mode 0700, relative to this file. Default ./state.",
    }),
    shared,
    strategies: z
      .record(slug, strategy)
      .default({})
      .register(said, { description: "Strategies by name." }),
    upstreams: z
      .record(slug, upstream)
      .default({})
      .register(said, { description: "Upstreams by name." }),
    logging: z
      .strictObject({
        level: z
          .enum(["debug", "info", "warn", "error"])
          .default("info")
          .register(said, { description: "Default info." }),
        access: z.boolean().default(true).register(said, {
          description: "One access and one decision event per request. Default true.",
        }),
        format: z.enum(["auto", "json", "text"]).default("auto").register(said, {
          description: "auto is text on a terminal and JSON elsewhere. Default auto.",
        }),
      })
      .prefault({})
      .register(said, { description: "What is logged, to standard output." }),
    routes: z
      .array(route)
      .min(1, { error: "expected at least one route" })
      .register(said, { description: "Routes; the first match wins, no match is 404." }),
  })
  .register(said, { description: "Gatehouse configuration" });

/** The file as parsed, defaults filled in. */
export type ConfigDocument = z.infer<typeof documentSchema>;
