/**
 * The strategy `bearer-sqlite`: bearer tokens that Gatehouse itself makes or imports, in its state database.
 *
 * Invariant: what any process committed holds on the very next request. A row is taken from memory only after the
 * database has said that nothing was committed since it was read (fresh-rows.ts).
 */

import { timingSafeEqual } from "node:crypto";
import {
  ABSENT,
  type AuthRequest,
  type Challenge,
  type Condition,
  definePlugin,
  type FoundCredential,
  type Host,
  type Identity,
  type Outcome,
  parseDuration,
  readCredential,
  type StrategyInstance,
  UNKNOWN,
  z,
} from "gatehouse";
import { type FreshRows, freshRows } from "./fresh-rows.ts";
import { openKeeper } from "./keeper.ts";
import { type LastUsed, openLastUsed } from "./last-used.ts";
import { type Replicas, replicasOf } from "./replicas.ts";
import { PREFIX, type TokenForm, tokenForm } from "./token.ts";
import { MIGRATIONS, openTokensTable, type TokensTable } from "./tokens-table.ts";
import { isStillGood, judgeForeign, judgeOwn } from "./verify.ts";

const MIN_INTERVAL_MS = 1000;

const settingsShape = () =>
  z.strictObject({
    prefix: z
      .string()
      .regex(PREFIX, { error: "expected 2 to 10 of a-z and 0-9, a letter first" })
      .default("gate")
      .describe(
        "First part of new tokens, so that people and secret scanners know them. Default gate.",
      ),
    header: z
      .string()
      .regex(/^[A-Za-z0-9-]{1,100}$/, { error: "expected a header name (letters, digits and -)" })
      .refine((name) => name.toLowerCase() !== "authorization", {
        error: "Authorization is always read; name another header or null",
      })
      .nullable()
      .default("x-api-key")
      .describe(
        "Header that is read when Authorization is absent or empty; null for none. Default x-api-key.",
      ),
    basic: z
      .boolean()
      .default(false)
      .describe("Accept Basic with the token as password, for git-like tools. Default false."),
    authorization: z
      .boolean()
      .default(true)
      .describe(
        "Read Authorization. false where that header is the upstream's own: it then passes untouched and only `header` is read. Default true.",
      ),
    last_used_interval: z
      .string()
      .refine((text) => (parseDuration(text) ?? 0) >= MIN_INTERVAL_MS, {
        error: "expected a duration of at least 1s, such as 30s",
      })
      .default("30s")
      .describe("How often the times of last use are written, at least 1s. Default 30s."),
  });

const config = () =>
  settingsShape().superRefine((settings, issues) => {
    if (settings.authorization) return;
    const say = (key: string, message: string): void =>
      issues.addIssue({ code: "custom", path: [key], message });
    if (settings.header === null) say("header", "without Authorization a header must be named");
    if (settings.basic) say("basic", "Basic is in Authorization, which is not read");
  });

type Settings = z.infer<ReturnType<typeof config>>;

/** What the way of a request needs. */
interface Parts {
  readonly rows: FreshRows;
  readonly form: TokenForm;
  readonly digest: (token: string) => Uint8Array;
  readonly lastUsed: LastUsed;
  readonly host: Host;
  /** `null` when there are none. */
  readonly replicas: Replicas | null;
}

export default definePlugin({
  name: "bearer-sqlite",
  contract: 1,
  offers: { tokens: true, surfaces: [] },
  migrations: { bearer_sqlite: MIGRATIONS },
  config,
  init(settings, host) {
    const database = host.database("bearer_sqlite", MIGRATIONS);
    const table = openTokensTable(database, host.strategy, host.checkDatabase);
    try {
      return start(settings, host, table);
    } catch (error) {
      table.close();
      throw error;
    }
  },
});

function start(
  settings: Settings,
  host: Host,
  table: TokensTable,
): StrategyInstance | Promise<StrategyInstance> {
  // A new one beside old tokens would be wrong, and a restored one would then find its place taken.
  const pepper = host.key("pepper", { isMade: !table.hasPepperProof() });
  if (pepper === null) throw new Error(LOST_PEPPER);
  const digest = keyedHash(pepper);
  checkPepper(table, digest);
  const form = tokenForm(settings.prefix);
  const { clock, log } = host;
  const intervalMs = parseDuration(settings.last_used_interval) ?? MIN_INTERVAL_MS;
  const lastUsed = openLastUsed({ table, clock, log, intervalMs });
  const rows = freshRows(table);
  const replicas = replicasOf(host.shared, log);
  const parts: Parts = { rows, form, digest, lastUsed, host, replicas };
  const header = settings.header?.toLowerCase();
  const { basic, authorization } = settings;
  const sources = { basic, authorization, ...(header === undefined ? {} : { header }) };
  const instance: StrategyInstance = {
    authenticate: (request: AuthRequest) => authenticate(parts, readCredential(request, sources)),
    challenges: () => (authorization ? challenges(basic) : []),
    credentialHeaders: [
      ...(authorization ? ["authorization"] : []),
      ...(header === undefined ? [] : [header]),
    ],
    isCurrent: (identity) => isCurrent(parts, identity),
    isKeptOnReload: true,
    tokens: openKeeper({ table, form, clock, lastUsed, digest, changed: rows.drop, replicas }),
    health: () => [...fileHealth(table), ...lastUsedHealth(lastUsed), ...host.shared.health()],
    close() {
      lastUsed.close();
      table.close();
    },
  };
  if (replicas === null || host.purpose === "command") return instance;
  return replicas.tellAll(table, clock.nowMs()).then(() => instance);
}

function authenticate(parts: Parts, credential: FoundCredential): Outcome | Promise<Outcome> {
  if (credential.found === "none") return ABSENT;
  if (credential.found === "malformed")
    return { outcome: "reject", reason: "malformed_credential" };
  if (credential.found === "ambiguous")
    return { outcome: "reject", reason: "ambiguous_credential" };
  const nowMs = parts.host.clock.nowMs();
  const outcome = judgeToken(parts, credential.value, nowMs);
  if (outcome.outcome !== "accept" || parts.replicas === null) return noted(parts, outcome, nowMs);
  const judged = parts.replicas.judge(outcome, parts.digest(credential.value));
  if (judged instanceof Promise) return judged.then((final) => noted(parts, final, nowMs));
  return noted(parts, judged, nowMs);
}

function noted(parts: Parts, outcome: Outcome, nowMs: number): Outcome {
  if (outcome.outcome === "accept") parts.lastUsed.note(outcome.identity.id, nowMs);
  return outcome;
}

function judgeToken(parts: Parts, value: string, nowMs: number): Outcome {
  const read = parts.form.read(value);
  if (read.form === "broken") return { outcome: "reject", reason: "invalid_token" };
  if (read.form === "foreign") {
    const token = parts.rows.byForeignDigest(parts.digest(value));
    return token === null ? UNKNOWN : judgeForeign(token, nowMs);
  }
  const token = parts.rows.byId(read.id);
  // Well formed but not held here: another strategy or gateway may have made it.
  return token === null ? UNKNOWN : judgeOwn(token, parts.digest(value), nowMs);
}

function isCurrent(parts: Parts, identity: Identity): boolean | Promise<boolean> {
  const token = parts.rows.byId(identity.id);
  if (token === null || !isStillGood(token, identity, parts.host.clock.nowMs())) return false;
  return parts.replicas === null || parts.replicas.isGood(identity);
}

function challenges(basic: boolean): readonly Challenge[] {
  const bearer: Challenge = { scheme: "Bearer" };
  return basic ? [bearer, { scheme: "Basic", parameters: { charset: "UTF-8" } }] : [bearer];
}

function fileHealth(table: TokensTable): readonly Condition[] {
  try {
    table.mustBeSameFile();
    return [];
  } catch (error) {
    const text = error instanceof Error ? error.message : String(error);
    return [{ code: "database_replaced", severity: "error", text }];
  }
}

function lastUsedHealth(lastUsed: LastUsed): readonly Condition[] {
  if (!lastUsed.isFailing()) return [];
  return [
    {
      code: "last_used_not_written",
      severity: "warning",
      text: "The times of last use cannot be written to the state database; they are kept in memory.",
    },
  ];
}

/** HMAC-SHA256 under the pepper. The keyed state is copied for each token, which saves half of the work. */
function keyedHash(pepper: Uint8Array): (token: string) => Uint8Array {
  const keyed = new Bun.CryptoHasher("sha256", pepper);
  return (token) => keyed.copy().update(token).digest();
}

const LOST_PEPPER =
  "the tokens in the state database were made with another pepper: restore pepper.key from the backup of this database";

/**
 * A lost pepper would turn every token into a wrong one, one request at a time. The hash of a text that can be no
 * token (it has spaces) is kept beside the tokens and tells at the start.
 */
function checkPepper(table: TokensTable, digest: (token: string) => Uint8Array): void {
  const proof = digest("proof of the pepper");
  if (timingSafeEqual(table.pepperProof(proof), proof)) return;
  throw new Error(LOST_PEPPER);
}
