/**
 * What the configuration needs of others: its upstreams and issuers, asked once for all checks.
 *
 * Invariant: each is asked once, beside the others, and within a few seconds.
 */
import type { GatewayConfig, UpstreamConfig } from "../../config/model.ts";
import { type Place, type Reached, reach } from "./reach.ts";

/** An upstream, and what came of asking it. */
export interface AskedUpstream {
  readonly upstream: UpstreamConfig;
  readonly reached: Reached;
}

/** Something with a clock of its own. */
export interface AskedClock {
  readonly name: string;
  /** Its clock minus ours, in ms. */
  readonly skewMs: number;
  readonly host: string;
}

const MOST_MS = 3000;

/** Every upstream, in the order of the configuration. */
export function askUpstreams({ upstreams }: GatewayConfig): Promise<readonly AskedUpstream[]> {
  return Promise.all(
    upstreams.map(async (upstream) => {
      const withinMs = Math.min(MOST_MS, upstream.connectMs);
      const { authority } = upstream;
      // The root: what the gateway's own requests would ask for is nobody's business here.
      const reached = await reach(placeOf(upstream), { authority, path: "/", withinMs });
      return { upstream, reached };
    }),
  );
}

/** Issuers that strategies name, with the clocks that they keep. */
export async function askIssuers({ strategies }: GatewayConfig): Promise<readonly AskedClock[]> {
  const urls = strategies.flatMap(({ settings: { issuer } }) => {
    const url = typeof issuer === "string" ? URL.parse(issuer) : null;
    return url !== null && /^https?:$/.test(url.protocol) ? [url] : [];
  });
  const asked = await Promise.all(
    urls.map(async (url) => {
      const host = url.hostname.replace(/^\[|\]$/g, "");
      const isTls = url.protocol === "https:";
      const port = url.port === "" ? (isTls ? 443 : 80) : Number(url.port);
      const place: Place = { kind: "tcp", host, port, tls: isTls ? { ca: null } : null };
      const { skewMs } = await reach(place, {
        authority: url.host,
        path: url.pathname,
        withinMs: MOST_MS,
      });
      return skewMs === null ? [] : [{ name: url.host, skewMs, host }];
    }),
  );
  return asked.flat();
}

function placeOf({ target, ca }: UpstreamConfig): Place {
  if (target.kind === "unix") return target;
  const { host, port, tls } = target;
  return { kind: "tcp", host, port, tls: tls ? { ca } : null };
}
