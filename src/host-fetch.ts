/**
 * `host.fetch`: what plugins ask the outside with.
 *
 * Invariant: every call has a deadline and ends with the gateway; redirects are never followed, because a request
 * that carries a secret must not be led to another host; certificates are checked. Proxy variables of the
 * environment are not heeded.
 */
import { startWhole } from "./whole-call.ts";
import { UpstreamPool } from "./wire/upstream-pool.ts";

/** How long a call may take, the body included. */
const DEADLINE_MS = 10_000;

/** A fetch, and the end of its connections. */
export interface HostFetch {
  fetch(url: string, init?: RequestInit): Promise<Response>;
  close(): void;
}

/** @param shutdown aborts what is under way */
export function createHostFetch(shutdown: AbortSignal): HostFetch {
  const pools = new Map<string, UpstreamPool>();
  return {
    async fetch(url, init) {
      const request = new Request(url, init);
      const target = new URL(request.url);
      const pool = poolFor(pools, target);
      const signals = [AbortSignal.timeout(DEADLINE_MS), shutdown];
      if (init?.signal) signals.push(init.signal);
      const signal = AbortSignal.any(signals);
      signal.throwIfAborted();
      const call = await startWhole(
        {
          pool,
          authority: target.host,
          basePath: "",
          fields: request.headers.has("accept-encoding") ? "" : "Accept-Encoding: identity\r\n",
          reserved: new Set(),
        },
        request,
      );
      return await untilAborted(call.response, signal, call.abort);
    },
    close() {
      for (const pool of pools.values()) pool.close();
      pools.clear();
    },
  };
}

function poolFor(pools: Map<string, UpstreamPool>, target: URL): UpstreamPool {
  if (target.protocol !== "https:" && target.protocol !== "http:") {
    throw new TypeError(`host.fetch takes http and https, not ${target.protocol}`);
  }
  const known = pools.get(target.origin);
  if (known !== undefined) return known;
  const host = target.hostname.replace(/^\[|\]$/g, "");
  const isSecure = target.protocol === "https:";
  const tls = isSecure ? { serverName: host, ca: null } : null;
  const port = target.port === "" ? (isSecure ? 443 : 80) : Number(target.port);
  const deadlines = { connectMs: DEADLINE_MS, responseMs: DEADLINE_MS, idleMs: DEADLINE_MS };
  const pool = new UpstreamPool({ kind: "tcp", host, port, tls }, deadlines);
  pools.set(target.origin, pool);
  return pool;
}

function untilAborted<T>(work: Promise<T>, signal: AbortSignal, abort: () => void): Promise<T> {
  return new Promise((resolve, reject) => {
    const stop = (): void => {
      abort();
      reject(signal.reason);
    };
    if (signal.aborted) stop();
    signal.addEventListener("abort", stop, { once: true });
    work.then(resolve, reject).finally(() => signal.removeEventListener("abort", stop));
  });
}
