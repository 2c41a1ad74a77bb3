/**
 * The surface `metrics`: the gateway's numbers in the text format of Prometheus, on every path of its route.
 *
 * Invariant: whoever the route's strategies did not accept reads nothing, whatever else the route says.
 */
import type { Surface } from "../contract/plugin.ts";
import type { Exposition } from "../metrics.ts";
import { Problem, problemAnswer, secured } from "./answers.ts";

/** The surface; mount it on `/metrics`. */
export function metricsSurface(exposition: Exposition): Surface {
  return {
    name: "metrics",
    async handle(request, { requestId, refusal }) {
      const refused = (problem: Problem) => secured(problemAnswer(problem, requestId));
      if (refusal !== null) return refused(new Problem("no_credential"));
      if (request.method !== "GET" && request.method !== "HEAD") {
        return refused(new Problem("method_not_allowed", undefined, { allow: "GET, HEAD" }));
      }
      const headers = { "content-type": exposition.contentType };
      return secured(new Response(await exposition.text(), { headers }));
    },
  };
}
