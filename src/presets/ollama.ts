/**
 * Ollama: inference and listing for whoever is accepted, what changes the machine for admins.
 *
 * Invariant: Ollama asks nobody for anything, and one listener serves chat, `api/delete` and Go's profiler; so only
 * paths named here pass. Names are those of its router in 2026.
 */
import { z } from "zod";
import { definePreset, type ServeSources } from "./preset.ts";
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
    health: flag('Open / ("Ollama is running") to anyone, for reading.'),
  });

const LISTING = ["/", "/api/version", "/api/status", "/api/tags", "/api/ps", "/api/show"];
const INFERENCE = ["/api/generate", "/api/chat", "/api/embed", "/api/embeddings"];

/** They fetch, change or delete models, or use the ollama.com account of the machine. */
const ADMIN = [
  "/api/pull",
  "/api/push",
  "/api/create",
  "/api/copy",
  "/api/delete",
  "/api/me",
  "/api/signout",
  "/api/user/**",
  "/api/experimental/**",
];

const usual = { upstream: "http://127.0.0.1:11434" };

/** @see docs/presets.md */
export const ollama = definePreset({
  name: "ollama",
  description: "Ollama: inference for everybody who is accepted, models are changed by admins",
  options,
  routes: (given) =>
    routesFrom(given, [
      ...onlyIf(given.health, { for: "anyone", path: ["/"] }),
      { for: "admins", path: ADMIN, more: { errors: "ollama" } },
      // Layers of models that are being created: many GB.
      { for: "admins", path: ["/api/blobs/**"], more: { errors: "ollama", max_body: "none" } },
      { for: "everybody", path: [...LISTING, ...INFERENCE], more: { errors: "ollama" } },
      // OpenAI's and Anthropic's APIs. Without DELETE, which OpenAI's has for models.
      { for: "everybody", path: ["/v1/**"], methods: [...READ, "POST"] },
      rest(given.unlisted),
    ]),
  usual,
  serve: serveWithTokens("ollama", usual, addressOf),
});

/** OLLAMA_HOST says where the server binds or a client looks: `0.0.0.0`, `:11434`, `host:port` or a URL. */
function addressOf(env: ServeSources["env"]): string | null {
  const text = env.OLLAMA_HOST?.trim().replace(/^["']|["']$/g, "") ?? "";
  if (text === "") return null;
  const [, scheme = "http://", place = ""] = /^(https?:\/\/)?([^/]*)/i.exec(text) ?? [];
  const bound = /^(?:0\.0\.0\.0|\[::\])?(?=:|$)/.exec(place);
  const reachable = bound === null ? place : `127.0.0.1${place.slice(bound[0].length)}`;
  const hasPort = /:\d+$/.test(reachable) || /^https?:/i.test(text);
  return `${scheme}${reachable}${hasPort ? "" : ":11434"}`;
}
