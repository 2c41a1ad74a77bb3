/**
 * The surface `tokens`: the token API of one strategy on one route.
 *
 * Invariant: every answer has the headers that keep browsers from doing anything with it.
 */
import type { Surface } from "../../contract/plugin.ts";
import { Problem, problemAnswer, secured } from "../answers.ts";
import { basesOf } from "../mount.ts";
import { type AppParts, tokenApp } from "./app.ts";

/** How an endpoint of the API begins at the end of a pattern's literal part. */
export const ENDPOINT = /\/(?:me(?:\/tokens)?|users(?:\/[^/]+\/tokens)?|tokens)$/;

/** What it needs. */
export interface TokenSurfaceParts extends Omit<AppParts, "bases"> {
  /** Path patterns of the route. */
  readonly patterns: readonly string[];
}

/** Mount it on `/api/**` or on a part of that. */
export function tokenSurface({ patterns, ...parts }: TokenSurfaceParts): Surface {
  const answer = tokenApp({ ...parts, bases: basesOf(patterns, ENDPOINT) });
  return {
    name: "tokens",
    async handle(request, caller) {
      if (!isUtf8(new URL(request.url).pathname)) {
        return secured(problemAnswer(new Problem("path_malformed"), caller.requestId));
      }
      // The gateway leaves the body out of the answer to HEAD.
      const asked = request.method === "HEAD" ? asGet(request) : request;
      return secured(await answer(asked, caller));
    },
  };
}

function asGet({ url, headers }: Request): Request {
  return new Request(url, { headers });
}

function isUtf8(path: string): boolean {
  try {
    decodeURIComponent(path);
    return true;
  } catch {
    return false;
  }
}
