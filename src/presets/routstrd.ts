/**
 * routstrd-auth as config: its path classes, identity headers, error shape and CORS, and its environment.
 *
 * Invariant: the classes are those of its newest version, drawn tighter where the original leaked: everything under
 * `/wallet` is for members, sending is for admins, and public paths are public for GET and HEAD only.
 */

import { homedir } from "node:os";
import { join } from "node:path";
import { z } from "zod";
import { hostPort } from "../host-port.ts";
import {
  definePreset,
  type ServeDocument,
  type ServeSources,
  type WrittenRoute,
} from "./preset.ts";

const options = () =>
  z.strictObject({
    upstream: z.string().describe("Upstream of the daemon."),
    bearer: z.string().describe("Strategy with use: routstrd, for client keys."),
    nostr: z.string().describe("Strategy with use: nip98, for members."),
    keep_authorization: z
      .boolean()
      .default(false)
      .describe(
        "Pass the client key on, for daemons that read it themselves (0.1.5 and later). Default false.",
      ),
    models: z
      .boolean()
      .default(false)
      .describe("Only models on the daemon's own list. Default false."),
    fail_open: z
      .boolean()
      .default(false)
      .describe("With models: let pass what cannot be read, as the original does. Default false."),
  });

type Options = z.infer<ReturnType<typeof options>>;

/** Open in every version, for reading only. */
const PUBLIC = ["/health", "/ping", "/models", "/v1/models", "/models/**", "/v1/models/**"];

/** For members, never for client keys. */
const MEMBERS = [
  "/wallet/**",
  "/stop",
  "/refund",
  "/refund/xcashu",
  "/providers",
  "/providers/enable",
  "/providers/disable",
  "/nwc/**",
];

const CORS = {
  origins: ["*"],
  methods: ["GET", "POST", "PATCH", "DELETE", "OPTIONS"],
  headers: ["Authorization", "Content-Type", "X-Cashu", "X-Routstr-Model"],
  expose: [
    "X-Cashu",
    "X-Routstr-Request-Id",
    "X-Routstr-Cost-Msats",
    "X-Routstr-Cost-Usd",
    "X-Routstr-Input-Cost-Msats",
    "X-Routstr-Output-Cost-Msats",
  ],
  max_age: "24h",
};

function routes(given: Options): readonly WrittenRoute[] {
  const { upstream, bearer, nostr } = given;
  const common = {
    errors: "routstrd",
    cors: CORS,
    identity_headers: {
      attributes: { "x-routstr-client-id": "client_id", "x-routstr-nostr-pubkey": "pubkey" },
    },
  };
  const forwarded = { ...common, upstream, response_headers: { "X-Accel-Buffering": "no" } };
  const members = { access: [nostr], refuse: ["bearer"] };
  const surface = (path: string[], name: string, more: object = {}): WrittenRoute => ({
    match: { path },
    ...members,
    ...common,
    upstream,
    surface: name,
    ...more,
  });
  return [
    surface(["/npubs", "/npubs/*"], `${nostr}.npubs`, { anonymous: true }),
    surface(["/clients", "/clients/add", "/clients/delete"], `${bearer}.clients`),
    surface(["/usage", "/usage/summary"], `${bearer}.usage`),
    { match: { path: PUBLIC, methods: ["GET", "HEAD"] }, access: "public", ...forwarded },
    { match: { path: "/wallet/send/**" }, ...members, require: { role: "admin" }, ...forwarded },
    { match: { path: MEMBERS }, ...members, ...forwarded },
    {
      match: { path: "/**" },
      access: [bearer, nostr],
      ...forwarded,
      ...(given.keep_authorization ? { forward_credential: [bearer] } : {}),
      ...(given.models
        ? { models: { from: bearer, header: "x-routstr-model", fail_open: given.fail_open } }
        : {}),
    },
  ];
}

/** The environment and flags of routstrd-auth as a config document. */
function serve({ env, cwd, flags }: ServeSources): ServeDocument {
  const isCloudron = env.CLOUDRON === "1";
  const home = env.HOME ?? env.USERPROFILE ?? homedir();
  const dir = env.ROUTSTRD_DIR ?? (isCloudron ? "/app/data/routstrd" : join(home, ".routstrd"));
  const port = flags.port ?? numberOr(env.ROUTSTRD_AUTH_PORT, "8008");
  const host = flags.host ?? env.ROUTSTRD_AUTH_HOST ?? "0.0.0.0";
  // The original's default outside Cloudron is its own address, so that it proxies to itself; 8009 is what it means.
  const upstream = flags.upstream ?? env.ROUTSTRD_UPSTREAM ?? "http://localhost:8009";
  const database = flags["db-path"] ?? env.ROUTSTRD_DB_PATH ?? join(dir, "routstr.db");
  const admins = [
    env.ROUTSTRD_AUTH_ADMIN_PUBKEYS,
    env.ROUTSTRD_AUTH_ADMIN_NPUBS,
    env.ROUTSTRD_AUTH_BOOTSTRAP_NPUB,
  ].flatMap((list) => (list ?? "").split(/[\s,]+/).filter((key) => key !== ""));
  const problems = admins.flatMap((key, index) =>
    /^(?:npub1[02-9ac-hj-np-z]{58}|[0-9a-f]{64})$/i.test(key)
      ? []
      : [
          `admin ${index + 1} of ROUTSTRD_AUTH_ADMIN_NPUBS and its kin is neither an npub nor 64 hex digits`,
        ],
  );
  if (!/^\d{1,5}$/.test(port)) problems.push("the port is not a number");
  if (flags["auth-env"] !== undefined) {
    problems.push("--auth-env means nothing to the preset routstrd; leave it out");
  }
  if (problems.length > 0) return { problems };
  const isTrusting = /^(?:1|true|yes|on)$/i.test(env.ROUTSTRD_AUTH_TRUSTED_PROXY ?? "");
  return {
    document: {
      version: 1,
      server: {
        listen: hostPort(host, port),
        health_path: null,
        // The original trusts every peer; the nearest thing that is safe is a proxy on this machine or network.
        trusted_proxies: isTrusting
          ? ["127.0.0.1", "::1", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"]
          : [],
      },
      state_dir: env.GATEHOUSE_STATE_DIR ?? join(dir, "gatehouse"),
      strategies: {
        clients: { use: "routstrd", database },
        members: { use: "nip98", database, admins, bootstrap: "first" },
      },
      upstreams: { daemon: { url: upstream, max_body: "none" } },
      routes: [
        {
          preset: "routstrd",
          with: {
            upstream: "daemon",
            bearer: "clients",
            nostr: "members",
            keep_authorization: isYes(env.ROUTSTRD_AUTH_KEEP_AUTHORIZATION),
            models: env.ROUTSTRD_AUTH_MODEL_ALLOWLIST === "true",
          },
        },
      ],
    },
    notes: notes({ env, isTrusting, admins, cwd }),
  };
}

function notes(facts: {
  env: ServeSources["env"];
  isTrusting: boolean;
  admins: readonly string[];
  cwd: string;
}): readonly string[] {
  const said: string[] = [];
  if (facts.admins.length === 0) {
    said.push(
      "no admin is configured: the first npub that is added over HTTP becomes admin; ROUTSTRD_AUTH_ADMIN_NPUBS is the safer way",
    );
  }
  if (facts.isTrusting) {
    said.push(
      "ROUTSTRD_AUTH_TRUSTED_PROXY: forwarded headers are believed from private networks only",
    );
  }
  if (facts.env.ROUTSTRD_AUTH_ALLOWED_MODELS !== undefined) {
    said.push(
      "ROUTSTRD_AUTH_ALLOWED_MODELS is of an old version and not read; write models.allow in a config file",
    );
  }
  return said;
}

function isYes(text: string | undefined): boolean {
  return /^(?:1|true|yes|on)$/i.test(text ?? "");
}

/** As the original: what is no number, or 0, means the default. */
function numberOr(text: string | undefined, fallback: string): string {
  return text !== undefined && /^\d{1,5}$/.test(text) && Number(text) > 0 ? text : fallback;
}

/** @see docs/routstrd.md */
export const routstrd = definePreset({
  name: "routstrd",
  description: "routstrd-auth: client keys and Nostr members of a routstrd daemon",
  options,
  routes,
  serve,
});
