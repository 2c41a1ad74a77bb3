/**
 * From entries to an encrypted stream: tar, gzip, age, each by its own library, so that `age -d FILE | tar xz` opens
 * a backup without Gatehouse.
 *
 * Invariant: content goes through memory in pieces and is on no disk before it is encrypted.
 */

import { encrypted, type Lock } from "./encryption.ts";
import type { Entry } from "./entry.ts";
import { MANIFEST, type Manifest } from "./manifest.ts";
import { letSignalsIn } from "./signals.ts";

/** What to pack. */
export interface Packing {
  readonly manifest: Manifest;
  readonly entries: readonly Entry[];
  readonly lock: Lock;
  /** Ends the work with its reason. */
  readonly stop: AbortSignal;
  /** Takes the encrypted bytes, in order. */
  readonly write: (chunk: Uint8Array) => void;
}

/** Writes the whole backup. @throws what `write` throws, and the reason of `stop` */
export async function pack({ manifest, entries, lock, stop, write }: Packing): Promise<void> {
  const { createTarPacker } = await import("modern-tar");
  const { readable, controller } = createTarPacker();
  const mtime = new Date(manifest.createdAt);
  const add = async (name: string, bytes: number, chunks: Iterable<Uint8Array>): Promise<void> => {
    const body = controller.add({ name, size: bytes, mode: 0o600, mtime, type: "file" });
    const writer = body.getWriter();
    for (const chunk of chunks) {
      stop.throwIfAborted();
      await writer.write(chunk);
    }
    await writer.close();
  };
  const failures: unknown[] = [];
  const fill = async (): Promise<void> => {
    try {
      const text = new TextEncoder().encode(`${JSON.stringify(manifest, null, 2)}\n`);
      await add(MANIFEST, text.length, [text]);
      for (const { file, chunks } of entries) await add(file.name, file.bytes, chunks());
      controller.finalize();
    } catch (error) {
      failures.push(error);
      controller.error(error);
      throw error;
    }
  };
  const compressed = readable.pipeThrough<Uint8Array>(new CompressionStream("gzip"));
  const empty = async (): Promise<void> => {
    for await (const chunk of await encrypted(compressed, lock)) {
      stop.throwIfAborted();
      write(chunk);
      await letSignalsIn();
    }
  };
  try {
    await both(empty(), fill());
  } catch (error) {
    // The streams in between may have put it into words of their own.
    throw failures.length > 0 ? failures[0] : error;
  }
}

/** The first error of either; the other one has ended by then, or waits for ever for its partner. */
async function both(empty: Promise<void>, fill: Promise<void>): Promise<void> {
  fill.catch(() => undefined);
  await Promise.race([empty, fill.then(() => empty)]);
}
