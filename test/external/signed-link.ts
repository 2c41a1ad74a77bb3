/**
 * An external strategy: requests signed with HMAC-SHA256, for machines that share a key and must not send it.
 *
 *   x-signature: keyId=robot,ts=1767225600,sig=<64 hexadecimal digits>
 *
 * The signature is over these lines, each ended by a line feed: `v1`, method, path with query, the value of ts,
 * SHA-256 of the body in lower-case hexadecimal (of nothing when there is none).
 *
 * Invariant: a signature is accepted once, by one process of all that share the state directory, and only while
 * its time is within the window.
 */
import { createHmac } from "node:crypto";
import {
  ABSENT,
  type AuthRequest,
  definePlugin,
  type Host,
  type Migration,
  type Outcome,
  parseDuration,
  parseSize,
  secret,
  z,
} from "gatehouse";
import { parseKeys, parseSignature, type Signature } from "./signed-link-format.ts";

const duration = z.string().refine((text) => parseDuration(text) !== null, {
  error: "expected a duration such as 60s",
});
const size = z.string().refine((text) => parseSize(text) !== null, {
  error: "expected a size such as 1MiB",
});

const config = z.strictObject({
  keys: secret("One or several keys as id:key, separated by white space; a key has 32 characters."),
  window: duration
    .default("60s")
    .describe("How far the time of a signature may be from ours, either way. Default 60s."),
  max_body: size
    .default("1MiB")
    .describe("Largest body that is signed, because it is held in memory. Default 1MiB."),
});

const MIGRATIONS: readonly Migration[] = [
  {
    name: "001_seen",
    sql: `CREATE TABLE signed_link_seen (
      signature BLOB PRIMARY KEY,
      forget_at_ms INTEGER NOT NULL
    ) WITHOUT ROWID, STRICT`,
  },
];

/** SHA-256 of zero bytes, so that a request without a body needs no call of `bodyHash`. */
const EMPTY_SHA256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

export default definePlugin({
  name: "signed-link",
  contract: 1,
  config,
  questions: [{ id: "keys", kind: "secret", message: "Keys as id:key, separated by blanks" }],
  init(settings, host) {
    const keys = parseKeys(settings.keys);
    const windowMs = parseDuration(settings.window) ?? 0;
    const maxBytes = parseSize(settings.max_body) ?? 0;
    const memory = replayMemory(host);
    return {
      credentialHeaders: ["x-signature"],
      challenges: () => [{ scheme: "Gatehouse-Signature", parameters: { header: "x-signature" } }],
      async authenticate(request): Promise<Outcome> {
        const lines = request.headers.all("x-signature");
        const [line] = lines;
        if (line === undefined) return ABSENT;
        if (lines.length > 1) return { outcome: "reject", reason: "ambiguous_credential" };
        const signature = parseSignature(line);
        if (signature === null) return { outcome: "reject", reason: "malformed_credential" };
        const key = keys.get(signature.keyId);
        if (key === undefined) return { outcome: "reject", reason: "not_registered" };

        const bodySha256 = await bodyDigest(request, maxBytes);
        const expected = createHmac("sha256", key)
          .update(signedText(request, signature, bodySha256))
          .digest("hex");
        const credentialId = signature.keyId;
        if (bodySha256 === null || !host.secretEquals(expected, signature.sig)) {
          return { outcome: "reject", reason: "signature_invalid", credentialId };
        }
        // Time and memory come after the signature: only who holds a key learns about them or fills them.
        const now = host.clock.nowMs();
        if (Math.abs(now - signature.seconds * 1000) > windowMs) {
          return { outcome: "reject", reason: "stale_proof", credentialId };
        }
        if (!memory.isFirst(signature.sig, signature.seconds * 1000 + windowMs, now)) {
          return { outcome: "reject", reason: "replayed", credentialId };
        }
        return { outcome: "accept", identity: { id: signature.keyId, role: "user" } };
      },
      close: () => memory.close(),
    };
  },
});

function signedText(request: AuthRequest, signature: Signature, bodySha256: string | null): string {
  const { method, path, query } = request;
  return `v1\n${method}\n${path}${query}\n${signature.seconds}\n${bodySha256 ?? ""}\n`;
}

/** `null` when the body is too large to be looked at, so nothing can be said about it. */
async function bodyDigest(request: AuthRequest, maxBytes: number): Promise<string | null> {
  const { headers } = request;
  const hasBody =
    headers.get("transfer-encoding") !== null || (headers.get("content-length") ?? "0") !== "0";
  if (!hasBody) return EMPTY_SHA256;
  const body = await request.bodyHash(maxBytes);
  return body.kind === "hash" ? Buffer.from(body.sha256).toString("hex") : null;
}

function replayMemory(host: Host) {
  const database = host.database("signed_link", MIGRATIONS);
  // Prepared once: every further text of SQL would stay in memory.
  const insert = database.prepare<null, [Uint8Array, number]>(
    "INSERT OR IGNORE INTO signed_link_seen (signature, forget_at_ms) VALUES (?, ?)",
  );
  const forget = database.prepare<null, [number]>(
    "DELETE FROM signed_link_seen WHERE forget_at_ms < ?",
  );
  let forgottenAtMs = 0;
  return {
    /** One statement, so that of two that come at once exactly one is the first. */
    isFirst(sig: string, validUntilMs: number, nowMs: number): boolean {
      if (nowMs - forgottenAtMs > 10_000) {
        forget.run(nowMs);
        forgottenAtMs = nowMs;
      }
      return insert.run(Buffer.from(sig, "hex"), validUntilMs).changes === 1;
    },
    close(): void {
      insert.finalize();
      forget.finalize();
    },
  };
}
