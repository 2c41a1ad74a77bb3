/**
 * A connection to Valkey as plugins see it: what `host.valkey` gives.
 *
 * Invariant: a command has an answer, an error or its deadline; what is thrown has a code and a sentence and never
 * holds the command or a password.
 */

/** Valkey could not do what it was asked. On the way of a request let it pass: it ends as 503. */
export class ValkeyError extends Error {
  /** First word of the server's answer (`WRONGPASS`), or a system error (`ECONNREFUSED`). */
  readonly code: string;
  constructor(code: string, message: string) {
    super(message);
    this.name = "ValkeyError";
    this.code = code;
  }
}

/** One server, a primary behind sentinels, or a cluster; it connects again by itself for ever. */
export interface Valkey {
  /** For people: where it is, without user and password. */
  readonly place: string;
  readonly isCluster: boolean;
  /** Sends a command; none waits for a connection and none is sent twice. @throws ValkeyError */
  command(...words: readonly [string, ...string[]]): Promise<unknown>;
  /** Commands in one go; in a cluster on keys of one slot. The first error is thrown. @throws ValkeyError */
  together(commands: readonly (readonly [string, ...string[]])[]): Promise<readonly unknown[]>;
  /** SCAN to its end, on every primary. A key may be there twice. @throws ValkeyError */
  scan(pattern: string): Promise<string[]>;
  isReady(): boolean;
  /** Called when a connection that was ready is lost. */
  onLost(listener: () => void): void;
  /** Called each time that a connection is ready, but not for the first one. */
  onBack(listener: () => void): void;
  /** Listens, on a connection of its own, for changes of keys. `null` in a cluster, which does not offer it. */
  track(options: ValkeyTrackingOptions): ValkeyTracking | null;
  /** Ends the connections, those of `track` as well. The gateway does so at its end. Idempotent. */
  close(): void;
}

/** What to listen for. */
export interface ValkeyTrackingOptions {
  /** Changes of keys that begin so are told, expiry and deletion included. */
  readonly prefix: string;
  /** Keys that changed; `null`: any may have changed, so forget all. Must not throw. */
  onChange(keys: readonly string[] | null): void;
  /** Called each time that listening has begun: what is read from now on can be relied on until told otherwise. */
  onStart?(): void;
}

/** Listens for changes until the connection is closed. */
export interface ValkeyTracking {
  /** Whether what was learned earlier may be used at this moment. Costs a system call once a turn of the event loop. */
  isLive(): boolean;
  /** Whether what is learned from now on may be used later: its changes will be told, or `null` is. */
  isOn(): boolean;
  /** Why it is not on, in the server's code (`NOPERM`, `OFFLINE`); `null` when it is. */
  problem(): string | null;
}
