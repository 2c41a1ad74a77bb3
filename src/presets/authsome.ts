/**
 * Authsome, hosted: a credential of ours beside its own proofs, and its browser pages without one.
 *
 * Invariant: `Authorization` is Authsome's (a signed proof of method, path and body), so paths, bodies and that header
 * pass byte for byte; ours travels in another header, which the strategies must be told to read alone.
 */
import { z } from "zod";
import { definePreset, type ServeSources } from "./preset.ts";
import { common, flag, onlyIf, READ, type Rule, routesFrom } from "./rules.ts";
import { serveWithTokens } from "./serving.ts";

const options = () =>
  z.strictObject({
    ...common,
    registration: flag(
      "Let anyone make an account; the very first one becomes Authsome's admin. Otherwise admins make them.",
    ),
    dashboard: flag(
      "Open the dashboard's files, and what it calls, to anyone; Authsome's own login is then the only one there.",
    ),
    proofs: z
      .enum(["beside", "alone"])
      .default("beside")
      .describe(
        "beside: a proof needs a credential of ours too. alone: a proof is enough where Authsome checks it, for its own CLI, which can send nothing else. Default beside.",
      ),
  });

/** Pages and files of a browser on its way through claim, login and consent; there is nothing of a vault in them. */
const PAGES = [
  "/login/**",
  "/claim/**",
  "/auth/input/**",
  "/auth/device/**",
  "/auth/success/**",
  "/_next/**",
  "/favicon.ico",
  "/logo.svg",
];

/** What those pages ask: each is bound to a claim token, a session id or OAuth's state, which its URL carries. */
const PAGE_CALLS = [
  "/api/auth/callback/oauth",
  "/api/claim/*",
  "/api/auth/sessions/*/input",
  "/api/auth/sessions/*/device",
  "/api/auth/sessions/*/status",
];

const PAGE_FORMS = [
  "/auth/input",
  "/api/auth/sessions/*/input",
  "/api/claim/*/confirm",
  "/api/auth/login",
  "/api/logout",
];

/** Files of the dashboard, and what it calls with Authsome's own session. */
const DASHBOARD = [
  "/",
  "/agents/**",
  "/audit/**",
  "/connections/**",
  "/principal/**",
  "/providers/**",
  "/settings/**",
  "/vault/**",
  "/api/whoami",
  "/api/identities",
  "/api/connections",
  "/api/connections/*/*/detail",
  "/api/providers/*/detail",
  "/api/audit/events",
];
const DASHBOARD_FORMS = ["/api/auth/providers/*/connect", "/api/connections/*/*/logout"];

const ADMIN_CHANGES = [
  "/api/providers/**",
  "/api/connections/*/revoke",
  "/api/connections/*/global",
  "/api/connections/*/*/global",
];
const ADMIN = ["/api/auth/register", "/api/principals/**"];

/** A proof passes where nobody is asked for ours, whatever other strategies of the config read Authorization. */
const WITH_PROOF = { forward_credential: true };

const usual = {
  upstream: "http://127.0.0.1:7998",
  tokens: { header: "x-gatehouse-key", authorization: false },
};

function provable(path: readonly string[], methods: NonNullable<Rule["methods"]>): Rule {
  return { for: "anyone", path, methods, more: WITH_PROOF };
}

/** @see docs/presets.md */
export const authsome = definePreset({
  name: "authsome",
  description: "Authsome, hosted: a credential beside its proofs, its browser pages open",
  options,
  routes: (given) =>
    routesFrom(
      given,
      [
        { for: "anyone", path: [...PAGES, ...PAGE_CALLS] },
        { for: "anyone", path: PAGE_FORMS, methods: ["POST"] },
        ...onlyIf(given.registration, {
          for: "anyone",
          path: ["/api/auth/register"],
          methods: ["POST"],
        }),
        ...onlyIf(given.dashboard, provable(DASHBOARD, READ)),
        ...onlyIf(given.dashboard, provable(DASHBOARD_FORMS, ["POST"])),
        { for: "admins", path: ADMIN_CHANGES, methods: ["POST", "PUT", "PATCH", "DELETE"] },
        { for: "admins", path: ADMIN },
        given.proofs === "alone"
          ? provable(["/api/**"], "any")
          : { for: "everybody", path: ["/api/**"] },
        { for: "nobody", path: ["/**"] },
      ],
      { slashes: "keep" },
    ),
  usual,
  serve: serveWithTokens("authsome", usual, addressOf),
});

function addressOf(env: ServeSources["env"]): string | null {
  const port = env.AUTHSOME_PORT ?? "";
  return /^\d{1,5}$/.test(port) ? `http://127.0.0.1:${port}` : null;
}
