/**
 * The two tables that members can live in, and every statement about them.
 *
 * Invariant: both have the columns of routstrd's `routstr_auth_npubs` with the same meaning (`created_at` in
 * seconds); ours adds the strategy's name, so that two instances do not share members. Values are always bound.
 */
import type { Database } from "bun:sqlite";
import type { MemberRecord, Migration, Role } from "gatehouse";

/** Steps of the namespace `nip98` in the state database. */
export const MIGRATIONS: readonly Migration[] = [
  {
    name: "001_members_and_replay",
    sql: `
      CREATE TABLE nip98_members (
        strategy TEXT NOT NULL,
        pubkey TEXT NOT NULL,
        npub TEXT NOT NULL,
        created_at INTEGER NOT NULL,
        created_by TEXT,
        source TEXT NOT NULL,
        role TEXT NOT NULL CHECK (role IN ('admin', 'user')),
        name TEXT,
        PRIMARY KEY (strategy, pubkey)
      ) STRICT, WITHOUT ROWID;
      CREATE TABLE nip98_admin_seen (
        strategy TEXT PRIMARY KEY,
        seen_at INTEGER NOT NULL
      ) STRICT, WITHOUT ROWID;
      CREATE TABLE nip98_replay (
        created_at INTEGER NOT NULL,
        key BLOB NOT NULL,
        expires_at INTEGER NOT NULL,
        PRIMARY KEY (created_at, key)
      ) STRICT, WITHOUT ROWID;`,
  },
  // Used proofs are in the state that replicas share.
  { name: "002_replay_moved", sql: "DROP TABLE nip98_replay" },
];

/** What decides about a request. */
export interface Member {
  readonly npub: string;
  readonly name: string | null;
  readonly role: Role;
}

/** A row to be written; the key is 64 lower-case hex digits. */
export interface NewMember extends Member {
  readonly pubkey: string;
  readonly createdAtMs: number;
  readonly createdBy: string | null;
  /** As the table spells it. */
  readonly source: string;
}

/** Statements over one table. Each may throw what SQLite throws. */
export interface MembersTable {
  /** On the way of every request. */
  find(pubkey: string): Member | null;
  record(pubkey: string): MemberRecord | null;
  /** Oldest first, then by npub. */
  list(): readonly MemberRecord[];
  count(): number;
  countAdmins(): number;
  insert(member: NewMember): void;
  setRole(pubkey: string, role: Role): void;
  setName(pubkey: string, name: string | null): void;
  /** Whether there was one. */
  remove(pubkey: string): boolean;
  /** Idempotent. */
  close(): void;
}

/** Which table, and whose rows of it. */
export interface TableChoice {
  readonly table: "nip98_members" | "routstr_auth_npubs";
  readonly strategy: string;
}

type Row = {
  pubkey: string;
  npub: string;
  name: string | null;
  role: string;
  createdAt: number;
  createdBy: string | null;
  source: string;
};

/** Prepares every statement once. @throws when the table is not there */
export function openMembersTable(database: Database, choice: TableChoice): MembersTable {
  const statements = prepareAll(database, choice);
  const { strategy } = choice;
  return {
    find(pubkey) {
      const row = statements.find.get(strategy, pubkey);
      return row === null ? null : { npub: row.npub, name: row.name, role: roleOf(row.role) };
    },
    record(pubkey) {
      const row = statements.record.get(strategy, pubkey);
      return row === null ? null : toRecord(row);
    },
    list: () => statements.list.all(strategy).map(toRecord),
    count: () => statements.count.get(strategy)?.count ?? 0,
    countAdmins: () => statements.countAdmins.get(strategy)?.count ?? 0,
    insert(member) {
      statements.insert.run(
        strategy,
        member.pubkey,
        member.npub,
        Math.floor(member.createdAtMs / 1000),
        member.createdBy,
        member.source,
        member.role,
        member.name,
      );
    },
    setRole: (pubkey, role) => void statements.setRole.run(strategy, pubkey, role),
    setName: (pubkey, name) => void statements.setName.run(strategy, pubkey, name),
    remove: (pubkey) => statements.remove.run(strategy, pubkey).changes > 0,
    close() {
      for (const statement of Object.values(statements)) statement.finalize();
    },
  };
}

function prepareAll(database: Database, { table }: TableChoice) {
  const isOurs = table === "nip98_members";
  // The daemon's table has no strategy; the parameter is bound all the same.
  const mine = isOurs ? "strategy = ?1" : "?1 = ?1";
  const columns = `pubkey, npub, name, role, created_at AS createdAt, created_by AS createdBy, source`;
  const into = `${isOurs ? "strategy, " : ""}pubkey, npub, created_at, created_by, source, role, name`;
  type Values = [string, string, string, number, string | null, string, string, string | null];
  return {
    find: database.prepare<Pick<Row, "npub" | "name" | "role">, [string, string]>(
      `SELECT npub, name, role FROM ${table} WHERE ${mine} AND pubkey = ?2`,
    ),
    record: database.prepare<Row, [string, string]>(
      `SELECT ${columns} FROM ${table} WHERE ${mine} AND pubkey = ?2`,
    ),
    list: database.prepare<Row, [string]>(
      `SELECT ${columns} FROM ${table} WHERE ${mine} ORDER BY created_at, npub`,
    ),
    count: database.prepare<{ count: number }, [string]>(
      `SELECT count(*) AS count FROM ${table} WHERE ${mine}`,
    ),
    countAdmins: database.prepare<{ count: number }, [string]>(
      `SELECT count(*) AS count FROM ${table} WHERE ${mine} AND role = 'admin'`,
    ),
    insert: database.prepare<null, Values>(
      `INSERT INTO ${table} (${into})
       SELECT ${isOurs ? "?1, " : ""}?2, ?3, ?4, ?5, ?6, ?7, ?8 WHERE ?1 IS NOT NULL`,
    ),
    setRole: database.prepare<null, [string, string, string]>(
      `UPDATE ${table} SET role = ?3 WHERE ${mine} AND pubkey = ?2`,
    ),
    setName: database.prepare<null, [string, string, string | null]>(
      `UPDATE ${table} SET name = ?3 WHERE ${mine} AND pubkey = ?2`,
    ),
    remove: database.prepare<null, [string, string]>(
      `DELETE FROM ${table} WHERE ${mine} AND pubkey = ?2`,
    ),
  };
}

function toRecord(row: Row): MemberRecord {
  const { createdAt, role, source, ...rest } = row;
  // The daemon's word for what comes from the configuration.
  const from = source === "env" ? "config" : source;
  return { ...rest, role: roleOf(role), source: from, createdAtMs: createdAt * 1000 };
}

/** Whatever else another program writes there is not an admin. */
function roleOf(text: string): Role {
  return text === "admin" ? "admin" : "user";
}
