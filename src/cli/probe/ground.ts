/**
 * What is normal here: how guarded and public paths answer, without and with the token. Attacks are compared with this.
 *
 * Invariant: a path counts as guarded only if it refused a request without a credential.
 */
import type { GatewayConfig } from "../../config/model.ts";
import { type Answer, isRefusal, isServed } from "./answer.ts";
import { type Candidate, candidates } from "./paths.ts";
import type { Prober, Shot } from "./prober.ts";

/** A path that refuses whoever brings nothing. */
export interface GuardedPath {
  readonly path: string;
  readonly refused: Answer;
  /** With the token; null without one, or when it is refused as well. */
  readonly allowed: Answer | null;
}

/** A path that serves everybody. */
export interface OpenPath {
  readonly path: string;
  readonly answer: Answer;
}

/** A candidate and how it answered without a credential. */
export interface Tried {
  readonly candidate: Candidate;
  /** Null when there was no answer. */
  readonly answer: Answer | null;
}

/** The state of affairs. */
export interface Ground {
  readonly tried: readonly Tried[];
  readonly guarded: readonly GuardedPath[];
  readonly open: readonly OpenPath[];
  /** What a path answers that surely nobody has made. */
  readonly nowhere: Answer | null;
  /** The token was refused wherever it was shown: null, or that answer. */
  readonly tokenRefused: Answer | null;
}

/** A token that passes a few paths passes. */
const MOST_SHOWN = 5;

/** What every check gets. */
export interface Probe {
  readonly prober: Prober;
  readonly config: GatewayConfig | null;
  readonly ground: Ground;
  /** Also methods that may change something. */
  readonly isWriting: boolean;
}

/** A random word that no server knows. */
export function mark(): string {
  return `gd${crypto.randomUUID().replaceAll("-", "").slice(0, 16)}`;
}

/** Tries every candidate. @throws ProbeEnded */
export async function survey(prober: Prober, config: GatewayConfig | null): Promise<Ground> {
  const tried: Tried[] = [];
  for (const candidate of candidates(prober.target, config)) {
    tried.push({ candidate, answer: await prober.ask({ path: candidate.path }) });
  }
  const guarded: GuardedPath[] = [];
  let tokenRefused: Answer | null = null;
  for (const { candidate, answer } of tried) {
    if (answer === null || !isRefusal(answer) || candidate.expected === "public") continue;
    const isShown = prober.hasToken && guarded.length < MOST_SHOWN;
    const shown = isShown ? await prober.ask({ path: candidate.path, isAuthorized: true }) : null;
    const isRefused = shown === null || isRefusal(shown);
    if (shown !== null && isRefused) tokenRefused = shown;
    guarded.push({ path: candidate.path, refused: answer, allowed: isRefused ? null : shown });
  }
  const open = tried.flatMap(({ candidate, answer }) =>
    answer !== null && isServed(answer) ? [{ path: candidate.path, answer }] : [],
  );
  const isSomewhere = guarded.some(({ allowed }) => allowed !== null);
  return {
    tried,
    guarded,
    open,
    nowhere: await prober.ask({ path: `/${mark()}` }),
    tokenRefused: isSomewhere ? null : tokenRefused,
  };
}

/** Whether two answers tell the same, apart from where their paths stand in them. */
export function isAlike(a: Answer, b: Answer): boolean {
  return a.status === b.status && a.body === b.body;
}

/** What an attack without a credential on a guarded path got through to. */
export type Result = "refused" | "through" | "unclear";

/**
 * `through`: it was served, or got what only the token gets. `unclear`: no refusal, and nothing that proves more.
 */
export function judge(answer: Answer | null, guarded: GuardedPath, ground: Ground): Result {
  if (answer === null || isRefusal(answer)) return "refused";
  const { allowed } = guarded;
  if (allowed !== null && isAlike(answer, allowed)) return "through";
  if (isServed(answer)) {
    // A page for everything that is not there is served to everybody.
    const { nowhere } = ground;
    return nowhere !== null && isServed(nowhere) && isAlike(answer, nowhere)
      ? "refused"
      : "through";
  }
  return answer.status >= 300 && answer.status < 400 ? "unclear" : "refused";
}

/** Attacks of one kind on the guarded paths, without a credential; the names of those that came through. */
export async function attack(
  { prober, ground }: Probe,
  guarded: GuardedPath,
  shots: readonly (readonly [name: string, shot: Shot])[],
): Promise<readonly string[]> {
  const through: string[] = [];
  for (const [name, shot] of shots) {
    const answer = await prober.ask({ path: guarded.path, ...shot });
    if (judge(answer, guarded, ground) === "through") through.push(name);
  }
  return through;
}
