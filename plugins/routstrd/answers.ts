/**
 * What both surfaces share: who asks, answers in the daemon's form, and the way to the daemon.
 *
 * Invariant: every answer of ours is JSON, a refusal has a text under `error`; nothing that the client sent as a
 * header reaches the daemon.
 */
import type { SurfaceCaller } from "gatehouse";
import { suffixOf } from "./ownership.ts";

/** A registered member, proven by a signature. */
export interface Member {
  /** Lower case. */
  readonly npub: string;
  /** Last characters of the npub; the daemon's ids of a member's clients end with `-` and this. */
  readonly suffix: string;
  readonly isAdmin: boolean;
}

const NPUB = /^npub1[02-9ac-hj-np-z]{58}$/;

/** A refusal. */
export function refuse(status: number, error: string): Response {
  return Response.json({ error }, { status });
}

/** Any path or method that is not there. */
export function notFound(): Response {
  return refuse(404, "Not found.");
}

/** Whether `answer` is one already, not a value to go on with. */
export function isAnswer(answer: unknown): answer is Response {
  return answer instanceof Response;
}

/** The member who asks, or the refusal of anybody else. */
export function memberOf({ identity, refusal }: SurfaceCaller): Member | Response {
  if (identity === null) {
    return refuse(
      401,
      refusal === null || refusal === "no_credential"
        ? "Missing Authorization header."
        : `Authorization was refused: ${refusal}.`,
    );
  }
  const npub = identity.attributes?.npub?.toLowerCase() ?? "";
  if (!NPUB.test(npub)) return refuse(403, "API keys cannot access this endpoint.");
  return { npub, suffix: suffixOf(npub), isAdmin: identity.role === "admin" };
}

/** Whether a query asks for everybody's, which only an admin gets. */
export function wantsAll(url: URL, member: Member): boolean {
  return member.isAdmin && ["", "1", "true"].includes(url.searchParams.get("all") ?? "no");
}

/**
 * The daemon's answer to `path` (with its query), as it is. `body` makes it a POST.
 * 503 when the route has no upstream, 502 when the daemon cannot be reached.
 */
export async function askDaemon(
  { upstream }: SurfaceCaller,
  path: string,
  body?: unknown,
): Promise<Response> {
  if (upstream === null) return refuse(503, "This route has no upstream to ask.");
  const headers = new Headers({ accept: "application/json", "accept-encoding": "identity" });
  const url = `http://daemon${path}`;
  try {
    if (body === undefined) return await upstream(new Request(url, { headers }));
    headers.set("content-type", "application/json");
    return await upstream(
      new Request(url, { method: "POST", headers, body: JSON.stringify(body) }),
    );
  } catch {
    return refuse(502, "Upstream unreachable");
  }
}

/** The same answer with another body; for JSON that was read and changed. */
export function withJson(answer: Response, value: unknown): Response {
  const headers = new Headers(answer.headers);
  headers.delete("content-length");
  headers.set("content-type", "application/json");
  return new Response(JSON.stringify(value), { status: answer.status, headers });
}
