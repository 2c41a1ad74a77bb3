/**
 * This gateway's copy of the revocations in Valkey, and how the two learn from each other.
 *
 * Invariant: an end is never made earlier on either side, and what was told is marked so only after Valkey took it.
 */
import type { Clock } from "../contract/host.ts";
import { type Valkey, ValkeyError } from "../contract/valkey.ts";
import type { RevocationRow } from "./revocations-table.ts";
import type { SharedTables } from "./shared-tables.ts";

/** Commands on their way at once. */
const AT_ONCE = 500;

/** Keys are those in Valkey. Everything rejects when Valkey or the database cannot do it. */
export interface RevocationCopy {
  /** Of every key. */
  readonly base: string;
  keyOf(space: string, id: string): string;
  /** Takes in what stands under those keys, if it is new. */
  learn(valkey: Valkey, keys: readonly string[]): Promise<void>;
  /** Whether the key is there; what is found is taken in. */
  ask(valkey: Valkey, key: string): Promise<boolean>;
  tell(valkey: Valkey, rows: readonly RevocationRow[]): Promise<void>;
  /** Tells what could not be told when it was revoked. */
  tellUntold(valkey: Valkey): Promise<void>;
  /** Both sides know afterwards what either knew. */
  exchange(valkey: Valkey): Promise<void>;
}

/** @param prefix of every key of ours in Valkey */
export function revocationCopy(tables: SharedTables, clock: Clock, prefix: string): RevocationCopy {
  const base = `${prefix}revoked:`;
  const keyOf = (space: string, id: string): string => `${base}${space}:${id}`;
  const isNew = (key: string): boolean => {
    const { space, id } = partsOf(key, base);
    return !tables.revocations().has(space, id);
  };
  const rowOf = (key: string, left: Lifetime): RevocationRow[] => {
    if (left === null) return [];
    return [{ ...partsOf(key, base), until: left === "ever" ? null : clock.nowMs() + left }];
  };
  const learn = async (valkey: Valkey, keys: readonly string[]): Promise<void> => {
    for (const piece of pieces(keys.filter(isNew))) {
      const left = await Promise.all(piece.map((key) => lifetimeOf(valkey, key)));
      const rows = piece.flatMap((key, index) => rowOf(key, left[index] ?? null));
      tables.revocations().insert(rows, true);
    }
  };
  const tell = async (valkey: Valkey, rows: readonly RevocationRow[]): Promise<void> => {
    for (const piece of pieces(rows)) {
      const nowMs = clock.nowMs();
      await Promise.all(
        piece.map((row) => put(valkey, keyOf(row.space, row.id), row.until, nowMs)),
      );
      tables.revocations().markTold(piece);
    }
  };
  const tellMissing = async (valkey: Valkey, theirs: ReadonlySet<string>): Promise<void> => {
    for (let last: RevocationRow | null = null; ; ) {
      const rows = tables.revocations().rows(last, AT_ONCE);
      await tell(
        valkey,
        rows.filter(({ space, id }) => !theirs.has(keyOf(space, id))),
      );
      last = rows.at(-1) ?? null;
      if (rows.length < AT_ONCE) return;
    }
  };
  return {
    base,
    keyOf,
    learn,
    tell,
    async ask(valkey, key) {
      const left = await lifetimeOf(valkey, key);
      try {
        tables.revocations().insert(rowOf(key, left), true);
      } catch {
        // A full disk does not make it less revoked.
      }
      return left !== null;
    },
    async tellUntold(valkey) {
      let rows = tables.revocations().untold(AT_ONCE);
      for (; rows.length > 0; rows = tables.revocations().untold(AT_ONCE)) await tell(valkey, rows);
    },
    async exchange(valkey) {
      const theirs = new Set(await valkey.scan(`${base}*`));
      await learn(valkey, [...theirs]);
      await tellMissing(valkey, theirs);
    },
  };
}

/** What is left of a key in ms; `null` when it is not there. */
type Lifetime = number | "ever" | null;

async function lifetimeOf(valkey: Valkey, key: string): Promise<Lifetime> {
  const reply = await valkey.command("pttl", key);
  if (typeof reply !== "number") {
    const text = `valkey at ${valkey.place}: its answer could not be understood (BADREPLY)`;
    throw new ValkeyError("BADREPLY", text);
  }
  if (reply === -2) return null;
  return reply < 0 ? "ever" : reply;
}

async function put(valkey: Valkey, key: string, until: number | null, nowMs: number) {
  if (until === null) await valkey.command("set", key, "1");
  else if (until > nowMs) {
    await valkey.command("set", key, "1", "nx", "px", String(Math.ceil(until - nowMs)));
  }
}

function partsOf(key: string, base: string): { readonly space: string; readonly id: string } {
  const name = key.slice(base.length);
  const colon = name.indexOf(":");
  return { space: name.slice(0, Math.max(colon, 0)), id: name.slice(colon + 1) };
}

function* pieces<T>(all: readonly T[]): Generator<readonly T[]> {
  for (let from = 0; from < all.length; from += AT_ONCE) yield all.slice(from, from + AT_ONCE);
}
