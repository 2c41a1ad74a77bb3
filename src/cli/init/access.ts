/**
 * Who may enter: the strategies that a set-up offers, and the questions that they bring along as data.
 *
 * Invariant: an answer counts only when it parses with the key of the strategy's own schema that it is for; the answer
 * to a question of kind secret never stands in the configuration.
 */
import type { z } from "zod";
import type { Plugin, Question } from "../../contract/plugin.ts";
import type { Prompter } from "./prompts.ts";

/** What people call it. */
export const ACCESS_KINDS = ["tokens", "npubs", "valkey", "static", "oidc"] as const;
export type AccessKind = (typeof ACCESS_KINDS)[number];

/** One way in. */
export interface Access {
  readonly kind: AccessKind;
  /** Name of the plugin. */
  readonly use: string;
  /** Name of the strategy in the configuration. */
  readonly strategy: string;
  readonly title: string;
  readonly hint: string;
}

export const ACCESS: readonly Access[] = [
  {
    kind: "tokens",
    use: "bearer-sqlite",
    strategy: "team",
    title: "Tokens",
    hint: "made and revoked here, kept as keyed hashes",
  },
  {
    kind: "npubs",
    use: "nip98",
    strategy: "nostr",
    title: "Nostr keys",
    hint: "requests signed by npubs that you name",
  },
  {
    kind: "valkey",
    use: "valkey-hash",
    strategy: "keys",
    title: "Tokens in Valkey",
    hint: "shared by several gateways",
  },
  {
    kind: "static",
    use: "static-env",
    strategy: "ops",
    title: "One static token",
    hint: "kept in a file of mode 600",
  },
  {
    kind: "oidc",
    use: "oidc",
    strategy: "sso",
    title: "OpenID Connect",
    hint: "JWTs of your issuer",
  },
];

/** The way in of that kind. */
export function accessOf(kind: AccessKind): Access {
  const found = ACCESS.find((one) => one.kind === kind);
  if (found === undefined) throw new TypeError(`no access ${kind}`);
  return found;
}

/** An answer, or what is wrong with it. */
export type Coerced = { readonly value: unknown } | { readonly problem: string };

/** A text as the key of a strategy's settings wants it: itself, a list, true or false, a number. */
export function coerce(plugin: Plugin, id: string, text: string): Coerced {
  const schema = fieldOf(plugin, id);
  if (schema === undefined) return { problem: `${plugin.name} has no setting ${id}` };
  const list = text.split(/[\s,]+/).filter((word) => word !== "");
  const forms: readonly unknown[] = [text, list, text === "true", Number(text)];
  const problems: string[] = [];
  for (const form of forms) {
    const parsed = schema.safeParse(form);
    if (parsed.success) return { value: form };
    // The form that fits has the message that helps.
    const [issue] = parsed.error.issues;
    if (issue !== undefined && issue.code !== "invalid_type") problems.push(issue.message);
  }
  return { problem: problems[0] ?? "that is not accepted here" };
}

/** What is wrong with all answers together, or null. */
export function settingsProblem(
  plugin: Plugin,
  settings: Readonly<Record<string, unknown>>,
): string | null {
  const parsed = plugin.config.safeParse(settings);
  if (parsed.success) return null;
  return parsed.error.issues
    .map(({ path, message }) => (path.length === 0 ? message : `${path.join(".")}: ${message}`))
    .join("; ");
}

/** What was answered to a strategy's questions, by the key that each is about. */
export type GivenAnswers = Readonly<Record<string, unknown>>;

/** Asks those that were not answered before; again from the first when the answers do not go together. */
export async function askQuestions(
  plugin: Plugin,
  given: GivenAnswers,
  prompter: Prompter,
): Promise<GivenAnswers> {
  while (true) {
    const answers: Record<string, unknown> = { ...given };
    for (const question of plugin.questions ?? []) {
      if (answers[question.id] !== undefined) continue;
      answers[question.id] = await askOne(plugin, question, prompter);
    }
    const problem = settingsProblem(plugin, answers);
    if (problem === null) return answers;
    prompter.warn(problem);
  }
}

async function askOne(plugin: Plugin, question: Question, prompter: Prompter): Promise<unknown> {
  const { id, kind, message, initial } = question;
  const validate = (text: string): string | undefined => {
    const coerced = coerce(plugin, id, text.trim());
    return "problem" in coerced ? coerced.problem : undefined;
  };
  const settingOf = (text: string): unknown => {
    const coerced = coerce(plugin, id, text);
    return "problem" in coerced ? text : coerced.value;
  };
  switch (kind) {
    case "confirm":
      return prompter.confirm(message, initial === true);
    case "select": {
      const options = question.options ?? [];
      const first = typeof initial === "string" ? initial : options[0]?.value;
      return settingOf(await prompter.one(message, options, first));
    }
    case "secret":
      return prompter.hidden(message, validate);
    case "text":
      return settingOf(
        await prompter.text(message, {
          validate,
          ...(typeof initial === "string" ? { initial } : {}),
        }),
      );
  }
}

function fieldOf(plugin: Plugin, id: string): z.ZodType | undefined {
  const shape: Readonly<Record<string, z.ZodType>> = plugin.config.shape;
  return Object.hasOwn(shape, id) ? shape[id] : undefined;
}
