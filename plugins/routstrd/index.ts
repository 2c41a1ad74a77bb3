/**
 * routstrd: the keys of the routstrd daemon's clients, as they are in the daemon's own SQLite file, with the
 * endpoints that its command line asks for clients and usage.
 *
 * Invariant: nothing is ever written to the daemon's file; changes go through the daemon. What the daemon has
 * committed holds on the next request, and a file that cannot be asked is a fault (503), never "unknown key".
 */
import { statSync } from "node:fs";
import { resolve } from "node:path";
import {
  ABSENT,
  type AuthRequest,
  definePlugin,
  type FoundCredential,
  type Host,
  type Identity,
  type Outcome,
  readCredential,
  type StrategyInstance,
  z,
} from "gatehouse";
import { clientsSurface } from "./clients-surface.ts";
import { openStore, type Snapshot, type Store } from "./store.ts";
import { usageSurface } from "./usage-surface.ts";
import { judgeClient } from "./verify.ts";

const config = () =>
  z.strictObject({
    database: z
      .string()
      .min(1)
      .describe(
        "Path of the daemon's routstr.db, relative to the config file. The daemon creates it; it is only read.",
      ),
    header: z
      .string()
      .regex(/^[A-Za-z0-9-]{1,100}$/, { error: "expected a header name (letters, digits and -)" })
      .refine((name) => name.toLowerCase() !== "authorization", {
        error: "Authorization is always read; name another header or null",
      })
      .nullable()
      .default(null)
      .describe(
        "Header that is read when Authorization is absent or empty; null for none. Default null.",
      ),
    end_with_owner: z
      .boolean()
      .default(true)
      .describe(
        "Refuse the keys of a client whose owner is not registered in the file's table of npubs (not checked while there is no such table). Default true.",
      ),
  });

type Settings = z.infer<ReturnType<typeof config>>;

/** What the way of a request needs. */
interface Parts {
  readonly store: Store;
  readonly endWithOwner: boolean;
}

export default definePlugin({
  name: "routstrd",
  contract: 1,
  offers: { tokens: false, surfaces: ["clients", "usage"] },
  config,
  questions: [
    { id: "database", kind: "text", message: "Where is routstrd's database (routstr.db)?" },
  ],
  check(settings, surroundings) {
    const problem = fileProblem(resolve(surroundings.configDir, settings.database));
    return problem === null ? [] : [problem];
  },
  init(settings, host) {
    const path = resolve(host.configDir, settings.database);
    const problem = fileProblem(path);
    if (problem !== null) throw new Error(problem);
    return start(settings, host, path);
  },
});

function start(settings: Settings, host: Host, path: string): StrategyInstance {
  const store = openStore({ path, log: host.log });
  const parts: Parts = { store, endWithOwner: settings.end_with_owner };
  const header = settings.header?.toLowerCase();
  const sources = header === undefined ? {} : { header };
  // Reads once, so that the log says at the start what is wrong. A daemon that is still starting is no reason to
  // stay away: until it is there every key gets a 503.
  store.health();
  return {
    authenticate: (request: AuthRequest) => authenticate(parts, readCredential(request, sources)),
    challenges: () => [{ scheme: "Bearer" }],
    credentialHeaders: header === undefined ? ["authorization"] : ["authorization", header],
    isCurrent: (identity) => isCurrent(parts, identity),
    isKeptOnReload: true,
    models: () => store.models(),
    surfaces: [clientsSurface(store), usageSurface()],
    health: () => store.health(),
    close: () => store.close(),
  };
}

function authenticate(parts: Parts, credential: FoundCredential): Outcome | Promise<Outcome> {
  if (credential.found === "none") return ABSENT;
  if (credential.found === "malformed")
    return { outcome: "reject", reason: "malformed_credential" };
  if (credential.found === "ambiguous")
    return { outcome: "reject", reason: "ambiguous_credential" };
  const { value } = credential;
  const snapshot = parts.store.snapshot();
  return snapshot instanceof Promise
    ? snapshot.then((late) => judge(parts, late, value))
    : judge(parts, snapshot, value);
}

function judge(parts: Parts, snapshot: Snapshot, credential: string): Outcome {
  return judgeClient(snapshot.clients.find(credential), checkedMembers(parts, snapshot));
}

function isCurrent(parts: Parts, identity: Identity): boolean | Promise<boolean> {
  const still = (snapshot: Snapshot): boolean => {
    const client = snapshot.clients.findAgain(identity);
    return judgeClient(client, checkedMembers(parts, snapshot)).outcome === "accept";
  };
  const snapshot = parts.store.snapshot();
  return snapshot instanceof Promise ? snapshot.then(still) : still(snapshot);
}

function checkedMembers(parts: Parts, snapshot: Snapshot): ReadonlySet<string> | null {
  return parts.endWithOwner ? snapshot.members : null;
}

/** Looked at, not opened: see database.ts. */
function fileProblem(path: string): string | null {
  try {
    return statSync(path).isFile() ? null : `database ${path} is not a regular file`;
  } catch (error) {
    const code = error instanceof Error && "code" in error ? error.code : "error";
    return code === "ENOENT"
      ? `database ${path} does not exist; start routstrd once, it creates the file`
      : `database ${path} cannot be read (${code})`;
  }
}
