/**
 * The narrow set of capabilities handed to a plugin.
 *
 * Invariant: whatever a plugin can do to the outside it does through this object, so that logs are redacted,
 * time can be tested and everything opened ends with the gateway.
 */
import type { Database } from "bun:sqlite";
import type { SharedState } from "./shared.ts";
import type { Valkey } from "./valkey.ts";
import type { ValkeySettings } from "./valkey-settings.ts";

/** Structured facts of a log line. Credentials must never be among them. */
export type LogFields = Readonly<Record<string, string | number | boolean | null | undefined>>;

/** `event` is a fixed name in dotted snake case (`token.imported`); details go into `fields`. */
export interface Log {
  debug(event: string, fields?: LogFields): void;
  info(event: string, fields?: LogFields): void;
  warn(event: string, fields?: LogFields): void;
  error(event: string, fields?: LogFields): void;
}

/** The only source of time, so that tests can set it. */
export interface Clock {
  /** Epoch milliseconds. */
  nowMs(): number;
}

/** One step of a schema's history. Steps are run in order, once, each in a transaction. */
export interface Migration {
  /** Never renamed and never reordered once released: `001_tokens`. */
  readonly name: string;
  readonly sql: string;
}

/** The capabilities of one strategy instance. */
export interface Host {
  /** The instance's name in the config file. */
  readonly strategy: string;
  readonly log: Log;
  readonly clock: Clock;
  /** Absolute path of the gateway's state directory (mode 0700). Create files there, nowhere else. */
  readonly stateDir: string;
  /** Directory of the config file; relative paths in a plugin's config are resolved against it. */
  readonly configDir: string;
  /** The environment of the process. Values may be secrets. */
  readonly env: Readonly<Record<string, string | undefined>>;
  /**
   * The state database with `migrations` of `namespace` applied (WAL, busy timeout, foreign keys on).
   * One connection for the whole process; it is closed by the gateway. Table names start with the namespace.
   * @throws when the file cannot be opened, is damaged or was written by a newer version
   */
  database(namespace: string, migrations: readonly Migration[]): Database;
  /**
   * Call before relying on what the state database says about the way of a request: whoever restores a backup
   * under a running gateway changes one file while the gateway reads another. Looks at most every 200 ms.
   * @throws when the file at the path is not the one that was opened
   */
  checkDatabase(): void;
  /**
   * A 32-byte key that belongs to this gateway, made on first use and kept in the state directory with mode
   * 0600, outside the database. The same name always yields the same key.
   * @throws when the file exists with other permissions or another length
   */
  key(name: string): Uint8Array;
  /** The same; with `isMade: false` a key that is not there is `null` and none is made. */
  key(name: string, options: { readonly isMade: boolean }): Uint8Array | null;
  /** What replicas have in common: used proofs, revocations. In the state database unless the config has `shared`. */
  readonly shared: SharedState;
  /**
   * Connects to a Valkey of the strategy's own, with settings that were parsed by `valkeyShape`. Closed by the gateway
   * after the strategies.
   * @throws ValkeyError when it cannot be reached or refuses the password
   */
  valkey(settings: ValkeySettings): Promise<Valkey>;
  /** Compares in a time that does not depend on where the texts differ. */
  secretEquals(a: string, b: string): boolean;
  /**
   * As `fetch`, with a deadline of 10 s that also ends when the gateway does, answers up to 16 MiB, no ceiling on
   * calls in flight, and redirects not followed.
   */
  fetch(url: string, init?: RequestInit): Promise<Response>;
  /**
   * `serve`: the gateway runs on this. `command`: a command looks at or changes state, perhaps in a shell without
   * the service's environment, so nothing may be concluded from what the config or environment lacks.
   */
  readonly purpose: "serve" | "command";
  /** Aborted when this instance is about to be closed. */
  readonly signal: AbortSignal;
}
