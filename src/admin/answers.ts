/**
 * Answers of our own endpoints: what every one of them carries, and refusals.
 *
 * Invariant: whatever an answer holds, a browser runs nothing of it, shows it in no frame and sends its address
 * nowhere. A refusal never repeats a value of the request.
 */
import { STATUS_CODES } from "node:http";

/** Why an endpoint refuses, and what it says where nothing more precise is known. */
const PROBLEMS = {
  no_route: [404, "there is nothing here"],
  method_not_allowed: [405, "the method is not allowed here"],
  path_malformed: [400, "the path is not UTF-8"],
  no_credential: [401, "a credential is needed"],
  subject_missing: [403, "subject claim missing"],
  subject_ambiguous: [403, "your subject could be taken for another strategy's"],
  insufficient_role: [403, "admin privileges required"],
  token_cannot_mint: [403, "a token cannot make tokens; log in another way"],
  rights_exceeded: [403, "a token cannot have more rights than you have"],
  token_not_found: [404, "token not found"],
  unsupported_media_type: [415, "send JSON with content-type: application/json"],
  body_too_large: [413, "the body is too large"],
  malformed_json: [400, "the body is not JSON"],
  invalid_request: [422, "the request does not fit the schema"],
  invalid_value: [400, "a value cannot be used"],
  conflict: [409, "somebody else changed the token at the same time"],
  not_ready: [503, "unavailable"],
} as const;

/** Stable codes, listed in docs/token-api.md. */
export type ProblemReason = keyof typeof PROBLEMS;

/** All of them. */
export const PROBLEM_REASONS = Object.keys(PROBLEMS) as readonly ProblemReason[];

/** Status of a refusal. */
export function statusOf(reason: ProblemReason): number {
  return PROBLEMS[reason][0];
}

/** Thrown by an endpoint to refuse; the message is for the client. */
export class Problem extends Error {
  readonly reason: ProblemReason;
  readonly headers: Readonly<Record<string, string>>;
  constructor(
    reason: ProblemReason,
    message: string = PROBLEMS[reason][1],
    headers: Readonly<Record<string, string>> = {},
  ) {
    super(message);
    this.name = "Problem";
    this.reason = reason;
    this.headers = headers;
  }
}

/** A refusal as an answer (RFC 9457), with `message` for those who look for that. */
export function problemAnswer(
  problem: Problem,
  requestId: string,
  status: number = statusOf(problem.reason),
): Response {
  const { reason, message } = problem;
  const body = {
    type: `urn:gatehouse:reason:${reason}`,
    title: STATUS_CODES[status] ?? "Error",
    status,
    detail: message,
    message,
    reason,
    request_id: requestId,
  };
  const challenge = status === 401 ? { "www-authenticate": 'Bearer realm="gatehouse"' } : {};
  return new Response(`${JSON.stringify(body)}\n`, {
    status,
    headers: {
      "content-type": "application/problem+json",
      "x-gatehouse-reason": reason,
      ...challenge,
      ...problem.headers,
    },
  });
}

/** JSON with a status. */
export function jsonAnswer(status: number, body: unknown): Response {
  return new Response(`${JSON.stringify(body)}\n`, {
    status,
    headers: { "content-type": "application/json" },
  });
}

const SECURITY: Readonly<Record<string, string>> = {
  "x-content-type-options": "nosniff",
  "x-frame-options": "DENY",
  "referrer-policy": "no-referrer",
  "cross-origin-opener-policy": "same-origin",
  "cross-origin-resource-policy": "same-origin",
};

/** Sets the headers that every answer carries. `styles` are CSP sources of style sheets. */
export function secured(answer: Response, styles = "'none'"): Response {
  const policy = `default-src 'none'; style-src ${styles}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'`;
  answer.headers.set("content-security-policy", policy);
  for (const [name, value] of Object.entries(SECURITY)) answer.headers.set(name, value);
  return answer;
}
