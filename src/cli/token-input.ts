/**
 * What people say about tokens on the command line, checked.
 *
 * Invariant: no message repeats a value, because any of them may be a token pasted in the wrong place.
 */
import { parseDuration } from "../contract/quantity.ts";
import { type TokenDraft, TokenError } from "../contract/tokens.ts";
import { ValkeyError } from "../contract/valkey.ts";
import { EXIT, OperatorError } from "../errors.ts";
import { databaseProblem } from "../store/sqlite.ts";
import type { CliContext } from "./context.ts";

/** Options that describe a new token. */
export interface DraftOptions {
  readonly name?: string;
  /** `--owner O`. */
  readonly owner?: string;
  /** `--role admin|user`. */
  readonly role?: string;
  /** `--scope S`, once for each. */
  readonly scope?: readonly string[];
  /** `--expires 30d` or a time. */
  readonly expires?: string;
  /** `--not-before 1h` or a time. */
  readonly notBefore?: string;
}

/** Tokens of ours under any prefix (also cut short) and the common form of API keys. */
const TOKEN_FORMS = [/^[a-z][a-z0-9]{1,9}_[0-9A-Za-z]{12}_[0-9A-Za-z]*$/, /^sk-/];

/** An id has 12 characters, a name that is worth typing hardly more than this. */
const LONGEST_ARGUMENT = 40;

/**
 * Refuses positional arguments that may be tokens: by then they are in the shell's history and in the process list.
 * @throws OperatorError with EXIT.usage
 */
export function refuseSecrets(args: readonly string[]): void {
  if (args.some((text) => text.length > LONGEST_ARGUMENT || isTokenLike(text))) refuse();
}

/** The same for the value of an option, which may be long. @throws OperatorError with EXIT.usage */
export function refuseSecretOption(value: string | undefined, option: string): void {
  if (value !== undefined && isTokenLike(value)) refuse(option);
}

/** The draft that the options describe; times are counted from `nowMs`. @throws OperatorError with EXIT.usage */
export function draftOf(
  context: CliContext,
  options: DraftOptions & { readonly name: string },
  nowMs: number,
): TokenDraft {
  refuseSecretOption(options.name, "--name");
  refuseSecretOption(options.owner, "--owner");
  for (const scope of options.scope ?? []) refuseSecretOption(scope, "--scope");
  const { owner, role } = options;
  if (role !== undefined && role !== "admin" && role !== "user") {
    throw new OperatorError(EXIT.usage, "--role: expected admin or user");
  }
  return {
    name: options.name,
    createdBy: creator(context),
    ...(owner === undefined ? {} : { owner }),
    ...(role === undefined ? {} : { role }),
    ...(options.scope === undefined ? {} : { scopes: options.scope }),
    ...(options.expires === undefined
      ? {}
      : { expiresAtMs: time(options.expires, nowMs, "--expires") }),
    ...(options.notBefore === undefined
      ? {}
      : { notBeforeMs: time(options.notBefore, nowMs, "--not-before") }),
  };
}

/** Who runs the command, for the record only: the environment is believed. */
export function creator(context: CliContext): string {
  const user = context.env.SUDO_USER ?? context.env.USER ?? "";
  return /^[\w.-]{1,64}$/.test(user) ? `cli:${user}` : "cli";
}

/** Milliseconds. @throws OperatorError with EXIT.usage */
export function duration(text: string, option: string): number {
  const ms = parseDuration(text);
  if (ms !== null) return ms;
  throw new OperatorError(EXIT.usage, `${option}: expected a duration such as 24h or 30d`);
}

/** Epoch ms of an RFC 3339 time or date (midnight UTC), or null. */
export function instant(text: string): number | null {
  const form = /^\d{4}-\d{2}-\d{2}([Tt]\d{2}:\d{2}:\d{2}(\.\d{1,9})?([Zz]|[+-]\d{2}:\d{2}))?$/;
  const ms = form.test(text) ? Date.parse(text) : Number.NaN;
  return Number.isNaN(ms) ? null : ms;
}

/**
 * Runs `work` and turns what a token store throws into what the operator is told. `lineOf` gives the line of
 * standard input for the index of an entry.
 */
export async function explained<T>(
  work: () => T | Promise<T>,
  where: {
    readonly stateDir?: string;
    readonly lineOf?: (index: number) => number | undefined;
  },
): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (error instanceof TokenError) throw mistake(error, where.lineOf);
    if (error instanceof ValkeyError) throw new OperatorError(EXIT.unavailable, error.message);
    throw databaseProblem(error, `in ${where.stateDir ?? "the state directory"}`) ?? error;
  }
}

function mistake(
  error: TokenError,
  lineOf: ((index: number) => number | undefined) | undefined,
): OperatorError {
  const line = error.index === undefined ? undefined : lineOf?.(error.index);
  const message = line === undefined ? error.message : `line ${line}: ${error.message}`;
  const hint = error.code === "not_unique" ? "Say which one by its id." : undefined;
  return new OperatorError(error.code === "invalid" ? EXIT.usage : EXIT.failure, message, hint);
}

function time(text: string, nowMs: number, option: string): number {
  const ms = parseDuration(text);
  const at = ms === null ? instant(text) : nowMs + ms;
  if (at !== null) return at;
  throw new OperatorError(
    EXIT.usage,
    `${option}: expected a duration such as 30d, or a time such as 2030-12-31T23:59:59Z`,
  );
}

function isTokenLike(text: string): boolean {
  return TOKEN_FORMS.some((form) => form.test(text));
}

function refuse(option?: string): never {
  throw new OperatorError(
    EXIT.usage,
    `${option === undefined ? "" : `${option}: `}tokens are not passed as arguments, where the shell's history and the process list keep them`,
    "Name a token by its id or a short name; give a token to be imported on standard input. If it was a real one, rotate it.",
  );
}
