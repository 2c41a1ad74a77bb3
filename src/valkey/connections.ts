/**
 * Every connection to Valkey of one gateway, opened when somebody asks for it.
 *
 * Invariant: the client library is loaded by the first connection and by nothing else, and no connection outlives the
 * gateway, also when whoever opened it has forgotten it.
 */
import type { Valkey } from "../contract/valkey.ts";
import { type ValkeySettings, valkeyProblems } from "../contract/valkey-settings.ts";

/** Opens connections and ends them all. */
export interface ValkeyConnections {
  /** @throws ValkeyError when the first connection cannot be made; TypeError for settings that nobody checked */
  open(settings: ValkeySettings): Promise<Valkey>;
  /** Ends what is open and whatever is being opened. Idempotent. */
  close(): void;
}

/** @param configDir relative names of files in settings start here */
export function lazyValkey(configDir: string): ValkeyConnections {
  const opened: Valkey[] = [];
  let isClosed = false;
  const mustBeOpen = (): void => {
    if (isClosed) throw new Error("the gateway is shutting down");
  };
  return {
    async open(settings) {
      const [problem] = valkeyProblems(settings);
      if (problem !== undefined) throw new TypeError(`${problem.path}: ${problem.message}`);
      mustBeOpen();
      // Only now: whoever uses no Valkey does not pay for it.
      const { openValkey } = await import("./client.ts");
      const valkey = await openValkey({ settings, configDir });
      if (isClosed) valkey.close();
      mustBeOpen();
      opened.push(valkey);
      return valkey;
    },
    close() {
      isClosed = true;
      for (const valkey of opened.splice(0)) valkey.close();
    },
  };
}
