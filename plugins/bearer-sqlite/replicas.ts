/**
 * What gateways with copies of one database tell each other about its tokens: which were revoked, which secrets a
 * rotation has ended at once.
 *
 * Invariant: this only ever adds refusals to what the own database says. A token is named by its id, a secret by half of
 * its keyed hash, which is of no use to whoever reads it; no secret leaves here.
 */
import type { Identity, Log, Outcome, RejectReason, Revocation, SharedState } from "gatehouse";
import type { Digests, TokensTable } from "./tokens-table.ts";

const SPACE = "bearer-sqlite";
const SECRET_BYTES = 16;

/** Asks and tells the others. Asking rejects when they cannot be asked. */
export interface Replicas {
  /** The same outcome, unless the token or the secret was ended elsewhere. `digest` is the keyed hash of the secret. */
  judge(outcome: Accept, digest: Uint8Array): Outcome | Promise<Outcome>;
  /** Whether an identity that came out of `judge` is still good, as far as the others know. */
  isGood(identity: Identity): boolean | Promise<boolean>;
  /** @throws (rejects) when the others cannot be told yet; it holds here all the same */
  tellRevoked(id: string, expiresAtMs: number | null): Promise<void>;
  /** Never rejects: the new secret must reach whoever asked for it. */
  tellRotated(id: string, secrets: readonly Revocation[]): Promise<void>;
  /** Tells of everything that was revoked before there were others. Never rejects. */
  tellAll(table: TokensTable, nowMs: number): Promise<void>;
}

type Accept = Extract<Outcome, { outcome: "accept" }>;

/** `null` when there are no others. */
export function replicasOf(shared: SharedState, log: Log): Replicas | null {
  if (!shared.isReplicated) return null;
  const reasonAgainst = (identity: Identity): Against | Promise<Against> => {
    const secret = identity.attributes?.secret_id;
    const isEnded = () => secret !== undefined && shared.isRevoked(SPACE, secret);
    const token = shared.isRevoked(SPACE, identity.id);
    if (token === true) return "token_revoked";
    // One at a time, or both waited for together: a question that nobody waits for would end the process if it failed.
    if (token instanceof Promise) return together(token, asking(isEnded));
    const own = isEnded();
    return own instanceof Promise ? own.then(reasonOfSecret) : reasonOfSecret(own);
  };
  return {
    judge({ identity }, digest) {
      const attributes = { ...identity.attributes, secret_id: secretName(identity.id, digest) };
      const named: Identity = { ...identity, attributes };
      const accept: Outcome = { outcome: "accept", identity: named };
      const against = reasonAgainst(named);
      if (against === null) return accept;
      if (typeof against === "string") return rejected(identity.id, against);
      return against.then((reason) => (reason === null ? accept : rejected(identity.id, reason)));
    },
    isGood(identity) {
      const against = reasonAgainst(identity);
      return against instanceof Promise
        ? against.then((reason) => reason === null)
        : against === null;
    },
    tellRevoked: (id, expiresAtMs) => shared.revoke(SPACE, [{ id, untilMs: expiresAtMs }]),
    async tellRotated(id, secrets) {
      if (secrets.length > 0) await tellOrWarn(shared, log, secrets, { token_id: id });
    },
    async tellAll(table, nowMs) {
      const all = table
        .revokedIds(nowMs)
        .map(({ id, expiresAtMs }) => ({ id, untilMs: expiresAtMs }));
      if (all.length > 0) await tellOrWarn(shared, log, all, { count: all.length });
    },
  };
}

/** The secrets that a rotation ends at once. */
export function endedAtOnce(
  id: string,
  { digest, previousDigest, foreignDigest, expiresAtMs }: Digests,
  graceMs: number,
): readonly Revocation[] {
  // The current secret lives on; a second rotation ends the imported one.
  const kept = graceMs === 0 ? null : (digest ?? foreignDigest);
  return [digest, previousDigest, foreignDigest]
    .filter((one) => one !== null && one !== kept)
    .map((one) => ({ id: secretName(id, one ?? NOTHING), untilMs: expiresAtMs }));
}

const NOTHING = new Uint8Array();

async function together(token: Promise<boolean>, secret: Promise<boolean>): Promise<Against> {
  const [isRevoked, isEnded] = await Promise.all([token, secret]);
  return isRevoked ? "token_revoked" : reasonOfSecret(isEnded);
}

/** What it throws becomes a rejection. */
async function asking(question: () => boolean | Promise<boolean>): Promise<boolean> {
  return question();
}

function reasonOfSecret(isEnded: boolean): Against {
  return isEnded ? "invalid_token" : null;
}

type Against = Extract<RejectReason, "token_revoked" | "invalid_token"> | null;

function secretName(id: string, digest: Uint8Array): string {
  return `${id}.${Buffer.from(digest.subarray(0, SECRET_BYTES)).toString("base64url")}`;
}

function rejected(credentialId: string, reason: RejectReason): Outcome {
  return { outcome: "reject", reason, credentialId };
}

async function tellOrWarn(
  shared: SharedState,
  log: Log,
  revocations: readonly Revocation[],
  about: Readonly<Record<string, string | number>>,
): Promise<void> {
  try {
    await shared.revoke(SPACE, revocations);
  } catch (error) {
    const why = error instanceof Error ? error.message : "unknown";
    log.warn("token.replicas_not_told", { ...about, error: why });
  }
}
