/**
 * State that all replicas of a gateway have in common: what `host.shared` gives. Without `shared` in the config it lies
 * in the state database, and the replicas are the processes on one state directory.
 *
 * Invariant: "new" is said once and "not revoked" only by whoever can know; when that cannot be told, it is a throw, and
 * a throw on the way of a request is 503.
 */
import type { Condition } from "./plugin.ts";

/** One use of something that may be used once. */
export interface Claim {
  /** Whose keys these are: a lower-case word with digits and `-`, begun with the plugin's name. */
  readonly space: string;
  /**
   * 1 to 200 visible ASCII characters; nothing secret. Keys of one time should begin alike (with the time): they then
   * lie together on the disk.
   */
  readonly key: string;
  /**
   * Before this time, in epoch milliseconds, the key cannot have been used. It must follow from what the key stands
   * for (when a proof was signed), never be the time of the call.
   */
  readonly bornMs: number;
  /** Until then, in epoch milliseconds, the claim holds at least; by then the key must be refused for its age. */
  readonly untilMs: number;
}

/** Something that is not to be accepted any more. */
export interface Revocation {
  /** 1 to 200 visible ASCII characters; nothing secret. */
  readonly id: string;
  /** When it need not be remembered any more, in epoch milliseconds; `null`: never. */
  readonly untilMs: number | null;
}

/** Every call may throw (or reject) when the state cannot be asked or written. */
export interface SharedState {
  /** Whether others than the processes on this state directory see it: `shared` is in the config. */
  readonly isReplicated: boolean;
  /** Opens it. To be called in `init`, so that it neither takes time nor fails at the first request. */
  open(): void;
  /**
   * Whether the key was new: true for exactly one caller in all replicas until `untilMs`. One round trip. A key that
   * may have been claimed before the memory of the replicas began (it was lost, or is new) is a throw.
   */
  claim(claim: Claim): Promise<boolean>;
  /** A quick look that saves work: true when the key is known here to be claimed; false says nothing. */
  isClaimed(space: string, key: string): boolean;
  /**
   * Holds on the next request everywhere. When the others cannot be told it rejects and holds here all the same; they
   * are told as soon as that is possible again. More than once is fine.
   */
  revoke(space: string, revocations: readonly Revocation[]): Promise<void>;
  /** Answers at once as long as changes are followed, and otherwise asks. */
  isRevoked(space: string, id: string): boolean | Promise<boolean>;
  /** What the operator should know about it: for the `health` of a strategy that relies on it. */
  health(): readonly Condition[];
}
