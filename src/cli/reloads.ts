/**
 * Reading the configuration anew under a running gateway, whoever asks for it: SIGHUP or `gatehouse reload`.
 *
 * Invariant: one at a time; whoever asks while one is under way gets the next, which sees what was written until then.
 * What cannot be put in force leaves everything as it was, and the log says why.
 */

import { configDifference } from "../config/difference.ts";
import type { GatewayConfig } from "../config/model.ts";
import type { Log } from "../contract/host.ts";
import { EXIT, errorMessage, OperatorError } from "../errors.ts";
import type { LoadPlugin } from "../loader.ts";
import type { RunningGateway } from "../start.ts";
import type { Verdict } from "./control.ts";
import { oneAtATime } from "./one-at-a-time.ts";
import { type Supervised, summary } from "./supervised.ts";

/** What there is to read. */
export interface Loaded {
  readonly config: GatewayConfig;
  readonly loadPlugin: LoadPlugin;
  /** What the operator should know although nothing is wrong, one sentence each. */
  readonly notes?: readonly string[];
}

export interface ReloadOptions {
  readonly gateway: RunningGateway;
  readonly config: GatewayConfig;
  readonly manager: Supervised | null;
  readonly log: Log;
  /** As at the start. @throws OperatorError when it is wrong */
  load(): Promise<Loaded>;
  /** Called when a config is in force. */
  inForce(config: GatewayConfig): void;
}

/** Never rejects. */
export function reloads(options: ReloadOptions): () => Promise<Verdict> {
  const { gateway, manager, log } = options;
  let current = options.config;
  return oneAtATime(async () => {
    manager?.reloading();
    try {
      const { config, loadPlugin, notes = [] } = await options.load();
      const changed = configDifference(current, config);
      const { added, removed } = await gateway.reload({ config, loadPlugin });
      current = config;
      options.inForce(config);
      const serving = { config, addresses: gateway.addresses };
      manager?.ready(serving);
      for (const note of notes) log.warn("config.note", { note });
      log.info("config.reloaded", {
        changed: listed(changed),
        added: listed(added),
        removed: listed(removed),
      });
      return { ok: true, summary: summary(serving), changed, added, removed };
    } catch (error) {
      const { exitCode, message, hint } = asOperatorError(error);
      gateway.reloadFailed();
      manager?.kept();
      log.error("config.reload_failed", { error: message, hint });
      return { ok: false, exitCode, error: message, hint };
    }
  });
}

function listed(names: readonly string[]): string | null {
  return names.length === 0 ? null : names.join(", ");
}

function asOperatorError(error: unknown): OperatorError {
  return error instanceof OperatorError
    ? error
    : new OperatorError(EXIT.failure, `unexpected: ${errorMessage(error)}`);
}
