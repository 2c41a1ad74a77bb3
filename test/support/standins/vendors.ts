/**
 * Stand-ins for OpenAI's and Anthropic's APIs: who they let in, what they demand, and how they say no.
 *
 * Invariant: only the vendor's own key opens them, in the vendor's own header; headers that their SDKs look at are on
 * every answer.
 */
import { chatCompletion, done, message, modelList } from "./dialects.ts";
import { each, json, type StandIn, standIn } from "./standin.ts";

const ORGANISATION = [
  "GET /v1/organization/users",
  "GET /v1/organization/admin_api_keys",
  "POST /v1/organization/projects",
  "GET /v1/projects/proj_1/roles",
  "GET /v1/vaults",
  "POST /v1/webhook_endpoints",
  "GET /dashboard/billing/usage",
];

/** Starts an `api.openai.com`. */
export function openaiStandIn(apiKey: string): StandIn {
  return standIn({
    headers: {
      "openai-version": "2020-10-01",
      "openai-organization": "org-x",
      "x-request-id": "req_vendor",
      "x-ratelimit-remaining-requests": "99",
    },
    before: ({ headers }) => {
      if (headers.get("authorization") === `Bearer ${apiKey}`) return null;
      const error = {
        message: "Incorrect API key provided.",
        type: "invalid_request_error",
        param: null,
        code: "invalid_api_key",
      };
      return json({ error }, 401);
    },
    endpoints: {
      "GET /v1/models": modelList,
      "GET /v1/models/:id": done,
      "DELETE /v1/models/:id": done,
      "POST /v1/chat/completions": chatCompletion,
      "GET /v1/chat/completions": done,
      "GET /v1/chat/completions/:id": done,
      ...each(
        [
          "/v1/completions",
          "/v1/embeddings",
          "/v1/moderations",
          "/v1/images/generations",
          "/v1/audio/speech",
          "/v1/audio/transcriptions",
          "/v1/responses",
          "/v1/responses/:id/cancel",
          "/v1/conversations",
          "/v1/realtime/client_secrets",
          "/v1/chatkit/sessions",
          "/v1/fine_tuning/jobs",
          "/v1/files",
          "/v1/batches",
          "/v1/vector_stores",
          "/v1/threads",
        ].map((path) => `POST ${path}`),
        done,
      ),
      ...each(
        [
          "GET /v1/responses/:id",
          "DELETE /v1/responses/:id",
          "GET /v1/files",
          "GET /v1/files/:id/content",
          "GET /v1/batches",
          "GET /v1/vector_stores",
          "GET /v1/videos",
        ],
        done,
      ),
      ...each(ORGANISATION, done),
    },
    notFound: ({ method, target }) =>
      json(
        {
          error: {
            message: `Invalid URL (${method} ${target})`,
            type: "invalid_request_error",
            param: null,
            code: null,
          },
        },
        404,
      ),
  });
}

/** Starts an `api.anthropic.com`. */
export function anthropicStandIn(apiKey: string): StandIn {
  const error = (type: string, text: string, status: number) =>
    json({ type: "error", error: { type, message: text }, request_id: "req_vendor" }, status);
  return standIn({
    headers: { "request-id": "req_vendor", "anthropic-organization-id": "org-x" },
    before: ({ headers }) => {
      if (headers.has("authorization")) {
        return error("authentication_error", "invalid bearer token", 401);
      }
      if (headers.get("x-api-key") !== apiKey) {
        return error("authentication_error", "invalid x-api-key", 401);
      }
      return headers.has("anthropic-version")
        ? null
        : error("invalid_request_error", "anthropic-version: header is required", 400);
    },
    endpoints: {
      "POST /v1/messages": message,
      "POST /v1/messages/count_tokens": () => json({ input_tokens: 3 }),
      "POST /v1/complete": done,
      "GET /v1/models": () => json({ data: [{ id: "m", type: "model" }], has_more: false }),
      "GET /v1/models/:id": done,
      ...each(
        [
          "POST /v1/messages/batches",
          "GET /v1/messages/batches",
          "GET /v1/messages/batches/:id/results",
          "GET /v1/files",
          "POST /v1/files",
          "POST /v1/skills",
          "GET /v1/organizations/me",
          "GET /v1/organizations/api_keys",
          "GET /v1/organizations/users",
          "GET /v1/agents",
          "POST /v1/sessions",
          "GET /v1/vaults",
          "POST /v1/tunnels/tun_1/reveal_token",
        ],
        done,
      ),
    },
    notFound: () => error("not_found_error", "Not Found", 404),
  });
}
