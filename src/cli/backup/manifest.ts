/**
 * The first entry of a backup: what is in it, made by which version, and what is not in it.
 *
 * Invariant: a manifest that was parsed names files below `state/` and `config/` only, each once, of sizes that were
 * agreed to; whoever writes files by it needs no further check of their names.
 */
import { z } from "zod";
import { EXIT, OperatorError } from "../../errors.ts";

/** Name of the entry. */
export const MANIFEST = "manifest.json";

/** Bounds for what a restore takes in, whatever an archive says about itself. */
export interface Bounds {
  /** All files together. Default 4 GiB. */
  readonly maxBytes: number;
}

export const MAX_MANIFEST_BYTES = 4 * 1024 * 1024;
/** Files of the configuration are held in memory. */
export const MAX_CONFIG_FILE_BYTES = 4 * 1024 * 1024;
const MAX_CONFIG_BYTES = 64 * 1024 * 1024;
export const MAX_FILES = 10_000;
const MAX_NAME_BYTES = 240;
const FORMAT = 1;

/** Text that ends up on a terminal. */
const line = (maxCharacters: number) =>
  z
    .string()
    .max(maxCharacters)
    .regex(/^[^\0-\x1f\x7f-\x9f]*$/);

const fileSchema = z.strictObject({
  name: z.string().max(MAX_NAME_BYTES),
  bytes: z.int().nonnegative(),
  sha256: z.string().regex(/^[0-9a-f]{64}$/),
  /** As it was, in octal. State is private wherever it goes; only files of the configuration get it back. */
  mode: z.string().regex(/^[0-7]{3}$/),
  isDatabase: z.boolean(),
});

const manifestSchema = z.strictObject({
  format: z.literal(FORMAT),
  madeBy: z.strictObject({ version: line(100), commit: line(100) }),
  createdAt: z.iso.datetime(),
  host: line(300),
  /** Where things were, for people to read; a restore goes where it is told. */
  configFile: line(4096).nullable(),
  stateDir: line(4096),
  /** Name of the entry that is the config file, when there is one. */
  configEntry: line(MAX_NAME_BYTES).nullable(),
  /** Schema steps by database and namespace. */
  steps: z.record(
    line(MAX_NAME_BYTES),
    z.record(line(200), z.array(line(200)).max(1000).readonly()).readonly(),
  ),
  files: z.array(fileSchema).max(MAX_FILES),
  /** What the operator has to see to, one line each. */
  leftOut: z.array(line(5000)).max(MAX_FILES),
});

export type ManifestFile = z.infer<typeof fileSchema>;
export type Manifest = z.infer<typeof manifestSchema>;

/** The manifest of a new backup, with what does not change. */
export function manifestOf(parts: Omit<Manifest, "format">): Manifest {
  return { format: FORMAT, ...parts };
}

/** @throws OperatorError when it is no manifest, one of a newer version, or one that names what it must not */
export function parseManifest(bytes: Uint8Array, bounds: Bounds): Manifest {
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch {
    throw refused("its manifest is not JSON");
  }
  const format = formatOf(value);
  if (format > FORMAT) {
    throw new OperatorError(
      EXIT.failure,
      `the backup has format ${format}, and this version of gatehouse knows format ${FORMAT}`,
      "Restore it with the version that made it, or a newer one.",
    );
  }
  const parsed = manifestSchema.safeParse(value);
  if (!parsed.success) {
    const [issue] = parsed.error.issues;
    throw refused(`its manifest is wrong at ${issue?.path.join(".") || "the top"}`);
  }
  checkFiles(parsed.data, bounds);
  return parsed.data;
}

/** A backup that this program did not make like that. */
export function refused(why: string): OperatorError {
  return new OperatorError(
    EXIT.failure,
    `this is no backup to be restored: ${why}`,
    "It was not made by `gatehouse backup`. Find out who made it.",
  );
}

function formatOf(value: unknown): number {
  if (typeof value !== "object" || value === null || !("format" in value)) return 0;
  return typeof value.format === "number" ? value.format : 0;
}

function checkFiles({ files, configEntry }: Manifest, { maxBytes }: Bounds): void {
  const names = new Set<string>();
  for (const { name } of files) {
    if (!isName(name)) throw refused(`it names a file ${JSON.stringify(name)}`);
    if (names.has(name)) throw refused(`it names ${name} twice`);
    names.add(name);
  }
  const nested = [...names].find((name) => parentsOf(name).some((parent) => names.has(parent)));
  if (nested !== undefined) throw refused(`${nested} would lie below another file`);
  if (configEntry !== null && !(configEntry.startsWith("config/") && names.has(configEntry))) {
    throw refused("the config file that it names is not in it");
  }
  checkSizes(files, maxBytes);
}

/** `a/b/c` -> `a`, `a/b`. */
function parentsOf(name: string): readonly string[] {
  const parts = name.split("/");
  return parts.slice(1).map((_, index) => parts.slice(0, index + 1).join("/"));
}

function checkSizes(files: readonly ManifestFile[], maxBytes: number): void {
  const inConfig = files.filter(({ name }) => name.startsWith("config/"));
  if (
    inConfig.some(({ bytes }) => bytes > MAX_CONFIG_FILE_BYTES) ||
    sum(inConfig) > MAX_CONFIG_BYTES
  ) {
    throw refused("its files of the configuration are too large to be any");
  }
  if (sum(files) <= maxBytes) return;
  throw new OperatorError(
    EXIT.failure,
    `the backup says that it holds ${sum(files)} bytes, and at most ${maxBytes} are taken`,
    "If that is right, say --max-size SIZE, for instance 10GiB.",
  );
}

/** Bytes of all files together. */
export function sum(files: readonly ManifestFile[]): number {
  return files.reduce((total, { bytes }) => total + bytes, 0);
}

/** Names that belong to a restore itself, or lie beside a database, where SQLite would read them into it. */
const RESERVED =
  /^state\/(?:restore\.pending|\.restore-[^/]*|replaced-[^/]*|\.snapshot-[^/]*)(?:\/|$)|-(?:wal|shm|journal)$/;

/** Whether a file may be part of a backup under this name. */
export function isName(name: string): boolean {
  const [top, ...rest] = name.split("/");
  if (top !== "state" && top !== "config") return false;
  const isPart = (part: string): boolean => part !== "" && part !== "." && part !== "..";
  if (rest.length === 0 || rest.length > 16 || !rest.every(isPart)) return false;
  if (/[\0-\x1f\x7f\\]/.test(name) || Buffer.byteLength(name) > MAX_NAME_BYTES) return false;
  return !RESERVED.test(name);
}
