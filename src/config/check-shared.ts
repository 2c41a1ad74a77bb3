/**
 * `shared`: are its secrets references, do they lead anywhere, can its certificates be read.
 *
 * Invariant: nothing connects, and no value is repeated.
 */
import { accessSync, constants } from "node:fs";
import { resolve } from "node:path";
import { checkSecrets } from "./check-strategies.ts";
import type { ConfigPath, Reporter } from "./issues.ts";
import type { SharedConfig } from "./model.ts";
import { type ReferenceSources, resolveDeep } from "./references.ts";
import { documentSchema } from "./schema.ts";
import { isSecret, schemasAt } from "./schema-walk.ts";

const BASE = ["shared"];

/** What does not depend on this process. `written` is what stands under `shared`. */
export function checkSharedShape(written: unknown, report: Reporter): void {
  checkSecrets(documentSchema.shape.shared, written, BASE, report);
}

/** What does: variables and files. */
export function checkSharedSources(
  { valkey }: SharedConfig,
  sources: ReferenceSources,
  report: Reporter,
): void {
  for (const { path, problem } of resolveDeep(valkey, sources).problems) {
    report.add([...BASE, ...path], problem, "provide it, or change the reference");
  }
  const ca = valkey.tls?.ca;
  if (ca === undefined) return;
  const file = resolve(sources.configDir, ca);
  try {
    accessSync(file, constants.R_OK);
  } catch {
    report.add([...BASE, "tls", "ca"], `${file} cannot be read`);
  }
}

/** Whether a reference may stand at this path of the document. */
export function isSharedSecret(path: ConfigPath): boolean {
  return path[0] === "shared" && schemasAt(documentSchema, path).some(isSecret);
}
