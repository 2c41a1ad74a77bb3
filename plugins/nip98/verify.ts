/**
 * What a proof says and whether that is this request: time, URL, method, payload, replay key. Pure: no clock, no
 * database, no signature.
 *
 * Invariant: a tag that is there twice, or not in its form, never counts as said. Scheme, host and default port of
 * the URL compare as URLs (RFC 3986 section 6.2.2.1), everything else byte for byte.
 */
import { createHash, timingSafeEqual } from "node:crypto";
import type { AuthRequest, RejectReason } from "gatehouse";
import type { Proof } from "./proof.ts";

/** What the `payload` tag says. */
export type PayloadTag =
  | { readonly kind: "none" }
  | { readonly kind: "broken" }
  | { readonly kind: "hash"; readonly sha256: Uint8Array };

/**
 * What a used proof is remembered by: SHA-256 of the bytes of id and signature, behind the time it was signed at, so
 * that proofs of one time lie together on the disk.
 */
export function replayKey({ createdAt, id, sig }: Proof): string {
  const digest = createHash("sha256").update(id, "hex").update(sig, "hex").digest("base64url");
  return `${createdAt}.${digest}`;
}

/** Why the proof is not for this request at this time, or `null`. `maxAgeMs` counts both ways, inclusive. */
export function mismatch(
  proof: Proof,
  request: Pick<AuthRequest, "method" | "urls">,
  time: { readonly nowMs: number; readonly maxAgeMs: number },
): RejectReason | null {
  // Whole seconds, as both sides of NIP-98 count them.
  const ageSeconds = Math.floor(time.nowMs / 1000) - proof.createdAt;
  if (Math.abs(ageSeconds) > Math.floor(time.maxAgeMs / 1000)) return "stale_proof";
  const method = onlyTag(proof, "method");
  if (method?.toUpperCase() !== request.method.toUpperCase()) return "wrong_audience";
  const url = onlyTag(proof, "u");
  if (url === null || !request.urls.some((own) => isSameUrl(url, own))) return "wrong_audience";
  return null;
}

/** The value of the only tag called `name`; `null` when there is none, more than one, or it has no value. */
function onlyTag(proof: Proof, name: string): string | null {
  const found = proof.tags.filter((tag) => tag[0] === name);
  return found.length === 1 ? (found[0]?.[1] ?? null) : null;
}

/** The hash in the `payload` tag, hex in any case. */
export function payloadTag(proof: Proof): PayloadTag {
  if (!proof.tags.some(([name]) => name === "payload")) return { kind: "none" };
  const value = onlyTag(proof, "payload");
  if (value === null || !/^[0-9a-fA-F]{64}$/.test(value)) return { kind: "broken" };
  return { kind: "hash", sha256: Buffer.from(value, "hex") };
}

/** In a time that does not depend on where they differ. */
export function isSameHash(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && timingSafeEqual(a, b);
}

/** Whether both are absolute http(s) URLs of the same place. A fragment or user name makes it none. */
export function isSameUrl(signed: string, own: string): boolean {
  const a = splitUrl(signed);
  const b = splitUrl(own);
  return a !== null && b !== null && a.origin === b.origin && a.rest === b.rest;
}

const URL_FORM = /^(https?):\/\/(\[[0-9a-f:.]+\]|[^/?#@:[\]\\\s]+)(?::(\d{0,5}))?([/?][^#]*)$/i;

/** `rest` is path and query as written. */
function splitUrl(url: string): { readonly origin: string; readonly rest: string } | null {
  const [, scheme, host, port, rest] = URL_FORM.exec(url) ?? [];
  if (scheme === undefined || host === undefined || rest === undefined) return null;
  const name = scheme.toLowerCase();
  const number = port === undefined || port === "" ? (name === "https" ? 443 : 80) : Number(port);
  return { origin: `${name}://${host.toLowerCase()}:${number}`, rest };
}
