/**
 * A JWKS document (RFC 7517) as keys that signatures can be checked with.
 *
 * Invariant: only public keys of sufficient strength for signatures are in it; one that is broken or of another kind
 * is left out and does not harm the others. The same key in a later document has the same id, any change gives
 * another.
 */
import { createHash } from "node:crypto";
import { importJWK } from "jose";
import { isObject, type JsonObject, own } from "./json.ts";
import type { Algorithm } from "./settings.ts";
import type { KeyHint } from "./verify.ts";

/** More keys than any issuer has. */
const MAX_KEYS = 500;

const MIN_RSA_BITS = 2048;
/** Beyond it one check costs milliseconds. */
const MAX_RSA_BITS = 8192;

/** One key of the issuer. */
export interface VerificationKey {
  /** Public, 22 characters; follows from everything that the document says about the key. */
  readonly id: string;
  readonly kid: string | null;
  /** The algorithms that it may be used with. Never empty. */
  readonly algorithms: readonly Algorithm[];
  /** Ready to be used with one of them. */
  cryptoKey(algorithm: Algorithm): Promise<CryptoKey>;
}

/** The usable keys of one document. */
export interface KeySet {
  readonly byId: ReadonlyMap<string, VerificationKey>;
  /** How many others were in the document that should have been usable. */
  readonly broken: number;
}

/** What a document could not be read for. */
export class KeySetError extends Error {
  constructor(message: string) {
    super(message);
    this.name = "KeySetError";
  }
}

/**
 * Reads a document. Keys that `previous` has are taken from there.
 * @throws KeySetError when it is no set of keys at all
 */
export async function readKeySet(
  document: unknown,
  algorithms: readonly Algorithm[],
  previous: KeySet | null,
): Promise<KeySet> {
  const list = isObject(document) ? own(document, "keys") : undefined;
  if (!Array.isArray(list)) throw new KeySetError("it is no set of keys: there is no list `keys`");
  if (list.length > MAX_KEYS) throw new KeySetError(`it has more than ${MAX_KEYS} keys`);
  const byId = new Map<string, VerificationKey>();
  let broken = 0;
  for (const jwk of list) {
    if (isObject(jwk) && isForOthers(jwk)) continue;
    const key = isObject(jwk) ? await readKey(jwk, algorithms, previous) : null;
    if (key === null) broken += 1;
    else byId.set(key.id, key);
  }
  return { byId, broken };
}

/**
 * The keys that may have signed a token with such a header. Without a key id only if there is no choice.
 */
export function candidates(set: KeySet, { alg, kid }: KeyHint): readonly VerificationKey[] {
  const fitting = [...set.byId.values()].filter(
    (key) => key.algorithms.includes(alg) && (kid === null || key.kid === kid),
  );
  return kid === null && fitting.length > 1 ? [] : fitting;
}

/** For encryption, or for something else that is no signature of ours to check: nothing is wrong with it. */
function isForOthers(jwk: JsonObject): boolean {
  const use = own(jwk, "use");
  const operations = own(jwk, "key_ops");
  return (
    (use !== undefined && use !== "sig") ||
    (Array.isArray(operations) && !operations.includes("verify"))
  );
}

async function readKey(
  jwk: JsonObject,
  algorithms: readonly Algorithm[],
  previous: KeySet | null,
): Promise<VerificationKey | null> {
  const usable = algorithms.filter((name) => isFor(name, jwk));
  const [first] = usable;
  const kid = own(jwk, "kid");
  if (first === undefined || (kid !== undefined && typeof kid !== "string")) return null;
  const id = idOf(jwk);
  const known = previous?.byId.get(id);
  if (known !== undefined) return known;
  const ready = new Map<Algorithm, Promise<CryptoKey>>();
  const cryptoKey = (algorithm: Algorithm): Promise<CryptoKey> => {
    const importing = ready.get(algorithm) ?? load(jwk, algorithm);
    ready.set(algorithm, importing);
    return importing;
  };
  try {
    await cryptoKey(first);
  } catch {
    return null;
  }
  return { id, kid: kid ?? null, algorithms: usable, cryptoKey };
}

const CURVES: Readonly<Record<string, string>> = {
  ES256: "P-256",
  ES384: "P-384",
  ES512: "P-521",
  EdDSA: "Ed25519",
  Ed25519: "Ed25519",
};

function isFor(algorithm: Algorithm, jwk: JsonObject): boolean {
  const said = own(jwk, "alg");
  if (said !== undefined && said !== algorithm) return false;
  const curve = CURVES[algorithm];
  if (curve === undefined) return own(jwk, "kty") === "RSA";
  return own(jwk, "kty") === (curve === "Ed25519" ? "OKP" : "EC") && own(jwk, "crv") === curve;
}

/** Of a key everything that is public and says what it is. */
const PUBLIC_MEMBERS = ["kty", "crv", "n", "e", "x", "y", "alg", "use", "key_ops", "kid"];

function idOf(jwk: JsonObject): string {
  const said = PUBLIC_MEMBERS.map((name) => own(jwk, name) ?? null);
  return createHash("sha256").update(JSON.stringify(said)).digest("base64url").slice(0, 22);
}

/** @throws when it cannot be used */
async function load(jwk: JsonObject, algorithm: Algorithm): Promise<CryptoKey> {
  const key = await importJWK({ ...jwk }, algorithm);
  // Whoever publishes a private key has no secret left to sign with.
  if (!(key instanceof CryptoKey) || key.type !== "public" || !isStrong(key)) {
    throw new KeySetError("not a public key of sufficient strength");
  }
  return key;
}

/** The curves are strong in themselves. With the exponent 1 every text is its own signature. */
function isStrong({ algorithm }: CryptoKey): boolean {
  if (!("modulusLength" in algorithm) || !("publicExponent" in algorithm)) return true;
  const bits = Number(algorithm.modulusLength);
  const exponent = algorithm.publicExponent;
  if (!(exponent instanceof Uint8Array)) return false;
  const significant = exponent.subarray(exponent.findIndex((byte) => byte !== 0));
  const isOne = significant.length === 1 && (significant[0] ?? 0) < 3;
  return bits >= MIN_RSA_BITS && bits <= MAX_RSA_BITS && !isOne && significant.length <= 8;
}
