/**
 * Revocations that several gateways have in common: in Valkey, and in each gateway's own database as far as it has heard
 * of them.
 *
 * Invariant: "not revoked" is said only by a copy that holds all that Valkey held when changes began to be followed and
 * all that was told since, while they are followed without a gap; or by Valkey. What this gateway knows, it puts back
 * into a Valkey that has forgotten it.
 */
import type { Condition } from "../contract/plugin.ts";
import type { Revocation } from "../contract/shared.ts";
import { type Valkey, ValkeyError, type ValkeyTracking } from "../contract/valkey.ts";
import { checkName, revocationRows } from "./embedded-state.ts";
import type { ReplicatedOptions } from "./replicated-claims.ts";
import { type RevocationCopy, revocationCopy } from "./revocation-copy.ts";

const RETRY_MS = 500;
/** How soon what could not be told or read is tried again. */
const AGAIN_EVERY_MS = 1000;

/** Revocations in Valkey. */
export interface ReplicatedRevocations {
  /** Begins to follow what others revoke. `onNews` is called whenever Valkey may have forgotten everything. */
  follow(valkey: Valkey, onNews: () => void): void;
  revoke(space: string, revocations: readonly Revocation[]): Promise<void>;
  isRevoked(space: string, id: string): boolean | Promise<boolean>;
  health(): readonly Condition[];
  close(): void;
}

/** Nothing is followed until `follow`; until then each question is asked. */
export function replicatedRevocations(options: ReplicatedOptions): ReplicatedRevocations {
  const { tables, clock, prefix, connect } = options;
  const copy = revocationCopy(tables, clock, prefix);
  let follower: Follower | null = null;
  const ask = async (space: string, id: string): Promise<boolean> => {
    checkName(space, id);
    return copy.ask(await connect(), copy.keyOf(space, id));
  };
  return {
    follow(valkey, onNews) {
      follower = followOn(valkey, copy, onNews);
    },
    async revoke(space, revocations) {
      const rows = revocationRows(space, revocations);
      tables.revocations().insert(rows, false);
      try {
        await copy.tell(await connect(), rows);
      } catch (error) {
        throw notTold(error);
      }
    },
    isRevoked(space, id) {
      if (tables.revocations().has(space, id)) return true;
      return follower?.isSureOf(copy.keyOf(space, id)) === true ? false : ask(space, id);
    },
    health: () => follower?.health() ?? [],
    close: () => follower?.close(),
  };
}

interface Follower {
  /** Whether the copy knows all that can be known about this key. */
  isSureOf(key: string): boolean;
  health(): readonly Condition[];
  close(): void;
}

function followOn(valkey: Valkey, copy: RevocationCopy, onNews: () => void): Follower {
  /** Keys that Valkey said have changed, and how many times; not read yet. */
  const unread = new Map<string, number>();
  /** Grows whenever what was learned before may not be all. */
  let generation = 0;
  let isWhole = false;
  const forget = (): number => {
    isWhole = false;
    generation += 1;
    return generation;
  };
  const meet = async (): Promise<void> => {
    const mine = forget();
    onNews();
    try {
      await copy.exchange(valkey);
      if (mine === generation) isWhole = true;
    } catch {
      // Each question is asked meanwhile. A connection that is lost begins again by itself.
      const again = (): void => {
        if (mine === generation && valkey.isReady()) void meet();
      };
      setTimeout(again, RETRY_MS).unref();
    }
  };
  const readChanged = async (): Promise<void> => {
    const changed = [...unread];
    const keys = changed.map(([key]) => key);
    await copy.learn(valkey, keys);
    for (const [key, count] of changed) if (unread.get(key) === count) unread.delete(key);
  };
  const tracking: ValkeyTracking | null = valkey.track({
    prefix: copy.base,
    onStart: () => void meet(),
    onChange(keys) {
      if (keys === null) {
        forget();
        unread.clear();
        // Somebody emptied it; otherwise the connection has ended, and its next beginning is told.
        if (tracking?.isOn() === true) void meet();
        return;
      }
      for (const key of keys) unread.set(key, (unread.get(key) ?? 0) + 1);
      readChanged().catch(() => {});
    },
  });
  // Also where changes cannot be followed: what is known here must not be lost there.
  valkey.onBack(() => void meet());
  void meet();
  const timer = setInterval(() => {
    if (!valkey.isReady()) return;
    if (unread.size > 0) readChanged().catch(() => {});
    copy.tellUntold(valkey).catch(() => {});
  }, AGAIN_EVERY_MS);
  timer.unref();
  return {
    isSureOf: (key) => isWhole && !unread.has(key) && tracking?.isLive() === true,
    health() {
      const problem = tracking?.problem() ?? null;
      const text = `Changes cannot be followed (${problem}), so each request asks Valkey about revocations.`;
      return problem === null ? [] : [{ code: "shared_not_followed", severity: "warning", text }];
    },
    close() {
      forget();
      clearInterval(timer);
    },
  };
}

function notTold(error: unknown): unknown {
  if (!(error instanceof ValkeyError)) return error;
  return new ValkeyError(
    error.code,
    `revoked here, but the other replicas could not be told: ${error.message}; a running gateway tells them as soon as it can`,
  );
}
