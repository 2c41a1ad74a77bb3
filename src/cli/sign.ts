/**
 * `sign METHOD URL [--body FILE|-]`: a header that curl takes.
 *
 * Invariant: standard output is the header and nothing else; the body that is hashed is the file, byte for byte.
 */
import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import { EXIT, type ExitCode, errorCode, OperatorError } from "../errors.ts";
import type { CliContext, CommonOptions } from "./context.ts";
import { type AskHidden, type KeyOptions, secretKey } from "./nostr-key.ts";
import { authorization, checkedUrl } from "./signed-request.ts";

/** Options of `sign`. */
export interface SignOptions extends CommonOptions, KeyOptions {
  readonly method: string;
  readonly url: string;
  /** `--body FILE`, `-` for standard input. */
  readonly body?: string;
}

/** What a test puts in place of the terminal. */
export interface SignSeams {
  readonly ask?: AskHidden;
  /** Standard input as bytes. */
  readonly readBytes?: () => Promise<Uint8Array>;
}

/** Prints `Authorization: Nostr …`, or with `--json` an object with the header's value as `authorization`. */
export async function sign(
  context: CliContext,
  options: SignOptions,
  seams: SignSeams = {},
): Promise<ExitCode> {
  const method = options.method.toUpperCase();
  if (!/^[A-Z]{1,20}$/.test(method)) {
    throw new OperatorError(EXIT.usage, "expected a method such as GET or POST, then a URL");
  }
  const url = checkedUrl(options.url);
  const body = await readBody(context, options.body, seams);
  const secret = await secretKey(context, options, seams.ask);
  const value = authorization(secret, { method, url, ...(body === null ? {} : { body }) });
  context.out(
    options.json
      ? `${JSON.stringify({ authorization: value }, null, 2)}\n`
      : `Authorization: ${value}\n`,
  );
  return EXIT.ok;
}

async function readBody(
  context: CliContext,
  file: string | undefined,
  { readBytes = () => Bun.stdin.bytes() }: SignSeams,
): Promise<Uint8Array | null> {
  if (file === undefined) return null;
  if (file === "-") return readBytes();
  try {
    return readFileSync(resolve(context.cwd, file));
  } catch (error) {
    throw new OperatorError(EXIT.usage, `--body: the file cannot be read (${errorCode(error)})`);
  }
}
