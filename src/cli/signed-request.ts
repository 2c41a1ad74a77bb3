/**
 * Signs requests as NIP-98 (kind 27235) says.
 *
 * Invariant: every event has a random nonce, so that two requests of one second are two proofs; the URL that is
 * signed is the one that is sent, byte for byte.
 */
import { createHash, randomBytes } from "node:crypto";
import { finalizeEvent } from "nostr-tools/pure";
import { systemClock } from "../clock.ts";
import { EXIT, OperatorError } from "../errors.ts";

/** What is signed. */
export interface RequestToSign {
  /** Upper case. */
  readonly method: string;
  /** From {@link checkedUrl}. */
  readonly url: string;
  /** Raw bytes; undefined and empty: no body. */
  readonly body?: Uint8Array;
}

const KIND = 27_235;

/** The value of the Authorization header: `Nostr <base64>`. */
export function authorization(secret: Uint8Array, request: RequestToSign): string {
  const tags = [
    ["u", request.url],
    ["method", request.method],
    ["nonce", randomBytes(16).toString("hex")],
  ];
  if (request.body !== undefined && request.body.length > 0) {
    tags.push(["payload", createHash("sha256").update(request.body).digest("hex")]);
  }
  const created_at = Math.floor(systemClock.nowMs() / 1000);
  const event = finalizeEvent({ kind: KIND, created_at, tags, content: "" }, secret);
  return `Nostr ${Buffer.from(JSON.stringify(event)).toString("base64")}`;
}

/**
 * An absolute http(s) URL as clients send it: with a path, without fragment and user.
 * @throws OperatorError with EXIT.usage
 */
export function checkedUrl(text: string): string {
  const parts = /^https?:\/\/[^/?#@\\\s]+([/?][\x21\x24-\x5b\x5d-\x7e]*)?$/i.exec(text);
  if (parts === null || !URL.canParse(text)) {
    throw new OperatorError(
      EXIT.usage,
      "expected an absolute URL such as https://llm.example.com/v1/models, without user or fragment",
    );
  }
  const [path = ""] = (parts[1] ?? "").split("?");
  if (path.split("/").some((segment) => /^(\.|%2e){1,2}$/i.test(segment))) {
    throw new OperatorError(
      EXIT.usage,
      "the URL has dot segments, which clients resolve: resolve them first",
    );
  }
  // A request without a path asks for "/".
  if (path !== "") return text;
  const query = parts[1] ?? "";
  return `${text.slice(0, text.length - query.length)}/${query}`;
}
