/**
 * What a file of tests starts for itself and ends after its last test: raw upstreams, and whatever else can be stopped.
 *
 * Invariant: the hook is registered by the call, not by the import, so that each file ends its own things only.
 */
import { afterAll } from "bun:test";
import { type RawResponder, type RawUpstream, rawUpstream } from "./raw.ts";

/** Things that end with the file. */
export interface UntilEnd {
  /** Called in this order after the last test. */
  readonly stops: (() => unknown)[];
  /** A raw upstream that stops then. */
  upstreamOf(respond?: RawResponder): RawUpstream & { readonly url: string };
}

/** To be called once, at the top of a file. */
export function untilEnd(): UntilEnd {
  const stops: (() => unknown)[] = [];
  afterAll(() => {
    for (const stop of stops) void stop();
  });
  return {
    stops,
    upstreamOf(respond) {
      const upstream = rawUpstream(respond);
      stops.push(() => upstream.stop());
      return Object.assign(upstream, { url: `http://${upstream.address}` });
    },
  };
}
