/**
 * Reading a body whole, up to a limit.
 *
 * Invariant: memory is bounded by the limit; a body that breaks off is an error, never a shorter body.
 */
import type { BodyFault, BodySource } from "./body.ts";

/** The body could not be read to its end. */
export class BodyReadError extends Error {
  readonly fault: BodyFault;
  constructor(fault: BodyFault) {
    super("the body could not be read");
    this.name = "BodyReadError";
    this.fault = fault;
  }
}

/** The whole body, or `null` when it is larger than `maxBytes` (the rest is then thrown away). @throws BodyReadError */
export function collectBody(source: BodySource, maxBytes: number): Promise<Uint8Array | null> {
  return new Promise((resolve, reject) => {
    if (source.length !== null && source.length > maxBytes) {
      source.cancel();
      resolve(null);
      return;
    }
    const chunks: Uint8Array[] = [];
    let total = 0;
    source.pipe({
      write(chunk) {
        total += chunk.length;
        if (total <= maxBytes) chunks.push(chunk);
        else {
          chunks.length = 0;
          source.cancel();
          resolve(null);
        }
        return true;
      },
      end: () => resolve(chunks.length === 1 ? (chunks[0] ?? null) : Buffer.concat(chunks)),
      fail: (fault) => reject(new BodyReadError(fault)),
    });
  });
}
