/**
 * The issuer's keys over time: fetched at the start, again and again in the background, and once more when a token
 * names a key that is not there.
 *
 * Invariant: one fetch at a time, and because of tokens at most one in an interval, however many there are; nobody
 * whose key is known waits for a fetch. A key that the issuer has withdrawn is gone when the fetch is over. When the
 * issuer cannot be asked the question is left open (a throw), never answered.
 */
import type { Clock, Condition, Log } from "gatehouse";
import { type FetchKeys, IssuerError } from "./issuer.ts";
import { type KeySet, KeySetError, readKeySet } from "./key-set.ts";
import type { Algorithm } from "./settings.ts";

/** How long after a failure the next attempt comes: doubled each time, up to the last. */
const FIRST_RETRY_MS = 1000;
const LAST_RETRY_MS = 30_000;

/** Requests that may wait for one fetch. */
const MAX_WAITING = 1000;

/** What it takes. */
export interface KeyRingOptions {
  readonly fetchKeys: FetchKeys;
  readonly algorithms: readonly Algorithm[];
  readonly clock: Clock;
  readonly log: Log;
  readonly refreshMs: number;
  readonly refetchIntervalMs: number;
  readonly keepMs: number;
}

/** The keys as they are known now. */
export interface KeyRing {
  /** Starts the first fetch and the background ones. */
  start(): void;
  /** Whether the key is one of those that may be used now. */
  has(keyId: string): boolean;
  /** Whether the issuer no longer had the key when it was asked last, however long ago that was. */
  isWithdrawn(keyId: string): boolean;
  /**
   * What `pick` takes from the keys, after a fetch if need be; `null` when it finds nothing in keys that are fresh.
   * @throws (rejects) IssuerError when that cannot be said
   */
  find<T>(pick: (set: KeySet) => T | null): Promise<T | null>;
  health(): readonly Condition[];
  /** No fetch is started any more. Idempotent. */
  close(): void;
}

interface Known {
  readonly set: KeySet;
  /** When the fetch began. */
  readonly atMs: number;
}

interface Failing {
  readonly error: IssuerError;
  readonly sinceMs: number;
  readonly attempts: number;
}

interface State {
  known: Known | null;
  failing: Failing | null;
  underway: Promise<void> | null;
  /** When the last fetch because of a token began. */
  askedAtMs: number;
  waiting: number;
  timer: ReturnType<typeof setTimeout> | null;
  isClosed: boolean;
}

/** Without keys at first. */
export function openKeyRing(options: KeyRingOptions): KeyRing {
  const state: State = {
    known: null,
    failing: null,
    underway: null,
    askedAtMs: Number.NEGATIVE_INFINITY,
    waiting: 0,
    timer: null,
    isClosed: false,
  };
  const usable = (): KeySet | null => usableSet(state, options);
  return {
    start: () => void fetchNow(state, options),
    has: (keyId) => usable()?.byId.has(keyId) === true,
    isWithdrawn: (keyId) => state.known?.set.byId.has(keyId) !== true,
    async find(pick) {
      const look = () => {
        const set = usable();
        return set === null ? null : pick(set);
      };
      const known = look();
      if (known !== null) return known;
      if (state.underway !== null) {
        await wait(state, state.underway);
        const found = look();
        if (found !== null) return found;
      }
      // Whatever begins after the request came has the last word.
      const fetching = fetchForToken(state, options);
      if (fetching !== null) await wait(state, fetching);
      const found = look();
      const isAnswer = state.failing === null && usable() !== null;
      if (found === null && !isAnswer) throw problemOf(state);
      return found;
    },
    health: () => health(state, options),
    close() {
      state.isClosed = true;
      if (state.timer !== null) clearTimeout(state.timer);
    },
  };
}

/** A set without keys is no answer about any token: its issuer signs nothing. */
function usableSet({ known }: State, { clock, keepMs }: KeyRingOptions): KeySet | null {
  if (known === null || known.set.byId.size === 0) return null;
  return clock.nowMs() - known.atMs < keepMs ? known.set : null;
}

/** `null` when there was one just now. */
function fetchForToken(state: State, options: KeyRingOptions): Promise<void> | null {
  if (state.underway !== null) return state.underway;
  const nowMs = options.clock.nowMs();
  // A clock that was set back must not close the door for the time that it was set back.
  if (Math.abs(nowMs - state.askedAtMs) < options.refetchIntervalMs) return null;
  state.askedAtMs = nowMs;
  return fetchNow(state, options);
}

/** @throws (rejects) IssuerError */
async function wait(state: State, fetching: Promise<void>): Promise<void> {
  if (state.waiting >= MAX_WAITING) {
    throw new IssuerError(`more than ${MAX_WAITING} requests wait for the issuer's keys`);
  }
  state.waiting += 1;
  try {
    await fetching;
  } finally {
    state.waiting -= 1;
  }
  if (state.failing !== null) throw problemOf(state);
}

/** Starts one, if none is under way. Never rejects: what went wrong is in `failing`. */
function fetchNow(state: State, options: KeyRingOptions): Promise<void> {
  state.underway ??= attempt(state, options).finally(() => {
    state.underway = null;
    schedule(state, options);
  });
  return state.underway;
}

async function attempt(state: State, options: KeyRingOptions): Promise<void> {
  const { clock, log, algorithms } = options;
  const atMs = clock.nowMs();
  try {
    const document = await options.fetchKeys();
    const set = await readKeySet(document, algorithms, state.known?.set ?? null);
    if (state.known === null || state.failing !== null || isOther(set, state.known.set)) {
      log.info("oidc.keys_fetched", { keys: set.byId.size, unusable: set.broken });
    }
    state.known = { set, atMs };
    state.failing = null;
  } catch (error) {
    const failure = failureOf(error);
    const before = state.failing;
    state.failing = {
      error: failure,
      sinceMs: before?.sinceMs ?? atMs,
      attempts: (before?.attempts ?? 0) + 1,
    };
    const isNew = before?.error.message !== failure.message;
    const level = isNew ? (failure.code === "issuer_mismatch" ? "error" : "warn") : "debug";
    if (!state.isClosed) log[level]("oidc.keys_not_fetched", { why: failure.message });
  }
}

function isOther(set: KeySet, before: KeySet): boolean {
  return (
    set.byId.size !== before.byId.size || [...set.byId.keys()].some((id) => !before.byId.has(id))
  );
}

function failureOf(error: unknown): IssuerError {
  if (error instanceof IssuerError) return error;
  return new IssuerError(
    error instanceof KeySetError
      ? `the key document cannot be used: ${error.message}`
      : "the keys cannot be read",
  );
}

function schedule(state: State, options: KeyRingOptions): void {
  if (state.timer !== null) clearTimeout(state.timer);
  if (state.isClosed) return;
  const attempts = state.failing?.attempts ?? 0;
  const retryMs = Math.min(FIRST_RETRY_MS * 2 ** Math.min(attempts - 1, 10), LAST_RETRY_MS);
  const delayMs = attempts === 0 ? options.refreshMs : Math.min(retryMs, options.refreshMs);
  state.timer = setTimeout(() => void fetchNow(state, options), delayMs);
  state.timer.unref();
}

function problemOf({ failing, known }: State): IssuerError {
  const why =
    failing?.error.message ??
    (known?.set.byId.size === 0 ? "the issuer has published none" : "they were not fetched yet");
  return new IssuerError(`the issuer's keys are not known: ${why}`, failing?.error.code);
}

function health(state: State, options: KeyRingOptions): readonly Condition[] {
  const { known, failing } = state;
  const conditions: Condition[] = [];
  const say = (code: string, severity: Condition["severity"], text: string): void => {
    conditions.push({ code, severity, text, next: "gatehouse doctor" });
  };
  const since = failing === null ? "" : ` since ${time(failing.sinceMs)}`;
  const why = failing === null ? "" : `${failing.error.message}.`;
  if (failing?.error.code === "issuer_mismatch") {
    say("issuer_mismatch", "error", `The configuration is wrong: ${why}`);
  }
  if (known === null) {
    const text = "The issuer's keys were never fetched, so its tokens are answered 503.";
    if (failing === null) say("keys_pending", "info", "The issuer's keys are being fetched.");
    else say("keys_missing", "error", `${text} It fails${since}: ${why}`);
    return conditions;
  }
  if (known.set.byId.size === 0) {
    say("keys_empty", "error", "The issuer has no usable key, so its tokens are answered 503.");
  }
  if (failing !== null) {
    const fetched = `the keys of ${time(known.atMs)}`;
    const endMs = known.atMs + options.keepMs;
    const isOver = options.clock.nowMs() >= endMs;
    const end = isOver
      ? `${fetched} are too old and no longer used`
      : `${fetched} are used until ${time(endMs)}`;
    const severity = isOver ? "error" : "warning";
    say("keys_old", severity, `The keys cannot be fetched${since}; ${end}. ${why}`);
  }
  if (known.set.broken > 0) {
    say("keys_skipped", "info", `${known.set.broken} of the issuer's keys cannot be used here.`);
  }
  return conditions;
}

function time(ms: number): string {
  return new Date(ms).toISOString();
}
