/**
 * Nostr keys and NIP-98 events for tests, made with `nostr-tools` and nothing of our own.
 *
 * Invariant: unless told otherwise every event has a nonce, so that no two are the same proof.
 */
import { createHash, randomBytes } from "node:crypto";
import { npubEncode, nsecEncode } from "nostr-tools/nip19";
import { finalizeEvent, generateSecretKey, getPublicKey, type NostrEvent } from "nostr-tools/pure";
import type { Clock } from "../../src/contract/host.ts";

/** A key pair in every form. */
export interface NostrKey {
  readonly secret: Uint8Array;
  readonly nsec: string;
  readonly pubkey: string;
  readonly npub: string;
}

/** What is signed. */
export interface SignedRequest {
  /** Default GET. */
  readonly method?: string;
  /** Default: what `authRequest` describes by default. */
  readonly url?: string;
  /** Adds the payload tag. */
  readonly body?: string | Uint8Array;
  /** Default: the system's. */
  readonly clock?: Clock;
  /** Added to the time, in seconds. */
  readonly offsetSeconds?: number;
  /** Instead of all tags. */
  readonly tags?: string[][];
  readonly kind?: number;
  readonly content?: string;
}

/** A fresh key pair. */
export function newKey(): NostrKey {
  const secret = generateSecretKey();
  const pubkey = getPublicKey(secret);
  return { secret, pubkey, nsec: nsecEncode(secret), npub: npubEncode(pubkey) };
}

/** The tags of a request, with a nonce. */
export function tagsOf(request: SignedRequest): string[][] {
  const tags = [
    ["u", request.url ?? "http://127.0.0.1:8008/"],
    ["method", request.method ?? "GET"],
  ];
  if (request.body !== undefined) tags.push(["payload", sha256(request.body)]);
  return [...tags, ["nonce", randomBytes(8).toString("hex")]];
}

/** A signed event, as plain data. */
export function signEvent(key: NostrKey, request: SignedRequest = {}): NostrEvent {
  const nowMs = request.clock?.nowMs() ?? Date.now();
  const event = finalizeEvent(
    {
      kind: request.kind ?? 27_235,
      created_at: Math.floor(nowMs / 1000) + (request.offsetSeconds ?? 0),
      tags: request.tags ?? tagsOf(request),
      content: request.content ?? "",
    },
    key.secret,
  );
  const { id, pubkey, created_at, kind, tags, content, sig } = event;
  return { id, pubkey, created_at, kind, tags, content, sig };
}

/** The header's value for an event, or for a text that should be one. */
export function nostrHeader(event: NostrEvent | object | string): string {
  const text = typeof event === "string" ? event : JSON.stringify(event);
  return `Nostr ${Buffer.from(text).toString("base64")}`;
}

/** The header's value for a request. */
export function signed(key: NostrKey, request: SignedRequest = {}): string {
  return nostrHeader(signEvent(key, request));
}

/** Hex. */
export function sha256(bytes: string | Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}
