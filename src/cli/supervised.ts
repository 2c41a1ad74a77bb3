/**
 * A gateway under a service manager: tells it when the listeners accept, that they still answer, when the configuration
 * is read anew, and when they stop.
 *
 * Invariant: the watchdog stays silent only when nothing listens any more or the health path answers wrongly. A
 * gateway that is merely full or slow is not restarted, because that would end everybody's requests.
 */
import { parseListen } from "../config/address.ts";
import type { GatewayConfig } from "../config/model.ts";
import type { Log } from "../contract/host.ts";
import type { OpenedNotifier } from "../notify.ts";
import { askHealth } from "./healthcheck.ts";

/** Nobody is there: the listener or its socket file is gone. */
const GONE: ReadonlySet<string> = new Set(["ECONNREFUSED", "ENOENT"]);

/** What `serve` tells. */
export interface Supervised {
  /** At the start, and after each change. Once it stops, that alone is told. */
  ready(serving: Serving): void;
  reloading(): void;
  /** The new configuration was refused. */
  kept(): void;
  stopping(): void;
  close(): void;
}

/** What is served. */
export interface Serving {
  readonly config: GatewayConfig;
  /** As they were bound, `127.0.0.1:8008` or `unix:/path`. */
  readonly addresses: readonly string[];
}

/** Null when the manager cannot be told; that is logged. */
export function supervised(opened: OpenedNotifier, log: Log): Supervised | null {
  if ("problem" in opened) {
    log.error("service.not_notified", { error: opened.problem });
    return null;
  }
  const { notifier } = opened;
  let current: Serving | null = null;
  let isStopping = false;
  const silent = (reason: string): void => log.error("service.watchdog_silent", { reason });
  return {
    ready(serving) {
      if (isStopping) return;
      const isFirst = current === null;
      current = serving;
      notifier.ready(summary(serving));
      if (isFirst)
        notifier.watch(() => trouble(isStopping ? null : current, () => isStopping), silent);
    },
    reloading() {
      if (!isStopping) notifier.reloading();
    },
    kept() {
      if (isStopping) return;
      const was = current === null ? "" : `, still ${summary(current)}`;
      notifier.ready(`reload refused (see the log)${was}`);
    },
    stopping() {
      isStopping = true;
      const drainMs = current?.config.server.drainMs ?? 0;
      notifier.stopping(`finishing what is open, at most ${drainMs / 1000} s`);
    },
    close: () => notifier.close(),
  };
}

/** What keeps the watchdog from being fed, or null. */
async function trouble(serving: Serving | null, isStopping: () => boolean): Promise<string | null> {
  const [address = ""] = serving?.addresses ?? [];
  const parsed = parseListen(address);
  // Without a health path, and while it drains, that this runs at all is the sign of life.
  if (serving === null || "problem" in parsed) return null;
  const { healthPath, tls } = serving.config.server;
  if (healthPath === null) return null;
  const { status, problem } = await askHealth(parsed.value, healthPath, tls.length > 0);
  if (isStopping() || status === 200) return null;
  if (status !== null) return `${healthPath} answers ${status}`;
  return problem !== null && GONE.has(problem) ? `${address}: ${problem}` : null;
}

/** `3 routes, 2 strategies (team, nostr), on 127.0.0.1:8008`. */
export function summary({ config, addresses }: Serving): string {
  const { routes, strategies } = config;
  const names = strategies.map(({ name }) => name).join(", ");
  const counts = [
    `${routes.length} ${routes.length === 1 ? "route" : "routes"}`,
    `${strategies.length} ${strategies.length === 1 ? "strategy" : "strategies"}`,
  ];
  return `${counts.join(", ")}${names === "" ? "" : ` (${names})`}, on ${addresses.join(", ")}`;
}
