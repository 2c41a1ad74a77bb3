/**
 * What a set-up made, written down before it is made, so that exactly that can be taken away: when it is
 * interrupted, and later by `init --undo`.
 *
 * Invariant: whatever init makes is in the journal first. The journal lies beside the configuration, for its owner
 * alone, and holds names and check sums, never a secret.
 */
import { existsSync, readFileSync, rmSync } from "node:fs";
import { dirname, join } from "node:path";
import { z } from "zod";
import { systemClock } from "../../clock.ts";
import { EXIT, errorCode, OperatorError } from "../../errors.ts";
import { checkPrivateFile } from "../../store/state-dir.ts";
import { VERSION } from "../version.ts";
import { createFile, replaceFile } from "./files.ts";

const made = z.discriminatedUnion("kind", [
  z.strictObject({ kind: z.literal("directory"), path: z.string() }),
  z.strictObject({ kind: z.literal("file"), path: z.string(), sha256: z.string() }),
  z.strictObject({ kind: z.literal("link"), path: z.string(), target: z.string() }),
  /** What strategies keep in the state directory. */
  z.strictObject({ kind: z.literal("state"), path: z.string() }),
  z.strictObject({
    kind: z.literal("service"),
    scope: z.enum(["system", "user"]),
    name: z.string(),
  }),
  /** In a store that is not ours to remove, such as a Valkey. */
  z.strictObject({ kind: z.literal("token"), strategy: z.string(), id: z.string() }),
  /** A file of somebody else that was changed; `backup` is how it was. */
  z.strictObject({
    kind: z.literal("edit"),
    path: z.string(),
    backup: z.string(),
    sha256: z.string(),
  }),
]);

const journalSchema = z.strictObject({
  journal: z.literal(1),
  version: z.string(),
  started_at: z.string(),
  /** Of the process that is at it; null once it is done. */
  pid: z.int().nullable(),
  config: z.string(),
  made: z.array(made),
});

/** One thing that was made. */
export type Made = z.infer<typeof made>;
/** The journal as it lies on disk. */
export type JournalRecord = z.infer<typeof journalSchema>;

const NAME = ".gatehouse-init.json";

/** Where the journal of a configuration directory is. */
export function journalPath(configDir: string): string {
  return join(configDir, NAME);
}

/**
 * Null when there is none.
 * @throws OperatorError when it is there and cannot be read, or somebody else could have written it: what it names is
 * going to be removed
 */
export function readJournal(configDir: string): JournalRecord | null {
  const path = journalPath(configDir);
  if (!checkPrivateFile(path)) return null;
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch (error) {
    const code = errorCode(error);
    if (code === "ENOENT" || code === "ENOTDIR") return null;
    throw new OperatorError(
      code === "EACCES" ? EXIT.permission : EXIT.failure,
      `cannot read ${path}: ${code}`,
      "Run it as the user that ran init, or with sudo.",
    );
  }
  const parsed = journalSchema.safeParse(parseJson(text));
  if (parsed.success) return parsed.data;
  throw new OperatorError(
    EXIT.failure,
    `${path} is damaged, or of a newer version`,
    "What init made then has to be taken away by hand; docs/init.md lists what that is.",
  );
}

/** A journal that is being written. */
export class Journal {
  private record: JournalRecord;
  private isOnDisk: boolean;
  readonly path: string;

  private constructor(configDir: string, record: JournalRecord, isOnDisk: boolean) {
    this.path = journalPath(configDir);
    this.record = record;
    this.isOnDisk = isOnDisk;
  }

  /** The journal of a configuration directory that may not be there yet, continued or new. */
  static open(configDir: string, config: string): Journal {
    const before = readJournal(configDir);
    const record = before ?? {
      journal: 1 as const,
      version: VERSION,
      started_at: new Date(systemClock.nowMs()).toISOString(),
      pid: null,
      config,
      made: [],
    };
    return new Journal(configDir, { ...record, pid: process.pid }, before !== null);
  }

  get made(): readonly Made[] {
    return this.record.made;
  }

  /** To be called before it is made. @throws OperatorError when it cannot be written down */
  note(...things: readonly Made[]): void {
    this.record = { ...this.record, made: [...this.record.made, ...things] };
    // The configuration's directory is made first; until then there is no place for the journal.
    if (this.isOnDisk || existsSync(dirname(this.path))) this.write();
  }

  /** Puts other things in the place of those that are already in it. */
  replace(made: readonly Made[]): void {
    this.record = { ...this.record, made: [...made] };
    this.write();
  }

  /** Everything that was wanted is there. */
  finish(): void {
    this.record = { ...this.record, pid: null };
    this.write();
  }

  /** What is left when things have been taken away; without any the journal goes, too. */
  leave(made: readonly Made[]): void {
    this.record = { ...this.record, made: [...made], pid: null };
    if (made.length > 0) {
      this.write();
      return;
    }
    rmSync(this.path, { force: true });
    this.isOnDisk = false;
  }

  private write(): void {
    const text = `${JSON.stringify(this.record, null, 2)}\n`;
    if (this.isOnDisk) replaceFile(this.path, text, 0o600);
    else createFile(this.path, text, 0o600);
    this.isOnDisk = true;
  }
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}
