/**
 * Creating, finding, rotating, revoking and importing: what the command line and the admin API call.
 *
 * Invariant: a secret leaves here once, in the answer of `create` or `rotate`, after its row was committed; a call
 * that throws has changed nothing.
 */
import {
  type Clock,
  type IssuedToken,
  type Revocation,
  type TokenDraft,
  TokenError,
  type TokenFilter,
  type TokenRecord,
  type TokenStore,
} from "gatehouse";
import { checkedDraft, checkedForeign, checkedGrace, checkedReason } from "./draft.ts";
import type { LastUsed } from "./last-used.ts";
import { endedAtOnce, type Replicas } from "./replicas.ts";
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
  /** Other gateways with copies of the database; `null` when there are none. */
  readonly replicas: Replicas | null;
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
    list: (filter) =>
      recordsOf(options.table, filter).map((record) => withPending(options, record)),
    async page(query) {
      const { records, total } = await options.table.page(query);
      return { total, records: records.map((record) => withPending(options, record)) };
    },
    get: (idOrName, filter) => show(options, find(options.table, { idOrName, filter })),
    rotate(idOrName, graceMs, filter) {
      const { issued, ended } = changing(() => rotate(options, { idOrName, filter }, graceMs));
      const telling = options.replicas?.tellRotated(issued.record.id, ended);
      return telling === undefined ? issued : telling.then(() => issued);
    },
    revoke(idOrName, reason, filter) {
      const record = changing(() => revoke(options, { idOrName, filter }, reason));
      const telling = options.replicas?.tellRevoked(record.id, record.expiresAtMs);
      return telling === undefined ? record : telling.then(() => record);
    },
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

function rotate(
  options: KeeperOptions,
  wanted: Wanted,
  grace: number,
): { readonly issued: IssuedToken; readonly ended: readonly Revocation[] } {
  const graceMs = checkedGrace(grace);
  return options.table.transaction(() => {
    const id = find(options.table, wanted);
    const nowMs = options.clock.nowMs();
    const reason = standing(show(options, id), nowMs);
    if (reason === "token_revoked" || reason === "token_expired") {
      const state = reason === "token_revoked" ? "revoked" : "expired";
      throw new TokenError("invalid", `token ${id} is ${state}; create a new one`);
    }
    const token = options.form.issue(id);
    const digests = options.table.digests(id);
    const ended = digests === null ? [] : endedAtOnce(id, digests, graceMs);
    options.table.rotate(id, options.digest(token), graceMs === 0 ? null : nowMs + graceMs);
    return { issued: { token, record: show(options, id) }, ended };
  });
}

function revoke(options: KeeperOptions, wanted: Wanted, reason: string): TokenRecord {
  const text = checkedReason(reason);
  return options.table.transaction(() => {
    const id = find(options.table, wanted);
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

/** Which token a caller means. */
interface Wanted {
  readonly idOrName: string;
  readonly filter: TokenFilter | undefined;
}

/**
 * The id that is meant. An id wins over a name, so that nobody can hide a token by naming another one after it.
 * What was asked for is not repeated in the error: it may be a token pasted by mistake.
 */
function find(table: TokensTable, { idOrName, filter }: Wanted): string {
  const known = isId(idOrName) ? table.record(idOrName) : null;
  if (known !== null && (filter === undefined || known.owner === filter.owner)) return idOrName;
  const ids = idsByName(table, idOrName, filter);
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

/** Of tokens that are not revoked. Those without a name cannot be asked for by it. */
function idsByName(
  table: TokensTable,
  name: string,
  filter: TokenFilter | undefined,
): readonly string[] {
  if (name === "") return [];
  if (filter === undefined) return table.liveIdsByName(name);
  return table
    .recordsOf(filter.owner)
    .filter((record) => record.name === name && record.revokedAtMs === null)
    .map(({ id }) => id)
    .slice(0, 20);
}

function recordsOf(table: TokensTable, filter: TokenFilter | undefined): readonly TokenRecord[] {
  return filter === undefined ? table.records() : table.recordsOf(filter.owner);
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
