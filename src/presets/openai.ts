/**
 * OpenAI's API with a key that the clients never see: inference for whoever is accepted.
 *
 * Invariant: one key stands for a whole project, so what is kept there is for admins; what would hand out a credential
 * of the vendor's own is for admins always; organisation, projects, vaults and whatever else comes are closed.
 */
import { z } from "zod";
import { definePreset } from "./preset.ts";
import { common, modelsOption, READ, routesFrom } from "./rules.ts";
import { serveWithTokens } from "./serving.ts";
import { storedOption, VENDOR } from "./vendor.ts";

const options = () => z.strictObject({ ...common, ...modelsOption, ...storedOption });

const INFERENCE = [
  "/v1/chat/completions",
  "/v1/completions",
  "/v1/embeddings",
  "/v1/moderations",
  "/v1/images/generations",
  "/v1/images/edits",
  "/v1/images/variations",
  "/v1/audio/speech",
  "/v1/audio/transcriptions",
  "/v1/audio/translations",
];

/** Kept by the vendor too, but there is no list of them: their ids are the keys to them. */
const BY_ID = ["/v1/responses/**", "/v1/conversations/**", "/v1/realtime"];

const STORED = [
  "/v1/chat/completions/**",
  "/v1/files/**",
  "/v1/uploads/**",
  "/v1/batches/**",
  "/v1/vector_stores/**",
  "/v1/assistants/**",
  "/v1/threads/**",
  "/v1/containers/**",
  "/v1/evals/**",
  "/v1/skills/**",
  "/v1/videos/**",
];

/** They make credentials that go past this gateway, run for long on the key's account, or change models. */
const ADMIN = [
  "/v1/realtime/**",
  "/v1/chatkit/**",
  "/v1/fine_tuning/**",
  "/v1/models/*",
  "/v1/audio/voices/**",
  "/v1/audio/voice_consents/**",
];

const usual = {
  upstream: "https://api.openai.com",
  key: { env: "OPENAI_API_KEY", header: "authorization", prefix: "Bearer ", isOptional: false },
};

/** @see docs/presets.md */
export const openai = definePreset({
  name: "openai",
  description: "OpenAI's API: your tokens outside, its key inside",
  options,
  routes: (given) =>
    routesFrom(
      given,
      [
        { for: "everybody", path: INFERENCE, methods: ["POST"] },
        { for: "everybody", path: BY_ID },
        { for: "everybody", path: ["/v1/models", "/v1/models/*"], methods: READ },
        { for: given.stored === "all" ? "everybody" : "admins", path: STORED },
        { for: "admins", path: ADMIN },
        { for: "nobody", path: ["/**"] },
      ],
      { ...VENDOR, errors: "openai" },
    ),
  usual,
  serve: serveWithTokens("openai", usual),
});
