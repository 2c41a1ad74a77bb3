/**
 * Checks ids and signatures, in WebAssembly, one at a time.
 *
 * Invariant: at most one check (about 0.4 ms) runs per turn of the event loop, first come first served, so that
 * whatever else is ready gets its turn between two of them. The queue is bounded; beyond it a check is a fault.
 */

import { finalizeEvent, setNostrWasm, verifyEvent } from "nostr-tools/wasm";
import { KIND, type Proof } from "./proof.ts";

/** Whether the id is the hash of the event and the signature is the key's (BIP-340) for that id. */
export type Verify = (proof: Proof) => boolean;

/** Checks in turn. */
export interface SignatureQueue {
  /** @throws (rejects) when too many wait, or after `close` */
  check(proof: Proof): Promise<boolean>;
  /** Refuses whatever waits. Idempotent. */
  close(): void;
}

/** At 0.4 ms each the last one waits for less than a second. */
const MAX_WAITING = 2000;

/**
 * The verifier of `nostr-tools`, made ready and tried out: one that is missing would call every signature wrong,
 * one that is broken might call them right.
 * @throws when it does not tell a good signature from a bad one
 */
export async function loadVerifier(): Promise<Verify> {
  // Only now: whoever does not use this strategy does not pay for it.
  const { initNostrWasm } = await import("nostr-wasm");
  setNostrWasm(await initNostrWasm());
  const verify: Verify = ({ createdAt, tags, ...rest }) =>
    verifyEvent({ ...rest, created_at: createdAt, tags: tags as string[][] });
  const sample = sampleProof();
  const isRight = verify(sample);
  const isWrong =
    verify({ ...sample, content: "x" }) || verify({ ...sample, sig: "1".repeat(128) });
  if (!isRight || isWrong) throw new Error("the signature verifier does not work here");
  return verify;
}

function sampleProof(): Proof {
  const template = {
    kind: KIND,
    created_at: 0,
    tags: [["u", "https://example.com/"]],
    content: "",
  };
  const { id, pubkey, sig, kind, tags, content } = finalizeEvent(
    template,
    crypto.getRandomValues(new Uint8Array(32)),
  );
  return { id, pubkey, sig, kind, createdAt: 0, tags, content };
}

interface Waiting {
  readonly proof: Proof;
  resolve(isValid: boolean): void;
  reject(error: Error): void;
}

/** @param maxWaiting default 2000 */
export function openSignatureQueue(verify: Verify, maxWaiting = MAX_WAITING): SignatureQueue {
  const queue: Waiting[] = [];
  let isScheduled = false;
  let isClosed = false;

  function schedule(): void {
    if (isScheduled || queue.length === 0) return;
    isScheduled = true;
    setImmediate(runOne);
  }

  function runOne(): void {
    isScheduled = false;
    const next = queue.shift();
    if (next === undefined) return;
    schedule();
    try {
      next.resolve(verify(next.proof));
    } catch (error) {
      next.reject(error instanceof Error ? error : new Error(String(error)));
    }
  }

  return {
    check(proof) {
      if (isClosed) return Promise.reject(new Error("the gateway is shutting down"));
      if (queue.length >= maxWaiting) {
        return Promise.reject(new Error(`more than ${maxWaiting} signatures wait to be checked`));
      }
      const { promise, resolve, reject } = Promise.withResolvers<boolean>();
      queue.push({ proof, resolve, reject });
      schedule();
      return promise;
    },
    close() {
      isClosed = true;
      for (const { reject } of queue.splice(0)) reject(new Error("the gateway is shutting down"));
    },
  };
}
