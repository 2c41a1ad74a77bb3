/**
 * The surface `usage`: the daemon's record of requests, for the member who asks.
 *
 * Invariant: the daemon is asked for exactly one npub, the caller's, however the query spelled it; only an admin
 * who asks for everybody's gets a query without one. Whether the daemon heeds it is the daemon's (0.2.16 does not).
 */
import type { Surface } from "gatehouse";
import { askDaemon, isAnswer, memberOf, notFound, wantsAll } from "./answers.ts";

const PATHS = ["/usage", "/usage/summary"];
/** `npub`, `NPUB`, `npub[]`, and `all`, which is between the caller and us. */
const OURS = /^\s*(npub|all)\s*(\[.*)?$/i;

/** See the file's docblock. */
export function usageSurface(): Surface {
  return {
    name: "usage",
    async handle(request, caller) {
      const member = memberOf(caller);
      if (isAnswer(member)) return member;
      const url = new URL(request.url);
      if (request.method !== "GET" || !PATHS.includes(url.pathname)) return notFound();
      const npub = wantsAll(url, member) ? null : member.npub;
      return await askDaemon(caller, url.pathname + scopedQuery(url.searchParams, npub));
    },
  };
}

function scopedQuery(asked: URLSearchParams, npub: string | null): string {
  const query = new URLSearchParams([...asked].filter(([name]) => !OURS.test(name)));
  if (npub !== null) query.set("npub", npub);
  const text = query.toString();
  return text === "" ? "" : `?${text}`;
}
