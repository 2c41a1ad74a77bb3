/**
 * A stand-in for the routstrd daemon, which is somebody else's program: a process that owns the SQLite file and
 * does to it what it is told, and the two HTTP answers about clients. For tests only.
 *
 * Invariant: it writes the file through connections of its own and shares nothing with the plugin but the file.
 */
import { Database } from "bun:sqlite";
import { randomBytes } from "node:crypto";

/** A client as the daemon stores it. */
export interface StoredClient {
  readonly clientId: string;
  readonly name: string;
  readonly apiKey: string;
  readonly createdAt: number;
  readonly lastUsed?: number | null;
  readonly ownerNpub?: string;
}

/** What the process can be told; it answers when it has been done. */
export type Order =
  | { readonly do: "add"; readonly clients: readonly StoredClient[] }
  | { readonly do: "remove"; readonly clientId: string }
  | { readonly do: "store"; readonly key: string; readonly value: string }
  | { readonly do: "sql"; readonly sql: string }
  /** Holds the file alone for `ms`, then commits. Answers when the lock is held. */
  | { readonly do: "lock"; readonly ms: number; readonly sql?: string };

/** A daemon in a process of its own. */
export interface DaemonProcess {
  order(order: Order): Promise<void>;
  /** By process id; waits for the end. */
  stop(): Promise<void>;
}

/** Journal modes that the daemon may use. */
export type JournalMode = "wal" | "delete";

/** A key as the daemon makes them. */
export function newKey(): string {
  return `sk-${randomBytes(24).toString("hex")}`;
}

/** A complete client; what is not said is made up. */
export function storedClient(fields: Partial<StoredClient> = {}): StoredClient {
  const clientId = fields.clientId ?? `client-${randomBytes(4).toString("hex")}`;
  return { clientId, name: clientId, apiKey: newKey(), createdAt: 1_767_000_000_000, ...fields };
}

/** Creates the file as the daemon does, in this process, and closes it. */
export function createDatabase(
  path: string,
  { clients, mode = "wal" }: { clients?: readonly StoredClient[]; mode?: JournalMode } = {},
): void {
  const database = openAsDaemon(path, mode);
  if (clients !== undefined) write(database, "client_ids", JSON.stringify(clients));
  database.close();
}

/** Creates the file and keeps it open in another process. */
export async function startDaemon(path: string, mode: JournalMode = "wal"): Promise<DaemonProcess> {
  const child = Bun.spawn([process.execPath, import.meta.path, path, mode], {
    stdin: "pipe",
    stdout: "pipe",
    stderr: "inherit",
  });
  const answers = linesOf(child.stdout);
  const answered = async () => {
    const { value } = await answers.next();
    if (value !== "done") throw new Error(`the daemon said ${value ?? "nothing"}`);
  };
  await answered();
  return {
    async order(order) {
      child.stdin.write(`${JSON.stringify(order)}\n`);
      await child.stdin.flush();
      await answered();
    },
    async stop() {
      child.kill("SIGKILL");
      await child.exited;
    },
  };
}

/** Every row of every table, to see that none was lost or changed. */
export function everyRow(path: string): string {
  const database = new Database(path, { readonly: true });
  try {
    const tables = database
      .prepare<{ name: string; sql: string }, []>(
        "SELECT name, sql FROM sqlite_schema WHERE type = 'table' ORDER BY name",
      )
      .all();
    const rows = tables.map(({ name }) => database.prepare(`SELECT * FROM "${name}"`).all());
    const mode = database.prepare("PRAGMA journal_mode").get();
    return JSON.stringify([tables, rows, mode]);
  } finally {
    database.close();
  }
}

/** The daemon's answers to `/clients/add` and `/clients/delete`, and an echo for everything else. */
export function daemonServer(path: string): {
  readonly requests: readonly { readonly request: Request; readonly body: string }[];
  upstream(request: Request): Promise<Response>;
  stop(): void;
} {
  const requests: { request: Request; body: string }[] = [];
  const database = openAsDaemon(path, "wal");
  const server: Bun.Server<undefined> = Bun.serve({
    port: 0,
    hostname: "127.0.0.1",
    async fetch(request): Promise<Response> {
      const body = await request.text();
      requests.push({ request, body });
      const { pathname, search } = new URL(request.url);
      if (pathname === "/clients/add") return addClient(database, JSON.parse(body));
      if (pathname === "/clients/delete") return deleteClient(database, JSON.parse(body));
      return Response.json({ output: [], asked: pathname + search });
    },
  });
  return {
    requests,
    upstream(request) {
      const { pathname, search } = new URL(request.url);
      return fetch(new URL(pathname + search, server.url).href, {
        method: request.method,
        headers: request.headers,
        body: request.body,
      });
    },
    stop() {
      server.stop(true);
      database.close();
    },
  };
}

function addClient(
  database: Database,
  { id, name, ownerNpub }: { id: string; name: string; ownerNpub?: string },
): Response {
  const clients = readClients(database);
  if (clients.some(({ clientId }) => clientId === id)) {
    return Response.json({ error: `Client "${id}" already exists` }, { status: 409 });
  }
  const owner = ownerNpub === undefined ? {} : { ownerNpub };
  const client = storedClient({ clientId: id, name, ...owner });
  write(database, "client_ids", JSON.stringify([...clients, client]));
  const { clientId: _, ...shown } = client;
  return Response.json({ output: { message: `Client ${name} added`, client: { id, ...shown } } });
}

function deleteClient(database: Database, { id }: { id: string }): Response {
  const clients = readClients(database);
  const left = clients.filter(({ clientId }) => clientId !== id);
  if (left.length === clients.length) {
    return Response.json({ error: "Client not found" }, { status: 404 });
  }
  write(database, "client_ids", JSON.stringify(left));
  return Response.json({ output: { message: "Client deleted", id } });
}

function openAsDaemon(path: string, mode: JournalMode): Database {
  const database = new Database(path);
  database.run("PRAGMA busy_timeout = 5000");
  // Only the power could fail, and the tests do not pull it.
  database.run("PRAGMA synchronous = OFF");
  database.run(`PRAGMA journal_mode = ${mode}`);
  database.run("CREATE TABLE IF NOT EXISTS sdk_storage (key TEXT PRIMARY KEY, value TEXT)");
  database.run(
    "CREATE TABLE IF NOT EXISTS usage_tracking (id TEXT PRIMARY KEY, timestamp INTEGER, client TEXT)",
  );
  database.run("INSERT OR IGNORE INTO usage_tracking VALUES ('first', 1, 'somebody')");
  return database;
}

function readClients(database: Database): readonly StoredClient[] {
  const row = database
    .query<{ value: string }, []>("SELECT value FROM sdk_storage WHERE key = 'client_ids'")
    .get();
  return row === null ? [] : JSON.parse(row.value);
}

function write(database: Database, key: string, value: string): void {
  database.run("INSERT OR REPLACE INTO sdk_storage VALUES (?, ?)", [key, value]);
}

async function* linesOf(stream: ReadableStream<Uint8Array>): AsyncGenerator<string, undefined> {
  let rest = "";
  const decoder = new TextDecoder();
  for await (const chunk of stream) {
    rest += decoder.decode(chunk, { stream: true });
    const lines = rest.split("\n");
    rest = lines.pop() ?? "";
    yield* lines;
  }
  return undefined;
}

async function obey(database: Database, order: Order, done: () => void): Promise<void> {
  switch (order.do) {
    case "add":
      return write(
        database,
        "client_ids",
        JSON.stringify([...readClients(database), ...order.clients]),
      );
    case "remove": {
      const left = readClients(database).filter(({ clientId }) => clientId !== order.clientId);
      return write(database, "client_ids", JSON.stringify(left));
    }
    case "store":
      return write(database, order.key, order.value);
    case "sql":
      return void database.run(order.sql);
    case "lock":
      database.run("BEGIN EXCLUSIVE");
      if (order.sql !== undefined) database.run(order.sql);
      done();
      await Bun.sleep(order.ms);
      return void database.run("COMMIT");
  }
}

if (import.meta.main) {
  const [, , path = "", mode] = Bun.argv;
  const database = openAsDaemon(path, mode === "delete" ? "delete" : "wal");
  const done = () => void process.stdout.write("done\n");
  done();
  for await (const line of linesOf(Bun.stdin.stream())) {
    const order: Order = JSON.parse(line);
    await obey(database, order, done);
    if (order.do !== "lock") done();
  }
}
