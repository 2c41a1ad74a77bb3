/**
 * Builds the host of one strategy instance: the capabilities of the contract and nothing else.
 *
 * Invariant: everything a strategy opens through its host belongs to the gateway and ends with it; the state
 * database is opened once per process and only when somebody asks for it.
 */
import type { Database } from "bun:sqlite";
import { createHash, timingSafeEqual } from "node:crypto";
import type { Clock, Host, Log, LogFields, Migration } from "./contract/host.ts";
import type { SharedState } from "./contract/shared.ts";
import type { HostFetch } from "./host-fetch.ts";
import { embeddedState } from "./store/embedded-state.ts";
import { stateKey } from "./store/keys.ts";
import { sharedTables } from "./store/shared-tables.ts";
import { openStateDatabase, type StateDatabase } from "./store/sqlite.ts";

/** What the hosts of all strategies of a gateway share. */
export interface HostShared {
  readonly log: Log;
  readonly clock: Clock;
  /** Absolute. */
  readonly stateDir: string;
  /** Absolute. */
  readonly configDir: string;
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly database: LazyDatabase;
  /** Aborted when the gateway shuts down. */
  readonly signal: AbortSignal;
  /** Absent: there is no outside, and `host.fetch` says so. */
  readonly fetch?: HostFetch["fetch"];
  /** Absent: as with `fetch`. */
  readonly valkey?: Host["valkey"];
  /** Absent: it lies in the state database. */
  readonly state?: SharedState;
  /** Default `serve`. */
  readonly purpose?: Host["purpose"];
}

/** The state database, opened when it is first needed. */
export interface LazyDatabase {
  /** @throws what `openStateDatabase` throws, or when it was closed before */
  get(): StateDatabase;
  /** Calls `work` when it is about to be closed. */
  beforeClose(work: () => void): void;
  /** Closes it if it was ever opened; more than once is fine. */
  close(): void;
}

/** The one state database of a gateway that keeps its state in `stateDir`; `clock` dates its schema steps. */
export function lazyDatabase(stateDir: string, clock: Clock): LazyDatabase {
  let opened: StateDatabase | null = null;
  let isClosed = false;
  const ending: (() => void)[] = [];
  return {
    get() {
      if (isClosed) throw new Error("the state database was closed: the gateway is shutting down");
      opened ??= openStateDatabase(stateDir, { clock });
      return opened;
    },
    beforeClose: (work) => void ending.push(work),
    close() {
      isClosed = true;
      for (const work of ending.splice(0)) work();
      opened?.close();
      opened = null;
    },
  };
}

/** The host of the strategy called `strategy` in the config. */
export function createHost(strategy: string, shared: HostShared): Host {
  return Object.freeze({
    strategy,
    log: strategyLog(shared.log, strategy),
    clock: shared.clock,
    stateDir: shared.stateDir,
    configDir: shared.configDir,
    env: shared.env,
    signal: shared.signal,
    database(namespace: string, migrations: readonly Migration[]): Database {
      if (namespace.startsWith("gatehouse")) throw new TypeError("this namespace is the gateway's");
      const state = shared.database.get();
      state.migrate(namespace, migrations);
      return state.database;
    },
    checkDatabase: () => shared.database.get().mustBeSameFile(),
    key: keysOf(shared.stateDir),
    secretEquals,
    fetch: shared.fetch ?? noOutside,
    valkey: shared.valkey ?? noOutside,
    shared: shared.state ?? ownState(shared),
    purpose: shared.purpose ?? "serve",
  });
}

function keysOf(stateDir: string): Host["key"] {
  function key(name: string): Uint8Array;
  function key(name: string, options: { readonly isMade: boolean }): Uint8Array | null;
  function key(name: string, options = { isMade: true }): Uint8Array | null {
    return stateKey(stateDir, name, options);
  }
  return key;
}

function noOutside(): Promise<never> {
  return Promise.reject(new Error("this host has no outside"));
}

/** Shared state without others to share it with. */
export function ownState(shared: Pick<HostShared, "database" | "clock" | "log">): SharedState {
  return embeddedState(sharedTables(shared), () => shared.clock.nowMs());
}

/** Every line of a strategy says which strategy it is from; a field of the same name cannot hide that. */
function strategyLog(log: Log, strategy: string): Log {
  const named = (fields?: LogFields): LogFields => ({ ...fields, strategy });
  return Object.freeze({
    debug: (event: string, fields?: LogFields) => log.debug(event, named(fields)),
    info: (event: string, fields?: LogFields) => log.info(event, named(fields)),
    warn: (event: string, fields?: LogFields) => log.warn(event, named(fields)),
    error: (event: string, fields?: LogFields) => log.error(event, named(fields)),
  });
}

/**
 * Whether two texts are equal. Digests are compared, so that neither the place of the first difference nor the
 * length of the expected text shows in the time it takes.
 */
export function secretEquals(a: string, b: string): boolean {
  return timingSafeEqual(digest(a), digest(b));
}

function digest(text: string): Buffer {
  return createHash("sha256").update(text, "utf8").digest();
}
