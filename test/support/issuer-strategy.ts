/**
 * The strategy `oidc` on an issuer, with what a test asks of it.
 *
 * Invariant: it is the plugin itself with a real host; only the clock is set by hand.
 */
import type { Outcome } from "../../src/contract/outcome.ts";
import type { Plugin, StrategyInstance } from "../../src/contract/plugin.ts";
import { type TestHost, testHost } from "./host.ts";
import { authRequest } from "./request.ts";

/** A running strategy. */
export interface StartedOidc {
  readonly instance: StrategyInstance;
  readonly context: TestHost;
  /** With `Authorization: Bearer TOKEN`. */
  ask(token: string): Outcome | Promise<Outcome>;
  /** `accept`, `unknown`, `absent`; of a reject its reason and why; `fault` and the message of a throw. */
  answer(token: string): Promise<string>;
  /** Codes of the conditions that it reports now. */
  conditions(): string[];
}

const started: StartedOidc[] = [];

/** Starts it. `config`: besides `use`; the audience is `api` unless it says otherwise. */
export async function startOidc(
  plugin: Plugin,
  config: Readonly<Record<string, unknown>>,
  options: { nowMs?: number } = {},
): Promise<StartedOidc> {
  const context = testHost({ strategy: "login", ...options });
  const settings = plugin.config.parse({ audience: "api", ...config });
  const instance = await plugin.init(settings, context.host);
  const ask = (token: string) =>
    instance.authenticate(authRequest({ headers: { authorization: `Bearer ${token}` } }));
  const under: StartedOidc = {
    instance,
    context,
    ask,
    async answer(token) {
      const before = context.log.lines.length;
      try {
        const outcome = await ask(token);
        if (outcome.outcome !== "reject") return outcome.outcome;
        const refused = context.log.lines
          .slice(before)
          .findLast(({ event }) => event === "oidc.refused");
        return `${outcome.reason}: ${refused?.fields.why ?? ""}`;
      } catch (error) {
        return `fault: ${error instanceof Error ? error.message : error}`;
      }
    },
    conditions: () => (instance.health?.() ?? []).map(({ code }) => code),
  };
  started.push(under);
  return under;
}

/** Ends what was started. For `afterEach`. */
export async function endOidc(): Promise<void> {
  for (const { instance, context } of started.splice(0)) {
    await instance.close?.();
    context.dispose();
  }
}
