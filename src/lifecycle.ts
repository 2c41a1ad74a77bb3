/**
 * Starts the strategies of a configuration in its order and closes them in reverse; those of the next configuration take
 * over what stays the same.
 *
 * Invariant: whatever was started is closed when nobody has it any more, also when a later one fails to start; the state
 * database is closed after the last strategy that may use it. No message holds the value of a reference.
 */
import { createHash } from "node:crypto";
import { resolve } from "node:path";
import { pathText } from "./config/issues.ts";
import type { GatewayConfig, StrategyConfig } from "./config/model.ts";
import { resolveDeep } from "./config/references.ts";
import type { Clock, Log } from "./contract/host.ts";
import type { Plugin, StrategyInstance } from "./contract/plugin.ts";
import { errorMessage, OperatorError, startExitCode } from "./errors.ts";
import { createHost, type HostShared, lazyDatabase } from "./host.ts";
import { createHostFetch } from "./host-fetch.ts";
import type { LoadPlugin } from "./loader.ts";
import { openShared } from "./open-shared.ts";
import { instanceProblems } from "./plugin-shape.ts";
import { type Redact, redactor } from "./redactor.ts";
import { readRegularFile } from "./regular-file.ts";
import { lazyValkey } from "./valkey/connections.ts";

/** What starting strategies takes. */
export interface StartOptions {
  readonly config: GatewayConfig;
  readonly loadPlugin: LoadPlugin;
  /** Where `${env:…}` references are looked up. */
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly log: Log;
  readonly clock: Clock;
  /** Names of the strategies to start; absent: all. */
  readonly only?: readonly string[];
  /** Told to the plugins; default `serve`. */
  readonly purpose?: "serve" | "command";
  /** Aborted when nobody waits any more: what is starting is given up and closed. */
  readonly givenUp?: AbortSignal;
}

/** A strategy that is ready to be asked. */
export interface RunningStrategy {
  readonly name: string;
  readonly plugin: Plugin;
  readonly instance: StrategyInstance;
}

/** The strategies of a gateway. */
export interface RunningStrategies {
  /** In config order. */
  readonly byName: ReadonlyMap<string, RunningStrategy>;
  /**
   * Starts those of another config on the same state directory. A strategy that is the same, and says that it may be
   * kept, is in both then, and closed when the second of them is.
   * @throws OperatorError as {@link startStrategies}; nothing has changed then
   */
  next(options: StartOptions): Promise<RunningStrategies>;
  /**
   * Closes in reverse order those that nobody else has, each within `deadlineMs`, then the state database. Never
   * rejects; what goes wrong is logged. Later calls get the result of the first.
   */
  close(deadlineMs: number): Promise<void>;
}

/** How long each strategy has to start. */
const START_MS = 30_000;

/** How long each strategy has to close when another one could not be started. */
const FAILED_START_CLOSE_MS = 5000;

/** Closed when the last who has it lets go. */
interface Held {
  holders: number;
  /** What it was made of, as a hash, because there are secrets in it. */
  readonly fingerprint: string;
}

interface Started extends Held {
  readonly running: RunningStrategy;
  readonly redact: Redact;
  /** Ends background work; then the strategy is closed; then its connections. */
  readonly ending: AbortController;
  endConnections(): void;
}

/** What strategies have in common: the state. */
interface Common extends Held {
  readonly host: HostShared;
  close(): void;
}

/**
 * Starts the strategies in config order, one after the other.
 * @throws OperatorError that names the strategy that could not be started and says why; the ones before it have
 *   been closed by then
 */
export function startStrategies(options: StartOptions): Promise<RunningStrategies> {
  return start(options, null);
}

interface Before {
  readonly common: Common;
  readonly started: readonly Started[];
}

async function start(options: StartOptions, before: Before | null): Promise<RunningStrategies> {
  const { config } = options;
  const fingerprint = commonFingerprint(options);
  const isSameState = before?.common.fingerprint === fingerprint;
  const common = isSameState ? before.common : await openCommon(options, fingerprint);
  common.holders += 1;
  // One of another state cannot be kept: it would go on with the one that is closed.
  const candidates = isSameState ? before.started : [];
  const started: Started[] = [];
  const running = runningOf(common, started, options.log);
  const wanted = config.strategies.filter(({ name }) => options.only?.includes(name) ?? true);
  try {
    for (const strategy of wanted)
      started.push(await startOne(strategy, { options, common, candidates }));
  } catch (error) {
    await running.close(FAILED_START_CLOSE_MS);
    throw error;
  }
  return { ...running, byName: new Map(started.map(({ running }) => [running.name, running])) };
}

/**
 * Apart from {@link start}, because functions that are made in an async function keep its parameters: each
 * configuration would keep the one before it, and so all of them.
 */
function runningOf(
  common: Common,
  started: readonly Started[],
  log: Log,
): Pick<RunningStrategies, "close" | "next"> {
  const close = once(async (deadlineMs: number) => {
    const over = started.filter(letGo).toReversed();
    // First, so that background work of a strategy ends before its close waits for it.
    for (const { ending } of over) ending.abort(new Error("the strategy is shutting down"));
    for (const strategy of over) await closeOne(strategy, deadlineMs, log);
    if (letGo(common)) common.close();
  });
  return { close, next: (after) => start(after, { common, started }) };
}

/** Lets go of something; whether nobody has it any more. */
function letGo(held: Held): boolean {
  held.holders -= 1;
  return held.holders === 0;
}

function commonFingerprint({ config, env }: StartOptions): string {
  const { configDir, stateDir, shared } = config;
  const { value } = resolveDeep(shared?.valkey ?? {}, { env, configDir });
  return fingerprintOf([
    stateDir,
    configDir,
    shared?.prefix,
    value,
    authoritiesOf(config, configDir),
  ]);
}

async function openCommon(options: StartOptions, fingerprint: string): Promise<Common> {
  const { config, env, log, clock } = options;
  const { configDir, stateDir } = config;
  const database = lazyDatabase(stateDir, clock);
  const valkeys = lazyValkey(configDir);
  const purpose = options.purpose ?? "serve";
  // Each strategy gets an end of its own.
  const { signal } = new AbortController();
  const valkey = valkeys.open;
  const parts = { log, clock, stateDir, configDir, env, database, valkey, purpose, signal };
  const close = (): void => {
    valkeys.close();
    closeDatabase(parts);
  };
  try {
    const shared = await openShared(config.shared, parts);
    const host = { ...parts, state: shared.state };
    const closeAll = (): void => {
      shared.close();
      close();
    };
    return { holders: 0, fingerprint, host, close: closeAll };
  } catch (error) {
    close();
    throw error;
  }
}

/** The certificates that Valkey is checked with, since a connection keeps those that it began with. */
function authoritiesOf({ shared }: GatewayConfig, configDir: string): string | null {
  const ca = shared?.valkey.tls?.ca;
  if (ca === undefined) return null;
  try {
    return readRegularFile(resolve(configDir, ca));
  } catch {
    // Whoever connects says what is wrong with the file.
    return null;
  }
}

function fingerprintOf(values: readonly unknown[]): string {
  return createHash("sha256").update(JSON.stringify(values)).digest("hex");
}

interface Starting {
  readonly options: StartOptions;
  readonly common: Common;
  /** Those that may be taken over. */
  readonly candidates: readonly Started[];
}

async function startOne(strategy: StrategyConfig, starting: Starting): Promise<Started> {
  const { name, use, sha256, settings } = strategy;
  const { options, common, candidates } = starting;
  const { configDir } = common.host;
  let redact: Redact = (message) => message;
  try {
    const plugin = await options.loadPlugin(use, sha256, configDir);
    const { value, problems: missing } = resolveDeep(settings, { env: options.env, configDir });
    if (missing.length > 0) {
      const places = missing.map(({ path, problem }) => `${pathText(path)}: ${problem}`);
      throw new Error(places.join("; "));
    }
    redact = redactor(settings, value);
    const fingerprint = fingerprintOf([value]);
    const same = candidates.find((one) => isSame(one, { name, plugin, fingerprint }));
    if (same !== undefined) {
      same.holders += 1;
      return same;
    }
    const parsed = plugin.config.safeParse(value);
    if (!parsed.success) {
      const issues = parsed.error.issues.map(({ path, message }) =>
        path.length === 0 ? message : `${path.join(".")}: ${message}`,
      );
      throw new Error(issues.join("; "));
    }
    return {
      ...(await initialised({ name, plugin, settings: parsed.data }, starting)),
      redact,
      fingerprint,
    };
  } catch (error) {
    const hint = error instanceof OperatorError ? error.hint : undefined;
    const why = redact(errorMessage(error));
    throw new OperatorError(
      startExitCode(error),
      `strategy ${name} (${use}) cannot start: ${why}`,
      hint === undefined ? undefined : redact(hint),
    );
  }
}

interface Wanted {
  readonly name: string;
  readonly plugin: Plugin;
  readonly fingerprint: string;
}

function isSame({ running, fingerprint }: Started, wanted: Wanted): boolean {
  return (
    running.instance.isKeptOnReload === true &&
    running.name === wanted.name &&
    running.plugin === wanted.plugin &&
    fingerprint === wanted.fingerprint
  );
}

type Initialised = Pick<Started, "running" | "ending" | "endConnections" | "holders">;

async function initialised(
  { name, plugin, settings }: { name: string; plugin: Plugin; settings: Record<string, unknown> },
  { common, options }: Starting,
): Promise<Initialised> {
  const ending = new AbortController();
  const outside = createHostFetch(ending.signal);
  const valkeys = lazyValkey(common.host.configDir);
  const endConnections = (): void => {
    outside.close();
    valkeys.close();
  };
  const own = { signal: ending.signal, fetch: outside.fetch, valkey: valkeys.open };
  try {
    const host = createHost(name, { ...common.host, ...own });
    const starting = Promise.try(() => plugin.init(settings, host));
    const instance = await started(starting, options.givenUp).catch((error: unknown) => {
      // It may still come up, and then nobody would ever close it.
      starting.then(abandon, () => undefined);
      throw error;
    });
    const problems = instanceProblems(instance);
    if (problems.length > 0) {
      abandon(instance);
      throw new Error(`plugin ${plugin.name}: ${problems.join("; ")}`);
    }
    const running = Object.freeze({ name, plugin, instance });
    return { running, ending, endConnections, holders: 1 };
  } catch (error) {
    ending.abort(error);
    endConnections();
    throw error;
  }
}

/** A strategy that never finishes starting must not leave the operator before a silent terminal. */
async function started<T>(starting: Promise<T>, givenUp: AbortSignal | undefined): Promise<T> {
  const { promise, reject } = Promise.withResolvers<never>();
  const timer = setTimeout(() => {
    reject(new Error(`it did not finish starting within ${START_MS / 1000} s`));
  }, START_MS);
  const giveUp = (): void => reject(new Error("the gateway is stopping"));
  givenUp?.addEventListener("abort", giveUp, { once: true });
  if (givenUp?.aborted === true) giveUp();
  try {
    return await Promise.race([starting, promise]);
  } finally {
    clearTimeout(timer);
    givenUp?.removeEventListener("abort", giveUp);
  }
}

/** Closes what came up although nobody will use it; it may be anything, and nobody hears how that went. */
function abandon(instance: Partial<StrategyInstance> | null | undefined): void {
  Promise.try(() => instance?.close?.()).catch(() => undefined);
}

async function closeOne(started: Started, deadlineMs: number, log: Log): Promise<void> {
  const { running, redact } = started;
  const { name, instance } = running;
  const { promise: deadline, resolve } = Promise.withResolvers<"late">();
  const timer = setTimeout(resolve, deadlineMs, "late");
  try {
    // In a promise, so that a synchronous throw is caught as well.
    const closing = Promise.try(() => instance.close?.());
    if ((await Promise.race([closing, deadline])) === "late") {
      // It may still fail after the deadline; nobody is left to hear it.
      closing.catch(() => undefined);
      log.warn("strategy.close_timeout", { strategy: name, deadline_ms: deadlineMs });
    }
  } catch (error) {
    log.error("strategy.close_failed", { strategy: name, error: redact(errorMessage(error)) });
  } finally {
    clearTimeout(timer);
    started.endConnections();
  }
}

function closeDatabase({ database, log }: HostShared): void {
  try {
    database.close();
  } catch (error) {
    log.error("state.close_failed", { error: errorMessage(error) });
  }
}

function once(close: (deadlineMs: number) => Promise<void>): (deadlineMs: number) => Promise<void> {
  let closed: Promise<void> | null = null;
  return (deadlineMs) => {
    closed ??= close(deadlineMs);
    return closed;
  };
}
