/**
 * Each Valkey of the configuration: does it answer, may it be written to, does it keep what it is given, and has its
 * user the rights that are needed.
 *
 * Invariant: nothing is written: whether writing works is asked with a `SET … XX` of a key that does not exist. A password
 * is never part of a finding; errors come from src/valkey, which keeps the server's words to itself.
 */
import { randomBytes } from "node:crypto";
import type { GatewayConfig } from "../../config/model.ts";
import { resolveDeep } from "../../config/references.ts";
import { type Valkey, ValkeyError } from "../../contract/valkey.ts";
import {
  type ValkeySettings,
  valkeyPlace,
  valkeyProblems,
} from "../../contract/valkey-settings.ts";
import { errorMessage } from "../../errors.ts";
import { lazyValkey } from "../../valkey/connections.ts";
import { error, type Finding, info, ok, warning } from "./finding.ts";
import { isLoopbackHost } from "./networks.ts";
import { needingConfig, type Subject } from "./subject.ts";
import {
  type Command,
  deniedIn,
  type Needs,
  rightsQuestion,
  ruleName,
  sharedNeeds,
  TOKEN_NEEDS,
} from "./valkey-rights.ts";

/** One use of a Valkey in the configuration. */
interface Use {
  /** `strategy keys`, `shared`. */
  readonly name: string;
  readonly settings: ValkeySettings;
  /** Null for a strategy that is not ours. */
  readonly needs: Needs | null;
}

const EVERY_MS = 4000;

export const checkValkey = needingConfig("Valkey", "Valkey", async (config, subject) => {
  const uses = usesIn(config, subject);
  const all = await Promise.all(uses.map((use) => useFindings(use, config)));
  return all.flat();
});

/** Strategies whose settings are spread from the contract's keys, and `shared`. */
function usesIn(config: GatewayConfig, { env, loaded }: Subject): readonly Use[] {
  const resolved = (value: unknown): unknown => {
    const { value: plain, problems } = resolveDeep(value, { env, configDir: config.configDir });
    // A secret that is missing is said by the check of the configuration.
    return problems.length === 0 ? plain : null;
  };
  const ofStrategies = config.strategies.flatMap(({ name, use, settings }): Use[] => {
    const plugin = loaded.plugins.get(name);
    const keys = Object.keys(plugin?.config.shape ?? {});
    if (!["url", "sentinel", "cluster", "command_timeout"].every((key) => keys.includes(key)))
      return [];
    const parsed = plugin?.config.safeParse(resolved(settings) ?? {});
    if (parsed?.success !== true) return [];
    const needs = use === "valkey-hash" ? TOKEN_NEEDS : null;
    return [{ name: `strategy ${name}`, settings: parsed.data as ValkeySettings, needs }];
  });
  const settings =
    config.shared === null ? null : (resolved(config.shared.valkey) as ValkeySettings | null);
  if (config.shared === null || settings === null || valkeyProblems(settings).length > 0)
    return ofStrategies;
  return [...ofStrategies, { name: "shared", settings, needs: sharedNeeds(config.shared.prefix) }];
}

async function useFindings(use: Use, config: GatewayConfig): Promise<readonly Finding[]> {
  const valkeys = lazyValkey(config.configDir);
  const late = setTimeout(() => valkeys.close(), EVERY_MS);
  try {
    const valkey = await valkeys.open(use.settings);
    const found = await lookAt(valkey, use);
    const isWell = found.every(({ severity }) => severity === "info" || severity === "ok");
    return isWell
      ? [ok("valkey_works", `${use.name}: valkey at ${valkey.place} can do the work`), ...found]
      : found;
  } catch (problem) {
    return [unusable(use, problem)];
  } finally {
    clearTimeout(late);
    valkeys.close();
  }
}

function unusable({ name, settings }: Use, problem: unknown): Finding {
  const isOurs = problem instanceof ValkeyError;
  const what = isOurs
    ? problem.message
    : `valkey at ${valkeyPlace(settings)}: ${errorMessage(problem)}`;
  return error("valkey_unusable", `${name}: ${what}`, {
    why: "Credentials that lie there cannot be checked: their requests are answered 503, and the gateway does not start.",
    next: "start it, or correct what the sentence names; docs/valkey.md lists what the user needs",
  });
}

async function lookAt(valkey: Valkey, use: Use): Promise<readonly Finding[]> {
  const facts = infoFacts(await valkey.command("info"));
  return [
    ...roleFindings(valkey, use, facts),
    ...memoryFindings(valkey, use, facts),
    ...diskFindings(valkey, use, facts),
    ...plainFindings(valkey, use),
    ...(await writeFindings(valkey, use)),
    ...(await rightsFindings(valkey, use)),
  ];
}

/** Lines of INFO. */
function infoFacts(reply: unknown): ReadonlyMap<string, string> {
  const lines = String(reply).split(/\r?\n/);
  return new Map(
    lines.flatMap((line) => {
      const match = /^([a-z0-9_]+):(.*)$/.exec(line);
      return match === null ? [] : [[match[1] ?? "", match[2] ?? ""]];
    }),
  );
}

type Facts = ReadonlyMap<string, string>;

function roleFindings(
  { place, isCluster }: Valkey,
  { name }: Use,
  facts: Facts,
): readonly Finding[] {
  if (isCluster || facts.get("role") !== "slave") return [];
  return [
    error("valkey_replica", `${name}: valkey at ${place} is a replica`, {
      why: "Nothing can be written to it, and what it says may be old: a token that was ended may still pass.",
      next: "name the primary, or `sentinel` to have it found",
    }),
  ];
}

function memoryFindings({ place }: Valkey, { name }: Use, facts: Facts): readonly Finding[] {
  const policy = facts.get("maxmemory_policy") ?? "noeviction";
  if (policy === "noeviction") return [];
  const isBounded = Number(facts.get("maxmemory") ?? 0) > 0;
  const advice = {
    why: "When it is full it throws away tokens, used proofs and revocations: good tokens die, and an ended one may pass again.",
    next: "`CONFIG SET maxmemory-policy noeviction`, and the same in its configuration file; or give it a Valkey of its own",
  };
  const what = `${name}: valkey at ${place} throws keys away when it is full (maxmemory-policy ${policy})`;
  return [
    isBounded ? error("valkey_evicts", what, advice) : warning("valkey_evicts", what, advice),
  ];
}

function diskFindings({ place }: Valkey, { name }: Use, facts: Facts): readonly Finding[] {
  if (
    facts.get("rdb_last_bgsave_status") === "err" ||
    facts.get("aof_last_write_status") === "err"
  ) {
    return [
      error("valkey_cannot_save", `${name}: valkey at ${place} cannot save to its disk`, {
        why: "It refuses to write, and what it holds is gone when it restarts.",
        next: "look at its log and at the space on its disk",
      }),
    ];
  }
  if (facts.get("aof_enabled") !== "0") return [];
  return [
    warning(
      "valkey_forgets",
      `${name}: valkey at ${place} keeps no log of what is written (appendonly no)`,
      {
        why: "After a crash it is as it was at its last snapshot: tokens made since are gone, and ones ended since are back.",
        next: "`CONFIG SET appendonly yes`, and the same in its configuration file",
      },
    ),
  ];
}

function plainFindings({ place }: Valkey, { name, settings }: Use): readonly Finding[] {
  const { url, tls, password } = settings;
  if (url === undefined || tls !== undefined || /^(?:rediss|valkeys):/.test(url)) return [];
  const { hostname } = new URL(url.replace(/^\w+:/, "http:"));
  if (password === undefined || isLoopbackHost(hostname.replace(/^\[|\]$/g, ""))) return [];
  return [
    info(
      "valkey_plain",
      `${name}: the password for valkey at ${place} crosses the network in clear`,
      {
        next: "use `rediss://`, unless the network between the two is yours alone",
      },
    ),
  ];
}

/** XX sets only what exists, and this does not: the server says whether it would write, and does not. */
async function writeFindings(valkey: Valkey, { name, needs }: Use): Promise<readonly Finding[]> {
  const prefix = needs?.key ?? "doctor:";
  try {
    await valkey.command("set", `${prefix}:${randomBytes(8).toString("hex")}`, "1", "XX");
    return [];
  } catch (problem) {
    if (!(problem instanceof ValkeyError)) throw problem;
    // Of rights the next check says more; a replica was named already.
    if (problem.code === "NOPERM" || problem.code === "READONLY") return [];
    return [
      error("valkey_unwritable", `${name}: ${problem.message}`, {
        why: "Tokens cannot be made or ended, and one-time proofs cannot be used up: those requests are answered 503.",
        next: "mend what the sentence names",
      }),
    ];
  }
}

async function rightsFindings(valkey: Valkey, { name, needs }: Use): Promise<readonly Finding[]> {
  if (needs === null) return [];
  const ask = async (commands: readonly Command[]): Promise<readonly Command[]> => {
    if (commands.length === 0) return [];
    return deniedIn(await valkey.command(...rightsQuestion(needs.key, commands)), commands) ?? [];
  };
  try {
    const [serving, keeping, following] = await Promise.all([
      ask(needs.serving),
      ask(needs.keeping),
      ask(needs.following),
    ]);
    return [
      ...missing(name, serving, "Requests with tokens that lie there are answered 503.", error),
      ...missing(name, keeping, "Tokens cannot be made, listed or ended.", error),
      ...missing(
        name,
        following,
        "Changes cannot be followed, so each request asks the server.",
        warning,
      ),
    ];
  } catch (problem) {
    if (!(problem instanceof ValkeyError)) throw problem;
    if (problem.code === "NOPERM") {
      return missing(
        name,
        [["eval"]],
        "Tokens cannot be made or ended, one-time proofs cannot be used up.",
        error,
      );
    }
    return [
      info(
        "valkey_rights_unknown",
        `${name}: which rights the user has could not be asked (${problem.code})`,
      ),
    ];
  }
}

function missing(
  name: string,
  commands: readonly Command[],
  why: string,
  make: typeof error,
): readonly Finding[] {
  if (commands.length === 0) return [];
  const rules = commands.map(ruleName).join(" ");
  return [
    make("valkey_rights", `${name}: its user may not do what is needed: ${rules}`, {
      why,
      next: `\`ACL SETUSER NAME ${rules}\`, and rights on the keys; docs/valkey.md has the whole line`,
    }),
  ];
}
