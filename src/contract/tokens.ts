/**
 * The optional token-keeping side of a strategy: what the command line, the admin API and the page call, so that
 * they work on any strategy that keeps tokens.
 *
 * Invariant: a token's secret leaves this interface exactly once, in the answer of `create` or `rotate`.
 */
import type { Role } from "./outcome.ts";

/** A token as it may be shown: no secret, no hash. Times are epoch milliseconds, `null` when not set. */
export interface TokenRecord {
  /** Public; safe in logs. */
  readonly id: string;
  /** Empty when it was made without one. */
  readonly name: string;
  readonly owner: string | null;
  readonly role: Role;
  readonly scopes: readonly string[];
  readonly createdAtMs: number;
  readonly createdBy: string | null;
  readonly expiresAtMs: number | null;
  readonly notBeforeMs: number | null;
  readonly lastUsedAtMs: number | null;
  readonly revokedAtMs: number | null;
  readonly revokedReason: string | null;
  /** Until when the secret before the last rotation still works. */
  readonly graceUntilMs: number | null;
  /** Made elsewhere and imported. */
  readonly foreign: boolean;
}

/** What a new token is made from. */
export interface TokenDraft {
  /** 1 to 256 characters without control characters. Absent: the token has no name. */
  readonly name?: string;
  /** 1 to 256 characters without control characters. */
  readonly owner?: string;
  readonly role?: Role;
  readonly scopes?: readonly string[];
  readonly expiresAtMs?: number;
  readonly notBeforeMs?: number;
  readonly createdBy?: string;
}

/** The one time that a secret is shown. */
export interface IssuedToken {
  readonly token: string;
  readonly record: TokenRecord;
}

/** A mistake of the caller (no such token, a name that is not unique, an expiry in the past). */
export class TokenError extends Error {
  readonly code: "not_found" | "not_unique" | "invalid" | "conflict";
  /** Which entry of `adoptAll` was wrong, from 0; undefined elsewhere. */
  readonly index: number | undefined;
  constructor(code: TokenError["code"], message: string, index?: number) {
    super(message);
    this.name = "TokenError";
    this.code = code;
    this.index = index;
  }
}

/** Narrows a call to some of the tokens: the others are as if they were not there. */
export interface TokenFilter {
  /** Exactly this owner's. */
  readonly owner: string;
}

/** By time of creation or by name; `oldest` and `name_reversed` are exactly the reverse of the others. */
export type TokenOrder = "newest" | "oldest" | "name" | "name_reversed";

/** A part of all tokens in some order. */
export interface TokenQuery {
  readonly order: TokenOrder;
  /** Begin behind this token, whether or not it is still there. Absent: at the first. */
  readonly after?: Pick<TokenRecord, "id" | "name" | "createdAtMs">;
  /** At least 1. */
  readonly limit: number;
  /** What id, name or owner must hold somewhere, without regard to case. Not empty. */
  readonly text?: string;
  /** Whether tokens that were revoked are among them. */
  readonly revoked: boolean;
}

/** The answer to a {@link TokenQuery}. */
export interface TokenPage {
  readonly records: readonly TokenRecord[];
  /** How many there are without `after` and `limit`. */
  readonly total: number;
}

/** Implemented by a strategy instance that keeps tokens. Every call may throw {@link TokenError}. */
export interface TokenStore {
  create(draft: TokenDraft): IssuedToken | Promise<IssuedToken>;
  /** Newest first, then by id. With a filter without looking at everybody's tokens. */
  list(filter?: TokenFilter): readonly TokenRecord[] | Promise<readonly TokenRecord[]>;
  /** For stores that may hold more than should be read at once: a page of everybody's tokens. */
  page?(query: TokenQuery): TokenPage | Promise<TokenPage>;
  /** By id, or by name when exactly one token that is not revoked has it. */
  get(idOrName: string, filter?: TokenFilter): TokenRecord | Promise<TokenRecord>;
  /** A new secret under the same id; the old one lives on for `graceMs` (0: ends at once). */
  rotate(
    idOrName: string,
    graceMs: number,
    filter?: TokenFilter,
  ): IssuedToken | Promise<IssuedToken>;
  /** Holds on the very next request. Revoking twice keeps the first time and reason. */
  revoke(
    idOrName: string,
    reason: string,
    filter?: TokenFilter,
  ): TokenRecord | Promise<TokenRecord>;
  /** Takes over a token made elsewhere; only its keyed hash is kept. */
  adopt?(token: string, draft: TokenDraft): TokenRecord | Promise<TokenRecord>;
  /** The same for many, all or none; the error's `index` says which one was wrong. */
  adoptAll?(
    entries: readonly { readonly token: string; readonly draft: TokenDraft }[],
  ): readonly TokenRecord[] | Promise<readonly TokenRecord[]>;
}
