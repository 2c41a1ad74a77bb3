/**
 * Opens the state that replicas have in common, where the configuration says that it is.
 *
 * Invariant: a gateway that serves has reached it before its first request, or does not start; a command reaches for it
 * when it needs it. No message holds the value of a reference.
 */
import { pathText } from "./config/issues.ts";
import type { SharedConfig } from "./config/model.ts";
import { type ReferenceProblem, resolveDeep } from "./config/references.ts";
import type { Host } from "./contract/host.ts";
import type { SharedState } from "./contract/shared.ts";
import { type Valkey, ValkeyError } from "./contract/valkey.ts";
import type { ValkeySettings } from "./contract/valkey-settings.ts";
import { errorMessage, OperatorError, startExitCode } from "./errors.ts";
import { type HostShared, ownState } from "./host.ts";
import { redactor } from "./redactor.ts";
import { type ReplicatedState, replicatedState } from "./store/replicated-state.ts";
import { sharedTables } from "./store/shared-tables.ts";

/** The state, and its end. */
export interface OpenedShared {
  readonly state: SharedState;
  /** Idempotent. */
  close(): void;
}

/** What it takes. */
export interface OpenSharedOptions
  extends Pick<HostShared, "database" | "clock" | "log" | "env" | "configDir"> {
  readonly purpose: Host["purpose"];
  readonly valkey: Host["valkey"];
}

/** @throws OperatorError with one clear line when it cannot be reached or cannot do the work */
export async function openShared(
  config: SharedConfig | null,
  options: OpenSharedOptions,
): Promise<OpenedShared> {
  if (config === null) return { state: ownState(options), close() {} };
  const { env, configDir, database, clock, log } = options;
  const { value, problems } = resolveDeep(config.valkey, { env, configDir });
  const tables = sharedTables({ database, clock, log });
  const connect = onDemand(async () => {
    // Not earlier: a command may run without the service's environment and never need it.
    if (problems.length > 0) throw new ValkeyError("CONFIG", problems.map(placed).join("; "));
    // References stand for texts, so the shape is the same.
    return options.valkey(value as ValkeySettings);
  });
  const state = replicatedState({ tables, clock, log, prefix: config.prefix, connect });
  if (options.purpose === "serve") await begin(state, redactor(config.valkey, value));
  return { state, close: state.close };
}

function placed({ path, problem }: ReferenceProblem): string {
  return `${pathText(path)}: ${problem}`;
}

async function begin(state: ReplicatedState, redact: (text: string) => string): Promise<void> {
  try {
    await state.begin();
  } catch (error) {
    state.close();
    throw new OperatorError(startExitCode(error), `shared: ${redact(errorMessage(error))}`);
  }
}

/** Connects once; a failure is forgotten, so that the next call tries again. */
function onDemand(connect: () => Promise<Valkey>): () => Promise<Valkey> {
  let connecting: Promise<Valkey> | null = null;
  return () => {
    connecting ??= connect().catch((error: unknown) => {
      connecting = null;
      throw error;
    });
    return connecting;
  };
}
