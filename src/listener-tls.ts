/**
 * Certificates and keys of the listeners, read from their files.
 *
 * Invariant: nothing is bound before every pair was found to be usable, and no message holds a key.
 */
import { createHash } from "node:crypto";
import { createSecureContext } from "node:tls";
import type { TlsPair } from "./config/model.ts";
import { EXIT, errorCode, errorMessage, OperatorError } from "./errors.ts";
import { readRegularFile } from "./regular-file.ts";

/** What `Bun.listen` takes for TLS. */
export interface ListenerTls {
  readonly options: Bun.TLSOptions;
  readonly handlers: object;
  /** Equal for equal certificates, keys and names. */
  readonly fingerprint: string;
}

/**
 * TLS for a listener. Bun's `Bun.listen` takes one pair; further names are chosen in the handshake by its
 * `serverName` handler, which node:tls uses too and test/scenarios/tls.test.ts holds to its word.
 * HTTP/1.1 is the only protocol offered: see docs/decisions/001-own-wire.md.
 *
 * @returns null without pairs
 * @throws OperatorError that names the files
 */
export function listenerTls(pairs: readonly TlsPair[]): ListenerTls | null {
  const loaded = pairs.map(loadPair);
  const first = loaded[0];
  if (first === undefined) return null;
  const contexts = new Map(loaded.map((pair) => [pair.name, pair.context]));
  return {
    options: { cert: first.cert, key: first.key, ALPNProtocols: "\x08http/1.1" },
    handlers: {
      serverName: (_socket: unknown, name: string): unknown => contexts.get(name.toLowerCase()),
    },
    fingerprint: fingerprint(loaded.flatMap(({ name, cert, key }) => [name ?? "", cert, key])),
  };
}

function loadPair(pair: TlsPair) {
  try {
    const cert = readRegularFile(pair.cert);
    const key = readRegularFile(pair.key);
    const name = pair.name?.toLowerCase() ?? null;
    return { name, cert, key, context: createSecureContext({ cert, key }).context };
  } catch (error) {
    throw new OperatorError(
      EXIT.config,
      `server.tls: ${pair.cert} and ${pair.key} cannot be used: ${errorCode(error) ?? errorMessage(error)}`,
    );
  }
}

function fingerprint(texts: readonly string[]): string {
  const hash = createHash("sha256");
  for (const text of texts) hash.update(`${text.length}:`).update(text);
  return hash.digest("hex");
}
