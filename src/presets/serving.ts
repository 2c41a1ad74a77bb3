/**
 * `serve --preset NAME` without a file: what a preset stands in front of, as a config document.
 *
 * Invariant: it listens on loopback unless told otherwise, keys are references, and a flag that means nothing to
 * the preset is a problem, not ignored.
 */
import { hostPort } from "../host-port.ts";
import type { ServeDocument, ServeSources, Usual, WrittenRoute } from "./preset.ts";

/** Flags of every preset that stands in front of something. */
const FLAGS = ["port", "host", "upstream"];

/** What of a whole config differs from preset to preset. */
export interface Serving {
  readonly preset: string;
  /** Flags besides port, host and upstream. */
  readonly flags?: readonly string[];
  /** Address of the upstream when no flag names one. */
  readonly upstream: string;
  /** Further keys of the upstream. */
  readonly upstreamKeys?: WrittenRoute;
  readonly server?: Readonly<Record<string, unknown>>;
  readonly strategies: Readonly<Record<string, WrittenRoute>>;
  /** Options of the preset besides `upstream` and `access`. */
  readonly with?: WrittenRoute;
  readonly notes?: readonly string[];
}

/** A whole config from flags and what the preset knows. */
export function servingDocument(flags: ServeSources["flags"], serving: Serving): ServeDocument {
  const { port = "8008", host = "127.0.0.1" } = flags;
  const url = flags.upstream ?? serving.upstream;
  const known = [...FLAGS, ...(serving.flags ?? [])];
  const problems = [
    ...Object.keys(flags)
      .filter((flag) => !known.includes(flag))
      .map((flag) => `--${flag} means nothing to the preset ${serving.preset}; leave it out`),
    ...(/^\d{1,5}$/.test(port) ? [] : ["the port is not a number"]),
  ];
  if (problems.length > 0) return { problems };
  return {
    document: {
      version: 1,
      server: { listen: hostPort(host, port), ...serving.server },
      strategies: serving.strategies,
      upstreams: { [serving.preset]: { url, ...serving.upstreamKeys } },
      routes: [
        {
          preset: serving.preset,
          with: {
            upstream: serving.preset,
            access: Object.keys(serving.strategies),
            ...serving.with,
          },
        },
      ],
    },
    notes: serving.notes ?? [],
  };
}

/**
 * In front of a system as it is usually met, for whoever has a token from `gatehouse token create`.
 * @param addressOf where the system's own environment says that it listens
 */
export function serveWithTokens(
  preset: string,
  usual: Usual,
  addressOf?: (env: ServeSources["env"]) => string | null,
): (sources: ServeSources) => ServeDocument {
  return ({ env, flags }) =>
    servingDocument(flags, {
      preset,
      upstream: addressOf?.(env) ?? usual.upstream,
      strategies: { team: { use: "bearer-sqlite", ...usual.tokens } },
      ...keyOf(usual, env),
    });
}

/** A system's own key as headers of its upstream: a reference, never the key. */
export function keyHeaders(key: NonNullable<Usual["key"]>): Readonly<Record<string, string>> {
  return { [key.header]: `${key.prefix}\${env:${key.env}}` };
}

function keyOf({ key }: Usual, env: ServeSources["env"]): Partial<Serving> {
  const isLeftOut = key?.isOptional === true && (env[key.env] ?? "").trim() === "";
  // One that must be there and is not is found by the checks of every config.
  return key === undefined || isLeftOut ? {} : { upstreamKeys: { headers: keyHeaders(key) } };
}
