/**
 * What every part of one run of `init` works with.
 *
 * Invariant: progress goes to standard error, or nowhere with `--json`; standard output is the result.
 */
import { EXIT, OperatorError } from "../../errors.ts";
import type { CliContext } from "../context.ts";
import type { Answers, InitOptions } from "./answers.ts";
import type { Interruption } from "./interruption.ts";
import { Stopped } from "./interruption.ts";
import type { Journal } from "./journal.ts";
import type { Prompter } from "./prompts.ts";
import { type Found, lookAt } from "./scan.ts";
import type { ServiceChoices } from "./service.ts";
import type { TakeAwayTools, TakenAway } from "./take-away.ts";
import { keptText, takeBack } from "./undo.ts";
import type { LookUp } from "./upstreams.ts";
import { problemOf } from "./words.ts";

/** One run. */
export interface Run {
  readonly context: CliContext;
  readonly options: InitOptions;
  readonly answers: Answers;
  readonly interruption: Interruption;
  /** Null when nobody is asked. */
  readonly prompter: Prompter | null;
  readonly lookUp: LookUp;
  readonly services: ServiceChoices;
  /** Secrets that were typed. */
  readonly typed: Map<string, string>;
}

/** Looks once at each server. */
export function rememberingLookUp(signal: AbortSignal): LookUp {
  const seen = new Map<string, Found>();
  return async (url, preset) => {
    const key = `${preset ?? ""} ${url}`;
    const before = seen.get(key);
    // One that did not answer may have been started meanwhile.
    if (before !== undefined && before.problem === null) return before;
    const found = await lookAt(url, { preset, signal });
    seen.set(key, found);
    return found;
  };
}

/** Says what was done. */
export function progress({ context, options, prompter }: Run): (text: string) => void {
  if (prompter !== null) return (text) => prompter.done(text);
  return options.json === true ? () => undefined : (text) => sayTo(context, `${text}\n`);
}

/** Says what the operator should know. */
export function remark({ context, options, prompter }: Run, text: string): void {
  if (prompter !== null) prompter.say(text);
  else if (options.json !== true) sayTo(context, `note: ${text}\n`);
}

/** A terminal that is gone is no reason to stop taking away what was made. */
function sayTo(context: CliContext, text: string): void {
  try {
    context.err(text);
  } catch {
    // Nobody is there to read it.
  }
}

/** How what was made is taken away. */
export interface TakingBack {
  readonly journal: Journal;
  readonly tools: TakeAwayTools;
  /** Before the journal's things are taken away. */
  before?(): void;
  /** When they are gone; returns what is not as before all the same. */
  after?(): Promise<string | null>;
}

/** Runs `work`; when it fails or is stopped, what it made is taken away and the error says so. */
export async function orTakeBack<T>(
  { journal, tools, before, after }: TakingBack,
  work: () => Promise<T>,
): Promise<T> {
  const from = journal.made.length;
  try {
    return await work();
  } catch (error) {
    const problem = problemOf(() => before?.());
    const taken = await takeBack(journal, from, tools);
    throw withOutcome(error, taken, problem ?? (await after?.()) ?? null);
  }
}

/** The error, and what is left. */
function withOutcome(error: unknown, { kept }: TakenAway, also: string | null): unknown {
  if (!(error instanceof OperatorError)) return error;
  const left = [...kept.map(keptText), ...(also === null ? [] : [also])];
  const outcome = left.length === 0 ? "everything is as it was before" : left.join("; ");
  if (error instanceof Stopped) return new OperatorError(EXIT.failure, `stopped; ${outcome}`);
  const hint = error.hint === undefined ? outcome : `${error.hint} (${outcome})`;
  return new OperatorError(error.exitCode, error.message, hint);
}
