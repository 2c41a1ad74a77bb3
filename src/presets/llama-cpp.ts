/**
 * llama.cpp's llama-server: completions for whoever is accepted, slots, adapters and settings for admins.
 *
 * Invariant: llama-server leaves /health, /models and its pages open whatever its key, and `/predict` (Vertex AI) runs
 * any other endpoint by a name in the body; so only paths named here pass, and /predict never for everybody.
 */
import { z } from "zod";
import { definePreset } from "./preset.ts";
import {
  common,
  flag,
  modelsOption,
  onlyIf,
  READ,
  rest,
  routesFrom,
  unlistedOption,
} from "./rules.ts";
import { serveWithTokens } from "./serving.ts";

const options = () =>
  z.strictObject({
    ...common,
    ...modelsOption,
    ...unlistedOption,
    health: flag("Open /health and /v1/health to anyone, for reading."),
    ui: flag(
      "Open the files of the web page to anyone, for reading; the page then asks for a token.",
    ),
  });

/** Each also below /v1, where OpenAI's clients look. */
const COMPLETIONS = [
  "/completions",
  "/chat/completions",
  "/chat/completions/input_tokens",
  "/responses",
  "/responses/input_tokens",
  "/audio/transcriptions",
  "/embeddings",
  "/rerank",
  "/reranking",
].flatMap((path) => [path, `/v1${path}`]);

const OTHERS = [
  "/completion",
  "/infill",
  "/embedding",
  "/tokenize",
  "/detokenize",
  "/apply-template",
  "/v1/messages",
  "/v1/messages/count_tokens",
  "/health",
  "/v1/health",
];

/** For reading: the same paths change something with POST, or load and unload models. */
const LISTING = ["/models", "/v1/models", "/props"];

const ADMIN = ["/props", "/slots", "/slots/*", "/metrics", "/lora-adapters", "/models/**"];

/** Files of the page; nothing in them is of this server's owner. */
const PAGE = [
  "/",
  "/index.html",
  "/loading.html",
  "/bundle.js",
  "/bundle.css",
  "/favicon.ico",
  "/favicon.svg",
  "/manifest.webmanifest",
  "/sw.js",
  "/build.json",
  "/_app/**",
];

/** How the page comes back to an answer it lost; the id of a conversation is the key to it. */
const RESUMING = ["/v1/stream", "/v1/streams/lookup"];

const usual = {
  upstream: "http://127.0.0.1:8080",
  key: { env: "LLAMA_API_KEY", header: "authorization", prefix: "Bearer ", isOptional: true },
};

/** @see docs/presets.md */
export const llamaCpp = definePreset({
  name: "llama-cpp",
  description: "llama.cpp's llama-server: completions for everybody who is accepted",
  options,
  routes: (given) =>
    routesFrom(given, [
      ...onlyIf(given.health, { for: "anyone", path: ["/health", "/v1/health"] }),
      ...onlyIf(given.ui, { for: "anyone", path: PAGE }),
      { for: "everybody", path: LISTING, methods: READ },
      { for: "admins", path: ADMIN },
      { for: "everybody", path: [...COMPLETIONS, ...OTHERS, ...(given.ui ? RESUMING : [])] },
      // Among them /tools and /cors-proxy, which act for whoever asks.
      rest(given.unlisted),
    ]),
  usual,
  serve: serveWithTokens("llama-cpp", usual),
});
