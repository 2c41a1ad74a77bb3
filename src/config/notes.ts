/**
 * What an operator should know about a configuration although nothing is wrong with it.
 *
 * Invariant: whatever is said here was written in so many words; nobody is told of what they must have meant.
 */
import type { GatewayConfig } from "./model.ts";

/** One sentence each. */
export function configNotes({ routes, server }: GatewayConfig): readonly string[] {
  const open = server.listen.find((one) => one.kind === "tcp" && !isLoopback(one.host));
  if (open === undefined) return [];
  return routes
    .filter(({ surface, access }) => surface?.strategy === null && access === "public")
    .map(
      ({ index }) =>
        `routes[${index}]: the metrics are public, and the gateway listens on more than this machine; list strategies in access unless something else keeps readers away`,
    );
}

function isLoopback(host: string): boolean {
  return host === "localhost" || host === "::1" || /^127\./.test(host);
}
