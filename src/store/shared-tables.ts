/**
 * The tables of shared state in this gateway's own database: all there is without `shared` in the config, and with it
 * the copy that outlives a Valkey.
 *
 * Invariant: nothing is opened before somebody asks, and what expired goes in pieces, so that requests get their turn.
 */
import type { Clock, Log, Migration } from "../contract/host.ts";
import { errorCode } from "../errors.ts";
import { CLAIMS_SQL, type ClaimRow, type ClaimsTable, openClaimsTable } from "./claims-table.ts";
import {
  openRevocationsTable,
  REVOCATIONS_SQL,
  type RevocationsTable,
} from "./revocations-table.ts";
import type { StateDatabase } from "./sqlite.ts";

/** The gateway's own; plugins cannot ask for a namespace that begins so. */
export const NAMESPACE = "gatehouse_shared";
export const MIGRATIONS: readonly Migration[] = [
  { name: "001_claims_and_revoked", sql: CLAIMS_SQL + REVOCATIONS_SQL },
];

const SWEEP_EVERY_MS = 60_000;
/** Rows that are looked at in one go: a few milliseconds of work. */
const PIECE = 1000;
const PAUSE_MS = 5;
const BUSY_RETRY_MS = 2;
const BUSY_GIVE_UP_MS = 1000;
const COMPLAIN_EVERY_MS = 60_000;

/** Where the tables are. */
export interface SharedTablesOptions {
  readonly database: {
    get(): StateDatabase;
    /** Calls `work` when the database is about to be closed. */
    beforeClose(work: () => void): void;
  };
  readonly clock: Clock;
  readonly log: Log;
}

/** The tables, opened when they are first needed. Every call throws when the database cannot be used. */
export interface SharedTables {
  claims(): ClaimsTable;
  revocations(): RevocationsTable;
  /** Whether the key was new. @throws (rejects) when the database cannot be written for a second */
  claim(row: ClaimRow): Promise<boolean>;
  /** Forgets what has expired, all of it. */
  sweep(): Promise<void>;
}

interface Tables {
  readonly state: StateDatabase;
  readonly claims: ClaimsTable;
  readonly revocations: RevocationsTable;
}

/** The timer that forgets what has expired does not keep the process alive. */
export function sharedTables(options: SharedTablesOptions): SharedTables {
  const { database, clock, log } = options;
  let opened: Tables | null = null;
  let timer: ReturnType<typeof setInterval> | undefined;
  const complain = complainer(clock, log);
  const close = (): void => {
    clearInterval(timer);
    opened?.claims.finalize();
    opened?.revocations.finalize();
    opened = null;
  };
  const tables = (): Tables => {
    const state = database.get();
    if (opened === null) {
      const connection = state.migrate(NAMESPACE, MIGRATIONS);
      const [claims, revocations] = [openClaimsTable(connection), openRevocationsTable(connection)];
      opened = { state, claims, revocations };
      database.beforeClose(close);
      timer = setInterval(() => void sweep(), SWEEP_EVERY_MS);
      timer.unref();
    }
    state.mustBeSameFile();
    return opened;
  };
  const sweepPiece = (after: ClaimRow | null): ClaimRow | null => {
    if (opened === null) return null;
    const { claims } = opened;
    const rows = claims.rows(after, PIECE);
    const last = rows.at(-1);
    const nowMs = clock.nowMs();
    if (last === undefined) return null;
    if (rows.some(({ until }) => until <= nowMs)) claims.prune(after, last, nowMs);
    return rows.length < PIECE ? null : last;
  };
  const sweep = async (): Promise<void> => {
    try {
      opened?.revocations.prune(clock.nowMs());
      for (let last = sweepPiece(null); last !== null; last = sweepPiece(last)) {
        await Bun.sleep(PAUSE_MS);
      }
    } catch (error) {
      // Who holds the lock may sweep as well; the next round comes.
      if (!isBusy(error)) complain(error);
    }
  };
  return {
    claims: () => tables().claims,
    revocations: () => tables().revocations,
    claim: (row) => whenFree(() => tables().claims.insert(row)),
    sweep,
  };
}

/** Another process may be writing: asks again, leaving the event loop to others meanwhile. */
async function whenFree<T>(work: () => T): Promise<T> {
  const giveUpMs = performance.now() + BUSY_GIVE_UP_MS;
  for (;;) {
    try {
      return work();
    } catch (error) {
      if (!isBusy(error) || performance.now() > giveUpMs) throw error;
    }
    await Bun.sleep(BUSY_RETRY_MS);
  }
}

function isBusy(error: unknown): boolean {
  return errorCode(error)?.startsWith("SQLITE_BUSY") === true;
}

/** Once a minute at most: a full disk must not fill the log as well. */
function complainer(clock: Clock, log: Log): (error: unknown) => void {
  let silentUntilMs = Number.NEGATIVE_INFINITY;
  return (error) => {
    if (clock.nowMs() < silentUntilMs) return;
    silentUntilMs = clock.nowMs() + COMPLAIN_EVERY_MS;
    log.warn("shared.sweep_failed", { code: errorCode(error) ?? "unknown" });
  };
}
