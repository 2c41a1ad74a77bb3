/**
 * Creating, finding, rotating, revoking and importing: what the command line and the admin API call.
 *
 * Invariant: a secret leaves here once, in the answer of `create` or `rotate`, after its row was committed; a call
 * that throws has changed nothing.
 */
import {
  type Clock,
  type IssuedToken,
  type TokenDraft,
  TokenError,
  type TokenRecord,
  type TokenStore,
} from "gatehouse";
import { checkedDraft, checkedForeign, checkedGrace, checkedReason } from "./draft.ts";
import type { LastUsed } from "./last-used.ts";
import { isId, newId, type TokenForm } from "./token.ts";
import type { NewToken, TokensTable } from "./tokens-table.ts";
import { standing } from "./verify.ts";

/** What it needs. */
export interface KeeperOptions {
  readonly table: TokensTable;
  readonly form: TokenForm;
  readonly clock: Clock;
  readonly lastUsed: Pick<LastUsed, "pending">;
  /** The keyed hash under which a token is stored. */
  readonly digest: (token: string) => Uint8Array;
  /** Called after every write. */
  readonly changed: () => void;
}

/** The token store of one strategy. */
export function openKeeper(options: KeeperOptions): Required<TokenStore> {
  const changing = <T>(work: () => T): T => {
    try {
      return work();
    } finally {
      options.changed();
    }
  };
  const { transaction } = options.table;
  return {
    create: (draft) => changing(() => create(options, draft)),
    list: () => options.table.records().map((record) => withPending(options, record)),
    get: (idOrName) => show(options, find(options.table, idOrName)),
    rotate: (idOrName, graceMs) => changing(() => rotate(options, idOrName, graceMs)),
    revoke: (idOrName, reason) => changing(() => revoke(options, idOrName, reason)),
    adopt: (token, draft) => changing(() => transaction(() => adopt(options, token, draft))),
    adoptAll: (entries) =>
      changing(() =>
        transaction(() =>
          entries.map(({ token, draft }, index) =>
            naming(index, () => adopt(options, token, draft)),
          ),
        ),
      ),
  };
}

function create(options: KeeperOptions, draft: TokenDraft): IssuedToken {
  const id = newId();
  const token = options.form.issue(id);
  options.table.insert({
    ...row(options, id, draft),
    digest: options.digest(token),
    foreignDigest: null,
  });
  return { token, record: show(options, id) };
}

function adopt(options: KeeperOptions, foreign: string, draft: TokenDraft): TokenRecord {
  const token = checkedForeign(foreign);
  if (options.form.read(token).form !== "foreign") {
    throw new TokenError("invalid", "this is a token of gatehouse; create one instead");
  }
  const texts = [draft.name, draft.owner, draft.createdBy, ...(draft.scopes ?? [])];
  if (texts.some((text) => text?.includes(token))) {
    throw new TokenError("invalid", "the token itself is part of its description");
  }
  const digest = options.digest(token);
  const known = options.table.byForeignDigest(digest);
  if (known !== null) {
    // Also when it was revoked: importing must not bring a revoked token back to life.
    const state = known.revokedAtMs === null ? "is imported already" : "was imported and revoked";
    throw new TokenError("conflict", `this token ${state} (id ${known.id})`);
  }
  const id = newId();
  options.table.insert({ ...row(options, id, draft), digest: null, foreignDigest: digest });
  return show(options, id);
}

function rotate(options: KeeperOptions, idOrName: string, grace: number): IssuedToken {
  const graceMs = checkedGrace(grace);
  return options.table.transaction(() => {
    const id = find(options.table, idOrName);
    const nowMs = options.clock.nowMs();
    const reason = standing(show(options, id), nowMs);
    if (reason === "token_revoked" || reason === "token_expired") {
      const state = reason === "token_revoked" ? "revoked" : "expired";
      throw new TokenError("invalid", `token ${id} is ${state}; create a new one`);
    }
    const token = options.form.issue(id);
    options.table.rotate(id, options.digest(token), graceMs === 0 ? null : nowMs + graceMs);
    return { token, record: show(options, id) };
  });
}

function revoke(options: KeeperOptions, idOrName: string, reason: string): TokenRecord {
  const text = checkedReason(reason);
  return options.table.transaction(() => {
    const id = find(options.table, idOrName);
    options.table.revoke(id, options.clock.nowMs(), text);
    return show(options, id);
  });
}

function row(
  options: KeeperOptions,
  id: string,
  draft: TokenDraft,
): Omit<NewToken, "digest" | "foreignDigest"> {
  const createdAtMs = options.clock.nowMs();
  return { id, createdAtMs, ...checkedDraft(draft, createdAtMs) };
}

/**
 * The id that is meant. An id wins over a name, so that nobody can hide a token by naming another one after it.
 * What was asked for is not repeated in the error: it may be a token pasted by mistake.
 */
function find(table: TokensTable, idOrName: string): string {
  if (isId(idOrName) && table.record(idOrName) !== null) return idOrName;
  const ids = table.liveIdsByName(idOrName);
  const id = ids[0];
  if (id === undefined) {
    throw new TokenError(
      "not_found",
      "there is no token with this id, and none with this name that is not revoked",
    );
  }
  if (ids.length > 1) {
    throw new TokenError("not_unique", `several tokens have this name: ${ids.join(", ")}`);
  }
  return id;
}

function show(options: KeeperOptions, id: string): TokenRecord {
  const record = options.table.record(id);
  if (record === null) throw new TokenError("not_found", `there is no token ${id}`);
  return withPending(options, record);
}

/** What this process has noted counts before it is written. */
function withPending(options: KeeperOptions, record: TokenRecord): TokenRecord {
  const pendingMs = options.lastUsed.pending(record.id);
  if (pendingMs === null || pendingMs <= (record.lastUsedAtMs ?? 0)) return record;
  return { ...record, lastUsedAtMs: pendingMs };
}

/** Says which of several entries was wrong. */
function naming<T>(index: number, work: () => T): T {
  try {
    return work();
  } catch (error) {
    if (error instanceof TokenError) throw new TokenError(error.code, error.message, index);
    throw error;
  }
}
