/**
 * A gateway under a service manager: tells it when the listeners accept, that they still answer, and when they stop.
 *
 * Invariant: the watchdog stays silent only when nothing listens any more or the health path answers wrongly. A
 * gateway that is merely full or slow is not restarted, because that would end everybody's requests.
 */
import { parseListen } from "../config/address.ts";
import type { GatewayConfig } from "../config/model.ts";
import type { Log } from "../contract/host.ts";
import type { Notifier, OpenedNotifier } from "../notify.ts";
import { askHealth } from "./healthcheck.ts";

/** Nobody is there: the listener or its socket file is gone. */
const GONE: ReadonlySet<string> = new Set(["ECONNREFUSED", "ENOENT"]);

/** What `serve` tells. */
export interface Supervised {
  /** @param addresses as they were bound, `127.0.0.1:8008` or `unix:/path` */
  ready(addresses: readonly string[]): void;
  stopping(): void;
  close(): void;
}

/** Null when the manager cannot be told; that is logged. */
export function supervised(
  opened: OpenedNotifier,
  config: GatewayConfig,
  log: Log,
): Supervised | null {
  if ("problem" in opened) {
    log.error("service.not_notified", { error: opened.problem });
    return null;
  }
  const { notifier } = opened;
  let isStopping = false;
  return {
    ready(addresses) {
      notifier.ready(summary(config, addresses));
      const [address = ""] = addresses;
      watch(notifier, { config, address, log, isStopping: () => isStopping });
    },
    stopping() {
      isStopping = true;
      notifier.stopping(`finishing what is open, at most ${config.server.drainMs / 1000} s`);
    },
    close: () => notifier.close(),
  };
}

interface Watched {
  readonly config: GatewayConfig;
  readonly address: string;
  readonly log: Log;
  isStopping(): boolean;
}

function watch(notifier: Notifier, { config, address, log, isStopping }: Watched): void {
  const parsed = parseListen(address);
  const { healthPath, tls } = config.server;
  const trouble = async (): Promise<string | null> => {
    // Without a health path, and while it drains, that this runs at all is the sign of life.
    if (isStopping() || healthPath === null || "problem" in parsed) return null;
    const { status, problem } = await askHealth(parsed.value, healthPath, tls.length > 0);
    if (isStopping() || status === 200) return null;
    if (status !== null) return `${healthPath} answers ${status}`;
    return problem !== null && GONE.has(problem) ? `${address}: ${problem}` : null;
  };
  notifier.watch(trouble, (reason) => log.error("service.watchdog_silent", { reason }));
}

/** `3 routes, 2 strategies (team, nostr), on 127.0.0.1:8008`. */
function summary(config: GatewayConfig, addresses: readonly string[]): string {
  const { routes, strategies } = config;
  const names = strategies.map(({ name }) => name).join(", ");
  const counts = [
    `${routes.length} ${routes.length === 1 ? "route" : "routes"}`,
    `${strategies.length} ${strategies.length === 1 ? "strategy" : "strategies"}`,
  ];
  return `${counts.join(", ")}${names === "" ? "" : ` (${names})`}, on ${addresses.join(", ")}`;
}
