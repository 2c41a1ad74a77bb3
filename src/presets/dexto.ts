/**
 * A Dexto server: its three public paths, its own key on every request to it, and nothing that its key did not cover.
 *
 * Invariant: what Dexto leaves open by prefix or by an earlier handler (/mcp, /healthzzz) is guarded; whoever is
 * accepted may talk to the agent, and only admins change what it is.
 */
import { z } from "zod";
import { definePreset, type ServeDocument, type ServeSources } from "./preset.ts";
import { common, onlyIf, READ, routesFrom } from "./rules.ts";
import { keyHeaders, servingDocument } from "./serving.ts";

const PUBLIC = ["/health", "/.well-known/agent-card.json", "/openapi.json"] as const;

const options = () =>
  z.strictObject({
    ...common,
    open: z
      .array(z.enum(PUBLIC))
      .default([...PUBLIC])
      .describe(
        "Which of /health, /.well-known/agent-card.json and /openapi.json are open to anyone, for reading. Default all three.",
      ),
  });

/** What the agent is asked to do, and what it keeps about that. */
const TALKING = [
  "/mcp/**",
  "/jsonrpc",
  "/v1/message:send",
  "/v1/message:stream",
  "/v1/tasks/**",
  "/api/message",
  "/api/message-sync",
  "/api/message-stream",
  "/api/reset",
  "/api/sessions/**",
  "/api/steer/**",
  "/api/follow-up/**",
  "/api/approvals/**",
  "/api/memory/**",
  "/api/search/**",
];

/** Also for reading: keys, the whole config, and addresses that are told everything. */
const PRIVATE = ["/api/agent/config/**", "/api/llm/key/**", "/api/webhooks/**"];

/** One set of CORS fields, ours: preflights are answered here, and Dexto's own fields are replaced. */
function corsOf(origins: readonly string[]) {
  return {
    cors: {
      origins: [...origins],
      methods: ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD"],
      headers: ["Content-Type", "Authorization", "X-Api-Key"],
      credentials: !origins.includes("*"),
    },
  };
}

const usual = {
  upstream: "http://127.0.0.1:3001",
  key: {
    env: "DEXTO_SERVER_API_KEY",
    header: "authorization",
    prefix: "Bearer ",
    isOptional: false,
  },
};

/** The environment of a Dexto server as a config document. */
function serve({ env, flags }: ServeSources): ServeDocument {
  const { DEXTO_ALLOWED_ORIGINS: allowed = "", PORT: port = "3001" } = env;
  const origins = allowed.split(",").flatMap((one) => one.trim() || []);
  return servingDocument(flags, {
    preset: "dexto",
    upstream: `http://127.0.0.1:${port}`,
    upstreamKeys: {
      headers: keyHeaders(usual.key),
      // An agent may wait for a person before it says its first word.
      timeouts: { response: "none" },
    },
    strategies: {
      key: { use: "static-env", env: "DEXTO_SERVER_API_KEY", role: "admin" },
      team: { use: "bearer-sqlite" },
    },
    ...(origins.length === 0 ? {} : { with: { origins } }),
    notes: env.DEXTO_BASE_URL
      ? []
      : ["DEXTO_BASE_URL is not set: Dexto's agent card names an address that is not this gateway"],
  });
}

/** @see docs/presets.md */
export const dexto = definePreset({
  name: "dexto",
  description: "A Dexto server: its public paths exactly, /mcp guarded, its own key set upstream",
  options,
  routes: (given) =>
    routesFrom(
      given,
      [
        ...onlyIf(given.open.length > 0, { for: "anyone", path: given.open }),
        { for: "admins", path: PRIVATE },
        { for: "everybody", path: TALKING },
        // Lists, catalogues and the files of its page.
        { for: "everybody", path: ["/**"], methods: READ },
        { for: "admins", path: ["/**"] },
      ],
      {
        errors: "dexto",
        // Its streams ask proxies in front not to hold them back, all but one.
        response_headers: { "X-Accel-Buffering": "no" },
        ...(given.origins === undefined ? {} : corsOf(given.origins)),
      },
    ),
  usual,
  serve,
});
