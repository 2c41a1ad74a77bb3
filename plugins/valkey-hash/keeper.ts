/**
 * Creating, finding, rotating, revoking and importing: what the command line and the admin API call.
 *
 * Invariant: a secret leaves here once, in the answer of `create` or `rotate`, after it was written. Tokens of one id
 * are a chain of entries, each naming the one before and after it; whoever revokes an id follows the chain both ways, and
 * whoever rotates an entry that is gone meanwhile takes the new one back.
 */
import {
  type Clock,
  type IssuedToken,
  type TokenDraft,
  TokenError,
  type TokenFilter,
  type TokenRecord,
  type TokenStore,
} from "gatehouse";
import { checkedDraft, checkedForeign, checkedGrace, checkedReason } from "./draft.ts";
import { type Entry, NOBODY, standing, toRecord } from "./entry.ts";
import type { TokenForm } from "./form.ts";
import { type Hash, type Hasher, isHash } from "./hash.ts";
import type { Inventory, Store } from "./store.ts";

/** What it needs. */
export interface KeeperOptions {
  readonly store: Store;
  readonly form: TokenForm;
  readonly clock: Clock;
  /** Hashes under which a token may lie; new ones lie under the first. */
  readonly hashers: readonly [Hasher, ...Hasher[]];
  /** The time of a use that is not written yet, or null. */
  pending(hash: Hash): number | null;
  /** Called for each entry that was written or deleted. */
  changed(hash: Hash): void;
}

/** A token with all its entries. */
interface Token {
  readonly head: Entry;
  /** The secret before it, if that still works. */
  readonly before: Entry | null;
}

/** The token store of one strategy. */
export function openKeeper(options: KeeperOptions): Omit<Required<TokenStore>, "page"> {
  return {
    create: (draft) => create(options, draft),
    list: (filter) => list(options, filter),
    get: async (idOrName, filter) => show(options, await find(options, { idOrName, filter })),
    rotate: (idOrName, graceMs, filter) => rotate(options, { idOrName, filter }, graceMs),
    revoke: (idOrName, reason, filter) => revoke(options, { idOrName, filter }, reason),
    adopt: async (token, draft) =>
      (await adoptAll(options, [{ token, draft }], false))[0] as TokenRecord,
    adoptAll: (entries) => adoptAll(options, entries, true),
  };
}

async function create(options: KeeperOptions, draft: TokenDraft): Promise<IssuedToken> {
  const id = options.form.newId();
  const token = options.form.issue(id ?? "");
  const entry = newEntry(options, token, draft);
  const named = id === null ? entry : { ...entry, id };
  await options.store.insert(named);
  options.changed(named.hash);
  return { token, record: toRecord(named, NOTHING_ELSE) };
}

const NOTHING_ELSE = { lastUsedAtMs: null, graceUntilMs: null };

function newEntry(options: KeeperOptions, token: string, draft: TokenDraft): Entry {
  const createdAtMs = options.clock.nowMs();
  const checked = checkedDraft(draft, createdAtMs);
  const hash = options.hashers[0](token);
  return {
    hash,
    id: hash,
    sub: checked.owner ?? NOBODY,
    createdAtMs,
    name: checked.name ?? "",
    role: checked.role,
    scopes: checked.scopes,
    expiresAtMs: checked.expiresAtMs ?? null,
    notBeforeMs: checked.notBeforeMs ?? null,
    createdBy: checked.createdBy ?? null,
    foreign: false,
    generation: 0,
    previous: null,
    next: null,
    goneAtMs: null,
  };
}

/** All are checked before the first is written; when one cannot be written, the others are deleted again. */
async function adoptAll(
  options: KeeperOptions,
  wanted: readonly { readonly token: string; readonly draft: TokenDraft }[],
  isNumbered: boolean,
): Promise<readonly TokenRecord[]> {
  const entries = await allOrFirstError(wanted, isNumbered, ({ token, draft }) =>
    foreignEntry(options, token, draft),
  );
  const written: Entry[] = [];
  try {
    await allOrFirstError(entries, isNumbered, async (entry) => {
      await options.store.insert(entry);
      written.push(entry);
    });
  } catch (error) {
    for (const { hash } of written) await options.store.remove(hash).catch(() => null);
    throw error;
  } finally {
    for (const { hash } of written) options.changed(hash);
  }
  return entries.map((entry) => toRecord(entry, NOTHING_ELSE));
}

/** Entries worked on at once. */
const AT_ONCE = 100;

/** Some at a time. Throws the error of the first that failed, with its number if asked, when none works any more. */
async function allOrFirstError<A, B>(
  items: readonly A[],
  isNumbered: boolean,
  work: (item: A) => Promise<B>,
): Promise<B[]> {
  const done: B[] = [];
  for (let from = 0; from < items.length; from += AT_ONCE) {
    const ended = await Promise.allSettled(items.slice(from, from + AT_ONCE).map(work));
    for (const [offset, one] of ended.entries()) {
      if (one.status === "fulfilled") done.push(one.value);
      else throw numbered(one.reason, isNumbered ? from + offset : undefined);
    }
  }
  return done;
}

function numbered(error: unknown, index: number | undefined): unknown {
  if (index === undefined || !(error instanceof TokenError)) return error;
  return new TokenError(error.code, error.message, index);
}

async function foreignEntry(
  options: KeeperOptions,
  text: string,
  draft: TokenDraft,
): Promise<Entry> {
  const token = checkedForeign(text);
  if (options.form.read(token) !== "other") {
    throw new TokenError("invalid", "this is a token of gatehouse; create one instead");
  }
  const texts = [draft.name, draft.owner, draft.createdBy, ...(draft.scopes ?? [])];
  if (texts.some((one) => one?.includes(token))) {
    throw new TokenError("invalid", "the token itself is part of its description");
  }
  const entry = newEntry(options, token, draft);
  for (const hasher of options.hashers) {
    const known = await options.store.read(hasher(token));
    if (known.kind !== "none") throw new TokenError("conflict", "this token is there already");
  }
  return { ...entry, foreign: true };
}

/**
 * The old entry is told its successor first, so that whoever revokes from now on finds both; then the new one is
 * written; then the old one gets its end.
 */
async function rotate(options: KeeperOptions, wanted: Wanted, grace: number): Promise<IssuedToken> {
  const graceMs = checkedGrace(grace);
  const { head, before } = await find(options, wanted);
  const nowMs = options.clock.nowMs();
  if (standing(head, nowMs) === "token_expired") {
    throw new TokenError("invalid", `token ${head.id} is expired; create a new one`);
  }
  const token = options.form.issue(head.id);
  const hash = options.hashers[0](token);
  const entry: Entry = {
    ...head,
    hash,
    generation: head.generation + 1,
    previous: head.hash,
    next: null,
    goneAtMs: null,
  };
  const isClaimed = await options.store.claim(head.hash, hash);
  if (isClaimed) await options.store.insert(entry);
  if (!isClaimed || !(await options.store.retire(head, hash, graceMs))) {
    await options.store.remove(hash);
    throw new TokenError("conflict", `token ${head.id} was revoked or rotated at the same time`);
  }
  if (before !== null) await options.store.remove(before.hash);
  for (const one of [hash, head.hash, before?.hash ?? hash]) options.changed(one);
  const graceUntilMs = graceMs === 0 ? null : nowMs + graceMs;
  return { token, record: toRecord(entry, { ...NOTHING_ELSE, graceUntilMs }) };
}

async function revoke(
  options: KeeperOptions,
  wanted: Wanted,
  reason: string,
): Promise<TokenRecord> {
  const text = checkedReason(reason);
  const found = await find(options, wanted);
  const record = await show(options, found);
  const done = new Set<Hash>();
  const todo: (Hash | null)[] = [found.head.hash, found.before?.hash ?? null];
  for (let hash = todo.shift(); hash !== undefined; hash = todo.shift()) {
    if (hash === null || done.has(hash)) continue;
    done.add(hash);
    const was = await options.store.remove(hash);
    options.changed(hash);
    todo.push(was?.next ?? null, was?.previous ?? null);
  }
  return {
    ...record,
    graceUntilMs: null,
    revokedAtMs: options.clock.nowMs(),
    revokedReason: text === "" ? null : text,
  };
}

async function list(
  options: KeeperOptions,
  filter: TokenFilter | undefined,
): Promise<readonly TokenRecord[]> {
  const inventory = await inventoryOf(options.store, filter);
  return tokensOf(inventory.entries)
    .map((token) => recordOf(options, token, inventory.lastUsed))
    .sort((a, b) => b.createdAtMs - a.createdAtMs || (a.id < b.id ? -1 : 1));
}

const EMPTY: Inventory = { entries: [], lastUsed: new Map() };

/** What there is, or what one owner has without a look at everybody's. */
async function inventoryOf(store: Store, filter: TokenFilter | undefined): Promise<Inventory> {
  if (filter === undefined) return store.inventory();
  // Who happens to be called like that does not own what belongs to nobody.
  return filter.owner === NOBODY ? EMPTY : store.inventoryOf(filter.owner);
}

/** Which token a caller means. */
interface Wanted {
  readonly idOrName: string;
  readonly filter: TokenFilter | undefined;
}

/**
 * The token that is meant. An id wins over a name, so that nobody can hide a token by naming another one after it.
 * Among one owner's tokens, those of others are looked for in the same way as those that are not there.
 * What was asked for is not repeated: it may be a token pasted by mistake.
 */
async function find(options: KeeperOptions, { idOrName, filter }: Wanted): Promise<Token> {
  const isDirect = filter === undefined && isHash(idOrName);
  const direct = isDirect ? await options.store.read(idOrName) : null;
  if (direct?.kind === "entry" && direct.entry.id === idOrName && direct.entry.next === null) {
    return { head: direct.entry, before: null };
  }
  const tokens = tokensOf((await inventoryOf(options.store, filter)).entries);
  const byId = tokens.find(({ head }) => head.id === idOrName);
  if (byId !== undefined) return byId;
  const named = tokens.filter(({ head }) => head.name === idOrName && head.name !== "");
  const [only] = named;
  if (only === undefined) {
    throw new TokenError(
      "not_found",
      "there is no token with this id or name; revoked ones are deleted",
    );
  }
  if (named.length > 1) {
    const ids = named.slice(0, 20).map(({ head }) => head.id);
    throw new TokenError("not_unique", `several tokens have this name: ${ids.join(", ")}`);
  }
  return only;
}

/** Entries of one id are one token; the one that was rotated most often is current. */
function tokensOf(entries: readonly Entry[]): Token[] {
  const byId = Map.groupBy(entries, ({ id }) => id);
  return [...byId.values()].flatMap((chain) => {
    const [head, before] = chain.toSorted((a, b) => b.generation - a.generation);
    return head === undefined ? [] : [{ head, before: before ?? null }];
  });
}

async function show(options: KeeperOptions, token: Token): Promise<TokenRecord> {
  const times = new Map<Hash, number>();
  for (const { hash } of [token.head, token.before ?? token.head]) {
    times.set(hash, (await options.store.lastUsed(hash)) ?? 0);
  }
  return recordOf(options, token, times);
}

/** What this process has noted counts before it is written. */
function recordOf(
  options: KeeperOptions,
  { head, before }: Token,
  lastUsed: ReadonlyMap<Hash, number>,
): TokenRecord {
  const hashes = [head.hash, ...(before === null ? [] : [before.hash])];
  const times = hashes.flatMap((hash) => [lastUsed.get(hash) ?? 0, options.pending(hash) ?? 0]);
  return toRecord(head, {
    lastUsedAtMs: Math.max(...times) || null,
    graceUntilMs: before?.goneAtMs ?? null,
  });
}
