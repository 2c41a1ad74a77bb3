/**
 * What the daemon's file says now: clients by key, registered members, models.
 *
 * Invariant: every question looks whether somebody has committed since (`PRAGMA data_version`, microseconds), so a
 * key that the daemon added or removed holds on the next request; texts are parsed only when they are other texts.
 * A file that cannot be asked is a fault, never an empty list. Waiting for the daemon's lock holds up the request
 * that waits, not the process.
 */
import type { Condition, Log } from "gatehouse";
import { type ClientEntry, type ClientList, readClientList, readModels } from "./client-list.ts";
import {
  type DaemonDatabase,
  type DaemonRows,
  DatabaseFault,
  daemonDatabase,
  decoded,
  isSameValue,
  type StoredValue,
} from "./database.ts";
import { conditionOfFault, conditionsOfFile, conditionsOfList } from "./health.ts";
import { ClientIndex } from "./verify.ts";

/** What the file said at one moment. */
export interface Snapshot {
  readonly clients: ClientIndex;
  /** Registered npubs in lower case; null when the file has no table of members. */
  readonly members: ReadonlySet<string> | null;
  /** The same array for as long as the list is the same. */
  readonly models: readonly string[] | null;
}

/** Clients with their keys, for whoever may see them. */
export interface ClientRecords {
  readonly entries: readonly ClientEntry[];
  readonly members: ReadonlySet<string> | null;
}

/** Every call but `health` and `close` throws (or rejects with) {@link DatabaseFault}. */
export interface Store {
  /** A promise only while the file is locked. */
  snapshot(): Snapshot | Promise<Snapshot>;
  /** Parsed anew: only what a surface shows needs it. */
  records(): Promise<ClientRecords>;
  /** While the file is locked, the list last read, for as long as one would wait for the lock. */
  models(): readonly string[] | null;
  health(): readonly Condition[];
  /** Idempotent. */
  close(): void;
}

/** Where and how. */
export interface StoreOptions {
  /** Absolute. */
  readonly path: string;
  readonly log: Log;
  /** How long a request waits for the daemon's lock, in ms. Default 5000. */
  readonly lockWaitMs?: number;
}

const LOCK_WAIT_MS = 5000;
/** Between two attempts at a locked file; commits take milliseconds. One attempt serves all who wait. */
const PAUSE_MS = 5;

/** What came of a stored value, beside the value, to see whether it is still the same. */
interface Parsed<T> {
  readonly stored: StoredValue | null;
  readonly value: T;
}

interface State {
  readonly version: number;
  readonly snapshot: Snapshot;
  readonly list: Parsed<{ readonly index: ClientIndex; readonly conditions: readonly Condition[] }>;
  readonly models: Parsed<readonly string[] | null>;
}

/** Opens nothing yet; the first question does. */
export function openStore(options: StoreOptions): Store {
  return new FileStore(options);
}

class FileStore implements Store {
  readonly #path: string;
  readonly #database: DaemonDatabase;
  readonly #lockWaitMs: number;
  readonly #say: (conditions: readonly Condition[]) => void;
  #state: State | null = null;
  /** When the file was last found unlocked, on the process's own clock. */
  #readAtMs = 0;
  #attempt: Promise<Snapshot | DatabaseFault> | null = null;
  #isClosed = false;

  constructor({ path, log, lockWaitMs = LOCK_WAIT_MS }: StoreOptions) {
    this.#path = path;
    this.#database = daemonDatabase(path);
    this.#lockWaitMs = lockWaitMs;
    this.#say = speakOnce(log);
  }

  snapshot(): Snapshot | Promise<Snapshot> {
    try {
      return this.#now();
    } catch (error) {
      if (!isLocked(error)) throw error;
      return this.#wait(() => this.#sharedAttempt());
    }
  }

  async records(): Promise<ClientRecords> {
    const read = () => recordsOf(this.#database.rows());
    const first = unlessLocked(read);
    return first instanceof DatabaseFault ? await this.#wait(() => attemptLater(read)) : first;
  }

  models(): readonly string[] | null {
    try {
      return this.#now().models;
    } catch (error) {
      const isRecent = performance.now() - this.#readAtMs < this.#lockWaitMs;
      if (!isLocked(error) || !isRecent || this.#state === null) throw error;
      return this.#state.snapshot.models;
    }
  }

  health(): readonly Condition[] {
    if (this.#isClosed) return [];
    try {
      this.#now();
      return [...(this.#state?.list.value.conditions ?? []), ...conditionsOfFile(this.#path)];
    } catch (error) {
      return [conditionOf(error, this.#path)];
    }
  }

  close(): void {
    this.#isClosed = true;
    this.#database.close();
  }

  #now(): Snapshot {
    try {
      const version = this.#database.version();
      if (this.#state?.version !== version) {
        this.#state = nextState(this.#state, version, this.#database.rows());
      }
      this.#readAtMs = performance.now();
      this.#say(this.#state.list.value.conditions);
      return this.#state.snapshot;
    } catch (error) {
      // A lock is worth a word only when the wait was in vain.
      if (!isLocked(error)) this.#say([conditionOf(error, this.#path)]);
      throw error;
    }
  }

  #sharedAttempt(): Promise<Snapshot | DatabaseFault> {
    this.#attempt ??= attemptLater(() => {
      this.#attempt = null;
      return this.#now();
    });
    return this.#attempt;
  }

  async #wait<T>(attempt: () => Promise<T | DatabaseFault>): Promise<T> {
    const deadline = performance.now() + this.#lockWaitMs;
    for (;;) {
      const said = await attempt();
      if (!(said instanceof DatabaseFault)) return said;
      if (this.#isClosed || performance.now() >= deadline) {
        this.#say([conditionOf(said, this.#path)]);
        throw said;
      }
    }
  }
}

async function attemptLater<T>(ask: () => T): Promise<T | DatabaseFault> {
  await Bun.sleep(PAUSE_MS);
  return unlessLocked(ask);
}

/** The fault is a value when the file is locked; every other one is thrown. */
function unlessLocked<T>(ask: () => T): T | DatabaseFault {
  try {
    return ask();
  } catch (error) {
    if (!isLocked(error)) throw error;
    return error;
  }
}

function nextState(last: State | null, version: number, rows: DaemonRows): State {
  const list = parsed(last?.list, rows.clients, (value) => {
    const read = readClientList(value);
    return { index: new ClientIndex(read.entries), conditions: conditionsOfList(read) };
  });
  const models = parsed(last?.models, rows.models, readModels);
  const members = membersOf(rows.memberNpubs);
  return {
    version,
    list,
    models,
    snapshot: { clients: list.value.index, members, models: models.value },
  };
}

function parsed<T>(
  last: Parsed<T> | undefined,
  stored: StoredValue | null,
  parse: (value: unknown) => T,
): Parsed<T> {
  if (last !== undefined && isSameValue(last.stored, stored)) return last;
  return { stored, value: parse(decoded(stored)) };
}

function recordsOf(rows: DaemonRows): ClientRecords {
  const list: ClientList = readClientList(decoded(rows.clients));
  return { entries: list.entries, members: membersOf(rows.memberNpubs) };
}

function membersOf(npubs: readonly unknown[] | null): ReadonlySet<string> | null {
  if (npubs === null) return null;
  return new Set(npubs.flatMap((npub) => (typeof npub === "string" ? [npub.toLowerCase()] : [])));
}

function isLocked(error: unknown): error is DatabaseFault {
  return error instanceof DatabaseFault && error.code === "database_locked";
}

function conditionOf(error: unknown, path: string): Condition {
  const fault =
    error instanceof DatabaseFault ? error : new DatabaseFault("database_unreadable", "error");
  return conditionOfFault(fault, path);
}

/** Logs what is wrong when it becomes so, and that it is over, not at every request in between. */
function speakOnce(log: Log): (conditions: readonly Condition[]) => void {
  let said = "";
  let last: readonly Condition[] = [];
  return (conditions) => {
    // The way of every request: the same array means the same state.
    if (conditions === last) return;
    last = conditions;
    const worth = conditions.filter(({ severity }) => severity !== "info");
    const key = worth.map(({ code, text }) => `${code} ${text}`).join("\n");
    if (key === said) return;
    if (worth.length === 0) log.info("routstrd.database_ok");
    for (const { code, text } of worth) log.warn(`routstrd.${code}`, { text });
    said = key;
  };
}
