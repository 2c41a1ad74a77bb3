/**
 * An address and a port as they are written together.
 *
 * Invariant: an IPv6 address stands in brackets (RFC 3986 section 3.2.2), nothing else does.
 */

/** `127.0.0.1:80`, `[::1]:80`. */
export function hostPort(host: string, port: number | string): string {
  return `${host.includes(":") ? `[${host}]` : host}:${port}`;
}
