/**
 * How tokens look: `plain`, 32 letters and digits as rusty-valkey-forward-auth makes them, or `checked`,
 * `<prefix>_<id>_<secret><crc>` with 12, 33 and 6 characters.
 *
 * Invariant: every character is drawn uniformly from the system's generator (32 of them are 190 bits, 33 are 196). The
 * checksum is for typing errors and secret scanners and proves nothing.
 */
import { randomInt } from "node:crypto";

const DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const PLAIN_LENGTH = 32;
const ID_LENGTH = 12;
const SECRET_LENGTH = 33;
const SUM_LENGTH = 6;

/** Makes tokens and sorts out mistyped ones. */
export interface TokenForm {
  /** A fresh token. `id` names it in its text, if the form has a place for that. */
  issue(id: string): string;
  /** A fresh id, or `null` when the id is the token's hash. */
  newId(): string | null;
  /** `broken`: surely one of ours and surely not whole. `own`: ours and whole. `other`: cannot be told. */
  read(text: string): "own" | "broken" | "other";
}

/** @param prefix used by `checked` alone */
export function tokenForm(format: "plain" | "checked", prefix: string): TokenForm {
  return format === "plain" ? PLAIN : checkedForm(prefix);
}

const PLAIN: TokenForm = {
  issue: () => randomText(PLAIN_LENGTH),
  newId: () => null,
  read: () => "other",
};

function checkedForm(prefix: string): TokenForm {
  const shape = new RegExp(`^${prefix}_[0-9A-Za-z]{${ID_LENGTH}}_([0-9A-Za-z]*)$`);
  return {
    issue(id) {
      // The id of a token that was made plain is a hash; its beginning still tells which one it is.
      const head = `${prefix}_${id.slice(0, ID_LENGTH)}_${randomText(SECRET_LENGTH)}`;
      return head + sum(head);
    },
    newId: () => randomText(ID_LENGTH),
    read(text) {
      const rest = shape.exec(text)?.[1];
      if (rest === undefined) return "other";
      const isWhole =
        rest.length === SECRET_LENGTH + SUM_LENGTH &&
        text.endsWith(sum(text.slice(0, -SUM_LENGTH)));
      return isWhole ? "own" : "broken";
    },
  };
}

function randomText(length: number): string {
  return Array.from({ length }, () => DIGITS.charAt(randomInt(DIGITS.length))).join("");
}

/** CRC-32 (IEEE 802.3) in base 62, padded with `0`. */
function sum(text: string): string {
  const base = BigInt(DIGITS.length);
  let rest = BigInt(Bun.hash.crc32(text));
  let digits = "";
  while (rest > 0n) {
    digits = DIGITS.charAt(Number(rest % base)) + digits;
    rest /= base;
  }
  return digits.padStart(SUM_LENGTH, "0");
}
