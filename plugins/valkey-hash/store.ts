/**
 * The keys in Valkey and every command on them.
 *
 * Invariant: a command touches one key, so a cluster can do it; what must happen together on one key is one script. A
 * token is written into its subject's set before it exists and once more after, so that no token that works is missing
 * from the set, also when somebody cleans it meanwhile; it is deleted before it leaves the set.
 */
import { type Clock, TokenError, type Valkey, ValkeyError } from "gatehouse";
import { type Entry, FIELDS, type ReadEntry, readEntry, toFields } from "./entry.ts";
import { type Hash, isHash } from "./hash.ts";

/** Of rusty-valkey-forward-auth: HASH by hash of the token, SET of hashes by subject. */
export const TOKEN_KEY = "auth:token:";
const SET_KEY = "auth:user_tokens:";
/** Ours: STRING with epoch milliseconds. In a key of its own, because a write to the token would drop it everywhere. */
const USED_KEY = "auth:token_used:";
const USED_TTL_MS = 180 * 86_400_000;

/** Commands on their way at once when many keys are wanted. */
const AT_ONCE = 500;

/** KEYS: token; ARGV: lifetime in ms or 0, fields and values. 0 when it is there already. */
const INSERT = `if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
for i = 2, #ARGV, 2 do redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
if ARGV[1] ~= '0' then redis.call('PEXPIRE', KEYS[1], ARGV[1]) end
return 1`;

/** KEYS: token; ARGV: hash of its successor. 0 when it is gone or is not the current one of its id. */
const CLAIM = `local was = redis.call('HMGET', KEYS[1], 'sub', 'state')
if not was[1] or was[2] == 'new' or was[2] == 'old' then return 0 end
redis.call('HSET', KEYS[1], 'next', ARGV[1])
return 1`;

/**
 * KEYS: token; ARGV: hash of its successor, grace in ms. 0 when it is gone or somebody else has claimed it. An old one
 * cannot be claimed, so of several rotations at once one comes through.
 */
const RETIRE = `if redis.call('HGET', KEYS[1], 'next') ~= ARGV[1] then return 0 end
if ARGV[2] == '0' then redis.call('DEL', KEYS[1]) return 1 end
redis.call('HSET', KEYS[1], 'state', 'old')
local left = redis.call('PTTL', KEYS[1])
if left < 0 or left > tonumber(ARGV[2]) then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return 1`;

/** KEYS: token. The end of the rotation that made it; 0 when it is gone. */
const CONFIRM = `if redis.call('HGET', KEYS[1], 'state') ~= 'new' then return 0 end
redis.call('HSET', KEYS[1], 'state', '')
return 1`;

/** KEYS: token. What it was, and it is gone. */
const TAKE = `local was = redis.call('HMGET', KEYS[1], 'sub', 'previous', 'next')
redis.call('DEL', KEYS[1])
return was`;

/** What a deleted token was. */
export interface Taken {
  readonly sub: string;
  readonly previous: Hash | null;
  readonly next: Hash | null;
}

/** Everything there is, or everything of one subject. */
export interface Inventory {
  readonly entries: readonly Entry[];
  readonly lastUsed: ReadonlyMap<Hash, number>;
}

/** The commands. Each throws ValkeyError when Valkey cannot do it. */
export interface Store {
  /** One round trip. */
  read(hash: Hash): Promise<ReadEntry>;
  /** @throws TokenError `conflict` when the token is there */
  insert(entry: Entry): Promise<void>;
  claim(hash: Hash, next: Hash): Promise<boolean>;
  retire(entry: Entry, next: Hash, graceMs: number): Promise<boolean>;
  confirm(hash: Hash): Promise<boolean>;
  /** Deletes a token; `null` when there was none. */
  remove(hash: Hash): Promise<Taken | null>;
  lastUsed(hash: Hash): Promise<number | null>;
  touch(hash: Hash, atMs: number): Promise<void>;
  /** Reads everything, and mends sets that name tokens that are gone or lack some that are there. */
  inventory(): Promise<Inventory>;
  /** What one subject has, by its set. Members that are gone, or are another's, are passed over. */
  inventoryOf(sub: string): Promise<Inventory>;
}

/** @param clock what is left of a key's life is counted from its time */
export function openStore(valkey: Valkey, clock: Clock): Store {
  const read = (hash: Hash) => readOne(valkey, clock, hash);
  const script = (text: string, hash: Hash, ...words: string[]) =>
    valkey.command("eval", text, "1", TOKEN_KEY + hash, ...words);
  const lastUsed = async (hash: Hash) =>
    Number(await valkey.command("get", USED_KEY + hash)) || null;
  return {
    read,
    lastUsed,
    async insert(entry) {
      const set = SET_KEY + entry.sub;
      const leftMs = entry.expiresAtMs === null ? 0 : entry.expiresAtMs - clock.nowMs();
      await valkey.command("sadd", set, entry.hash);
      const isNew = await script(INSERT, entry.hash, String(leftMs), ...toFields(entry));
      if (isNew !== 1) {
        await leaveUnlessThere(valkey, set, entry.hash);
        throw new TokenError("conflict", "this token is there already");
      }
      await valkey.command("sadd", set, entry.hash);
    },
    claim: async (hash, next) => (await script(CLAIM, hash, next)) === 1,
    async retire(entry, next, graceMs) {
      const isDone = (await script(RETIRE, entry.hash, next, String(graceMs))) === 1;
      if (isDone && graceMs === 0) await valkey.command("srem", SET_KEY + entry.sub, entry.hash);
      return isDone;
    },
    confirm: async (hash) => (await script(CONFIRM, hash)) === 1,
    async remove(hash) {
      const was = await script(TAKE, hash);
      const [sub, previous, next] = Array.isArray(was) ? was : [];
      if (typeof sub !== "string") return null;
      await valkey.command("srem", SET_KEY + sub, hash);
      await valkey.command("del", USED_KEY + hash);
      return { sub, previous: hashOrNull(previous), next: hashOrNull(next) };
    },
    async touch(hash, atMs) {
      await valkey.command("set", USED_KEY + hash, String(atMs), "px", String(USED_TTL_MS));
    },
    async inventory() {
      // SCAN may give a key twice.
      const keys = [...new Set(await valkey.scan("auth:*"))];
      const hashes = keys
        .filter((key) => key.startsWith(TOKEN_KEY))
        .map(afterPrefix)
        .filter(isHash);
      const entries = await entriesAt(hashes, read);
      const used = keys
        .filter((key) => key.startsWith(USED_KEY))
        .map((key) => key.slice(USED_KEY.length));
      const times = await inTurn(
        used,
        async (hash) => [hash, (await lastUsed(hash)) ?? 0] as const,
      );
      await mendSets(valkey, keys, entries);
      return { entries, lastUsed: new Map(times) };
    },
    async inventoryOf(sub) {
      const entries = (await entriesIn(valkey, SET_KEY + sub, read)).filter(
        (entry) => entry.sub === sub,
      );
      const times = await inTurn(
        entries,
        async ({ hash }) => [hash, (await lastUsed(hash)) ?? 0] as const,
      );
      return { entries, lastUsed: new Map(times) };
    },
  };
}

async function entriesAt(
  hashes: readonly Hash[],
  read: (hash: Hash) => Promise<ReadEntry>,
): Promise<Entry[]> {
  const found = await inTurn(hashes, (hash) => read(hash).catch(skipped));
  return found.flatMap((one) => (one.kind === "entry" ? [one.entry] : []));
}

/** A member that is gone may have been rotated meanwhile; its successor is in the set by then. */
async function entriesIn(
  valkey: Valkey,
  set: string,
  read: (hash: Hash) => Promise<ReadEntry>,
): Promise<readonly Entry[]> {
  const entries: Entry[] = [];
  const seen = new Set<Hash>();
  for (;;) {
    const members = await valkey.command("smembers", set);
    const hashes = (Array.isArray(members) ? members : []).map(String).filter(isHash);
    const fresh = hashes.filter((hash) => !seen.has(hash));
    const found = await entriesAt(fresh, read);
    entries.push(...found);
    if (found.length === fresh.length) return entries;
    for (const hash of fresh) seen.add(hash);
  }
}

async function readOne(valkey: Valkey, clock: Clock, hash: Hash): Promise<ReadEntry> {
  const key = TOKEN_KEY + hash;
  // However long the answer takes, the key lives no longer than was left of it when it was asked for.
  const nowMs = clock.nowMs();
  const [values, ttlMs] = await valkey.together([
    ["hmget", key, ...FIELDS],
    ["pttl", key],
  ]);
  if (!isTexts(values) || values.length !== FIELDS.length || typeof ttlMs !== "number") {
    throw new ValkeyError(
      "BADREPLY",
      `valkey at ${valkey.place}: its answer could not be understood (BADREPLY)`,
    );
  }
  return readEntry(hash, values, { ttlMs, nowMs });
}

/**
 * What is wrong with the sets is set right, as far as the server lets us: whoever lists must not fail because of it.
 * Another process may be in the middle of writing a token: see `leaveUnlessThere`.
 */
async function mendSets(
  valkey: Valkey,
  keys: readonly string[],
  entries: readonly Entry[],
): Promise<void> {
  const rightful = new Map(entries.map(({ hash, sub }) => [hash, SET_KEY + sub]));
  const named = new Set<Hash>();
  try {
    for (const set of keys.filter((key) => key.startsWith(SET_KEY))) {
      const members = await valkey.command("smembers", set);
      const hashes = Array.isArray(members) ? members.map(String) : [];
      const [right, wrong] = [true, false].map((is) =>
        hashes.filter((hash) => (rightful.get(hash) === set) === is),
      );
      for (const hash of right ?? []) named.add(hash);
      for (const hash of wrong ?? []) await leaveUnlessThere(valkey, set, hash);
    }
    for (const [hash, set] of rightful) {
      if (!named.has(hash)) await valkey.command("sadd", set, hash);
    }
  } catch {
    // A replica, a full memory, or a set that is none.
  }
}

/** Takes a hash out of a set, unless its token has come into being, and puts it back if it does so meanwhile. */
async function leaveUnlessThere(valkey: Valkey, set: string, hash: Hash): Promise<void> {
  const belongs = async () =>
    SET_KEY + String(await valkey.command("hget", TOKEN_KEY + hash, "sub")) === set;
  if (await belongs()) return;
  await valkey.command("srem", set, hash);
  if (await belongs()) await valkey.command("sadd", set, hash);
}

async function inTurn<A, B>(items: readonly A[], work: (item: A) => Promise<B>): Promise<B[]> {
  const done: B[] = [];
  for (let from = 0; from < items.length; from += AT_ONCE) {
    done.push(...(await Promise.all(items.slice(from, from + AT_ONCE).map(work))));
  }
  return done;
}

/** One key that holds something else must not hide all the others from whoever lists. */
function skipped(error: unknown): ReadEntry {
  if (error instanceof ValkeyError && error.code === "WRONGTYPE") return { kind: "broken" };
  throw error;
}

function afterPrefix(key: string): string {
  return key.slice(TOKEN_KEY.length);
}

function hashOrNull(value: unknown): Hash | null {
  return typeof value === "string" && isHash(value) ? value : null;
}

function isTexts(value: unknown): value is (string | null)[] {
  return Array.isArray(value) && value.every((one) => one === null || typeof one === "string");
}
