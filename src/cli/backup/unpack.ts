/**
 * From an encrypted backup to its files, checked.
 *
 * Invariant: an archive gives what its manifest lists and nothing else: the same names, regular files, the same bytes.
 * It is taken for hostile, whoever could make it: nothing is handed on before the manifest was agreed to, and no more
 * is unpacked than it said.
 */
import { createHash } from "node:crypto";
import type { ParsedTarEntry } from "modern-tar";
import { OperatorError } from "../../errors.ts";
import { type BackupFile, type Decrypted, decrypted } from "./encryption.ts";
import {
  type Bounds,
  MANIFEST,
  MAX_MANIFEST_BYTES,
  type Manifest,
  type ManifestFile,
  parseManifest,
  refused,
  sum,
} from "./manifest.ts";
import { letSignalsIn } from "./signals.ts";

/** Takes the content of one file. */
export interface FileSink {
  write(chunk: Uint8Array): void;
  /** All of it is there, and it is the right content. */
  end(): void;
}

/** How a backup is read. */
export interface Unpacking {
  readonly file: BackupFile;
  /** Key of this file. */
  readonly key: Uint8Array;
  readonly bounds: Bounds;
  readonly stop: AbortSignal;
  /** Asked once the manifest is there. May throw to end it all. */
  readonly agree: (manifest: Manifest) => void;
  /** Where a file goes; null: it is read and checked, and that is all. */
  readonly sink: (file: ManifestFile) => FileSink | null;
}

const BLOCK_BYTES = 512;
/** The manifest, and what the layers read ahead while it is looked at. */
const BEFORE_MANIFEST_BYTES = MAX_MANIFEST_BYTES + 64 * 1024 * 1024;

/** @throws OperatorError with what is wrong with the backup; what `agree` and the sinks throw */
export async function unpack(unpacking: Unpacking): Promise<Manifest> {
  const { createTarDecoder } = await import("modern-tar");
  const envelope = await decrypted(unpacking.file, unpacking.key);
  const budget = { bytes: BEFORE_MANIFEST_BYTES };
  const entries = envelope.plain
    // Its declared input is every kind of buffer, which a stream of bytes is not in the types.
    .pipeThrough(new DecompressionStream("gzip") as ReadableWritablePair<Uint8Array, Uint8Array>)
    .pipeThrough(counting(budget))
    .pipeThrough(createTarDecoder({ strict: true }));
  try {
    return await readEntries(entries, unpacking, budget);
  } catch (error) {
    throw explained(error, envelope);
  }
}

/** What was wrong with the envelope is what is wrong; the layers within only see its consequences. */
function explained(error: unknown, envelope: Decrypted): unknown {
  const problem = envelope.problem();
  if (problem !== null) return problem;
  if (error instanceof OperatorError || isStop(error)) return error;
  return isSystemError(error) ? error : refused("its archive is damaged");
}

function isStop(error: unknown): boolean {
  return error instanceof Error && error.name === "AbortError";
}

/** A full disk, for instance. */
function isSystemError(error: unknown): boolean {
  return error instanceof Error && "syscall" in error;
}

async function readEntries(
  entries: ReadableStream<ParsedTarEntry>,
  { bounds, agree, sink, stop }: Unpacking,
  budget: { bytes: number },
): Promise<Manifest> {
  let manifest: Manifest | null = null;
  const expected = new Map<string, ManifestFile>();
  for await (const entry of entries) {
    const { name } = entry.header;
    if (manifest === null) {
      manifest = await readManifest(entry, bounds);
      agree(manifest);
      for (const file of manifest.files) expected.set(file.name, file);
      budget.bytes = bytesWith(manifest);
      continue;
    }
    const file = expected.get(name);
    if (file === undefined || entry.header.type !== "file") {
      throw refused(
        `it has an entry ${JSON.stringify(name.slice(0, 100))} that its manifest does not name`,
      );
    }
    expected.delete(name);
    await readOne(file, entry.body, sink(file), stop);
  }
  const [missing] = expected.keys();
  if (manifest === null) throw refused("it is empty");
  if (missing !== undefined) throw refused(`${missing} is missing in it`);
  return manifest;
}

async function readManifest({ header, body }: ParsedTarEntry, bounds: Bounds): Promise<Manifest> {
  const isOne = header.type === "file" && header.name === MANIFEST;
  if (!isOne || header.size > MAX_MANIFEST_BYTES)
    throw refused("it does not begin with a manifest");
  return parseManifest(await bytesOf(body), bounds);
}

/** Of an archive with nothing in it but what the manifest names: contents, headers and what fills blocks. */
function bytesWith({ files }: Manifest): number {
  return MAX_MANIFEST_BYTES + sum(files) + (files.length + 24) * 5 * BLOCK_BYTES;
}

async function readOne(
  file: ManifestFile,
  body: ReadableStream<Uint8Array>,
  sink: FileSink | null,
  stop: AbortSignal,
): Promise<void> {
  const hash = createHash("sha256");
  let bytes = 0;
  for await (const chunk of body) {
    stop.throwIfAborted();
    bytes += chunk.length;
    if (bytes > file.bytes) break;
    hash.update(chunk);
    sink?.write(chunk);
    await letSignalsIn();
  }
  if (bytes !== file.bytes || hash.digest("hex") !== file.sha256) {
    throw refused(`${file.name} is not what its manifest says`);
  }
  sink?.end();
}

async function bytesOf(body: ReadableStream<Uint8Array>): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of body) chunks.push(chunk);
  return Buffer.concat(chunks);
}

/** Lets through what the budget allows, counted after decompression: a small file can become a very large one. */
function counting(budget: { bytes: number }): TransformStream<Uint8Array, Uint8Array> {
  let seen = 0;
  return new TransformStream<Uint8Array, Uint8Array>({
    transform(chunk, controller) {
      seen += chunk.length;
      if (seen > budget.bytes) controller.error(refused("it holds more than its manifest says"));
      else controller.enqueue(chunk);
    },
  });
}
