/**
 * The pure half of routstrd: from clients to an index, and from a presented key to an outcome.
 *
 * Invariant: the index holds no key, only its SHA-256; looking one up costs the same among ten and among ten thousand, and
 * what the time taken can tell is about the digest, which nobody can steer.
 */
import { timingSafeEqual } from "node:crypto";
import { type Identity, type Outcome, UNKNOWN } from "gatehouse";
import type { ClientEntry } from "./client-list.ts";

/** Longest name that is passed on. */
const MAX_NAME_LENGTH = 200;

/** A client without its key. */
export class Client {
  /** SHA-256 of the key. */
  readonly digest: Uint8Array;
  readonly ownerNpub: string | null;
  readonly #clientId: string;
  readonly #name: string;
  #identity: Identity | null = null;

  constructor(digest: Uint8Array, { clientId, name, ownerNpub }: ClientEntry) {
    this.digest = digest;
    this.ownerNpub = ownerNpub;
    this.#clientId = clientId;
    this.#name = name;
  }

  /** Made when it is first asked for: the daemon may change the list more often than a client comes. */
  get identity(): Identity {
    if (this.#identity === null) {
      this.#identity = identityOf(this.#clientId, this.#name, this.ownerNpub);
      KEYS.set(this.#identity, this.digest);
    }
    return this.#identity;
  }
}

/** Which key proved an identity, so that a stream ends when its client comes back with another key. */
const KEYS = new WeakMap<Identity, Uint8Array>();

/** Clients by the SHA-256 of their keys. */
export class ClientIndex {
  readonly #byDigest = new Map<string, Client>();
  #byId: Map<string, Client> | null = null;

  /** Expects keys to be unique, as `readClientList` gives them. */
  constructor(entries: readonly ClientEntry[]) {
    for (const entry of entries) {
      const digest = digestOf(entry.apiKey);
      this.#byDigest.set(textOf(digest), new Client(digest, entry));
    }
  }

  /** Whose key `credential` is; null when it is nobody's. */
  find(credential: string): Client | null {
    const digest = digestOf(credential);
    const client = this.#byDigest.get(textOf(digest));
    return client !== undefined && timingSafeEqual(client.digest, digest) ? client : null;
  }

  /** Who proved `identity` and still has that key; when the key is not known, a client of the same id. */
  findAgain(identity: Identity): Client | null {
    const digest = KEYS.get(identity);
    const client =
      digest === undefined ? this.#ids().get(identity.id) : this.#byDigest.get(textOf(digest));
    return client?.identity.id === identity.id ? client : null;
  }

  /** Of several clients with one id the last. Only needed for identities from before a reload. */
  #ids(): ReadonlyMap<string, Client> {
    this.#byId ??= new Map(
      this.#byDigest.values().map((client) => [client.identity.id, client] as const),
    );
    return this.#byId;
  }
}

/** @param members the registered npubs in lower case; null when owners are not checked */
export function judgeClient(client: Client | null, members: ReadonlySet<string> | null): Outcome {
  if (client === null) return UNKNOWN;
  const { identity, ownerNpub } = client;
  if (members === null || ownerNpub === null || members.has(ownerNpub)) {
    return { outcome: "accept", identity };
  }
  return { outcome: "reject", reason: "token_revoked", credentialId: identity.id };
}

function identityOf(clientId: string, name: string, ownerNpub: string | null): Identity {
  const id = publicId(clientId);
  return Object.freeze({
    id,
    role: "user",
    name: printable(name) || id,
    ...(ownerNpub === null ? {} : { owner: printable(ownerNpub) }),
    attributes: Object.freeze({ client_id: id }),
  });
}

/**
 * The id as it goes into headers and logs. The daemon's own ids pass as they are; one that no header could carry is
 * replaced by its hash, because any shortening could make two clients one.
 */
export function publicId(clientId: string): string {
  if (/^[\x21-\x7e]{1,200}$/.test(clientId)) return clientId;
  return `sha256:${Bun.CryptoHasher.hash("sha256", clientId, "hex")}`;
}

/** Without what could act on a terminal or turn a line around. */
function printable(text: string): string {
  return text
    .slice(0, MAX_NAME_LENGTH)
    .replaceAll(/[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu, "")
    .trim();
}

function digestOf(text: string): Buffer {
  return Bun.CryptoHasher.hash("sha256", text);
}

function textOf(digest: Uint8Array): string {
  return Buffer.from(digest.buffer, digest.byteOffset, digest.byteLength).toString("latin1");
}
