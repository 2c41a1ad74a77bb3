/**
 * What may be written about a token, whoever asks: the command line, the admin API or a page.
 *
 * Invariant: every text kept about a token can be printed on a terminal, in a log line and in a header without
 * changing how the rest of it reads; and none of them is a token. Messages never repeat what was given.
 */
import { type Role, type TokenDraft, TokenError } from "gatehouse";

/** A draft with every default filled in. */
export interface CheckedDraft {
  /** Empty: none. */
  readonly name: string;
  readonly owner: string | null;
  readonly role: Role;
  readonly scopes: readonly string[];
  readonly expiresAtMs: number | null;
  readonly notBeforeMs: number | null;
  readonly createdBy: string | null;
}

const MAX_TEXT = 256;
const MAX_REASON = 500;
const MAX_SCOPES = 64;
const MAX_SCOPE = 128;
/** The last instant that a JavaScript date can show. */
const MAX_TIME_MS = 8.64e15;

/**
 * Control characters (C0, DEL, C1), line and paragraph separators, and everything that turns the direction of
 * writing: with those a name could look like another one.
 */
const UNPRINTABLE =
  /[\u0000-\u001f\u007f-\u009f\u2028\u2029\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/;

/** Any prefix: a token of another gateway in a name is as leaked as one of ours. */
const TOKEN = /[a-z][a-z0-9]{1,9}_[0-9A-Za-z]{12}_[0-9A-Za-z]{20,}/;

/** RFC 6749 section 3.3: visible ASCII without `"` and `\`. */
const SCOPE = /^[\x21\x23-\x5b\x5d-\x7e]+$/;

/** @throws TokenError `invalid`, in words that never hold the value */
export function checkedDraft(draft: TokenDraft, nowMs: number): CheckedDraft {
  const expiresAtMs = checkedTime(draft.expiresAtMs, "the expiry");
  const notBeforeMs = checkedTime(draft.notBeforeMs, "the not-before time");
  if (expiresAtMs !== null && expiresAtMs <= nowMs) invalid("the expiry is in the past");
  if (expiresAtMs !== null && notBeforeMs !== null && notBeforeMs >= expiresAtMs) {
    invalid("the token would expire before it becomes valid");
  }
  return {
    name: draft.name === undefined ? "" : checkedText(draft.name, "the name", MAX_TEXT),
    owner: draft.owner === undefined ? null : checkedText(draft.owner, "the owner", MAX_TEXT),
    role: checkedRole(draft.role ?? "user"),
    scopes: checkedScopes(draft.scopes ?? []),
    expiresAtMs,
    notBeforeMs,
    createdBy:
      draft.createdBy === undefined ? null : checkedText(draft.createdBy, "the creator", MAX_TEXT),
  };
}

/** Why a token is revoked: may be empty. @throws TokenError `invalid` */
export function checkedReason(reason: string): string {
  return reason === "" ? "" : checkedText(reason, "the reason", MAX_REASON);
}

/** How long an old secret lives on, in ms from 0 to ten years. @throws TokenError `invalid` */
export function checkedGrace(graceMs: number): number {
  if (!Number.isSafeInteger(graceMs) || graceMs < 0 || graceMs > 10 * 365 * 86_400_000) {
    invalid("the grace time is not a duration from 0 to ten years");
  }
  return graceMs;
}

/**
 * A token made elsewhere: 16 to 4096 visible ASCII characters without a comma (two header lines are joined by one).
 * @throws TokenError `invalid`
 */
export function checkedForeign(token: string): string {
  if (token.length < 16) invalid("a token of fewer than 16 characters can be guessed");
  if (token.length > 4096) invalid("a token has at most 4096 characters");
  if (!/^[\x21-\x2b\x2d-\x7e]+$/.test(token)) {
    invalid("a token consists of visible ASCII characters without spaces and commas");
  }
  return token;
}

function checkedText(text: string, what: string, max: number): string {
  const length = [...text].length;
  if (length === 0 || length > max) invalid(`${what} must have 1 to ${max} characters`);
  if (!text.isWellFormed() || UNPRINTABLE.test(text)) {
    invalid(`${what} must not hold control characters or marks that turn the writing direction`);
  }
  if (text.trim() !== text) invalid(`${what} must not begin or end with a space`);
  if (TOKEN.test(text)) invalid(`${what} holds a token; tokens are never stored`);
  return text;
}

function checkedScopes(scopes: readonly string[]): readonly string[] {
  const distinct = [...new Set(scopes)];
  if (distinct.length > MAX_SCOPES) invalid(`a token has at most ${MAX_SCOPES} scopes`);
  for (const scope of distinct) {
    if (!SCOPE.test(scope) || scope.length > MAX_SCOPE) {
      invalid(
        `a scope has 1 to ${MAX_SCOPE} visible ASCII characters, without spaces, quotes and backslashes`,
      );
    }
  }
  return distinct;
}

function checkedRole(role: string): Role {
  if (role !== "admin" && role !== "user") invalid("the role is admin or user");
  return role;
}

function checkedTime(time: number | undefined, what: string): number | null {
  if (time === undefined) return null;
  if (!Number.isInteger(time) || time < 0 || time > MAX_TIME_MS) invalid(`${what} is not a time`);
  return time;
}

function invalid(message: string): never {
  throw new TokenError("invalid", message);
}
