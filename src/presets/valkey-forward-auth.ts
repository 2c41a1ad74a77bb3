/**
 * rusty-valkey-forward-auth as config: its endpoints and their shapes.
 *
 * Invariant: whoever logs in sees and revokes only their own tokens; the forward-auth answer says whose token it is
 * and nothing else of it.
 */
import { z } from "zod";
import { definePreset, type WrittenRoute } from "./preset.ts";
import { serveForwardAuth } from "./valkey-forward-auth-serve.ts";

const options = () =>
  z.strictObject({
    tokens: z.string().describe("Strategy that keeps the tokens, with use: valkey-hash."),
    login: z.string().describe("Strategy of whoever makes tokens, with use: oidc."),
    site: z
      .string()
      .describe("Strategy with use: static-site: the frontend's files, and its values."),
    origins: z
      .array(z.string())
      .min(1)
      .optional()
      .describe("Origins whose pages may use the API. Default: none."),
  });

function routes({ tokens, login, site, origins }: z.infer<ReturnType<typeof options>>) {
  const cors = {
    origins: origins ?? [],
    methods: ["GET", "POST", "DELETE", "OPTIONS"],
    headers: ["authorization", "content-type"],
    max_age: "1h",
  };
  const common = { errors: "message", ...(origins === undefined ? {} : { cors }) };
  const open = (path: string[], surface: string): WrittenRoute => ({
    match: { path },
    access: "public",
    surface,
    ...common,
  });
  return [
    {
      match: { path: "/forward-auth" },
      access: [tokens],
      check: { proxy: "generic", allow_status: 204 },
      identity_headers: {
        owner: "x-authenticated-user",
        attributes: { "x-authenticated-token-id": "token_hash" },
      },
      errors: "message",
    },
    open(["/health/live", "/health/ready"], `${tokens}.health`),
    open(["/frontend/config"], `${site}.values`),
    open(["/docs", "/openapi.json"], `${tokens}.docs`),
    { match: { path: "/api/**" }, access: [login], surface: `${tokens}.tokens`, ...common },
    open(["/**"], `${site}.files`),
  ];
}

/** @see docs/valkey-forward-auth.md */
export const valkeyForwardAuth = definePreset({
  name: "rusty-valkey-forward-auth",
  description:
    "rusty-valkey-forward-auth: forward-auth by tokens in Valkey, made after an OIDC login",
  options,
  routes,
  serve: serveForwardAuth,
});
