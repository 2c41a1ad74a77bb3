/**
 * The texts of signed-link: its keys and its header.
 *
 * Invariant: there is one way to write each signature; what is not exactly that is no signature.
 */

/** What `x-signature` says. */
export interface Signature {
  readonly keyId: string;
  /** Epoch seconds. */
  readonly seconds: number;
  /** 64 lower-case hexadecimal digits. */
  readonly sig: string;
}

/** `null` for anything but `keyId=…,ts=…,sig=…` in this order. */
export function parseSignature(line: string): Signature | null {
  const form = /^keyId=([a-z][a-z0-9-]{0,31}),ts=(0|[1-9]\d{0,11}),sig=([0-9a-f]{64})$/;
  const [, keyId, seconds, sig] = form.exec(line) ?? [];
  if (keyId === undefined || seconds === undefined || sig === undefined) return null;
  return { keyId, seconds: Number(seconds), sig };
}

/** Keys by id. @throws Error by position, never with a key in it */
export function parseKeys(text: string): ReadonlyMap<string, string> {
  const keys = new Map<string, string>();
  for (const [index, entry] of text.trim().split(/\s+/).entries()) {
    const [, id, key] = /^([a-z][a-z0-9-]{0,31}):([\x21-\x7e]{32,256})$/.exec(entry) ?? [];
    if (id === undefined || key === undefined) {
      throw new Error(`key ${index + 1} is not id:key with a key of at least 32 characters`);
    }
    if (keys.has(id)) throw new Error(`two keys have the id ${id}`);
    keys.set(id, key);
  }
  return keys;
}
