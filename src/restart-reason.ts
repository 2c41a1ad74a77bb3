/**
 * What a running gateway cannot change about itself.
 *
 * Invariant: the answer depends on the two configs alone, so it is known before anything is started.
 */
import { listenText } from "./config/address.ts";
import type { GatewayConfig, ListenAddress } from "./config/model.ts";

/** Why going over from one config to the other takes a restart, or `null`. */
export function restartReason(before: GatewayConfig, after: GatewayConfig): string | null {
  if (before.stateDir !== after.stateDir) {
    return `state_dir was ${before.stateDir} and is ${after.stateDir} now, which a running gateway cannot change`;
  }
  for (const next of after.server.listen) {
    const taken = before.server.listen.find((one) => isInTheWay(one, next));
    if (taken !== undefined) {
      return `server.listen: ${listenText(next)} cannot be bound while ${listenText(taken)} is, and that one is in use until the end`;
    }
  }
  return null;
}

/** The same port of every address and of one. */
function isInTheWay(bound: ListenAddress, next: ListenAddress): boolean {
  if (bound.kind === "unix" || next.kind === "unix") return false;
  if (bound.port !== next.port || bound.port === 0 || bound.host === next.host) return false;
  return isEvery(bound.host) || isEvery(next.host);
}

function isEvery(host: string): boolean {
  return host === "0.0.0.0" || host === "::";
}
