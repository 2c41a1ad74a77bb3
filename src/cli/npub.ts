/**
 * `npub add|list|remove|role|new`: members of a strategy that knows public keys, on its database.
 *
 * Invariant: what was changed holds on the next request of a running gateway. A secret key in place of a public one
 * is refused and never repeated.
 */
import { resolve } from "node:path";
import { MemberError, type MemberRecord, type MemberStore } from "../contract/members.ts";
import type { Role } from "../contract/outcome.ts";
import { EXIT, type ExitCode, errorMessage, OperatorError } from "../errors.ts";
import type { OpenedKeeper } from "../open-keeper.ts";
import { databaseProblem } from "../store/sqlite.ts";
import { columns } from "./columns.ts";
import type { CliContext, CommonOptions } from "./context.ts";
import { newKeyFile } from "./nostr-key.ts";
import { type OpenMembers, openMembers } from "./open-members.ts";

/** Options of every `npub` verb that is about members. */
export interface NpubOptions extends CommonOptions {
  /** `--strategy S`. */
  readonly strategy?: string;
}

/** Options of the verbs that are about one member. */
export interface OneNpubOptions extends NpubOptions {
  /** The positional argument: npub1… or 64 hex digits. */
  readonly key: string;
}

/** `npub add NPUB [--role admin|user] [--name N]`. Prints the npub. */
export async function npubAdd(
  context: CliContext,
  options: OneNpubOptions & { readonly role?: string; readonly name?: string },
  open: OpenMembers = openMembers,
): Promise<ExitCode> {
  const role = options.role === undefined ? "user" : checkedRole(options.role);
  return withMembers({ context, options, open }, ({ name: strategy, store }) => {
    const { key, name = null } = options;
    const member = store.add({ key, role, name, source: "cli" });
    context.out(options.json ? json(shown(member)) : `${member.npub}\n`);
    context.err(`Added to ${strategy} as ${member.role}.\n`);
    if (!store.list().some((each) => each.role === "admin")) {
      context.err("No one is admin yet; make one with: gatehouse npub role NPUB admin\n");
    }
  });
}

/** `npub list`: a table, or with `--json` an array. */
export async function npubList(
  context: CliContext,
  options: NpubOptions,
  open: OpenMembers = openMembers,
): Promise<ExitCode> {
  return withMembers({ context, options, open }, ({ name, store }) => {
    const members = store.list();
    if (options.json) context.out(json(members.map(shown)));
    else if (members.length === 0) context.err(`No members in ${name}.\n`);
    else context.out(columns(["NPUB", "ROLE", "SOURCE", "ADDED", "NAME"], members.map(cells)));
  });
}

/** `npub remove NPUB`: exit code 1 when there is no such member. */
export async function npubRemove(
  context: CliContext,
  options: OneNpubOptions,
  open: OpenMembers = openMembers,
): Promise<ExitCode> {
  return withMembers({ context, options, open }, ({ name, store }) => {
    const before = store.get(options.key);
    if (before === null || !store.remove(options.key)) {
      throw new OperatorError(EXIT.failure, `not a member of ${name}`);
    }
    if (options.json) context.out(json({ removed: true, ...shown(before) }));
    context.err(`Removed ${before.npub} from ${name}.\n`);
    if (before.source === "config") {
      context.err("The configuration lists it: it is back at the next start.\n");
    }
  });
}

/** `npub role NPUB admin|user`. */
export async function npubRole(
  context: CliContext,
  options: OneNpubOptions & { readonly role: string },
  open: OpenMembers = openMembers,
): Promise<ExitCode> {
  const role = checkedRole(options.role);
  return withMembers({ context, options, open }, ({ store }) => {
    const member = store.update(options.key, { role });
    if (options.json) context.out(json(shown(member)));
    context.err(`${member.npub} is ${member.role} now.\n`);
  });
}

/** `npub new --key-file FILE`: makes a secret key, keeps it in the file and prints its npub. */
export function npubNew(
  context: CliContext,
  options: CommonOptions & { readonly keyFile: string },
): ExitCode {
  const path = resolve(context.cwd, options.keyFile);
  const npub = newKeyFile(path);
  context.out(options.json ? json({ npub, key_file: path }) : `${npub}\n`);
  context.err(`The secret key is in ${path}; whoever has that file is you.\n`);
  return EXIT.ok;
}

async function withMembers(
  command: {
    readonly context: CliContext;
    readonly options: NpubOptions;
    readonly open: OpenMembers;
  },
  work: (strategy: OpenedKeeper<MemberStore>) => void,
): Promise<ExitCode> {
  const { context, options, open } = command;
  const { config, preset, strategy } = options;
  const opened = await open({ context, config, preset, strategy });
  try {
    work(opened);
    return EXIT.ok;
  } catch (error) {
    throw explained(error, opened.stateDir);
  } finally {
    await opened.close();
  }
}

function explained(error: unknown, stateDir: string): OperatorError {
  if (error instanceof OperatorError) return error;
  if (error instanceof MemberError) {
    return new OperatorError(error.code === "invalid" ? EXIT.usage : EXIT.failure, error.message);
  }
  const problem = databaseProblem(error, `in ${stateDir}`);
  return problem ?? new OperatorError(EXIT.failure, errorMessage(error));
}

function checkedRole(text: string): Role {
  if (text === "admin" || text === "user") return text;
  throw new OperatorError(EXIT.usage, "the role is admin or user");
}

function shown(member: MemberRecord): Readonly<Record<string, string | null>> {
  const { npub, pubkey, name, role, source, createdAtMs, createdBy } = member;
  return { npub, pubkey, name, role, source, created_at: time(createdAtMs), created_by: createdBy };
}

function cells({ npub, role, source, createdAtMs, name }: MemberRecord): readonly string[] {
  return [npub, role, source, time(createdAtMs).slice(0, 10), name ?? "-"];
}

/** RFC 3339 in UTC, whole seconds. */
function time(ms: number): string {
  return new Date(ms).toISOString().replace(/\.\d+Z$/, "Z");
}

function json(value: unknown): string {
  return `${JSON.stringify(value, null, 2)}\n`;
}
