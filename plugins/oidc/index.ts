/**
 * The strategy `oidc`: bearer tokens that an OpenID Connect or OAuth 2.0 issuer has signed (RFC 7519, RFC 9068).
 *
 * Invariant: this file holds what is needed to check a config; the library is loaded when a strategy starts.
 */
import { definePlugin } from "gatehouse";
import { settingsSchema } from "./settings.ts";

export default definePlugin({
  name: "oidc",
  contract: 1,
  offers: { tokens: false, surfaces: [] },
  config: settingsSchema,
  questions: [
    {
      id: "issuer",
      kind: "text",
      message:
        "What is the issuer's URL, as in the tokens' iss (https://id.example.com/realms/main)?",
    },
    {
      id: "audience",
      kind: "text",
      message: "Which audience are the tokens made for (their aud)?",
    },
  ],
  async init(settings, host) {
    const { createStrategy } = await import("./strategy.ts");
    return createStrategy(settings, host);
  },
});
