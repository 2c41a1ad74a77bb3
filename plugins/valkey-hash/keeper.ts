/**
 * Creating, finding, rotating, revoking and importing: what the command line and the admin API call.
 *
 * Invariant: a secret leaves here once, in the answer of `create` or `rotate`, after it was written. Tokens of one id
 * are a chain of entries, each naming the one before and after it, and one of them is current; whoever revokes an id
 * follows the chain both ways, and whoever rotates an entry that is gone meanwhile takes the new one back.
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

/** A token with its entries. */
interface Token {
  readonly head: Entry;
  /** The secret before it if that still works; or what a rotation that did not come to its end has left. */
  readonly others: readonly Entry[];
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
    state: "current",
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
 * written, which nobody can rotate yet; then the old one gets its end, which only one of several rotations at once can
 * give it; then the new one is the current one, unless somebody has revoked it.
 */
async function rotate(options: KeeperOptions, wanted: Wanted, grace: number): Promise<IssuedToken> {
  const graceMs = checkedGrace(grace);
  const { head, others } = await find(options, wanted);
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
    state: "new",
    goneAtMs: null,
  };
  if (!(await replace(options.store, head, entry, graceMs))) {
    await options.store.remove(hash);
    throw new TokenError("conflict", `token ${head.id} was revoked or rotated at the same time`);
  }
  for (const other of others) await options.store.remove(other.hash);
  for (const one of [entry, head, ...others]) options.changed(one.hash);
  const graceUntilMs = graceMs === 0 ? null : nowMs + graceMs;
  return { token, record: toRecord(entry, { ...NOTHING_ELSE, graceUntilMs }) };
}

/** False when somebody else was there first; then nothing has ended, and the new entry may be left. */
async function replace(store: Store, head: Entry, entry: Entry, graceMs: number): Promise<boolean> {
  if (!(await store.claim(head.hash, entry.hash))) return false;
  await store.insert(entry);
  return (await store.retire(head, entry.hash, graceMs)) && (await store.confirm(entry.hash));
}

async function revoke(
  options: KeeperOptions,
  wanted: Wanted,
  reason: string,
): Promise<TokenRecord> {
  const text = checkedReason(reason);
  const found = await find(options, wanted);
  const record = await show(options, found);
  const { id, sub } = found.head;
  let links = [found.head, ...found.others].map(({ hash }) => hash);
  while (links.length > 0 && !(await removeChain(options, links))) {
    // A rotation that came between has left nothing that leads on; what it made is in the subject's set.
    const { entries } = await options.store.inventoryOf(sub);
    links = entries.filter((entry) => entry.id === id).map(({ hash }) => hash);
  }
  return {
    ...record,
    graceUntilMs: null,
    revokedAtMs: options.clock.nowMs(),
    revokedReason: text === "" ? null : text,
  };
}

/** Deletes entries and those before and after them. False when one that others followed was gone already. */
async function removeChain(options: KeeperOptions, links: readonly Hash[]): Promise<boolean> {
  const isForward = new Map<Hash, boolean>(links.map((hash) => [hash, true]));
  let isWhole = true;
  // A map gives what is added while it is walked.
  for (const [hash, mustBeThere] of isForward) {
    const was = await options.store.remove(hash);
    options.changed(hash);
    if (was === null && mustBeThere) isWhole = false;
    for (const [link, isNext] of [
      [was?.next, true],
      [was?.previous, false],
    ] as const) {
      if (link != null && !isForward.has(link)) isForward.set(link, isNext);
    }
  }
  return isWhole;
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
    return { head: direct.entry, others: [] };
  }
  // What is rotated while it is listed may be seen neither before nor after; then it is there the second time.
  const found =
    (await findListed(options, { idOrName, filter })) ??
    (await findListed(options, { idOrName, filter }));
  if (found !== null) return found;
  throw new TokenError(
    "not_found",
    "there is no token with this id or name; revoked ones are deleted",
  );
}

async function findListed(
  { store }: KeeperOptions,
  { idOrName, filter }: Wanted,
): Promise<Token | null> {
  const tokens = tokensOf((await inventoryOf(store, filter)).entries);
  const byId = tokens.find(({ head }) => head.id === idOrName);
  if (byId !== undefined) return byId;
  const named = tokens.filter(({ head }) => head.name === idOrName && head.name !== "");
  if (named.length > 1) {
    const ids = named.slice(0, 20).map(({ head }) => head.id);
    throw new TokenError("not_unique", `several tokens have this name: ${ids.join(", ")}`);
  }
  return named[0] ?? null;
}

/** Entries of one id are one token. */
function tokensOf(entries: readonly Entry[]): Token[] {
  const byId = Map.groupBy(entries, ({ id }) => id);
  return [...byId.values()].flatMap((chain) => {
    const [head, ...others] = chain.toSorted(
      (a, b) => RANKS[a.state] - RANKS[b.state] || b.generation - a.generation,
    );
    return head === undefined ? [] : [{ head, others }];
  });
}

/** Which entry of an id speaks for the token. */
const RANKS: Readonly<Record<Entry["state"], number>> = { current: 0, new: 1, old: 2 };

async function show(options: KeeperOptions, token: Token): Promise<TokenRecord> {
  const times = new Map<Hash, number>();
  for (const { hash } of [token.head, ...token.others]) {
    times.set(hash, (await options.store.lastUsed(hash)) ?? 0);
  }
  return recordOf(options, token, times);
}

/** What this process has noted counts before it is written. */
function recordOf(
  options: KeeperOptions,
  { head, others }: Token,
  lastUsed: ReadonlyMap<Hash, number>,
): TokenRecord {
  const times = [head, ...others].flatMap(({ hash }) => [
    lastUsed.get(hash) ?? 0,
    options.pending(hash) ?? 0,
  ]);
  const before = others.find(({ next }) => next === head.hash);
  return toRecord(head, {
    lastUsedAtMs: Math.max(...times) || null,
    graceUntilMs: before?.goneAtMs ?? null,
  });
}
