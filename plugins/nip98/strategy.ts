/**
 * One request from its proof to an outcome: cheap questions first, the signature last.
 *
 * Invariant: whatever can refuse a request without the signature is asked before it; whatever needs the signature to
 * be true (that a proof is used up) is written after it. Members are read from the database for each request.
 */
import {
  ABSENT,
  type AuthRequest,
  type Identity,
  type Log,
  type Outcome,
  type RejectReason,
  type SharedState,
} from "gatehouse";
import type { Members } from "./members.ts";
import type { Member } from "./members-table.ts";
import { findProof, type Proof } from "./proof.ts";
import type { SignatureQueue } from "./signatures.ts";
import { isSameHash, mismatch, payloadTag, replayKey } from "./verify.ts";

/** What the way of a request needs. */
export interface StrategyParts {
  readonly members: Pick<Members, "find">;
  /** Remembers the proofs that were used. */
  readonly shared: Pick<SharedState, "isClaimed" | "claim">;
  readonly signatures: Pick<SignatureQueue, "check">;
  readonly nowMs: () => number;
  readonly log: Log;
  readonly maxAgeMs: number;
  /** Largest body that is hashed. */
  readonly maxBodyBytes: number;
  readonly isPayloadRequired: boolean;
  /** Proofs of safe methods work once only, too. */
  readonly isReplayRefusedForAll: boolean;
}

/** Asks about requests and about identities that were accepted earlier. */
export interface Strategy {
  authenticate(request: AuthRequest): Outcome | Promise<Outcome>;
  /** Whether the identity is still a member with the same role. */
  isCurrent(identity: Identity): Promise<boolean>;
}

/** RFC 9110 section 9.2.1: what may be repeated without harm. */
const SAFE: ReadonlySet<string> = new Set(["GET", "HEAD", "OPTIONS", "TRACE"]);

/** How long a body may take to arrive beyond twice the age that a proof may have. */
const MARGIN_MS = 120_000;

/** Proofs are used up in all strategies of this kind. */
const SPACE = "nip98";

/** A request whose proof has the right form. */
interface Attempt {
  readonly request: AuthRequest;
  readonly proof: Proof;
  readonly isOnce: boolean;
}

/** Ready to be asked. */
export function createStrategy(parts: StrategyParts): Strategy {
  /** Proofs on their way through here that work once only, by replay key; settled when that way has ended. */
  const underway = new Map<string, Promise<unknown>>();

  async function judge(attempt: Attempt): Promise<Outcome> {
    const { proof } = attempt;
    const refused = (reason: RejectReason): Outcome => ({
      outcome: "reject",
      reason,
      credentialId: proof.pubkey,
    });
    const time = { nowMs: parts.nowMs(), maxAgeMs: parts.maxAgeMs };
    const early = mismatch(proof, attempt.request, time);
    if (early !== null) return refused(early);
    const member = await parts.members.find(proof.pubkey);
    if (member === null) return refused("not_registered");
    const reason = attempt.isOnce ? await once(attempt) : await problem(attempt);
    return reason === null ? accepted(proof.pubkey, member) : refused(reason);
  }

  /**
   * {@link problem} for a proof that works once only. The same proof again waits here until the first is through, so
   * that a burst of copies costs one signature check; between processes and replicas the shared state decides.
   */
  async function once(attempt: Attempt): Promise<RejectReason | null> {
    const key = replayKey(attempt.proof);
    for (;;) {
      const other = underway.get(key);
      if (other === undefined) break;
      await other;
    }
    if (parts.shared.isClaimed(SPACE, key)) return "replayed";
    const { promise, resolve } = Promise.withResolvers<null>();
    underway.set(key, promise);
    try {
      return (await problem(attempt)) ?? (await useUp(attempt.proof, key));
    } finally {
      underway.delete(key);
      resolve(null);
    }
  }

  async function problem({ request, proof }: Attempt): Promise<RejectReason | null> {
    if (!(await isPayloadRight(parts, request, proof))) return "signature_invalid";
    return (await parts.signatures.check(proof)) ? null : "signature_invalid";
  }

  async function useUp(proof: Proof, key: string): Promise<RejectReason | null> {
    const bornMs = proof.createdAt * 1000;
    const untilMs = bornMs + 2 * parts.maxAgeMs + MARGIN_MS;
    // Its body took so long that what others recorded of it may be forgotten.
    if (parts.nowMs() >= untilMs) return "stale_proof";
    const isNew = await parts.shared.claim({ space: SPACE, key, bornMs, untilMs });
    return isNew ? null : "replayed";
  }

  return {
    authenticate(request) {
      const found = findProof(request.headers);
      switch (found.found) {
        case "none":
          return ABSENT;
        case "ambiguous":
          return { outcome: "reject", reason: "ambiguous_credential" };
        case "malformed":
          return { outcome: "reject", reason: "malformed_credential" };
        case "one": {
          const isOnce = parts.isReplayRefusedForAll || !SAFE.has(request.method);
          return judge({ request, proof: found.proof, isOnce });
        }
      }
    },
    async isCurrent({ id, role }) {
      const member = await parts.members.find(id);
      return member !== null && member.role === role;
    },
  };
}

/**
 * Whether the body is the one that was signed. It is held in memory only when there is a hash to compare with;
 * without one it is only asked whether there is a body at all.
 */
async function isPayloadRight(
  parts: StrategyParts,
  request: AuthRequest,
  proof: Proof,
): Promise<boolean> {
  const tag = payloadTag(proof);
  if (tag.kind === "broken") return false;
  if (tag.kind === "none") {
    if (!parts.isPayloadRequired) return true;
    const body = await request.bodyHash(0);
    if (body.kind === "unavailable") return unseen(parts, request);
    return body.kind === "hash" && body.length === 0;
  }
  const body = await request.bodyHash(parts.maxBodyBytes);
  if (body.kind === "unavailable") return unseen(parts, request);
  if (body.kind === "hash") {
    // A body that was taken away is not the one that was signed; only where bodies never come along (forward-auth)
    // that must pass.
    if (body.length === 0 && !parts.isPayloadRequired) return true;
    return isSameHash(body.sha256, tag.sha256);
  }
  parts.log.info("nip98.body_too_large", {
    max_bytes: parts.maxBodyBytes,
    request_id: request.requestId,
  });
  return false;
}

/** A body that stays with the proxy cannot be compared: only where the operator said that this is fine. */
function unseen(parts: StrategyParts, request: AuthRequest): boolean {
  if (!parts.isPayloadRequired) return true;
  parts.log.info("nip98.body_unseen", { request_id: request.requestId });
  return false;
}

function accepted(pubkey: string, { npub, name, role }: Member): Outcome {
  const attributes = { pubkey, npub, client_id: `nostr:${pubkey}` };
  const identity = { id: pubkey, role, attributes, ...(name === null ? {} : { name }) };
  return { outcome: "accept", identity };
}
