/**
 * A gateway that is about where it listens: its configuration, and a request to it.
 *
 * Invariant: everything is public, so that only the listener can be why an answer is not the upstream's.
 */

/** A config with these listeners; everything public. */
export function config(listen: readonly string[], upstreamUrl: string, more = ""): string {
  return `version: 1
server:
  listen: ${JSON.stringify(listen)}
${more}
upstreams:
  api:
    url: ${upstreamUrl}
routes:
  - { match: { path: /public/** }, access: public, upstream: api }
`;
}

/** A request after which the connection is closed. */
export const get = (path = "/public/x") =>
  `GET ${path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n`;
