/**
 * The state database without touching it: checked where it lies, and copied into memory.
 *
 * Invariant: no file appears, disappears or changes, also not beside a running gateway. SQLite would otherwise make the
 * files of a write-ahead log for a mere reader.
 */
import { constants, Database } from "bun:sqlite";
import { existsSync, statSync } from "node:fs";
import { join } from "node:path";
import { errorCode, errorMessage } from "../../errors.ts";
import { firstValue } from "../../store/migrations.ts";

/** What came of looking. */
export type DatabaseLook =
  | { readonly kind: "absent" }
  /** It cannot be known without writing, or would take too long; `why` says which. */
  | { readonly kind: "unseen"; readonly why: string }
  | { readonly kind: "damaged"; readonly what: string }
  /** An SQLite file of somebody else. */
  | { readonly kind: "foreign" }
  | {
      readonly kind: "sound";
      readonly bytes: number;
      /** The whole of it was checked; otherwise only its structure. */
      readonly isWhole: boolean;
      /** Whoever takes it closes it. */
      copy(): Database;
    };

/** "GATE", see store/migrations.ts. */
const APPLICATION_ID = 0x47415445;
/** A slow disk reads so much in about three seconds. */
const MOST_CHECKED_BYTES = 268_435_456;
/** Comparing indexes with their tables takes several times as long. */
const MOST_WHOLE_BYTES = 67_108_864;
const READ_ONLY = constants.SQLITE_OPEN_READONLY | constants.SQLITE_OPEN_URI;

/** Looks at `<stateDir>/gatehouse.db`. Never throws. */
export function lookAtState(stateDir: string): DatabaseLook {
  return lookAt(join(stateDir, "gatehouse.db"), APPLICATION_ID);
}

/** @param applicationId of the program whose file it should be; null: anybody's */
export function lookAt(path: string, applicationId: number | null): DatabaseLook {
  let database: Database | null = null;
  try {
    const bytes = statSync(path).size + sizeOf(`${path}-wal`);
    if (bytes > MOST_CHECKED_BYTES) {
      const mebibytes = Math.round(bytes / 1_048_576);
      return { kind: "unseen", why: `it has ${mebibytes} MiB, too much to read in a few seconds` };
    }
    database = openUntouched(path);
    if (database === null) {
      return {
        kind: "unseen",
        why: "it was not closed in order, and only the gateway may mend that",
      };
    }
    if (applicationId !== null && firstValue(database, "PRAGMA application_id") !== applicationId) {
      return { kind: "foreign" };
    }
    const isWhole = bytes <= MOST_WHOLE_BYTES;
    const said = String(
      firstValue(database, isWhole ? "PRAGMA integrity_check(3)" : "PRAGMA quick_check(3)"),
    );
    if (said !== "ok") return { kind: "damaged", what: said };
    const content = database.serialize();
    return {
      kind: "sound",
      bytes,
      isWhole,
      copy: () => inMemory(content),
    };
  } catch (problem) {
    return verdict(problem);
  } finally {
    database?.close(false);
  }
}

/**
 * With an empty log the file is all there is. Otherwise the log's index is read as it is; a process that writes at the
 * moment keeps it right. Null when there is a log without its index.
 */
function openUntouched(path: string): Database | null {
  if (sizeOf(`${path}-wal`) === 0) return opened(path, "immutable=1");
  if (!existsSync(`${path}-shm`)) return null;
  return opened(path, "mode=ro&readonly_shm=1");
}

function opened(path: string, how: string): Database {
  const name = encodeURI(path).replaceAll("?", "%3f").replaceAll("#", "%23");
  const database = new Database(`file:${name}?${how}`, READ_ONLY);
  database.run("PRAGMA busy_timeout = 1000");
  // A damaged or hostile schema runs nothing.
  database.run("PRAGMA trusted_schema = OFF");
  database.run("PRAGMA cell_size_check = ON");
  return database;
}

/** The header says that there is a log beside the file; in memory there is none. */
function inMemory(content: Uint8Array): Database {
  const bytes = Uint8Array.from(content);
  bytes.fill(1, 18, 20);
  return Database.deserialize(bytes, { strict: true });
}

function verdict(problem: unknown): DatabaseLook {
  const code = errorCode(problem) ?? "";
  if (code === "ENOENT") return { kind: "absent" };
  if (/^SQLITE_(?:NOTADB|CORRUPT)/.test(code))
    return { kind: "damaged", what: `it is no sound SQLite file (${code})` };
  return {
    kind: "unseen",
    why: `it cannot be read (${code === "" ? errorMessage(problem) : code})`,
  };
}

function sizeOf(path: string): number {
  return statSync(path, { throwIfNoEntry: false })?.size ?? 0;
}
