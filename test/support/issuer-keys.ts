/**
 * The other end of the issuer's wire for tests: a server on this machine that publishes whatever keys it is told to,
 * and tokens made by hand, right ones and every kind of wrong one.
 *
 * Invariant: signatures are made with `node:crypto`, not with the library that checks them; the server counts every
 * request and is stopped when the test file is over.
 */
import { afterAll } from "bun:test";
import {
  createHmac,
  constants as crypto,
  generateKeyPairSync,
  type KeyObject,
  sign,
} from "node:crypto";
import { TEST_NOW_MS } from "./host.ts";

/** A key pair, as an issuer has one. */
export interface IssuerKey {
  readonly alg: string;
  readonly publicKey: KeyObject;
  /** As it is published, `kid`, `alg` and `use` included. */
  readonly jwk: Record<string, unknown>;
  /** As it must never be published. */
  readonly privateJwk: Record<string, unknown>;
  /** Over the first two parts of a token, in base64url. */
  sign(input: string): string;
}

const CURVES: Readonly<Record<string, string>> = {
  ES256: "P-256",
  ES384: "P-384",
  ES512: "P-521",
};

/** Makes a key for `alg` (RS*, PS*, ES*, EdDSA, Ed25519). RSA takes a tenth of a second: share it. */
export function newIssuerKey(alg = "ES256", kid: string | null = "key-1", bits = 2048): IssuerKey {
  const { publicKey, privateKey } = keyPair(alg, bits);
  const rest = { ...(kid === null ? {} : { kid }), alg, use: "sig" };
  return {
    alg,
    publicKey,
    jwk: { ...publicKey.export({ format: "jwk" }), ...rest },
    privateJwk: { ...privateKey.export({ format: "jwk" }), ...rest },
    sign: (input) => signature(alg, privateKey, input).toString("base64url"),
  };
}

function keyPair(alg: string, bits: number) {
  const curve = CURVES[alg];
  if (curve !== undefined) return generateKeyPairSync("ec", { namedCurve: curve });
  return alg.startsWith("Ed")
    ? generateKeyPairSync("ed25519")
    : generateKeyPairSync("rsa", { modulusLength: bits });
}

function signature(alg: string, key: KeyObject, input: string): Buffer {
  const bytes = Buffer.from(input, "latin1");
  if (alg.startsWith("Ed")) return sign(null, bytes, key);
  const hash = `sha${alg.slice(2)}`;
  if (alg.startsWith("ES")) return sign(hash, bytes, { key, dsaEncoding: "ieee-p1363" });
  if (alg.startsWith("RS")) return sign(hash, bytes, key);
  const padding = crypto.RSA_PKCS1_PSS_PADDING;
  return sign(hash, bytes, { key, padding, saltLength: crypto.RSA_PSS_SALTLEN_DIGEST });
}

/** What a token is made of; everything has a default. */
export interface TokenDescription {
  /** Over `{ alg, kid, typ: "at+jwt" }`; `undefined` removes. */
  readonly header?: Readonly<Record<string, unknown>>;
  /** Over `{ iss, aud: "api", sub: "alice", exp: in ten minutes }`; `undefined` removes. */
  readonly claims?: Readonly<Record<string, unknown>>;
  /** The header's or claims' text as it is. */
  readonly headerText?: string;
  readonly claimsText?: string;
  /** Instead of the key's. */
  readonly sign?: (input: string) => string;
}

/** Seconds since 1970 at {@link TEST_NOW_MS}. */
export const NOW_S = TEST_NOW_MS / 1000;

/** Who makes tokens. */
export type MakeToken = (key: IssuerKey, description?: TokenDescription) => string;

/** Makes tokens of one issuer. `nowS`: default {@link NOW_S}. */
export function tokenMaker(issuer: string, nowS = NOW_S): MakeToken {
  return (key, description = {}) => {
    const header = { alg: key.alg, kid: key.jwk.kid, typ: "at+jwt", ...description.header };
    const claims = {
      iss: issuer,
      aud: "api",
      sub: "alice",
      exp: nowS + 600,
      ...description.claims,
    };
    const parts = [
      description.headerText ?? JSON.stringify(header),
      description.claimsText ?? JSON.stringify(claims),
    ];
    const input = parts.map((part) => Buffer.from(part, "utf8").toString("base64url")).join(".");
    return `${input}.${(description.sign ?? key.sign)(input)}`;
  };
}

/** A signature of HS256 with `secret`, for tokens that pretend that a public key is one. */
export function hmacWith(secret: string | Uint8Array): (input: string) => string {
  return (input) => createHmac("sha256", secret).update(input).digest("base64url");
}

/** A server that publishes keys. */
export interface KeyServer {
  /** Its origin, which is also the issuer in its discovery document. */
  readonly url: string;
  readonly keysUrl: string;
  /** How often it was asked for the keys. */
  readonly asked: number;
  /** Paths it was asked for, in order. */
  readonly paths: readonly string[];
  publish(...keys: readonly (IssuerKey | object)[]): void;
  /** What it answers from now on, at `/keys` or another path; `null`: as at first. */
  answer(respond: (() => Response | Promise<Response>) | null, path?: string): void;
  /** Refuses connections until `up`. */
  down(): Promise<void>;
  up(): void;
}

const servers = new Set<{ stop(isNow: boolean): Promise<void> }>();

afterAll(async () => {
  await Promise.all([...servers].map((server) => server.stop(true)));
});

/** Starts one with these keys. */
export function startKeyServer(...keys: readonly IssuerKey[]): KeyServer {
  let published: readonly object[] = keys.map(({ jwk }) => jwk);
  const answers = new Map<string, () => Response | Promise<Response>>();
  const paths: string[] = [];
  const fixed: Readonly<Record<string, () => Response>> = {
    "/.well-known/openid-configuration": () =>
      Response.json({ issuer: server.url, jwks_uri: server.keysUrl }),
    "/keys": () => Response.json({ keys: published }),
  };
  const listen = (port: number) =>
    Bun.serve({
      hostname: "127.0.0.1",
      port,
      idleTimeout: 0,
      fetch(request) {
        const { pathname } = new URL(request.url);
        paths.push(pathname);
        const respond = answers.get(pathname) ?? fixed[pathname];
        return respond?.() ?? new Response("nothing here", { status: 404 });
      },
    });
  let listening = listen(0);
  servers.add(listening);
  const port = listening.port ?? 0;
  const url = `http://127.0.0.1:${port}`;
  const server: KeyServer = {
    url,
    keysUrl: `${url}/keys`,
    get asked() {
      return paths.filter((path) => path === "/keys").length;
    },
    paths,
    publish(...next) {
      published = next.map((key) => ("jwk" in key && "sign" in key ? (key.jwk as object) : key));
    },
    answer(respond, path = "/keys") {
      if (respond === null) answers.delete(path);
      else answers.set(path, respond);
    },
    async down() {
      servers.delete(listening);
      await listening.stop(true);
    },
    up() {
      listening = listen(port);
      servers.add(listening);
    },
  };
  return server;
}
