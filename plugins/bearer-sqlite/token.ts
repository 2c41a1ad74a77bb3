/**
 * The form of a token: `<prefix>_<id>_<secret><crc>`, with an id of 12, a secret of 33 and a checksum of 6 base62
 * characters.
 *
 * Invariant: every character of id and secret is drawn uniformly from the system's generator (33 of them are 196
 * bits). The checksum is for typing errors and secret scanners; it proves nothing.
 */
import { randomFillSync } from "node:crypto";

const ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const BASE = ALPHABET.length;
/** Largest multiple of 62 that fits a byte: what lies above would make the first characters likelier. */
const FAIR_BYTES = Math.floor(256 / BASE) * BASE;

const ID_LENGTH = 12;
const SECRET_LENGTH = 33;
const CHECKSUM_LENGTH = 6;

/** What a prefix must look like. */
export const PREFIX = /^[a-z][a-z0-9]{1,9}$/;

/**
 * - `own`: well formed and the checksum fits; `id` is worth a lookup.
 * - `broken`: the shape of ours, cut short or mistyped.
 * - `foreign`: anything else.
 */
export type ReadToken =
  | { readonly form: "own"; readonly id: string }
  | { readonly form: "broken" }
  | { readonly form: "foreign" };

/** Makes and reads the tokens of one prefix. */
export interface TokenForm {
  /** A fresh token under this id. */
  issue(id: string): string;
  read(text: string): ReadToken;
}

const BROKEN: ReadToken = Object.freeze({ form: "broken" });
const FOREIGN: ReadToken = Object.freeze({ form: "foreign" });

/** @throws TypeError when the prefix does not match {@link PREFIX} */
export function tokenForm(prefix: string): TokenForm {
  if (!PREFIX.test(prefix)) throw new TypeError("a token prefix is 2 to 10 of a-z and 0-9");
  const shape = new RegExp(`^${prefix}_([0-9A-Za-z]{${ID_LENGTH}})_([0-9A-Za-z]*)$`);
  return {
    issue(id) {
      const head = `${prefix}_${id}_${randomBase62(SECRET_LENGTH)}`;
      return head + checksum(head);
    },
    read(text) {
      const match = shape.exec(text);
      const id = match?.[1];
      if (id === undefined) return FOREIGN;
      if (match?.[2]?.length !== SECRET_LENGTH + CHECKSUM_LENGTH) return BROKEN;
      const head = text.slice(0, -CHECKSUM_LENGTH);
      return text.endsWith(checksum(head)) ? { form: "own", id } : BROKEN;
    },
  };
}

/** A fresh public id. */
export function newId(): string {
  return randomBase62(ID_LENGTH);
}

/** Whether a text could be an id. */
export function isId(text: string): boolean {
  return /^[0-9A-Za-z]{12}$/.test(text);
}

/** CRC-32 (IEEE 802.3) of the text as 6 base62 characters, padded with `0` on the left. */
export function checksum(text: string): string {
  let rest = Bun.hash.crc32(text);
  let digits = "";
  for (let place = 0; place < CHECKSUM_LENGTH; place += 1) {
    digits = ALPHABET.charAt(rest % BASE) + digits;
    rest = Math.floor(rest / BASE);
  }
  return digits;
}

/**
 * `length` characters, each equally likely.
 * `fill` writes random bytes over the whole array; it is a parameter for the test of the rejected bytes.
 */
export function randomBase62(
  length: number,
  fill: (bytes: Uint8Array) => void = (bytes) => randomFillSync(bytes),
): string {
  const bytes = new Uint8Array(length * 2);
  let text = "";
  while (text.length < length) {
    fill(bytes);
    for (const byte of bytes) {
      if (byte < FAIR_BYTES && text.length < length) text += ALPHABET.charAt(byte % BASE);
    }
  }
  return text;
}
