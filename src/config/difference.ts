/**
 * Where two configurations differ, for whoever changed one and wants to know what came of it.
 *
 * Invariant: names of settings and of what they are about, never a value.
 */
import { isDeepStrictEqual } from "node:util";
import type { GatewayConfig } from "./model.ts";

/** Config paths such as `server.tls`, `strategies.team` and `routes`, in the order of the file. Empty: the same. */
export function configDifference(before: GatewayConfig, after: GatewayConfig): readonly string[] {
  const server = keysThatDiffer({ ...before.server }, { ...after.server });
  const named = (what: "strategies" | "upstreams"): string[] =>
    keysThatDiffer(byName(before[what]), byName(after[what])).map((name) => `${what}.${name}`);
  const isOrderOther =
    before.strategies.map(({ name }) => name).join() !==
    after.strategies.map(({ name }) => name).join();
  const strategies = named("strategies");
  const whole = (["shared", "logging", "routes"] as const).filter(
    (key) => !isDeepStrictEqual(before[key], after[key]),
  );
  return [
    ...server.map((key) => `server.${SERVER_KEYS[key] ?? key}`),
    ...whole.filter((key) => key !== "routes"),
    ...(isOrderOther && strategies.length === 0 ? ["strategies"] : strategies),
    ...named("upstreams"),
    ...whole.filter((key) => key === "routes"),
  ];
}

/** As they are written in the file, where that is another word. */
const SERVER_KEYS: Readonly<Record<string, string>> = {
  publicUrls: "public_url",
  trustedProxies: "trusted_proxies",
  healthPath: "health_path",
  drainMs: "drain",
};

function byName(list: readonly { readonly name: string }[]): Record<string, unknown> {
  return Object.fromEntries(list.map((one) => [one.name, one]));
}

function keysThatDiffer(
  before: Readonly<Record<string, unknown>>,
  after: Readonly<Record<string, unknown>>,
): string[] {
  const keys = new Set([...Object.keys(before), ...Object.keys(after)]);
  return [...keys].filter((key) => !isDeepStrictEqual(before[key], after[key]));
}
