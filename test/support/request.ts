/**
 * Builds the view of a request that strategies get, as the server would build it.
 *
 * Invariant: header lines keep their order and number, so that a test can send one twice.
 */
import { createHash } from "node:crypto";
import type { AuthRequest, BodyHash } from "../../src/contract/request.ts";

/** What a request is made of; everything has a default. */
export interface RequestDescription {
  /** Default GET. */
  readonly method?: string;
  /** Default `/`. */
  readonly path?: string;
  /** With its `?`; default empty. */
  readonly query?: string;
  /** Default: one on http://127.0.0.1:8008 made from path and query. */
  readonly urls?: readonly string[];
  /** Lines in order, or an object when no name repeats. */
  readonly headers?: readonly (readonly [string, string])[] | Readonly<Record<string, string>>;
  /** Default: no body. */
  readonly body?: string | Uint8Array;
  /** Default 127.0.0.1. */
  readonly clientAddress?: string;
}

/** The request that `description` describes. */
export function authRequest(description: RequestDescription = {}): AuthRequest {
  const { method = "GET", path = "/", query = "" } = description;
  const body = Buffer.from(description.body ?? "");
  return {
    method,
    path,
    query,
    urls: description.urls ?? [`http://127.0.0.1:8008${path}${query}`],
    headers: requestHeaders(headerLines(description)),
    clientAddress: description.clientAddress ?? "127.0.0.1",
    requestId: "req_test",
    async bodyHash(maxBytes: number): Promise<BodyHash> {
      if (body.length > maxBytes) return { kind: "too_large" };
      const sha256 = new Uint8Array(createHash("sha256").update(body).digest());
      return { kind: "hash", sha256, length: body.length };
    },
  };
}

/** The header lines of `description`, in order. */
export function headerLines(
  description: RequestDescription,
): readonly (readonly [string, string])[] {
  const headers = description.headers ?? [];
  return isLines(headers) ? headers : Object.entries(headers);
}

function isLines(
  headers: NonNullable<RequestDescription["headers"]>,
): headers is readonly (readonly [string, string])[] {
  return Array.isArray(headers);
}

function requestHeaders(lines: readonly (readonly [string, string])[]): AuthRequest["headers"] {
  const all = (name: string): readonly string[] =>
    lines.filter(([key]) => key.toLowerCase() === name.toLowerCase()).map(([, value]) => value);
  return {
    all,
    get(name) {
      const values = all(name);
      return values.length === 0 ? null : values.join(", ");
    },
  };
}
