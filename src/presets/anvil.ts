/**
 * anvil-serving behind its front door: Bearer or x-api-key, /healthz, its own error shape, and its 503 as it is.
 *
 * Invariant: anvil refuses chunked bodies, so every body reaches it with its length; what it answers passes untouched,
 * above all the 503 by which a harness knows to go elsewhere.
 */
import { z } from "zod";
import { definePreset, type ServeDocument, type ServeSources } from "./preset.ts";
import { common, modelsOption, onlyIf, routesFrom } from "./rules.ts";
import { keyHeaders, servingDocument } from "./serving.ts";

const options = () =>
  z.strictObject({
    ...common,
    ...modelsOption,
    health: z
      .boolean()
      .default(true)
      .describe(
        "Open /healthz to anyone, GET only; it tells which routes there are. The gateway's own is in the way unless server.health_path is another or null. Default true.",
      ),
  });

const INFERENCE = [
  "/v1/chat/completions",
  "/v1/messages",
  "/v1/responses",
  "/v1/embeddings",
  "/v1/rerank",
  "/v1/audio/transcriptions",
  "/v1/audio/speech",
  "/v1/models/**",
  "/v1/health/tiers",
  "/v1/router/status",
];

/** `[server].auth_env` of anvil: the name of a variable, and nothing that looks like a secret itself. */
const VARIABLE = /^(?!AKIA|ASIA)[A-Z][A-Z0-9_]*$/;

const usual = {
  upstream: "http://127.0.0.1:8000",
  key: {
    env: "ANVIL_ROUTER_TOKEN",
    header: "authorization",
    prefix: "Bearer ",
    isOptional: false,
  },
};

function serve({ flags }: ServeSources): ServeDocument {
  const variable = flags["auth-env"] ?? "ANVIL_ROUTER_TOKEN";
  if (!VARIABLE.test(variable)) {
    return {
      problems: [
        "--auth-env takes the name of a variable (A-Z, 0-9, _), such as ANVIL_ROUTER_TOKEN, not its value",
      ],
    };
  }
  return servingDocument(flags, {
    preset: "anvil",
    flags: ["auth-env"],
    upstream: usual.upstream,
    upstreamKeys: { headers: keyHeaders({ ...usual.key, env: variable }) },
    server: { health_path: null },
    strategies: {
      router: { use: "static-env", env: variable, role: "admin" },
      team: { use: "bearer-sqlite" },
    },
  });
}

/** @see docs/presets.md */
export const anvil = definePreset({
  name: "anvil",
  description: "anvil-serving: its front door's token, for each person one of their own",
  options,
  routes: (given) =>
    routesFrom(
      given,
      [
        ...onlyIf(given.health, {
          for: "anyone",
          path: ["/healthz", "/healthz/"],
          methods: ["GET"],
          more: { chunked_body: "stream" },
        }),
        { for: "everybody", path: INFERENCE },
        // Metrics, decisions and requests of everybody, transitions, and its own 404 for what is not there.
        { for: "admins", path: ["/**"] },
      ],
      { errors: "anvil", chunked_body: "whole", max_body: "32MiB" },
    ),
  usual,
  serve,
});
