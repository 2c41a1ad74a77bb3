/**
 * One request on its way through the steps: what was matched, who is asking, and the read-only view of it that
 * strategies get.
 *
 * Invariant: strategies only ever see this through the AuthRequest interface; the body is read ahead only when one
 * of them asks for its hash, and is then forwarded from memory, byte for byte.
 */
import type { AuthRequest, BodyHash, RequestHeaders } from "./contract/request.ts";
import type { BodySource } from "./wire/body.ts";
import { collectBody } from "./wire/collect.ts";
import type { Exchange } from "./wire/exchange.ts";
import { allValues, type Fields } from "./wire/fields.ts";

/** What the listener found out about where a request comes from and how it was addressed. */
export interface Origin {
  readonly requestId: string;
  /** Empty when unknown. */
  readonly clientAddress: string;
  /** The peer is a trusted proxy: what it says about the client is believed. */
  readonly isPeerTrusted: boolean;
  readonly scheme: "http" | "https";
  /** Host the client asked for, with port. */
  readonly authority: string;
}

/** What the router found, and where bodies are. */
export interface Matched {
  readonly path: string;
  readonly query: string;
  readonly publicUrls: readonly string[];
  /** Somebody else asks about the request and holds its body. */
  readonly isBodyElsewhere: boolean;
}

class HeaderView implements RequestHeaders {
  private readonly fields: Fields;

  constructor(fields: Fields) {
    this.fields = fields;
  }

  get(name: string): string | null {
    const values = this.all(name);
    return values.length === 0 ? null : values.join(", ");
  }

  all(name: string): readonly string[] {
    return allValues(this.fields, name.toLowerCase());
  }
}

export class RequestView implements AuthRequest {
  readonly method: string;
  readonly path: string;
  readonly query: string;
  readonly headers: RequestHeaders;
  readonly clientAddress: string;
  readonly requestId: string;
  /** What is to be forwarded: the client's stream, or the bytes that were read ahead. */
  body: BodySource | Uint8Array | null;
  private readonly origin: Origin;
  private readonly publicUrls: readonly string[];
  private readonly isBodyElsewhere: boolean;
  private hashed: BodyHash | null = null;
  /** A strategy waits for the client's body, which has deadlines of its own. */
  isReadingBody = false;

  constructor({ head, body }: Pick<Exchange, "head" | "body">, origin: Origin, matched: Matched) {
    this.method = head.method;
    this.path = matched.path;
    this.query = matched.query;
    this.headers = new HeaderView(head.fields);
    this.clientAddress = origin.clientAddress;
    this.requestId = origin.requestId;
    this.body = body;
    this.isBodyElsewhere = matched.isBodyElsewhere && body === null;
    this.origin = origin;
    this.publicUrls = matched.publicUrls;
  }

  get urls(): readonly string[] {
    const rest = this.path + this.query;
    if (this.publicUrls.length > 0) return this.publicUrls.map((url) => url + rest);
    return [`${this.origin.scheme}://${this.origin.authority}${rest}`];
  }

  async bodyHash(maxBytes: number): Promise<BodyHash> {
    if (this.isBodyElsewhere) return { kind: "unavailable" };
    if (this.hashed === null) {
      const bytes = await this.wholeBody(maxBytes);
      this.hashed = bytes === null ? { kind: "too_large" } : hashOf(bytes);
    }
    return this.hashed;
  }

  /**
   * The body read ahead, to be forwarded from memory; empty when there is none, `null` when it is larger than
   * `maxBytes`. @throws BodyReadError when the client broke it off
   */
  async wholeBody(maxBytes: number): Promise<Uint8Array | null> {
    const source = this.body;
    if (source === null) return new Uint8Array();
    if (source instanceof Uint8Array) return source.length > maxBytes ? null : source;
    this.isReadingBody = true;
    const bytes = await collectBody(source, maxBytes).finally(() => {
      this.isReadingBody = false;
    });
    if (bytes !== null) this.body = bytes;
    return bytes;
  }
}

function hashOf(bytes: Uint8Array): BodyHash {
  const sha256 = new Uint8Array(new Bun.CryptoHasher("sha256").update(bytes).digest());
  return { kind: "hash", sha256, length: bytes.length };
}
