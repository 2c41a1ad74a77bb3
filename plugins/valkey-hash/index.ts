/**
 * The strategy `valkey-hash`: bearer tokens whose keyed hashes lie in Valkey, in the layout of
 * rusty-valkey-forward-auth, so that both programs and any number of gateways can share them.
 *
 * Invariant: this file holds what is needed to check a config; the client is loaded when a strategy starts.
 */
import { accessSync, constants } from "node:fs";
import { resolve } from "node:path";
import { definePlugin } from "gatehouse";
import { settingsSchema } from "./settings.ts";

export default definePlugin({
  name: "valkey-hash",
  contract: 1,
  offers: { tokens: true, surfaces: [] },
  config: settingsSchema,
  questions: [
    {
      id: "url",
      kind: "text",
      message: "Where is Valkey?",
      initial: "redis://127.0.0.1:6379",
    },
    {
      id: "salt",
      kind: "secret",
      message: "Which secret is the salt of the token hashes (64 hex digits)?",
    },
  ],
  check({ tls }, { configDir }) {
    if (tls?.ca === undefined) return [];
    const path = resolve(configDir, tls.ca);
    try {
      accessSync(path, constants.R_OK);
      return [];
    } catch {
      return [`tls.ca: ${path} cannot be read`];
    }
  },
  async init(settings, host) {
    const { createStrategy } = await import("./strategy.ts");
    return createStrategy(settings, host);
  },
});
