/**
 * From a table of rules to routes: who may use which paths of a system, in the order in which they are looked at.
 *
 * Invariant: a rule opens only what it names. A public rule that says nothing of methods is for reading alone, and
 * what a preset closes is closed with a question for the credential first, so that paths cannot be probed.
 */
import { z } from "zod";
import type { WrittenRoute } from "./preset.ts";

/** One line of a preset's table. */
export interface Rule {
  /**
   * `anyone` needs no credential; `everybody` is whoever the strategies accept; `admins` need the role besides;
   * `nobody` gets 401, and 404 with a credential.
   */
  readonly for: "anyone" | "everybody" | "admins" | "nobody";
  readonly path: readonly string[];
  /** Default: GET and HEAD for `anyone`, every method for the others. */
  readonly methods?: readonly string[] | "any";
  /** Further keys of the route. */
  readonly more?: WrittenRoute;
}

/** Reading, as HTTP means it. */
export const READ = ["GET", "HEAD"] as const;

/** Options that every preset takes. */
export const common = {
  upstream: z
    .string()
    .describe(
      "Name of the upstream that it stands in front of, or proxy where a reverse proxy asks and forwards by itself.",
    ),
  access: z
    .array(z.string().min(1))
    .min(1)
    .describe("Strategies that are asked for the credential, in this order."),
  host: z
    .union([z.string().min(1), z.array(z.string().min(1)).min(1)])
    .optional()
    .describe(
      "Host name(s) that it is for, exact or *.example.com; needed where a gateway has several presets. Default: every host.",
    ),
  origins: z
    .array(z.string().min(1))
    .min(1)
    .optional()
    .describe(
      "Origins of browser pages that may call it, such as https://app.example.com. Default: the upstream's own CORS answers pass, and preflights need a credential.",
    ),
};

/** The option of presets for model servers. */
export const modelsOption = {
  models: z
    .array(z.string().min(1))
    .min(1)
    .optional()
    .describe(
      "Only these models, by exact name; a body that does not name one of them is refused. Default: every model.",
    ),
};

/** What becomes of paths that a preset does not name. */
export const unlistedOption = {
  unlisted: z
    .enum(["closed", "admin"])
    .default("closed")
    .describe(
      "Paths that the preset does not name: closed, or forwarded for role admin. Default closed.",
    ),
};

/** A switch that is off. @param text what it does, a sentence without its default */
export function flag(text: string) {
  return z.boolean().default(false).describe(`${text} Default false.`);
}

/** What {@link routesFrom} reads of the options. */
export interface CommonOptions {
  readonly upstream: string;
  readonly access: readonly string[];
  readonly host?: string | readonly string[] | undefined;
  readonly origins?: readonly string[] | undefined;
  readonly models?: readonly string[] | undefined;
}

/** Keys that mean something on a route that forwards nothing. */
const KEYS_OF_CLOSED = ["errors", "cors", "slashes"];

/** Keys that a preset sets for forwarding; a reverse proxy that asks and forwards by itself (`proxy`) has its own. */
const KEYS_OF_FORWARDING = [
  "max_body",
  "chunked_body",
  "response_headers",
  "forward_credential",
  "forwarded_headers",
];

/** Spells the rules out. @param shared keys of every route, under those of the rule itself */
export function routesFrom(
  given: CommonOptions,
  rules: readonly Rule[],
  shared: WrittenRoute = {},
): readonly WrittenRoute[] {
  const cors = given.origins === undefined ? {} : { cors: corsFor(given.origins) };
  return rules.map((rule) => routeOf(rule, given, { ...cors, ...shared }));
}

function routeOf(rule: Rule, given: CommonOptions, shared: WrittenRoute): WrittenRoute {
  const methods = rule.methods ?? (rule.for === "anyone" ? READ : "any");
  const match = {
    ...(given.host === undefined ? {} : { host: given.host }),
    path: [...rule.path],
    ...(methods === "any" ? {} : { methods: [...methods] }),
  };
  const all = Object.entries({ ...shared, ...rule.more });
  const isForwarded = given.upstream !== "proxy";
  const keys = Object.fromEntries(
    all.filter(([key]) => isForwarded || !KEYS_OF_FORWARDING.includes(key)),
  );
  switch (rule.for) {
    case "anyone":
      return { match, access: "public", upstream: given.upstream, ...keys };
    case "everybody":
      return {
        match,
        access: [...given.access],
        upstream: given.upstream,
        ...(given.models === undefined ? {} : { models: { allow: [...given.models] } }),
        ...keys,
      };
    case "admins":
      return {
        match,
        access: [...given.access],
        require: { role: "admin" },
        upstream: given.upstream,
        ...keys,
      };
    case "nobody": {
      const kept = Object.entries(keys).filter(([key]) => KEYS_OF_CLOSED.includes(key));
      return { match, access: [...given.access], ...Object.fromEntries(kept) };
    }
  }
}

/** A rule that is there only if its option is on. */
export function onlyIf(condition: boolean, rule: Rule): readonly Rule[] {
  return condition ? [rule] : [];
}

/** The last rule of a preset that names every path it knows. */
export function rest(unlisted: "closed" | "admin"): Rule {
  return { for: unlisted === "admin" ? "admins" : "nobody", path: ["/**"] };
}

/**
 * `*` stands for every header but Authorization (Fetch standard), and SDKs send a dozen of their own. It has no
 * such meaning with cookies, which these rules do not allow.
 */
function corsFor(origins: readonly string[]): WrittenRoute {
  return { origins: [...origins], headers: ["authorization", "*"] };
}
