/**
 * Shared state with `shared` in the config: in Valkey, common to all gateways that use it with the same prefix.
 *
 * Invariant: what Valkey cannot answer is a throw; the copy in this gateway's own database only ever adds refusals.
 */
import type { SharedState } from "../contract/shared.ts";
import { type Valkey, ValkeyError } from "../contract/valkey.ts";
import { checkClaim } from "./embedded-state.ts";
import { type ReplicatedOptions, replicatedClaims } from "./replicated-claims.ts";
import { replicatedRevocations } from "./replicated-revocations.ts";

/** The state, and what its owner does with it. */
export interface ReplicatedState extends SharedState {
  /**
   * Before the first request: makes sure that this Valkey can do the work, and follows it from then on.
   * @throws ValkeyError when it is read-only, out of memory, or throws keys away
   */
  begin(): Promise<void>;
  close(): void;
}

/** Nothing is sent before `begin`, or before it is asked. */
export function replicatedState(options: ReplicatedOptions): ReplicatedState {
  const { tables, log, connect } = options;
  const claims = replicatedClaims(options);
  const revocations = replicatedRevocations(options);
  let following: Valkey | null = null;
  return {
    isReplicated: true,
    open: () => void tables.claims(),
    async claim(claim) {
      checkClaim(claim);
      return claims.claim(claim);
    },
    isClaimed: (space, key) => tables.claims().has(space, key),
    revoke: revocations.revoke,
    isRevoked: revocations.isRevoked,
    async begin() {
      const valkey = await connect();
      await mustKeepKeys(valkey);
      await claims.begin();
      const { place } = valkey;
      valkey.onLost(() => log.warn("shared.lost", { place }));
      valkey.onBack(() => log.info("shared.back", { place }));
      // What cannot be put back now is put back by the next claim.
      revocations.follow(valkey, () => void claims.begin().catch(() => {}));
      following = valkey;
    },
    health() {
      if (following === null || following.isReady()) return revocations.health();
      const text = `There is no connection to valkey at ${following.place}; requests that need shared state are answered 503.`;
      return [{ code: "shared_down", severity: "error", text }];
    },
    close: revocations.close,
  };
}

/** A server that makes room by throwing keys away forgets used proofs and revocations. */
async function mustKeepKeys(valkey: Valkey): Promise<void> {
  const info = String(await valkey.command("info", "memory"));
  const policy = /^maxmemory_policy:(\S+)/m.exec(info)?.[1] ?? "noeviction";
  const isBounded = /^maxmemory:[1-9]/m.test(info);
  if (!isBounded || policy === "noeviction") return;
  throw new ValkeyError(
    "EVICTS",
    `valkey at ${valkey.place}: it throws keys away when it is full (maxmemory-policy ${policy}), used proofs and revocations among them; set noeviction`,
  );
}
