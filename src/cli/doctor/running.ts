/**
 * Which process is the gateway of this configuration, as far as that can be seen.
 *
 * Invariant: a process is only named when systemd names it, or when it holds a listener of the configuration.
 */
import { canonicalAddress, listeners, ownerOf } from "./proc-net.ts";
import type { Subject } from "./subject.ts";

/** Null when none runs, or it may not be seen. */
export async function runningPid(subject: Subject): Promise<number | null> {
  const main = Number((await subject.unitFacts())?.MainPID ?? 0);
  if (main > 0) return main;
  for (const address of subject.config?.server.listen ?? []) {
    if (address.kind === "unix" || address.port === 0) continue;
    const host = address.host === "localhost" ? "127.0.0.1" : canonicalAddress(address.host);
    const holder = listeners()?.find((one) => one.port === address.port && one.address === host);
    const owner = holder === undefined ? null : ownerOf(holder.inode);
    // The kernel keeps 15 characters of a name; a container or a package may call it otherwise.
    if (owner !== null && /gatehouse/.test([owner.name, ...owner.argv].join(" "))) return owner.pid;
  }
  return null;
}
