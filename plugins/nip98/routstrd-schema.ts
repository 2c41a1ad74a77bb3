/**
 * Brings the member table of a routstrd file to its newest shape, from any earlier one.
 *
 * Invariant: one transaction or nothing, nothing at all when there is nothing to do, and no row of the old table is
 * dropped that the new one does not hold.
 */
import type { Database } from "bun:sqlite";
import type { Log } from "gatehouse";

const CREATE = `
  CREATE TABLE IF NOT EXISTS routstr_auth_npubs (
    pubkey TEXT PRIMARY KEY,
    npub TEXT NOT NULL UNIQUE,
    created_at INTEGER NOT NULL,
    created_by TEXT,
    source TEXT NOT NULL DEFAULT 'api',
    role TEXT NOT NULL DEFAULT 'admin' CHECK (role IN ('admin', 'user')),
    name TEXT
  )`;

/** Whoever is registered as a user already stays one. */
const COPY = `
  INSERT OR IGNORE INTO routstr_auth_npubs (pubkey, npub, created_at, created_by, source, role)
  SELECT pubkey, npub, created_at, created_by, source, 'admin' FROM routstr_auth_admins`;

const LEFT = `
  SELECT count(*) AS count FROM routstr_auth_admins
  WHERE pubkey IS NULL OR pubkey NOT IN (SELECT pubkey FROM routstr_auth_npubs)`;

/** @throws what SQLite throws, with its code */
export function migrateRoutstrd(database: Database, log: Log): void {
  if (isCurrent(database)) return;
  const migrate = database.transaction(() => {
    // Another process may have been faster.
    if (isCurrent(database)) return;
    database.run(CREATE);
    if (!columns(database, "routstr_auth_npubs").includes("name")) {
      database.run("ALTER TABLE routstr_auth_npubs ADD COLUMN name TEXT");
    }
    if (columns(database, "routstr_auth_admins").length > 0) takeOverAdmins(database, log);
  });
  migrate.immediate();
}

function takeOverAdmins(database: Database, log: Log): void {
  database.run(COPY);
  const left = Number(values(database, LEFT)[0]?.[0] ?? 0);
  if (left === 0) database.run("DROP TABLE routstr_auth_admins");
  else log.warn("nip98.old_admins_kept", { table: "routstr_auth_admins", rows: left });
}

function isCurrent(database: Database): boolean {
  return (
    columns(database, "routstr_auth_npubs").includes("name") &&
    columns(database, "routstr_auth_admins").length === 0
  );
}

/** Empty when there is no such table. */
function columns(database: Database, table: string): readonly string[] {
  return values(database, `PRAGMA table_info(${table})`).map((row) => String(row[1]));
}

function values(database: Database, sql: string): readonly (readonly unknown[])[] {
  const statement = database.prepare(sql);
  try {
    return statement.values();
  } finally {
    statement.finalize();
  }
}
