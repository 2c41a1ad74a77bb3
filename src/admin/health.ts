/**
 * The surface `health`: `live` and `ready`, for whoever restarts or balances.
 *
 * Invariant: no detail but which kind of thing is missing; `live` never depends on anything outside.
 */
import type { StrategyInstance, Surface } from "../contract/plugin.ts";
import { jsonAnswer, Problem, problemAnswer, secured, statusOf } from "./answers.ts";
import { basesOf, pathWithin } from "./mount.ts";

const ENDPOINT = /\/(?:live|ready)$/;

/** What it needs. */
export interface HealthParts {
  readonly instance: Pick<StrategyInstance, "health">;
  /** Path patterns of the route. */
  readonly patterns: readonly string[];
  /** Status of `ready` when it is not. */
  readonly unavailableStatus: number;
}

/** The surface; mount it on `/health/**`, or on paths that end in `/live` and `/ready`. */
export function healthSurface({ instance, patterns, unavailableStatus }: HealthParts): Surface {
  const bases = basesOf(patterns, ENDPOINT);
  return {
    name: "health",
    handle(request, { requestId }) {
      const endpoint = pathWithin(new URL(request.url).pathname, bases);
      const refused = (problem: Problem, status = statusOf(problem.reason)) =>
        secured(problemAnswer(problem, requestId, status));
      if (endpoint !== "/live" && endpoint !== "/ready") return refused(new Problem("no_route"));
      if (request.method !== "GET" && request.method !== "HEAD") {
        return refused(new Problem("method_not_allowed", undefined, { allow: "GET, HEAD" }));
      }
      if (endpoint === "/live") return secured(jsonAnswer(200, { status: "ok" }));
      const missing = missingOf(instance);
      if (missing === null) return secured(jsonAnswer(200, { status: "ready" }));
      return refused(new Problem("not_ready", `${missing} unavailable`), unavailableStatus);
    },
  };
}

/** `valkey` of the condition `valkey_down`; `strategy` when its code says no such thing; `null` when all is well. */
function missingOf(instance: Pick<StrategyInstance, "health">): string | null {
  try {
    const bad = (instance.health?.() ?? []).find(({ severity }) => severity === "error");
    if (bad === undefined) return null;
    return /^([a-z]+)_down$/.exec(bad.code)?.[1] ?? "strategy";
  } catch {
    return "strategy";
  }
}
