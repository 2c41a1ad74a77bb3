/**
 * The tables and every statement on them.
 *
 * Invariant: the set of statements is fixed and all values are bound; each is prepared once and finalized by
 * `close`. A row belongs to one strategy and is never seen by another. No token and no secret is ever a value in here.
 */
import type { Database } from "bun:sqlite";
import type { Migration, Role, TokenPage, TokenQuery, TokenRecord } from "gatehouse";
import { openPages, RECORD, type RecordRow, toRecord } from "./token-pages.ts";
import type { StoredToken } from "./verify.ts";

/** Never changed once released; new steps are added at the end. */
export const MIGRATIONS: readonly Migration[] = [
  {
    name: "001_tokens",
    sql: `
      CREATE TABLE bearer_sqlite_tokens (
        id TEXT NOT NULL PRIMARY KEY CHECK (length(id) = 12),
        strategy TEXT NOT NULL,
        name TEXT NOT NULL,
        owner TEXT,
        role TEXT NOT NULL CHECK (role IN ('admin', 'user')),
        scopes TEXT NOT NULL,
        digest BLOB CHECK (length(digest) = 32),
        previous_digest BLOB CHECK (length(previous_digest) = 32),
        grace_until INTEGER,
        foreign_digest BLOB CHECK (length(foreign_digest) = 32),
        foreign_until INTEGER,
        rotations INTEGER NOT NULL DEFAULT 0,
        created_at INTEGER NOT NULL,
        created_by TEXT,
        not_before INTEGER,
        expires_at INTEGER,
        revoked_at INTEGER,
        revoked_reason TEXT,
        CHECK (digest IS NOT NULL OR foreign_digest IS NOT NULL)
      ) STRICT, WITHOUT ROWID;
      CREATE UNIQUE INDEX bearer_sqlite_foreign ON bearer_sqlite_tokens (strategy, foreign_digest)
        WHERE foreign_digest IS NOT NULL;
      CREATE INDEX bearer_sqlite_name ON bearer_sqlite_tokens (strategy, name);
      CREATE TABLE bearer_sqlite_last_used (
        id TEXT NOT NULL PRIMARY KEY,
        at INTEGER NOT NULL
      ) STRICT, WITHOUT ROWID;
      CREATE TABLE bearer_sqlite_pepper (
        one INTEGER NOT NULL PRIMARY KEY CHECK (one = 1),
        proof BLOB NOT NULL
      ) STRICT;
    `,
  },
  {
    // For lists: of one owner, and in pages of all; with what counting needs.
    name: "002_lists",
    sql: `
      CREATE INDEX bearer_sqlite_owner ON bearer_sqlite_tokens (strategy, owner, created_at DESC, id);
      CREATE INDEX bearer_sqlite_created ON bearer_sqlite_tokens (strategy, created_at DESC, id, revoked_at);
    `,
  },
];

/** Every keyed hash of a token's secrets, and its end. */
export interface Digests {
  readonly digest: Uint8Array | null;
  readonly previousDigest: Uint8Array | null;
  readonly foreignDigest: Uint8Array | null;
  readonly expiresAtMs: number | null;
}

/** A new row. Exactly one of the digests is set. */
export interface NewToken {
  readonly id: string;
  readonly name: string;
  readonly owner: string | null;
  readonly role: Role;
  readonly scopes: readonly string[];
  readonly digest: Uint8Array | null;
  readonly foreignDigest: Uint8Array | null;
  readonly createdAtMs: number;
  readonly createdBy: string | null;
  readonly notBeforeMs: number | null;
  readonly expiresAtMs: number | null;
}

/** The rows of one strategy. Everything throws SQLite's error when the database cannot do it. */
export interface TokensTable {
  /** The token of this id, also when it is revoked or expired. */
  byId(id: string): StoredToken | null;
  /** The imported token of this keyed hash. */
  byForeignDigest(digest: Uint8Array): StoredToken | null;
  /**
   * Another number whenever another connection has committed something, to any table.
   * @throws when that could not be seen, because others have another file by now
   */
  version(): number;
  /** @throws when the file was replaced */
  mustBeSameFile(): void;
  record(id: string): TokenRecord | null;
  /** Ids of the tokens of this name that are not revoked, oldest first, at most 20. */
  liveIdsByName(name: string): readonly string[];
  /** Newest first. */
  records(): readonly TokenRecord[];
  /** The same of one owner. */
  recordsOf(owner: string): readonly TokenRecord[];
  page(query: TokenQuery): TokenPage | Promise<TokenPage>;
  insert(token: NewToken): void;
  /** `graceUntilMs` null: the old secret ends at once. */
  rotate(id: string, digest: Uint8Array, graceUntilMs: number | null): void;
  digests(id: string): Digests | null;
  /** Tokens that are revoked and would not have expired by `nowMs`. */
  revokedIds(
    nowMs: number,
  ): readonly { readonly id: string; readonly expiresAtMs: number | null }[];
  /** Changes nothing when it is revoked already. */
  revoke(id: string, atMs: number, reason: string): void;
  /** Keeps the later of the stored and the given time. */
  touch(id: string, atMs: number): void;
  /** The proof of the pepper that the digests were made with; keeps `proof` when there is none yet. */
  pepperProof(proof: Uint8Array): Uint8Array;
  hasPepperProof(): boolean;
  /** Takes the write lock first, so that what `work` reads cannot change under it. */
  transaction<T>(work: () => T): T;
  /** Runs `work` with no waiting for locks and without waiting for the disk. */
  withoutWaiting<T>(work: () => T): T;
  /** Idempotent. */
  close(): void;
}

const STORED = `SELECT id, name, owner, role, scopes, expires_at AS expiresAtMs, not_before AS notBeforeMs,
    revoked_at AS revokedAtMs, digest, previous_digest AS previousDigest, grace_until AS graceUntilMs,
    foreign_until AS foreignUntilMs, rotations
  FROM bearer_sqlite_tokens`;

/**
 * Prepares the statements. The types of the rows are not checked again at run time: the tables are STRICT, and
 * what is read wrong from a damaged file is an error of SQLite or of the comparison, never an acceptance.
 */
export function openTokensTable(
  database: Database,
  strategy: string,
  mustBeSameFile: () => void = () => {},
): TokensTable {
  const statements = prepareAll(database);
  const pages = openPages(database, strategy);
  const immediate = database.transaction((work: () => unknown) => work()).immediate;
  return {
    byId: (id) => statements.byId.get(id, strategy),
    byForeignDigest: (digest) => statements.byForeignDigest.get(strategy, digest),
    mustBeSameFile,
    version() {
      mustBeSameFile();
      const row = statements.version.get();
      if (row === null) throw new Error("the database does not say its version");
      return row.data_version;
    },
    record(id) {
      const row = statements.record.get(id, strategy);
      return row === null ? null : toRecord(row);
    },
    liveIdsByName: (name) => statements.liveIdsByName.all(strategy, name).map((row) => row.id),
    records: () => statements.records.all(strategy).map(toRecord),
    recordsOf: (owner) => statements.recordsOf.all(strategy, owner).map(toRecord),
    page: pages.page,
    insert: (token) => insert(statements.insert, strategy, token),
    rotate(id, digest, graceUntilMs) {
      statements.rotate.run(digest, graceUntilMs, id, strategy);
    },
    digests: (id) => statements.digests.get(id, strategy),
    revokedIds: (nowMs) => statements.revokedIds.all(strategy, nowMs),
    revoke(id, atMs, reason) {
      statements.revoke.run(atMs, reason, id, strategy);
    },
    touch(id, atMs) {
      statements.touch.run(id, atMs);
    },
    hasPepperProof: () => statements.pepper.get() !== null,
    pepperProof(proof) {
      const known = statements.pepper.get();
      if (known !== null) return known.proof;
      statements.keepPepper.run(proof);
      return statements.pepper.get()?.proof ?? proof;
    },
    transaction: <T>(work: () => T) => immediate(work) as T,
    withoutWaiting: (work) => withoutWaiting(database, work),
    close() {
      for (const statement of Object.values(statements)) statement.finalize();
      pages.close();
    },
  };
}

function prepareAll(database: Database) {
  return {
    byId: database.prepare<StoredToken, [string, string]>(
      `${STORED} WHERE id = ? AND strategy = ?`,
    ),
    byForeignDigest: database.prepare<StoredToken, [string, Uint8Array]>(
      `${STORED} WHERE strategy = ? AND foreign_digest = ?`,
    ),
    version: database.prepare<{ data_version: number }, []>("PRAGMA data_version"),
    record: database.prepare<RecordRow, [string, string]>(
      `${RECORD} WHERE t.id = ? AND t.strategy = ?`,
    ),
    liveIdsByName: database.prepare<{ id: string }, [string, string]>(
      `SELECT id FROM bearer_sqlite_tokens WHERE strategy = ? AND name = ? AND revoked_at IS NULL
       ORDER BY created_at, id LIMIT 20`,
    ),
    records: database.prepare<RecordRow, [string]>(
      `${RECORD} WHERE t.strategy = ? ORDER BY t.created_at DESC, t.id`,
    ),
    recordsOf: database.prepare<RecordRow, [string, string]>(
      `${RECORD} WHERE t.strategy = ? AND t.owner = ? ORDER BY t.created_at DESC, t.id`,
    ),
    insert: database.prepare<null, InsertValues>(
      `INSERT INTO bearer_sqlite_tokens (id, strategy, name, owner, role, scopes, digest, foreign_digest,
         created_at, created_by, not_before, expires_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
    ),
    // An imported token is the previous secret of the first rotation only; the second one ends it.
    rotate: database.prepare<null, [Uint8Array, number | null, string, string]>(
      `UPDATE bearer_sqlite_tokens SET
         previous_digest = iif(?2 IS NULL, NULL, digest),
         foreign_until = iif(foreign_digest IS NULL, NULL, iif(digest IS NULL, ifnull(?2, 0), 0)),
         digest = ?1, grace_until = ?2, rotations = rotations + 1
       WHERE id = ?3 AND strategy = ?4`,
    ),
    digests: database.prepare<Digests, [string, string]>(
      `SELECT digest, previous_digest AS previousDigest, foreign_digest AS foreignDigest,
         expires_at AS expiresAtMs
       FROM bearer_sqlite_tokens WHERE id = ? AND strategy = ?`,
    ),
    revokedIds: database.prepare<{ id: string; expiresAtMs: number | null }, [string, number]>(
      `SELECT id, expires_at AS expiresAtMs FROM bearer_sqlite_tokens
       WHERE strategy = ? AND revoked_at IS NOT NULL AND (expires_at IS NULL OR expires_at > ?)`,
    ),
    revoke: database.prepare<null, [number, string, string, string]>(
      `UPDATE bearer_sqlite_tokens SET revoked_at = ?, revoked_reason = nullif(?, '')
       WHERE id = ? AND strategy = ? AND revoked_at IS NULL`,
    ),
    touch: database.prepare<null, [string, number]>(
      `INSERT INTO bearer_sqlite_last_used (id, at) VALUES (?, ?)
       ON CONFLICT (id) DO UPDATE SET at = max(at, excluded.at)`,
    ),
    pepper: database.prepare<{ proof: Uint8Array }, []>(
      "SELECT proof FROM bearer_sqlite_pepper WHERE one = 1",
    ),
    keepPepper: database.prepare<null, [Uint8Array]>(
      "INSERT OR IGNORE INTO bearer_sqlite_pepper (one, proof) VALUES (1, ?)",
    ),
  };
}

type InsertValues = (string | number | Uint8Array | null)[];

function insert(
  statement: ReturnType<typeof prepareAll>["insert"],
  strategy: string,
  token: NewToken,
): void {
  statement.run(
    token.id,
    strategy,
    token.name,
    token.owner,
    token.role,
    token.scopes.join(" "),
    token.digest,
    token.foreignDigest,
    token.createdAtMs,
    token.createdBy,
    token.notBeforeMs,
    token.expiresAtMs,
  );
}

/**
 * For writes that nobody waits for. The settings belong to the connection, which others share, so they are put
 * back whatever happens. A commit may then be lost in a power cut, but never half of it.
 */
function withoutWaiting<T>(database: Database, work: () => T): T {
  const timeoutMs = setting(database, "PRAGMA busy_timeout");
  const synchronous = setting(database, "PRAGMA synchronous");
  try {
    database.run("PRAGMA busy_timeout = 0");
    database.run("PRAGMA synchronous = NORMAL");
    return work();
  } finally {
    database.run(`PRAGMA busy_timeout = ${timeoutMs}`);
    database.run(`PRAGMA synchronous = ${synchronous}`);
  }
}

function setting(database: Database, pragma: string): number {
  const statement = database.prepare(pragma);
  try {
    return Number(statement.values()[0]?.[0]);
  } finally {
    statement.finalize();
  }
}
