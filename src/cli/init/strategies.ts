/**
 * Which strategies the configuration will have, with which settings, and which secrets of theirs go into files.
 *
 * Invariant: every strategy's settings parse with its own schema; a secret is a reference in them, and its value goes
 * into a file of its own.
 */
import { randomBytes } from "node:crypto";
import { existsSync } from "node:fs";
import { homedir } from "node:os";
import { join, resolve } from "node:path";
import { resolveReferences } from "../../config/references.ts";
import type { Plugin } from "../../contract/plugin.ts";
import { EXIT, OperatorError } from "../../errors.ts";
import type { CliContext } from "../context.ts";
import { type AccessKind, accessOf, coerce, settingsProblem } from "./access.ts";
import { type Answers, accessKinds } from "./answers.ts";
import type { ServiceDecision } from "./decision.ts";
import type { Guarded } from "./upstreams.ts";

/** A value that goes into a file of mode 600. */
export interface Secret {
  /** Of the file, a slug. */
  readonly name: string;
  readonly value: string;
}

/** A strategy of the configuration. */
export interface ChosenStrategy {
  readonly name: string;
  readonly use: string;
  /** As written, references and all. */
  readonly settings: Readonly<Record<string, unknown>>;
  /** Names of the upstreams that ask it. */
  readonly upstreams: readonly string[];
  /** It keeps tokens, and the first one is made in it. */
  readonly keepsTokens: boolean;
  /** It knows members by public key. */
  readonly knowsMembers: boolean;
  /** The one token that it accepts, when that was made here. */
  readonly staticToken: string | null;
}

/** What choosing takes besides the answers. */
export interface Choosing {
  readonly context: CliContext;
  readonly upstreams: readonly Guarded[];
  readonly service: ServiceDecision | null;
  readonly typed: Typed;
}

/** Secrets that were typed at a prompt, by `KIND.SETTING` or `key:URL`. They are never part of the answers. */
export type Typed = ReadonlyMap<string, string>;

/** @throws OperatorError for answers that do not fit */
export function chooseStrategies(
  answers: Answers,
  choosing: Choosing,
): { readonly strategies: readonly ChosenStrategy[]; readonly secrets: readonly Secret[] } {
  const secrets: Secret[] = [];
  const byName = new Map<string, ChosenStrategy>();
  const { upstreams } = choosing;
  for (const upstream of upstreams) {
    const wanted =
      upstream.system.preset === "routstrd"
        ? routstrdStrategies(answers, choosing, secrets)
        : accessKinds(answers).map((kind) =>
            strategyFor(kind, { answers, choosing, secrets, upstream }),
          );
    for (const one of wanted) {
      const before = byName.get(one.name);
      const names = [...(before?.upstreams ?? []), upstream.name];
      byName.set(one.name, { ...(before ?? one), upstreams: names });
    }
  }
  return { strategies: [...byName.values()], secrets: uniqueSecrets(secrets) };
}

interface Wanted {
  readonly answers: Answers;
  readonly choosing: Choosing;
  readonly secrets: Secret[];
  readonly upstream: Guarded;
}

function strategyFor(kind: AccessKind, wanted: Wanted): ChosenStrategy {
  const { choosing, upstream } = wanted;
  const access = accessOf(kind);
  const isSpecial = upstream.tokenSettings !== null;
  if (isSpecial && kind !== "tokens" && kind !== "static") {
    throw new OperatorError(
      EXIT.usage,
      `${upstream.system.title} has Authorization for itself, and --access ${kind} needs it`,
      "Use --access tokens or --access static for it: they take a header of their own.",
    );
  }
  const isMixed =
    isSpecial && choosing.upstreams.some(({ tokenSettings }) => tokenSettings === null);
  const name = isMixed ? `${upstream.name}-${access.strategy}` : access.strategy;
  const special = upstream.tokenSettings ?? {};
  const plugin = pluginOf(choosing.context, access.use);
  const base = { name, use: access.use, upstreams: [], staticToken: null };
  if (kind === "static") return staticStrategy(base, special, wanted);
  const settings = { ...special, ...settingsFor(plugin, { kind, name, wanted }) };
  return {
    ...base,
    settings,
    keepsTokens: kind === "tokens" || kind === "valkey",
    knowsMembers: kind === "npubs",
  };
}

type Base = Pick<ChosenStrategy, "name" | "use" | "upstreams">;

/** Its token lies in a file, because a service has none of a shell's variables. */
function staticStrategy(
  base: Base,
  special: Readonly<Record<string, unknown>>,
  { answers, choosing: { context, service }, secrets }: Wanted,
): ChosenStrategy {
  const given = answers.settings?.static ?? {};
  const { env, ...others } = given;
  const variable = typeof env === "string" ? env : "GATEHOUSE_TOKEN";
  const fromShell = (context.env[variable] ?? "").trim();
  const token = fromShell === "" ? randomBytes(32).toString("hex") : fromShell;
  const secret = { name: `${base.name}-token`, value: token };
  secrets.push(secret);
  const file = secretPath(secret.name, service);
  return {
    ...base,
    settings: { ...special, ...others, file },
    keepsTokens: false,
    knowsMembers: false,
    staticToken: fromShell === "" ? token : null,
  };
}

/** What was answered to the plugin's questions, with secrets turned into references. */
function settingsFor(
  plugin: Plugin,
  {
    kind,
    name,
    wanted,
  }: {
    readonly kind: AccessKind | "routstrd";
    readonly name: string;
    readonly wanted: Pick<Wanted, "answers" | "choosing" | "secrets">;
  },
): Readonly<Record<string, unknown>> {
  const { context, service, typed } = wanted.choosing;
  const secretIds = (plugin.questions ?? [])
    .filter((one) => one.kind === "secret")
    .map(({ id }) => id);
  const fromPrompt = secretIds.flatMap((id) => {
    const text = typed.get(`${kind}.${id}`);
    return text === undefined ? [] : [[id, text] as const];
  });
  const given = { ...wanted.answers.settings?.[kind], ...Object.fromEntries(fromPrompt) };
  const plain: Record<string, unknown> = {};
  const written: Record<string, unknown> = {};
  for (const [id, answer] of Object.entries(given)) {
    const isSecret = secretIds.includes(id);
    const isReference = isSecret && !typed.has(`${kind}.${id}`);
    const text = isReference ? secretText(String(answer), `${kind}.${id}`, context) : answer;
    plain[id] = typeof text === "string" ? coerced(plugin, id, text, kind) : text;
    written[id] = plain[id];
    if (!isSecret) continue;
    const secret = { name: `${name}-${id.replaceAll("_", "-")}`, value: String(text) };
    wanted.secrets.push(secret);
    written[id] = secretReference(secret.name, service);
  }
  requireAnswers(plugin, kind, plain);
  const problem = settingsProblem(plugin, plain);
  if (problem === null) return written;
  throw new OperatorError(EXIT.usage, `--set ${kind}: ${problem}`);
}

/** Without an admin nobody could enter; without the others the schema itself complains. */
function requireAnswers(
  plugin: Plugin,
  kind: string,
  given: Readonly<Record<string, unknown>>,
): void {
  const missing = (plugin.questions ?? []).filter(({ id }) => given[id] === undefined);
  const [first] = missing;
  if (first === undefined) return;
  const flag = kind === "npubs" ? "--npub NPUB" : `--set ${kind}.${first.id}=VALUE`;
  const hint =
    first.kind === "secret"
      ? `Say where it is: --set '${kind}.${first.id}=\${env:NAME}' or \${file:/path}.`
      : `Say it with ${flag}.`;
  throw new OperatorError(EXIT.usage, `--access ${kind}: ${first.message}`, hint);
}

/** What a reference leads to. */
function secretText(answer: string, where: string, { env, cwd }: CliContext): string {
  if (!answer.includes("${")) {
    throw new OperatorError(
      EXIT.usage,
      `--set ${where}: a secret is not an argument, where the process list and the shell's history keep it`,
      `Say where it is: --set '${where}=\${env:NAME}' or \${file:/path}.`,
    );
  }
  const resolved = resolveReferences(answer, { env, configDir: cwd });
  if ("value" in resolved) return resolved.value;
  throw new OperatorError(EXIT.usage, `--set ${where}: ${resolved.problem}`);
}

function coerced(plugin: Plugin, id: string, text: string, kind: string): unknown {
  const found = coerce(plugin, id, text);
  if ("value" in found) return found.value;
  throw new OperatorError(EXIT.usage, `--set ${kind}.${id}: ${found.problem}`);
}

/** The daemon's own clients, and members by npub. */
function routstrdStrategies(
  answers: Answers,
  choosing: Choosing,
  secrets: Secret[],
): readonly ChosenStrategy[] {
  const { context } = choosing;
  const given = answers.settings?.routstrd ?? {};
  const database = given.database ?? routstrdDatabase(context);
  const withDatabase = {
    ...answers,
    settings: {
      ...answers.settings,
      routstrd: { ...given, database },
      npubs: { ...answers.settings?.npubs, database },
    },
  };
  const wanted = { answers: withDatabase, choosing, secrets };
  const clients = pluginOf(context, "routstrd");
  const members = pluginOf(context, "nip98");
  const base = { upstreams: [], keepsTokens: false, staticToken: null };
  return [
    {
      ...base,
      name: "clients",
      use: "routstrd",
      settings: settingsFor(clients, { kind: "routstrd", name: "clients", wanted }),
      knowsMembers: false,
    },
    {
      ...base,
      name: "members",
      use: "nip98",
      settings: settingsFor(members, { kind: "npubs", name: "members", wanted }),
      knowsMembers: true,
    },
  ];
}

/** Where the daemon keeps it, if it is there; undefined otherwise. */
export function routstrdDatabase({ env }: Pick<CliContext, "env">): string | undefined {
  const dir = env.ROUTSTRD_DIR ?? join(env.HOME ?? homedir(), ".routstrd");
  const path = resolve(dir, "routstr.db");
  return existsSync(path) ? path : undefined;
}

/** The path of a secret as the configuration names it. */
export function secretPath(name: string, service: ServiceDecision | null): string {
  return service?.scope === "system"
    ? `/run/credentials/${service.name}.service/${name}`
    : `./secrets/${name}`;
}

/** A secret as a value of the configuration. */
export function secretReference(name: string, service: ServiceDecision | null): string {
  return service?.scope === "system" ? `\${cred:${name}}` : `\${file:./secrets/${name}}`;
}

/** @throws OperatorError when the program has no such plugin */
export function pluginOf({ plugins }: Pick<CliContext, "plugins">, use: string): Plugin {
  const plugin = plugins.find(({ name }) => name === use);
  if (plugin !== undefined) return plugin;
  throw new OperatorError(EXIT.usage, `this build has no strategy ${use}`);
}

function uniqueSecrets(secrets: readonly Secret[]): readonly Secret[] {
  return [...new Map(secrets.map((secret) => [secret.name, secret])).values()];
}
