/**
 * Anthropic's API with a key that the clients never see: messages and models for whoever is accepted.
 *
 * Invariant: one key stands for a whole workspace, so what is kept there (batches, files, skills) is for admins, and
 * organisations, agents, vaults and whatever else comes are closed.
 */
import { z } from "zod";
import { definePreset } from "./preset.ts";
import { common, modelsOption, READ, routesFrom } from "./rules.ts";
import { serveWithTokens } from "./serving.ts";
import { storedOption, VENDOR } from "./vendor.ts";

const options = () => z.strictObject({ ...common, ...modelsOption, ...storedOption });

const usual = {
  upstream: "https://api.anthropic.com",
  key: { env: "ANTHROPIC_API_KEY", header: "x-api-key", prefix: "", isOptional: false },
};

/** @see docs/presets.md */
export const anthropic = definePreset({
  name: "anthropic",
  description: "Anthropic's API: your tokens outside, its key inside",
  options,
  routes: (given) =>
    routesFrom(
      given,
      [
        {
          for: "everybody",
          path: ["/v1/messages", "/v1/messages/count_tokens", "/v1/complete"],
          methods: ["POST"],
        },
        { for: "everybody", path: ["/v1/models", "/v1/models/*"], methods: READ },
        {
          for: given.stored === "all" ? "everybody" : "admins",
          path: ["/v1/messages/batches/**", "/v1/files/**", "/v1/skills/**"],
        },
        { for: "nobody", path: ["/**"] },
      ],
      { ...VENDOR, errors: "anthropic" },
    ),
  usual,
  serve: serveWithTokens("anthropic", usual),
});
