/**
 * Starts the strategies of a configuration in its order and closes them in reverse.
 *
 * Invariant: whatever was started is closed, also when a later one fails to start; the state database is closed
 * after the last strategy that may use it. No message holds the value of a reference.
 */
import { systemClock } from "./clock.ts";
import { renderIssues } from "./config/explain.ts";
import { pathText } from "./config/issues.ts";
import { loadConfig } from "./config/load.ts";
import type { GatewayConfig, StrategyConfig } from "./config/model.ts";
import { resolveDeep } from "./config/references.ts";
import { nameHint } from "./config/suggest.ts";
import type { Clock, Log, LogFields } from "./contract/host.ts";
import type { Plugin, StrategyInstance } from "./contract/plugin.ts";
import type { TokenStore } from "./contract/tokens.ts";
import { EXIT, errorMessage, OperatorError, startExitCode } from "./errors.ts";
import { createHost, type HostShared, lazyDatabase } from "./host.ts";
import { createHostFetch } from "./host-fetch.ts";
import { type LoadPlugin, pluginLoader } from "./loader.ts";
import { type OpenedShared, openShared } from "./open-shared.ts";
import { instanceProblems } from "./plugin-shape.ts";
import { type Redact, redactor } from "./redactor.ts";
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
   * Closes them in reverse order, each within `deadlineMs`, then the state database. Never rejects; what goes
   * wrong is logged. Later calls get the result of the first.
   */
  close(deadlineMs: number): Promise<void>;
}

/** How long each strategy has to start. */
const START_MS = 30_000;

/** How long each strategy has to close when another one could not be started. */
const FAILED_START_CLOSE_MS = 5000;

interface Started {
  readonly running: RunningStrategy;
  readonly redact: Redact;
}

/**
 * Starts the strategies in config order, one after the other.
 * @throws OperatorError that names the strategy that could not be started and says why; the ones before it have
 *   been closed by then
 */
export async function startStrategies(options: StartOptions): Promise<RunningStrategies> {
  const { config, log } = options;
  const shutdown = new AbortController();
  const outside = createHostFetch(shutdown.signal);
  const valkeys = lazyValkey(config.configDir);
  const purpose = options.purpose ?? "serve";
  const parts = {
    log,
    clock: options.clock,
    stateDir: config.stateDir,
    configDir: config.configDir,
    env: options.env,
    database: lazyDatabase(config.stateDir, options.clock),
    signal: shutdown.signal,
    fetch: outside.fetch,
    valkey: valkeys.open,
    purpose,
  };
  let common: OpenedShared | null = null;
  const started: Started[] = [];
  const close = once(async (deadlineMs: number) => {
    // First, so that background work of a strategy ends before its close waits for it.
    shutdown.abort(new Error("the gateway is shutting down"));
    for (const strategy of started.toReversed()) await closeOne(strategy, deadlineMs, log);
    common?.close();
    outside.close();
    valkeys.close();
    closeDatabase(parts);
  });
  const wanted = config.strategies.filter(({ name }) => options.only?.includes(name) ?? true);
  try {
    common = await openShared(config.shared, parts);
    const shared: HostShared = { ...parts, state: common.state };
    for (const strategy of wanted) started.push(await startOne(strategy, options, shared));
    const byName = new Map(started.map(({ running }) => [running.name, running]));
    return { byName, close };
  } catch (error) {
    await close(FAILED_START_CLOSE_MS);
    throw error;
  }
}

async function startOne(
  strategy: StrategyConfig,
  options: StartOptions,
  shared: HostShared,
): Promise<Started> {
  const { name, use, sha256, settings } = strategy;
  let redact: Redact = (message) => message;
  try {
    const plugin = await options.loadPlugin(use, sha256, shared.configDir);
    const sources = { env: options.env, configDir: shared.configDir };
    const { value, problems: missing } = resolveDeep(settings, sources);
    if (missing.length > 0) {
      const places = missing.map(({ path, problem }) => `${pathText(path)}: ${problem}`);
      throw new Error(places.join("; "));
    }
    redact = redactor(settings, value);
    const parsed = plugin.config.safeParse(value);
    if (!parsed.success) {
      const issues = parsed.error.issues.map(({ path, message }) =>
        path.length === 0 ? message : `${path.join(".")}: ${message}`,
      );
      throw new Error(issues.join("; "));
    }
    const starting = Promise.resolve(plugin.init(parsed.data, createHost(name, shared)));
    const instance = await started(starting);
    const problems = instanceProblems(instance);
    if (problems.length > 0) throw new Error(`plugin ${plugin.name}: ${problems.join("; ")}`);
    return { running: Object.freeze({ name, plugin, instance }), redact };
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

/** A strategy that never finishes starting must not leave the operator before a silent terminal. */
async function started<T>(starting: Promise<T>): Promise<T> {
  const { promise, reject } = Promise.withResolvers<never>();
  const timer = setTimeout(() => {
    reject(new Error(`it did not finish starting within ${START_MS / 1000} s`));
  }, START_MS);
  try {
    return await Promise.race([starting, promise]);
  } finally {
    clearTimeout(timer);
  }
}

async function closeOne({ running, redact }: Started, deadlineMs: number, log: Log): Promise<void> {
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

/** What a command is run with, as far as it matters here. */
export interface CommandSurroundings {
  /** Bundled plugins. */
  readonly plugins: readonly Plugin[];
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly cwd: string;
  /** Writes to standard error, as it is. */
  err(text: string): void;
}

/** A strategy that keeps tokens, started alone for one command. */
export interface OpenedStrategy {
  /** Its name in the config. */
  readonly name: string;
  readonly tokens: TokenStore;
  readonly stateDir: string;
  /** Never rejects; more than once is fine. */
  close(): Promise<void>;
}

/** What a command looks for in a strategy. */
export interface Keeping<Store> {
  /** In the plural: `tokens`, `members`. */
  readonly what: string;
  /** A plugin that keeps them, for the hint. */
  readonly example: string;
  of(instance: StrategyInstance): Store | undefined;
}

/** A strategy that keeps what was looked for, started alone for one command. */
export interface OpenedKeeper<Store> {
  /** Its name in the config. */
  readonly name: string;
  readonly store: Store;
  readonly stateDir: string;
  /** Never rejects; more than once is fine. */
  close(): Promise<void>;
}

/** Where a command looks, and for which strategy. */
export interface OpenOptions {
  readonly context: CommandSurroundings;
  /** `-c FILE`; undefined looks in the usual places. */
  readonly config: string | undefined;
  /** `--preset NAME`, instead of a file. */
  readonly preset?: string | undefined;
  readonly strategy: string | undefined;
}

const TOKENS: Keeping<TokenStore> = {
  what: "tokens",
  example: "bearer-sqlite",
  of: ({ tokens }) => tokens,
};

/** How long a command waits for its strategy to flush. */
const COMMAND_CLOSE_MS = 5000;

/** {@link openKeeper} for tokens. @throws what that throws */
export async function openStrategy(options: OpenOptions): Promise<OpenedStrategy> {
  const { store, ...rest } = await openKeeper(options, TOKENS);
  return { ...rest, tokens: store };
}

/**
 * Starts the strategy called `strategy`, or without a name the only one of the config that keeps what is looked
 * for. No other one is left running. To find it, each is started in turn; one that cannot start (its variable is
 * not set in this shell, say) does not stand in the way of another.
 * @throws OperatorError: EXIT.config for a config that is missing or wrong or a named strategy that cannot start;
 *   EXIT.usage with the names when none, or more than one, fits
 */
export async function openKeeper<Store>(
  options: OpenOptions,
  keeping: Keeping<Store>,
): Promise<OpenedKeeper<Store>> {
  const { context, strategy: wanted } = options;
  const loadPlugin = pluginLoader(context.plugins);
  const config = await readConfig(options, loadPlugin);
  const names = config.strategies.map(({ name }) => name);
  const open = (name: string) => openOne(name, { context, config, loadPlugin, keeping });
  if (wanted === undefined) return openOnly(names, open, keeping);
  if (!names.includes(wanted)) {
    throw new OperatorError(
      EXIT.usage,
      `the config has no strategy ${JSON.stringify(wanted)}; it has ${names.join(", ") || "none"}`,
      nameHint(wanted, names, "add one under `strategies`"),
    );
  }
  const opened = await open(wanted);
  if (opened !== null) return opened;
  const use = config.strategies.find(({ name }) => name === wanted)?.use;
  throw new OperatorError(
    EXIT.usage,
    `strategy ${wanted} (${use}) keeps no ${keeping.what}`,
    `Name one that does, for instance one with \`use: ${keeping.example}\`.`,
  );
}

/** The only keeper among `names`; those that were opened on the way are closed again. */
async function openOnly<Store>(
  names: readonly string[],
  open: (name: string) => Promise<OpenedKeeper<Store> | null>,
  { what, example }: Keeping<Store>,
): Promise<OpenedKeeper<Store>> {
  const keepers: OpenedKeeper<Store>[] = [];
  const failures: { readonly name: string; readonly error: unknown }[] = [];
  for (const name of names) {
    try {
      const opened = await open(name);
      if (opened !== null) keepers.push(opened);
    } catch (error) {
      failures.push({ name, error });
    }
  }
  const [only] = keepers;
  if (only !== undefined && keepers.length === 1) return only;
  for (const keeper of keepers) await keeper.close();
  if (only !== undefined) {
    throw new OperatorError(
      EXIT.usage,
      `several strategies keep ${what}: ${keepers.map(({ name }) => name).join(", ")}`,
      "Say which one with --strategy NAME.",
    );
  }
  // The only one that can be meant: what is wrong with it is the answer, with its own exit code.
  const [failure] = failures;
  if (failure !== undefined && failures.length === 1) throw failure.error;
  throw new OperatorError(
    EXIT.usage,
    `no strategy of the config keeps ${what} (${names.join(", ") || "there is none"})`,
    failures.length === 0
      ? `Add one with \`use: ${example}\`.`
      : failures.map(({ error }) => errorMessage(error)).join("; "),
  );
}

interface OpenParts<Store> {
  readonly keeping: Keeping<Store>;
  readonly context: CommandSurroundings;
  readonly config: GatewayConfig;
  readonly loadPlugin: LoadPlugin;
}

/** `null` when the strategy starts but does not keep what is looked for. */
async function openOne<Store>(
  name: string,
  parts: OpenParts<Store>,
): Promise<OpenedKeeper<Store> | null> {
  const { context, config, loadPlugin } = parts;
  const running = await startStrategies({
    config,
    loadPlugin,
    env: context.env,
    log: commandLog(context),
    clock: systemClock,
    only: [name],
    purpose: "command",
  });
  const instance = running.byName.get(name)?.instance;
  const store = instance === undefined ? undefined : parts.keeping.of(instance);
  const close = (): Promise<void> => running.close(COMMAND_CLOSE_MS);
  if (store !== undefined) return { name, store, stateDir: config.stateDir, close };
  await close();
  return null;
}

async function readConfig(
  { context, config: wanted, preset }: OpenOptions,
  loadPlugin: LoadPlugin,
): Promise<GatewayConfig> {
  const { env, cwd } = context;
  const { config, issues, file } = await loadConfig({
    file: wanted ?? null,
    cwd,
    env,
    loadPlugin,
    depth: "shape",
    ...(preset === undefined ? {} : { preset: { name: preset, flags: {} } }),
  });
  if (config !== null) return config;
  throw new OperatorError(EXIT.config, renderIssues(issues, preset ?? file).trimEnd());
}

/** A command's standard output belongs to its result; what a strategy warns about goes to standard error. */
function commandLog(context: CommandSurroundings): Log {
  const quiet = (): void => undefined;
  const say = (event: string, fields?: LogFields): void =>
    context.err(`${event} ${JSON.stringify(fields ?? {})}\n`);
  return { debug: quiet, info: quiet, warn: say, error: say };
}
