/**
 * The envelope of a backup: the age format (age-encryption.org/v1), for a passphrase or for public keys.
 *
 * Invariant: what comes out of {@link decrypted} was written by somebody who had the passphrase or a public key, piece
 * by piece; its end is the end that was written. Whatever is wrong is said in one line, without a secret in it.
 */
import { readSync } from "node:fs";
import { EXIT, errorMessage, OperatorError } from "../../errors.ts";

/** Who will be able to read a backup. */
export type Lock = { readonly passphrase: string } | { readonly recipients: readonly string[] };

/** What a backup is read with. */
export type Keys = { readonly passphrase: string } | { readonly identities: readonly string[] };

/** What a file asks for. */
export type EnvelopeKind = "passphrase" | "recipients";

/** An open backup. */
export interface BackupFile {
  /** As the operator wrote it. */
  readonly shown: string;
  readonly descriptor: number;
  readonly bytes: number;
}

/** The library decides about the rest; a header with this many bytes has hundreds of recipients. */
const MAX_HEADER_BYTES = 256 * 1024;
const PIECE_BYTES = 64 * 1024;
const VERSION_LINE = "age-encryption.org/v1\n";

/** The library with its cryptography is loaded by the commands that need it alone. */
const age = () => import("age-encryption");

/** @throws OperatorError when a recipient is not one */
export async function encrypted(
  plain: ReadableStream<Uint8Array>,
  lock: Lock,
): Promise<ReadableStream<Uint8Array>> {
  const { Encrypter } = await age();
  const encrypter = new Encrypter();
  if ("passphrase" in lock) encrypter.setPassphrase(lock.passphrase);
  else for (const recipient of lock.recipients) addRecipient(encrypter, recipient);
  return encrypter.encrypt(plain);
}

/** @throws OperatorError when `recipient` is none */
export async function checkRecipient(recipient: string): Promise<void> {
  const { Encrypter } = await age();
  addRecipient(new Encrypter(), recipient);
}

function addRecipient(encrypter: { addRecipient(text: string): void }, recipient: string): void {
  try {
    encrypter.addRecipient(recipient);
  } catch {
    throw new OperatorError(
      EXIT.usage,
      "--recipient: expected a public key of age, age1…",
      "Make a pair with: gatehouse backup --new-identity FILE",
    );
  }
}

/** A new secret key and its public key. */
export async function newIdentity(): Promise<{
  readonly identity: string;
  readonly recipient: string;
}> {
  const { generateX25519Identity, identityToRecipient } = await age();
  const identity = await generateX25519Identity();
  return { identity, recipient: await identityToRecipient(identity) };
}

/** @throws OperatorError when the file is not encrypted with age, or in its text form */
export function envelopeKind(file: BackupFile): EnvelopeKind {
  const head = Buffer.from(headOf(file)).toString("latin1");
  if (head.startsWith("-----BEGIN AGE ENCRYPTED FILE-----")) {
    throw new OperatorError(
      EXIT.usage,
      `${file.shown} is in the text form of age`,
      `Turn it into the binary one: grep -v -- ----- ${file.shown} | base64 -d > backup.age`,
    );
  }
  if (!head.startsWith(VERSION_LINE)) {
    const isCut = VERSION_LINE.startsWith(head);
    throw new OperatorError(
      EXIT.failure,
      isCut
        ? `${file.shown} is cut short: it has ${file.bytes} bytes`
        : `${file.shown} is not a backup: it does not begin as a file encrypted with age`,
    );
  }
  return head.startsWith(`${VERSION_LINE}-> scrypt `) ? "passphrase" : "recipients";
}

/**
 * The key of this one file.
 * @throws OperatorError: the wrong passphrase or key, a damaged header, a secret key that is none
 */
export async function fileKey(file: BackupFile, keys: Keys): Promise<Uint8Array> {
  const { Decrypter } = await age();
  const decrypter = new Decrypter();
  if ("passphrase" in keys) decrypter.addPassphrase(keys.passphrase);
  else for (const identity of keys.identities) addIdentity(decrypter, identity);
  try {
    return await decrypter.decryptHeader(headOf(file));
  } catch (error) {
    // The library has no codes; these are its words in the pinned version, and a test holds them fast.
    if (/no identity matched/.test(errorMessage(error))) throw wrongKey(file, keys);
    const isCut = !/\n--- /.test(Buffer.from(headOf(file)).toString("latin1"));
    throw new OperatorError(
      EXIT.failure,
      isCut
        ? `${file.shown} is cut short: it ends within its header (${file.bytes} bytes)`
        : `${file.shown} is damaged in its header`,
      "Take another copy of the backup.",
    );
  }
}

function addIdentity(decrypter: { addIdentity(text: string): void }, identity: string): void {
  try {
    decrypter.addIdentity(identity);
  } catch {
    throw new OperatorError(
      EXIT.usage,
      "--identity: the secret key has a mistake in it",
      "It ends with a check sum; compare it with the original.",
    );
  }
}

function wrongKey(file: BackupFile, keys: Keys): OperatorError {
  return "passphrase" in keys
    ? new OperatorError(EXIT.failure, `wrong passphrase for ${file.shown}`)
    : new OperatorError(
        EXIT.failure,
        `${file.shown} is not encrypted for this key`,
        "Use the secret key that belongs to the --recipient of the backup.",
      );
}

/** The content, as it is being read. `problem` tells why it broke off, null while all is well. */
export interface Decrypted {
  readonly plain: ReadableStream<Uint8Array>;
  problem(): OperatorError | null;
}

/** The content behind a file key, from the beginning of the file. */
export async function decrypted(file: BackupFile, key: Uint8Array): Promise<Decrypted> {
  const { Decrypter } = await age();
  const decrypter = new Decrypter();
  decrypter.addIdentity({ unwrapFileKey: () => key.slice() });
  const source = piecesOf(file);
  let problem: OperatorError | null = null;
  const broken = (): OperatorError => {
    problem ??= damaged(file, source.position());
    return problem;
  };
  let reader: { read(): Promise<{ done: boolean; value?: Uint8Array | undefined }> };
  try {
    reader = (await decrypter.decrypt(source.stream)).getReader();
  } catch {
    throw broken();
  }
  const plain = new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        try {
          const { done, value } = await reader.read();
          if (done || value === undefined) controller.close();
          else controller.enqueue(value);
        } catch {
          controller.error(broken());
        }
      },
    },
    { highWaterMark: 0 },
  );
  return { plain, problem: () => problem };
}

/** Read in pieces, so that the place of what is wrong is known to about a hundred kilobytes. */
function piecesOf(file: BackupFile): {
  readonly stream: ReadableStream<Uint8Array>;
  position(): number;
} {
  let position = 0;
  const stream = new ReadableStream<Uint8Array>(
    {
      pull(controller) {
        const piece = new Uint8Array(PIECE_BYTES);
        const count = readSync(file.descriptor, piece, 0, piece.length, position);
        position += count;
        if (count === 0) controller.close();
        else controller.enqueue(piece.subarray(0, count));
      },
    },
    { highWaterMark: 0 },
  );
  return { stream, position: () => position };
}

function damaged(file: BackupFile, position: number): OperatorError {
  return new OperatorError(
    EXIT.failure,
    position < file.bytes
      ? `${file.shown} is damaged at about byte ${position}`
      : `${file.shown} ends too early, or is damaged near its end (${file.bytes} bytes)`,
    "Take another copy of the backup; nothing was changed.",
  );
}

function headOf({ descriptor, bytes }: BackupFile): Uint8Array {
  const head = new Uint8Array(Math.min(bytes, MAX_HEADER_BYTES));
  let length = 0;
  while (length < head.length) {
    const count = readSync(descriptor, head, length, head.length - length, length);
    if (count === 0) break;
    length += count;
  }
  return head.subarray(0, length);
}
