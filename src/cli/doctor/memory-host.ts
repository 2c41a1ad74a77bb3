/**
 * Starts strategies as `serve` would, but on a copy of their state in memory.
 *
 * Invariant: nothing that a strategy does through its host reaches the disk: the database is a copy, a key that would be
 * made is made in memory. Only bundled plugins are started; what somebody else's file does to the disk is not known.
 */
import type { Database } from "bun:sqlite";
import { randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { GatewayConfig, StrategyConfig } from "../../config/model.ts";
import { resolveDeep } from "../../config/references.ts";
import type { Host, Log } from "../../contract/host.ts";
import type { Plugin, StrategyInstance } from "../../contract/plugin.ts";
import { errorMessage } from "../../errors.ts";
import { createHost, type HostShared, type LazyDatabase } from "../../host.ts";
import { createHostFetch } from "../../host-fetch.ts";
import { redactor } from "../../redactor.ts";
import { migrate } from "../../store/migrations.ts";
import { lazyValkey } from "../../valkey/connections.ts";
import type { Subject } from "./subject.ts";

/** A strategy that runs in memory, or why it does not. */
export type Trial =
  | {
      readonly kind: "running";
      readonly name: string;
      readonly instance: StrategyInstance;
      /** Its state is in the state database. */
      readonly usesDatabase: boolean;
    }
  | {
      readonly kind: "failed";
      readonly name: string;
      readonly why: string;
      /** A key of the state directory that must not be made anew and is not there. */
      readonly missingKey: string | null;
      /** The database has steps that this version does not know. */
      readonly isNewer: boolean;
    };

/** Trials and their end. */
export interface Trials {
  readonly all: readonly Trial[];
  close(): Promise<void>;
}

/** What a strategy did with its host while it started. */
interface Noted {
  usesDatabase: boolean;
  missingKey: string | null;
  isNewer: boolean;
}

const START_MS = 4000;
const CLOSE_MS = 1000;
const SILENT: Log = { debug() {}, info() {}, warn() {}, error() {} };

/** Whether a strategy can be started without touching anything: bundled, and no file of its own. */
export function isTriable({ use, settings }: StrategyConfig, plugins: readonly Plugin[]): boolean {
  return plugins.some(({ name }) => name === use) && settings.database === undefined;
}

/** Starts each of `strategies` on `copy`, one after the other. Takes the copy over. Never rejects. */
export async function tryStrategies(
  strategies: readonly StrategyConfig[],
  config: GatewayConfig,
  copy: Database,
  subject: Subject,
): Promise<Trials> {
  const ending = new AbortController();
  const outside = createHostFetch(ending.signal);
  const valkeys = lazyValkey(config.configDir);
  const trials: Trial[] = [];
  for (const strategy of strategies) {
    const noted: Noted = { usesDatabase: false, missingKey: null, isNewer: false };
    const host = hostFor(strategy.name, config, noted, {
      log: SILENT,
      clock: subject.clock,
      stateDir: config.stateDir,
      configDir: config.configDir,
      env: subject.env,
      database: databaseOn(copy, subject, noted),
      signal: ending.signal,
      fetch: outside.fetch,
      valkey: valkeys.open,
      purpose: "serve",
    });
    trials.push(await tryOne(strategy, host, subject, noted));
  }
  return {
    all: trials,
    async close() {
      ending.abort(new Error("the examination is over"));
      for (const trial of trials) if (trial.kind === "running") await closeOne(trial.instance);
      outside.close();
      valkeys.close();
      copy.close(false);
    },
  };
}

async function tryOne(
  strategy: StrategyConfig,
  host: Host,
  subject: Subject,
  noted: Noted,
): Promise<Trial> {
  const { name, settings } = strategy;
  const plugin = subject.loaded.plugins.get(name);
  const { value, problems } = resolveDeep(settings, {
    env: subject.env,
    configDir: host.configDir,
  });
  const failed = (why: string): Trial => ({ kind: "failed", name, why, ...noted });
  // A secret that is missing is said by the check of the configuration.
  if (plugin === undefined || problems.length > 0) return failed("");
  const parsed = plugin.config.safeParse(value);
  if (!parsed.success) return failed("");
  try {
    const starting = Promise.try(() => plugin.init(parsed.data, host));
    const instance = await within(starting, START_MS);
    if (instance !== null)
      return { kind: "running", name, instance, usesDatabase: noted.usesDatabase };
    starting.then((late) => late.close?.()).catch(() => {});
    return failed(`it did not finish starting within ${START_MS / 1000} s`);
  } catch (error) {
    return failed(redactor(settings, value)(errorMessage(error)));
  }
}

/** Null when it takes longer. */
async function within<T>(work: Promise<T>, ms: number): Promise<T | null> {
  const { promise, resolve } = Promise.withResolvers<null>();
  const timer = setTimeout(resolve, ms, null);
  try {
    return await Promise.race([work, promise]);
  } finally {
    clearTimeout(timer);
  }
}

async function closeOne(instance: StrategyInstance): Promise<void> {
  try {
    await within(
      Promise.try(() => instance.close?.()),
      CLOSE_MS,
    );
  } catch {
    // It was in memory alone.
  }
}

function hostFor(name: string, config: GatewayConfig, noted: Noted, shared: HostShared): Host {
  return Object.freeze({ ...createHost(name, shared), key: keysIn(config.stateDir, noted) });
}

/** Keys as they are on the disk; one that would be made is made in memory. */
function keysIn(stateDir: string, noted: Noted): Host["key"] {
  function key(name: string): Uint8Array;
  function key(name: string, options: { readonly isMade: boolean }): Uint8Array | null;
  function key(name: string, options = { isMade: true }): Uint8Array | null {
    const path = join(stateDir, `${name}.key`);
    try {
      return Uint8Array.from(readFileSync(path));
    } catch {
      if (options.isMade) return Uint8Array.from(randomBytes(32));
      noted.missingKey = path;
      return null;
    }
  }
  return key;
}

function databaseOn(copy: Database, { clock }: Subject, noted: Noted): LazyDatabase {
  return {
    get() {
      noted.usesDatabase = true;
      return {
        path: ":memory:",
        database: copy,
        mustBeSameFile() {},
        migrate(namespace, migrations) {
          try {
            migrate(copy, clock, namespace, migrations);
            return copy;
          } catch (error) {
            noted.isNewer = /newer version/.test(errorMessage(error));
            throw error;
          }
        },
        close() {},
      };
    },
    beforeClose() {},
    close() {},
  };
}
