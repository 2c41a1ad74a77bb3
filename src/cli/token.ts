/**
 * `token create|list|show|rotate|revoke|import`, on any strategy that keeps tokens.
 *
 * Invariant: a fresh token goes to standard output alone, once; a token never comes in as an argument and never
 * goes out in a message.
 */
import { systemClock } from "../clock.ts";
import type { IssuedToken, TokenRecord } from "../contract/tokens.ts";
import { EXIT, type ExitCode, errorMessage, OperatorError } from "../errors.ts";
import { type OpenedStrategy, openStrategy } from "../open-keeper.ts";
import type { CliContext, CommonOptions } from "./context.ts";
import {
  creator,
  type DraftOptions,
  draftOf,
  duration,
  explained,
  refuseSecretOption,
  refuseSecrets,
} from "./token-input.ts";
import { readForeign, readForeignLines } from "./token-lines.ts";
import { details, issuedJson, recordJson, table, timeText } from "./token-output.ts";

/** Opens the named strategy, or the only one that keeps tokens. */
export type OpenStrategy = (options: {
  readonly context: CliContext;
  readonly config: string | undefined;
  readonly preset: string | undefined;
  readonly strategy: string | undefined;
}) => Promise<OpenedStrategy>;

/** Options of every `token` verb. */
export interface TokenOptions extends CommonOptions {
  /** `--strategy S`. */
  readonly strategy?: string;
}

/** Options of the verbs that are about one token. */
export interface OneTokenOptions extends TokenOptions {
  /** The positional argument. */
  readonly idOrName: string;
}

/** `token create`. Prints the token alone, or with `--json` an object with id, token, name and expires_at. */
export async function tokenCreate(
  context: CliContext,
  options: TokenOptions & DraftOptions & { readonly name: string },
  open: OpenStrategy = openStrategy,
): Promise<ExitCode> {
  const draft = draftOf(context, options, systemClock.nowMs());
  return withTokens({ context, options, open }, async (strategy) => {
    const issued = await strategy.tokens.create(draft);
    printIssued(context, options, issued, `created in ${strategy.name}`);
  });
}

/** `token list [--unused 90d]`: a table, or with `--json` an array. */
export async function tokenList(
  context: CliContext,
  options: TokenOptions & { readonly unused?: string },
  open: OpenStrategy = openStrategy,
): Promise<ExitCode> {
  const nowMs = systemClock.nowMs();
  const unusedMs = options.unused === undefined ? null : duration(options.unused, "--unused");
  return withTokens({ context, options, open }, async (strategy) => {
    const all = await strategy.tokens.list();
    const records =
      unusedMs === null ? all : all.filter((record) => isUnusedSince(record, nowMs - unusedMs));
    if (options.json) context.out(json(records.map((record) => recordJson(record, nowMs))));
    else if (records.length > 0) context.out(table(records, nowMs));
    else
      context.err(
        `No tokens${unusedMs === null ? "" : " unused for so long"} in ${strategy.name}.\n`,
      );
  });
}

/** `token show ID|NAME`. */
export async function tokenShow(
  context: CliContext,
  options: OneTokenOptions,
  open: OpenStrategy = openStrategy,
): Promise<ExitCode> {
  refuseSecrets([options.idOrName]);
  return withTokens({ context, options, open }, async (strategy) => {
    const record = await strategy.tokens.get(options.idOrName);
    context.out(
      options.json
        ? json(recordJson(record, systemClock.nowMs()))
        : details(record, systemClock.nowMs()),
    );
  });
}

/** `token rotate ID|NAME [--grace 24h]`: without `--grace` the old secret ends at once. */
export async function tokenRotate(
  context: CliContext,
  options: OneTokenOptions & { readonly grace?: string },
  open: OpenStrategy = openStrategy,
): Promise<ExitCode> {
  refuseSecrets([options.idOrName]);
  const graceMs = options.grace === undefined ? 0 : duration(options.grace, "--grace");
  return withTokens({ context, options, open }, async (strategy) => {
    const issued = await strategy.tokens.rotate(options.idOrName, graceMs);
    const { graceUntilMs } = issued.record;
    const end = graceUntilMs === null ? "has ended" : `works until ${timeText(graceUntilMs)}`;
    printIssued(context, options, issued, `rotated; the old secret ${end}`);
  });
}

/** `token revoke ID|NAME [--reason TEXT]`: holds on the next request of a running gateway. */
export async function tokenRevoke(
  context: CliContext,
  options: OneTokenOptions & { readonly reason?: string },
  open: OpenStrategy = openStrategy,
): Promise<ExitCode> {
  refuseSecrets([options.idOrName]);
  refuseSecretOption(options.reason, "--reason");
  return withTokens({ context, options, open }, async (strategy) => {
    const record = await strategy.tokens.revoke(options.idOrName, options.reason ?? "");
    if (options.json) context.out(json(recordJson(record, systemClock.nowMs())));
    const since = record.revokedAtMs === null ? "" : ` since ${timeText(record.revokedAtMs)}`;
    context.err(`Token ${label(record)} is revoked${since}.\n`);
  });
}

/**
 * `token import --name N`: the token is the one line of standard input. With `--json-lines` every line is an object
 * with `token`, `name` and whatever else a token has, and either all are imported or none.
 */
export async function tokenImport(
  context: CliContext,
  options: TokenOptions & DraftOptions & { readonly name?: string; readonly jsonLines?: boolean },
  open: OpenStrategy = openStrategy,
): Promise<ExitCode> {
  const nowMs = systemClock.nowMs();
  if (options.jsonLines) {
    refuseDraftOptions(options);
    const lines = readForeignLines(await context.readStdin(), creator(context));
    return withTokens({ context, options, open }, async (strategy) => {
      const entries = lines.map(({ token, draft }) => ({ token, draft }));
      const adoptAll = capable(strategy, strategy.tokens.adoptAll?.bind(strategy.tokens));
      const records = await explained(() => adoptAll(entries), {
        lineOf: (index) => lines[index]?.line,
      });
      printImported(context, options, strategy, records);
    });
  }
  if (options.name === undefined) throw new OperatorError(EXIT.usage, "--name is missing");
  const draft = draftOf(context, { ...options, name: options.name }, nowMs);
  if (context.stdinIsTerminal) context.err("Paste the token, then press Enter and Ctrl-D:\n");
  const token = readForeign(await context.readStdin());
  return withTokens({ context, options, open }, async (strategy) => {
    const adopt = capable(strategy, strategy.tokens.adopt?.bind(strategy.tokens));
    printImported(context, options, strategy, [await adopt(token, draft)]);
  });
}

/** Opens, works, closes; mistakes and troubles of the store become one line for the operator. */
async function withTokens(
  command: {
    readonly context: CliContext;
    readonly options: TokenOptions;
    readonly open: OpenStrategy;
  },
  work: (strategy: OpenedStrategy) => Promise<void>,
): Promise<ExitCode> {
  const { context, options, open } = command;
  refuseSecretOption(options.strategy, "--strategy");
  const { config, preset, strategy: name } = options;
  const strategy = await open({ context, config, preset, strategy: name });
  try {
    await explained(() => work(strategy), { stateDir: strategy.stateDir });
    return EXIT.ok;
  } finally {
    await strategy.close();
  }
}

function printIssued(
  context: CliContext,
  options: TokenOptions,
  issued: IssuedToken,
  what: string,
): void {
  const { record } = issued;
  try {
    const text = options.json ? json(issuedJson(issued)) : `${issued.token}\n`;
    if (context.deliver === undefined) context.out(text);
    else context.deliver(text);
  } catch (error) {
    // A full disk behind `> file`, or a pipe that nobody reads: the token is valid, and nobody has it.
    throw new OperatorError(
      EXIT.failure,
      `token ${label(record)} was ${what}, but it was not delivered: ${errorMessage(error)}`,
      `Nobody has it. End it with: gatehouse token revoke ${record.id}, or give it a new secret with: gatehouse token rotate ${record.id}`,
    );
  }
  const expiry = record.expiresAtMs === null ? "" : ` It expires ${timeText(record.expiresAtMs)}.`;
  context.err(`Token ${label(record)} ${what}.${expiry} It is shown only this once.\n`);
}

function printImported(
  context: CliContext,
  options: TokenOptions & { readonly jsonLines?: boolean },
  strategy: OpenedStrategy,
  records: readonly TokenRecord[],
): void {
  const nowMs = systemClock.nowMs();
  const shown = records.map((record) => recordJson(record, nowMs));
  if (options.json) context.out(json(options.jsonLines ? shown : shown[0]));
  else for (const record of records) context.out(`${record.id}\n`);
  const count = records.length === 1 ? "1 token" : `${records.length} tokens`;
  context.err(`Imported ${count} into ${strategy.name}; only a keyed hash is kept.\n`);
}

/** Used before `sinceMs` for the last time, or made before and never used. Revoked ones are done with. */
function isUnusedSince(record: TokenRecord, sinceMs: number): boolean {
  return record.revokedAtMs === null && (record.lastUsedAtMs ?? record.createdAtMs) < sinceMs;
}

function capable<T>(strategy: OpenedStrategy, method: T | undefined): T {
  if (method !== undefined) return method;
  throw new OperatorError(EXIT.usage, `strategy ${strategy.name} cannot import tokens like this`);
}

function refuseDraftOptions(options: DraftOptions): void {
  const given = [options.name, options.owner, options.role, options.expires, options.notBefore];
  if (given.every((value) => value === undefined) && (options.scope ?? []).length === 0) return;
  throw new OperatorError(
    EXIT.usage,
    "with --json-lines each line says what its token is like",
    'Write one object per line: {"token": "…", "name": "…", "owner": "…", "scopes": ["…"]}',
  );
}

function label({ id, name }: TokenRecord): string {
  return name === "" ? id : `${name} (id ${id})`;
}

function json(value: unknown): string {
  return `${JSON.stringify(value, null, 2)}\n`;
}
