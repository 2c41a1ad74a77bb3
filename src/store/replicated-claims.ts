/**
 * Claims that several gateways have in common, in Valkey, with a copy of each gateway's own in its database.
 *
 * Invariant: a claim is new for one caller, or nobody can tell and it is a throw. Valkey itself may forget: it restarts
 * without a disk or with an old one, a replica that lacks the last moments takes over, somebody empties it. So the
 * memory carries the run of the server that it belongs to and the time since when it is whole. The same script that
 * claims looks whether both are still so; where they are not, the memory begins anew, whoever notices puts back what
 * it knows, and keys from before that time are neither new nor used.
 */
import type { Clock, Log } from "../contract/host.ts";
import type { Claim } from "../contract/shared.ts";
import { type Valkey, ValkeyError } from "../contract/valkey.ts";
import type { ClaimRow } from "./claims-table.ts";
import type { SharedTables } from "./shared-tables.ts";

/**
 * KEYS: the mark of the memory, the claim. ARGV: run and beginning that the caller knows, now, birth of the key, how
 * long to keep it in ms. Both keys have one hash tag, so that in a cluster they lie on one node, whose run this is.
 */
const CLAIM = `local run = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
local mark = redis.call('HMGET', KEYS[1], 'run', 'since')
if mark[1] ~= run then
  mark = { run, ARGV[3] }
  redis.call('HSET', KEYS[1], 'run', run, 'since', ARGV[3])
end
if mark[1] ~= ARGV[1] or mark[2] ~= ARGV[2] then return { 'memory', mark[1], mark[2] } end
if redis.call('EXISTS', KEYS[2]) == 1 then return { 'taken' } end
if tonumber(ARGV[4]) < tonumber(mark[2]) then return { 'before' } end
redis.call('SET', KEYS[2], '1', 'PX', ARGV[5])
return { 'new' }`;

/** The memory may begin anew between two tries, but not for ever. */
const TRIES = 3;
/** Claims put back at once. */
const PIECE = 500;

/** Whether the key was used cannot be told: it may have been used before the replicas' memory began. */
export class UnknownToMemory extends Error {
  constructor(sinceMs: number) {
    super(
      `the memory of the replicas begins at ${new Date(sinceMs).toISOString()}: what was made before that cannot be told from a replay`,
    );
    this.name = "UnknownToMemory";
  }
}

/** What the replicas' state needs. */
export interface ReplicatedOptions {
  readonly tables: SharedTables;
  readonly clock: Clock;
  readonly log: Log;
  /** Of every key in Valkey. */
  readonly prefix: string;
  /** The connection; a command makes it when it is first needed. */
  connect(): Promise<Valkey>;
}

/** Claims in Valkey. Everything rejects with ValkeyError when it cannot do it. */
export interface ReplicatedClaims {
  /** Makes the memory's mark and puts back what is known here, so that it fails now rather than at a request. */
  begin(): Promise<void>;
  claim(claim: Claim): Promise<boolean>;
}

/** Which memory: the server's run, and since when it is whole, in epoch milliseconds. */
interface Memory {
  readonly run: string;
  readonly since: string;
}

/** Nothing is sent before it is asked. */
export function replicatedClaims(options: ReplicatedOptions): ReplicatedClaims {
  const { tables, clock, log, prefix, connect } = options;
  const mark = `${prefix}{claims}`;
  let memory: Memory | null = null;
  let restoring: Promise<void> | null = null;

  const ask = async (key: string, bornMs: number, keepMs: number): Promise<string> => {
    for (let round = 0; round < TRIES; round += 1) {
      const valkey = await connect();
      const known = [memory?.run ?? "", memory?.since ?? ""];
      const times = [clock.nowMs(), bornMs, keepMs].map(String);
      const reply = await valkey.command("eval", CLAIM, "2", mark, key, ...known, ...times);
      const [said, run, since] = texts(reply, valkey.place);
      if (said !== "memory") return said;
      await takeUp({ run, since }, valkey);
    }
    throw new ValkeyError("UNSTEADY", "the memory of the replicas begins anew again and again");
  };
  const takeUp = async (found: Memory, valkey: Valkey): Promise<void> => {
    // Another question may have found the same.
    if (memory?.run === found.run && memory.since === found.since) return;
    restoring ??= restore(found, valkey).finally(() => {
      restoring = null;
    });
    await restoring;
  };
  const restore = async (found: Memory, valkey: Valkey): Promise<void> => {
    if (memory !== null) log.warn("shared.memory_lost", { place: valkey.place });
    let count = 0;
    for (let last: ClaimRow | null = null; ; ) {
      const rows = tables.claims().rows(last, PIECE);
      const nowMs = clock.nowMs();
      const live = rows.filter(({ until }) => until > nowMs);
      await Promise.all(live.map((row) => putBack(valkey, nameOf(prefix, row), row.until - nowMs)));
      count += live.length;
      last = rows.at(-1) ?? null;
      if (rows.length < PIECE) break;
    }
    memory = found;
    const since = new Date(Number(found.since)).toISOString();
    log.info("shared.memory", { place: valkey.place, since, put_back: count });
  };
  return {
    async begin() {
      // Born before every memory, so nothing is claimed.
      await ask(`${mark}:`, 0, 1);
    },
    async claim(claim) {
      const { space, key, bornMs, untilMs } = claim;
      const keepMs = Math.ceil(untilMs - clock.nowMs());
      if (keepMs <= 0 || tables.claims().has(space, key)) return false;
      const said = await ask(nameOf(prefix, claim), bornMs, keepMs);
      if (said === "before") throw new UnknownToMemory(Number(memory?.since));
      // Also what others used is kept here: asked again it costs nothing, and it can be put back.
      // Another process on this database may have written it first; who is first is for Valkey to say.
      await tables.claim({ space, key, until: untilMs });
      return said === "new";
    },
  };
}

function nameOf(prefix: string, { space, key }: Pick<ClaimRow, "space" | "key">): string {
  return `${prefix}{claims}:${space}:${key}`;
}

function putBack(valkey: Valkey, name: string, keepMs: number): Promise<unknown> {
  return valkey.command("set", name, "1", "nx", "px", String(Math.ceil(keepMs)));
}

function texts(reply: unknown, place: string): readonly [string, string, string] {
  const [said, run = "", since = ""] = Array.isArray(reply) ? reply.map(String) : [];
  const isKnown = said === "new" || said === "taken" || said === "before" || said === "memory";
  if (isKnown && (said !== "memory" || (run !== "" && Number(since) > 0)))
    return [said, run, since];
  throw new ValkeyError(
    "BADREPLY",
    `valkey at ${place}: its answer could not be understood (BADREPLY)`,
  );
}
