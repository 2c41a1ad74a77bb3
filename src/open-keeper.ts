/**
 * Opens the one strategy that a command is about, and nothing else.
 *
 * Invariant: whatever was started to find it is closed again; a command's standard output stays its own.
 */
import { systemClock } from "./clock.ts";
import { renderIssues } from "./config/explain.ts";
import { loadConfig } from "./config/load.ts";
import type { GatewayConfig } from "./config/model.ts";
import { nameHint } from "./config/suggest.ts";
import type { Log, LogFields } from "./contract/host.ts";
import type { Plugin, StrategyInstance } from "./contract/plugin.ts";
import type { TokenStore } from "./contract/tokens.ts";
import { EXIT, errorMessage, OperatorError } from "./errors.ts";
import { startStrategies } from "./lifecycle.ts";
import { type LoadPlugin, pluginLoader } from "./loader.ts";

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
