/**
 * What may be written about a token, whoever asks.
 *
 * Invariant: every text that is kept can be printed in a terminal, a log line and a header without changing how the
 * rest reads. Messages never repeat what was given.
 */
import { type TokenDraft, TokenError, z } from "gatehouse";
import { NOBODY } from "./entry.ts";

/** Control characters, line separators, and what turns the direction of writing. */
const UNPRINTABLE = /[\p{Cc}\p{Zl}\p{Zp}\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/u;
const TOKEN = /[a-z][a-z0-9]{1,9}_[0-9A-Za-z]{12}_[0-9A-Za-z]{20,}/;
/** RFC 6749 section 3.3. */
const SCOPE = /^[\x21\x23-\x5b\x5d-\x7e]{1,128}$/;
/** Of rusty-valkey-forward-auth, whose description our name is. */
const MAX_NAME_BYTES = 256;
const TEN_YEARS_MS = 10 * 365 * 86_400_000;

function text(what: string, max = 256) {
  return z
    .string({ error: `${what} is not a text` })
    .refine((value) => value !== "" && [...value].length <= max, {
      error: `${what} must have 1 to ${max} characters`,
    })
    .refine((value) => value.isWellFormed() && !UNPRINTABLE.test(value), {
      error: `${what} must not hold control characters or marks that turn the writing direction`,
    })
    .refine((value) => value.trim() === value, {
      error: `${what} must not begin or end with a space`,
    })
    .refine((value) => !TOKEN.test(value), {
      error: `${what} holds a token; tokens are never stored`,
    });
}

const time = (what: string) =>
  z
    .int({ error: `${what} is not a time` })
    .min(0, { error: `${what} is not a time` })
    .max(8.64e15, { error: `${what} is not a time` });

const schema = z.object({
  name: text("the name")
    .refine((value) => Buffer.byteLength(value) <= MAX_NAME_BYTES, {
      error: `the name must have at most ${MAX_NAME_BYTES} bytes`,
    })
    .optional(),
  owner: text("the owner")
    .refine((value) => value !== NOBODY, { error: "the owner is a reserved word" })
    .optional(),
  role: z.enum(["admin", "user"], { error: "the role is admin or user" }).default("user"),
  scopes: z
    .array(
      z.string().regex(SCOPE, {
        error:
          "a scope has 1 to 128 visible ASCII characters, without spaces, quotes and backslashes",
      }),
    )
    .max(64, { error: "a token has at most 64 scopes" })
    .default([]),
  expiresAtMs: time("the expiry").optional(),
  notBeforeMs: time("the not-before time").optional(),
  createdBy: text("the creator").optional(),
});

/** A draft that may be written. */
export type CheckedDraft = z.infer<typeof schema>;

/** @throws TokenError `invalid`, in words that never hold the value */
export function checkedDraft(draft: TokenDraft, nowMs: number): CheckedDraft {
  const { data, error } = schema.safeParse(draft);
  if (data === undefined) return invalid(error?.issues[0]?.message ?? "this is no draft");
  const { expiresAtMs, notBeforeMs } = data;
  if (expiresAtMs !== undefined && expiresAtMs <= nowMs) invalid("the expiry is in the past");
  if (expiresAtMs !== undefined && notBeforeMs !== undefined && notBeforeMs >= expiresAtMs) {
    invalid("the token would expire before it becomes valid");
  }
  return { ...data, scopes: [...new Set(data.scopes)] };
}

/** Why a token is revoked: may be empty. @throws TokenError `invalid` */
export function checkedReason(reason: string): string {
  if (reason === "") return "";
  const { data, error } = text("the reason", 500).safeParse(reason);
  return data ?? invalid(error?.issues[0]?.message ?? "the reason is no text");
}

/** How long an old secret lives on, in ms from 0 to ten years. @throws TokenError `invalid` */
export function checkedGrace(graceMs: number): number {
  if (!Number.isSafeInteger(graceMs) || graceMs < 0 || graceMs > TEN_YEARS_MS) {
    invalid("the grace time is not a duration from 0 to ten years");
  }
  return graceMs;
}

/** A token made elsewhere: 16 to 4096 visible ASCII characters without a comma. @throws TokenError `invalid` */
export function checkedForeign(token: string): string {
  if (!/^[\x21-\x2b\x2d-\x7e]*$/.test(token)) {
    invalid("a token consists of visible ASCII characters without spaces and commas");
  }
  if (token.length < 16) invalid("a token of fewer than 16 characters can be guessed");
  if (token.length > 4096) invalid("a token has at most 4096 characters");
  return token;
}

function invalid(message: string): never {
  throw new TokenError("invalid", message);
}
