/**
 * The history of the schema: which steps a file has been through, in the file itself.
 *
 * Invariant: a step runs once, whole or not at all, whoever else opens the file at the same time; a file with
 * steps that this program does not know is refused, because an older program would misread it.
 */
import type { Database } from "bun:sqlite";
import type { Clock, Migration } from "../contract/host.ts";
import { EXIT, OperatorError } from "../errors.ts";

/** "GATE": tells our file from another program's. */
const APPLICATION_ID = 0x47415445;

/** The gateway's own namespace and its only step: the table of steps itself. */
export const OWN_NAMESPACE = "gatehouse";
export const OWN_STEP = "000_history";

/**
 * Takes a new file into use, or makes sure that an existing one is ours.
 * @throws OperatorError when it is another program's
 */
export function takeIntoUse(database: Database, path: string, clock: Clock): void {
  if (isOurs(database, path)) return;
  database
    .transaction(() => {
      // Asked again under the lock: another process may have been first.
      if (isOurs(database, path)) return;
      database.run(`PRAGMA application_id = ${APPLICATION_ID}`);
      database.run(`CREATE TABLE gatehouse_migrations (
        namespace TEXT NOT NULL,
        position INTEGER NOT NULL,
        name TEXT NOT NULL,
        applied_at INTEGER NOT NULL,
        PRIMARY KEY (namespace, position)
      ) STRICT, WITHOUT ROWID`);
      record(database, { namespace: OWN_NAMESPACE, position: 0, name: OWN_STEP }, clock);
    })
    .immediate();
}

function isOurs(database: Database, path: string): boolean {
  // The tables first: they and the id are committed together, so whoever sees the tables sees the id.
  const isEmpty = firstValue(database, "SELECT count(*) FROM sqlite_schema") === 0;
  const id = firstValue(database, "PRAGMA application_id");
  if (id === APPLICATION_ID) return true;
  if (id === 0 && isEmpty) return false;
  throw new OperatorError(
    EXIT.failure,
    `${path} is the database of another program`,
    "Move it away, or choose another state_dir.",
  );
}

/**
 * Runs the steps of `namespace` that have not been run. Writes nothing when there are none.
 * @throws OperatorError when the file has steps that are not in `migrations`
 * @throws TypeError when the namespace is not a lower-case word or is the gateway's own
 */
export function migrate(
  database: Database,
  clock: Clock,
  namespace: string,
  migrations: readonly Migration[],
): void {
  if (!/^[a-z][a-z0-9_]{0,62}$/.test(namespace) || namespace === OWN_NAMESPACE) {
    throw new TypeError("a namespace is a lower-case word of its own");
  }
  const step = database.transaction(() => {
    const position = nextStep(database, namespace, migrations);
    const migration = migrations[position];
    if (migration === undefined) return;
    database.run(migration.sql);
    record(database, { namespace, position, name: migration.name }, clock);
  });
  // The check before each write transaction keeps a start without news from writing at all.
  while (nextStep(database, namespace, migrations) < migrations.length) step.immediate();
}

/** Position of the first step that is not applied. */
function nextStep(database: Database, namespace: string, migrations: readonly Migration[]): number {
  const statement = database.prepare<{ name: string }, [string]>(
    "SELECT name FROM gatehouse_migrations WHERE namespace = ? ORDER BY position",
  );
  try {
    const applied = statement.all(namespace);
    const strange = applied.find((row, index) => row.name !== migrations[index]?.name);
    if (strange === undefined) return applied.length;
    throw new OperatorError(
      EXIT.failure,
      `the state database was written by a newer version of gatehouse (${namespace}: ${strange.name})`,
      "Run that version, or restore a backup made with this one.",
    );
  } finally {
    statement.finalize();
  }
}

function record(
  database: Database,
  step: { readonly namespace: string; readonly position: number; readonly name: string },
  clock: Clock,
): void {
  database.run(
    "INSERT INTO gatehouse_migrations (namespace, position, name, applied_at) VALUES (?, ?, ?, ?)",
    [step.namespace, step.position, step.name, clock.nowMs()],
  );
}

/** First column of the first row of a statement that is run once; undefined when there is no row. */
export function firstValue(database: Database, sql: string): unknown {
  const statement = database.prepare(sql);
  try {
    return statement.values()[0]?.[0];
  } finally {
    statement.finalize();
  }
}
