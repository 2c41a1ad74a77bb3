/**
 * Puts the parts together: what a request asks, and what the operator is told.
 *
 * Invariant: an answer from memory is given only while the tracking is live, and an answer from Valkey only about the
 * hash that was asked for. Trouble with Valkey is thrown, never turned into an answer about the token.
 */
import {
  ABSENT,
  type AuthRequest,
  type Challenge,
  type Condition,
  type FoundCredential,
  type Host,
  type Identity,
  type Outcome,
  parseDuration,
  type StrategyInstance,
  UNKNOWN,
  type Valkey,
  type ValkeyTracking,
} from "gatehouse";
import { type Answers, type Held, openAnswers } from "./answers.ts";
import { readToken } from "./credential.ts";
import { type Entry, standing } from "./entry.ts";
import { type TokenForm, tokenForm } from "./form.ts";
import { type Hash, type Hasher, keyedHasher, memoryHasher } from "./hash.ts";
import { openKeeper } from "./keeper.ts";
import { type LastUsed, openLastUsed } from "./last-used.ts";
import type { Settings } from "./settings.ts";
import { openStore, type Store, TOKEN_KEY } from "./store.ts";

/** How exact the times of last use are. */
const NOTE_EVERY_MS = 1000;

/** What the way of a request needs. */
interface Parts {
  readonly host: Host;
  readonly valkey: Valkey;
  readonly store: Store;
  readonly form: TokenForm;
  readonly hashers: readonly [Hasher, ...Hasher[]];
  readonly memoryHash: (token: string) => string;
  readonly answers: Answers;
  /** `null` when nothing is kept in memory. */
  readonly tracking: ValkeyTracking | null;
  readonly lastUsed: LastUsed;
}

/** @throws ValkeyError when Valkey cannot be reached or refuses the password */
export async function createStrategy(settings: Settings, host: Host): Promise<StrategyInstance> {
  const { clock, log } = host;
  const valkey = await host.valkey(settings);
  const store = openStore(valkey, clock);
  const intervalMs = parseDuration(settings.last_used_interval) ?? 30_000;
  const lastUsed = openLastUsed({ store, clock, log, intervalMs });
  const answers = openAnswers();
  const parts: Parts = {
    host,
    valkey,
    store,
    form: tokenForm(settings.format, settings.prefix),
    hashers: hashersOf(settings),
    memoryHash: memoryHasher(),
    answers,
    tracking: settings.cache ? track(valkey, answers) : null,
    lastUsed,
  };
  const { basic } = settings;
  const header = settings.header?.toLowerCase();
  const sources = { basic, ...(header === undefined ? {} : { header }) };
  return {
    authenticate: (request: AuthRequest) => authenticate(parts, readToken(request, sources)),
    challenges: () => challenges(basic),
    credentialHeaders: header === undefined ? ["authorization"] : ["authorization", header],
    isCurrent: (identity) => isCurrent(parts, identity),
    // Certificates that are named in settings are read once.
    isKeptOnReload: settings.tls === undefined,
    tokens: openKeeper({ ...parts, clock, ...keeperSide(parts) }),
    health: () => health(parts, settings),
    close: () => close(parts),
  };
}

function hashersOf({ salt, previous_salt }: Settings): readonly [Hasher, ...Hasher[]] {
  return [keyedHasher(salt), ...(previous_salt === undefined ? [] : [keyedHasher(previous_salt)])];
}

function keeperSide({ answers, lastUsed }: Parts) {
  return {
    pending: lastUsed.pending,
    changed(hash: Hash): void {
      answers.drop(hash);
      lastUsed.forget(hash);
    },
  };
}

/** `null` in a cluster. */
function track(valkey: Valkey, answers: Answers): ValkeyTracking | null {
  return valkey.track({
    prefix: TOKEN_KEY,
    onChange(keys) {
      if (keys === null) answers.clear();
      else for (const key of keys) answers.drop(key.slice(TOKEN_KEY.length));
    },
  });
}

function authenticate(parts: Parts, credential: FoundCredential): Outcome | Promise<Outcome> {
  if (credential.found === "none") return ABSENT;
  if (credential.found === "malformed") {
    return { outcome: "reject", reason: "malformed_credential" };
  }
  if (credential.found === "ambiguous") {
    return { outcome: "reject", reason: "ambiguous_credential" };
  }
  const token = credential.value;
  if (parts.form.read(token) === "broken") return { outcome: "reject", reason: "invalid_token" };
  const name = parts.memoryHash(token);
  const held = parts.answers.find(name);
  if (held !== undefined && parts.tracking?.isLive() === true) return judge(parts, held);
  return lookUp(parts, name, hashesOf(parts, token, held));
}

/** Of a token that is held the hash is known, unless it may also lie under that of another salt. */
function hashesOf({ hashers }: Parts, token: string, held: Held | undefined): readonly Hash[] {
  if (held !== undefined && hashers.length === 1) return [held.entry.hash];
  return hashers.map((hasher) => hasher(token));
}

/** Under each salt at once, so that it is one round trip also while salts are rotated. */
async function lookUp(parts: Parts, name: string, hashes: readonly Hash[]): Promise<Outcome> {
  const found = await Promise.all(hashes.map((hash) => readHeld(parts, hash, name)));
  const held = found.find((one) => typeof one !== "string");
  if (held !== undefined) return judge(parts, held);
  return found.includes("broken") ? { outcome: "reject", reason: "invalid_token" } : UNKNOWN;
}

/** What Valkey holds under a hash now; kept in memory if nothing changes it meanwhile. */
async function readHeld(
  { answers, store, tracking }: Parts,
  hash: Hash,
  name: string | null,
): Promise<Held | "broken" | "none"> {
  const mayKeep = tracking?.isOn() === true;
  const reading = answers.begin(hash);
  try {
    const found = await store.read(hash);
    if (found.kind === "entry") return answers.keep(reading, mayKeep ? name : null, found.entry);
    return found.kind;
  } finally {
    answers.end(reading);
  }
}

function judge({ host, lastUsed }: Parts, held: Held): Outcome {
  const nowMs = host.clock.nowMs();
  if (nowMs < held.fromMs || nowMs >= held.untilMs) return stale(held.entry, nowMs);
  if (Math.abs(nowMs - held.notedMs) >= NOTE_EVERY_MS) {
    held.notedMs = nowMs;
    lastUsed.note(held.entry.hash, nowMs);
  }
  return held.accept;
}

function stale(entry: Entry, nowMs: number): Outcome {
  const reason = standing(entry, nowMs) ?? "token_expired";
  return { outcome: "reject", reason, credentialId: entry.id };
}

/** A stream ends with the secret that opened it: the identity remembers under which hash that lies. */
function isCurrent(parts: Parts, identity: Identity): boolean | Promise<boolean> {
  const hash = identity.attributes?.token_hash ?? "";
  const isGood = (entry: Entry): boolean => standing(entry, parts.host.clock.nowMs()) === null;
  const held = parts.answers.findHash(hash);
  if (held !== undefined && parts.tracking?.isLive() === true) return isGood(held.entry);
  return readHeld(parts, hash, null).then(
    (found) => typeof found !== "string" && isGood(found.entry),
  );
}

function challenges(basic: boolean): readonly Challenge[] {
  const bearer: Challenge = { scheme: "Bearer" };
  return basic ? [bearer, { scheme: "Basic", parameters: { charset: "UTF-8" } }] : [bearer];
}

function health({ valkey, tracking, lastUsed }: Parts, settings: Settings): readonly Condition[] {
  const conditions: Condition[] = [];
  const say = (code: string, severity: Condition["severity"], text: string): void => {
    conditions.push({ code, severity, text, next: "gatehouse doctor" });
  };
  const isReady = valkey.isReady();
  if (!isReady) {
    say(
      "valkey_down",
      "error",
      `There is no connection to valkey at ${valkey.place}; requests with tokens are answered 503.`,
    );
  }
  const problem = tracking?.problem() ?? null;
  if (isReady && problem !== null) {
    say(
      "cache_off",
      "warning",
      `Changes of tokens cannot be followed (${problem}), so each request asks valkey at ${valkey.place}.`,
    );
  }
  if (valkey.isCluster && settings.cache) {
    say("cache_off_in_cluster", "info", "In a cluster each request asks it; nothing is cached.");
  }
  if (lastUsed.isFailing()) {
    say(
      "last_used_not_written",
      "warning",
      "The times of last use cannot be written; they are kept in memory.",
    );
  }
  return conditions;
}

async function close({ lastUsed, valkey }: Parts): Promise<void> {
  await lastUsed.close();
  valkey.close();
}
