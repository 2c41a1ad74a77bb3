/**
 * Whether a value has the shape that the contract asks of a plugin and of a strategy instance.
 *
 * Invariant: nothing of the value is called here; what comes back is text for the operator, empty when all is
 * well. Bundled and external plugins are judged alike.
 */
import { CONTRACT_VERSION, type Plugin, type StrategyInstance } from "./contract/plugin.ts";

type Members = Readonly<Record<string, unknown>>;

const PLUGIN_NAME = /^[a-z][a-z0-9-]{0,62}$/;
const PLUGIN_MEMBERS = [
  "name",
  "contract",
  "config",
  "check",
  "init",
  "commands",
  "questions",
  "offers",
  "migrations",
];
const QUESTION_KINDS = ["text", "secret", "select", "confirm"];
/** RFC 9110 section 5.6.2, lower case. */
const HEADER_NAME = /^[!#$%&'*+.^`|~0-9a-z-]{1,100}$/;

/** What keeps `value` from being a {@link Plugin}, one sentence part each; empty when it is one. */
export function pluginProblems(value: unknown): readonly string[] {
  if (!isObject(value)) return ["the default export is not an object; use definePlugin({ … })"];
  // Before all else: a plugin for another contract is expected to look different.
  const version = contractProblem(value.contract);
  if (version !== null) return [version];
  return [
    ...nameProblems(value.name),
    ...configProblems(value.config),
    ...(typeof value.init === "function" ? [] : ["`init` is not a function"]),
    ...(["undefined", "function"].includes(typeof value.check)
      ? []
      : ["`check` is not a function"]),
    ...commandProblems(value.commands),
    ...questionProblems(value.questions, value.config),
    ...offersProblems(value.offers),
    ...migrationProblems(value.migrations),
    ...Object.keys(value)
      .filter((key) => !PLUGIN_MEMBERS.includes(key))
      .map((key) => `\`${key}\` is not a member of a plugin`),
  ];
}

/** {@link pluginProblems} as a type guard. */
export function isPlugin(value: unknown): value is Plugin {
  return pluginProblems(value).length === 0;
}

/** What keeps `value` from being a {@link StrategyInstance}; empty when it is one. */
export function instanceProblems(value: unknown): readonly string[] {
  if (!isObject(value)) return ["`init` did not return an object"];
  const problems = ["authenticate"].filter((name) => typeof value[name] !== "function");
  const optional = ["challenges", "isCurrent", "health", "close"].filter(
    (name) => value[name] !== undefined && typeof value[name] !== "function",
  );
  return [
    ...[...problems, ...optional].map((name) => `\`${name}\` is not a function`),
    ...credentialHeaderProblems(value.credentialHeaders),
    ...tokenProblems(value.tokens),
    ...(value.isKeptOnReload === undefined || typeof value.isKeptOnReload === "boolean"
      ? []
      : ["`isKeptOnReload` is not a boolean"]),
    ...(value.surfaces === undefined || Array.isArray(value.surfaces)
      ? []
      : ["`surfaces` is not a list"]),
  ];
}

/** {@link instanceProblems} as a type guard. */
export function isStrategyInstance(value: unknown): value is StrategyInstance {
  return instanceProblems(value).length === 0;
}

function isObject(value: unknown): value is Members {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function contractProblem(contract: unknown): string | null {
  if (typeof contract !== "number" || !Number.isInteger(contract) || contract < 1) {
    return `\`contract\` is not a version number; write contract: ${CONTRACT_VERSION}`;
  }
  if (contract === CONTRACT_VERSION) return null;
  const versions = `it is written for contract ${contract}, this Gatehouse has contract ${CONTRACT_VERSION}`;
  return contract > CONTRACT_VERSION
    ? `${versions}: Gatehouse is the older side; install a newer Gatehouse`
    : `${versions}: the plugin is the older side; install a newer release of the plugin`;
}

function nameProblems(name: unknown): string[] {
  if (typeof name === "string" && PLUGIN_NAME.test(name)) return [];
  return ["`name` is not a slug (lower-case letters, digits and -, starting with a letter)"];
}

/** Looks at the schema's own description, because a plugin may bring another copy of the schema library. */
function configProblems(config: unknown): string[] {
  const def = isObject(config) && isObject(config.def) ? config.def : {};
  const hasParse = isObject(config) && typeof config.safeParse === "function";
  if (def.type !== "object" || !hasParse) {
    return ["`config` is not an object schema; use z.strictObject({ … })"];
  }
  const catchall = isObject(def.catchall) ? def.catchall.def : undefined;
  if (isObject(catchall) && catchall.type === "never") return [];
  return ["`config` lets unknown keys pass; use z.strictObject({ … })"];
}

function commandProblems(commands: unknown): string[] {
  if (commands === undefined) return [];
  if (!Array.isArray(commands)) return ["`commands` is not a list"];
  return commands.every(isCommand) ? [] : ["a command lacks `name`, `help` or `run`"];
}

function isCommand(value: unknown): boolean {
  if (!isObject(value)) return false;
  const named = typeof value.name === "string" && PLUGIN_NAME.test(value.name);
  return named && typeof value.help === "string" && typeof value.run === "function";
}

function questionProblems(questions: unknown, config: unknown): string[] {
  if (questions === undefined) return [];
  if (!Array.isArray(questions)) return ["`questions` is not a list"];
  const shape = isObject(config) && isObject(config.shape) ? config.shape : {};
  return questions.flatMap((question: unknown) => {
    if (!isQuestion(question)) return ["a question lacks `id`, `message` or a known `kind`"];
    return Object.hasOwn(shape, question.id)
      ? []
      : [`the question \`${question.id}\` is about no key of \`config\``];
  });
}

function isQuestion(value: unknown): value is { readonly id: string } {
  if (!isObject(value)) return false;
  const kind = value.kind;
  if (typeof kind !== "string" || !QUESTION_KINDS.includes(kind)) return false;
  if (kind === "select" && !Array.isArray(value.options)) return false;
  return typeof value.id === "string" && typeof value.message === "string";
}

function offersProblems(offers: unknown): string[] {
  if (offers === undefined) return [];
  const ok =
    isObject(offers) &&
    typeof offers.tokens === "boolean" &&
    Array.isArray(offers.surfaces) &&
    offers.surfaces.every((name: unknown) => typeof name === "string");
  return ok ? [] : ["`offers` is not { tokens: true or false, surfaces: [names] }"];
}

function migrationProblems(migrations: unknown): string[] {
  if (migrations === undefined) return [];
  const isStep = (step: unknown): boolean => isObject(step) && typeof step.name === "string";
  const ok =
    isObject(migrations) &&
    Object.values(migrations).every((steps) => Array.isArray(steps) && steps.every(isStep));
  return ok ? [] : ["`migrations` is not { namespace: [steps] }"];
}

function credentialHeaderProblems(headers: unknown): string[] {
  if (headers === undefined) return [];
  const ok =
    Array.isArray(headers) &&
    headers.every((name: unknown) => typeof name === "string" && HEADER_NAME.test(name));
  return ok ? [] : ["`credentialHeaders` is not a list of lower-case header names"];
}

function tokenProblems(tokens: unknown): string[] {
  if (tokens === undefined) return [];
  if (!isObject(tokens)) return ["`tokens` is not an object"];
  return ["create", "list", "get", "rotate", "revoke"]
    .filter((name) => typeof tokens[name] !== "function")
    .map((name) => `\`tokens.${name}\` is not a function`);
}
