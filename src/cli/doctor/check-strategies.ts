/**
 * The strategies: would each of them start, what does it say of itself, and what about its tokens.
 *
 * Invariant: they run on a copy of the state in memory (memory-host.ts); no token and no name of a secret is shown, only
 * names and ids, which are public.
 */
import { Database } from "bun:sqlite";
import type { Condition, StrategyInstance } from "../../contract/plugin.ts";
import type { TokenRecord } from "../../contract/tokens.ts";
import { takeIntoUse } from "../../store/migrations.ts";
import { error, type Finding, info, ok, someOf, warning } from "./finding.ts";
import { isTriable, type Trial, tryStrategies } from "./memory-host.ts";
import { needingConfig, type Subject } from "./subject.ts";

const DAY_MS = 86_400_000;
const SOON_MS = 7 * DAY_MS;
/** A token that nobody has used for so long after it was made was forgotten, or lost. */
const FORGOTTEN_MS = 30 * DAY_MS;
/** What a strategy begins in the background, for instance fetching keys, has this long. */
const SETTLE_MS = 2500;
const LOOK_EVERY_MS = 25;
/** Some 250,000 tokens, read in about two seconds. */
const MOST_LISTED_BYTES = 67_108_864;

export const checkStrategies = needingConfig(
  "Strategies",
  "the strategies",
  async (config, subject) => {
    const triable = config.strategies.filter((one) => isTriable(one, subject.context.plugins));
    const left = config.strategies.filter((one) => !triable.includes(one));
    const findings = left.map(({ name, use }) =>
      info(
        "strategy_not_tried",
        `${name} (${use}) was not started: what its code or its own file does is not undone here`,
      ),
    );
    const copy = copyFor(subject);
    if (copy === null) {
      return [
        ...findings,
        info(
          "strategies_not_tried",
          "strategies were not started, because their database was not read",
        ),
      ];
    }
    const trials = await tryStrategies(triable, config, copy, subject);
    try {
      for (const trial of trials.all) findings.push(...(await trialFindings(trial, subject)));
    } finally {
      await trials.close();
    }
    return findings;
  },
);

/** A new and empty one when there is none yet; null when the one there is cannot be read. */
function copyFor(subject: Subject): Database | null {
  const look = subject.database();
  if (look.kind === "sound") return look.copy();
  if (look.kind !== "absent") return null;
  const empty = new Database(":memory:", { strict: true });
  takeIntoUse(empty, ":memory:", subject.clock);
  return empty;
}

async function trialFindings(trial: Trial, subject: Subject): Promise<readonly Finding[]> {
  if (trial.kind === "failed") return failure(trial);
  const { name, instance } = trial;
  const conditions = await settled(() => instance.health?.() ?? []);
  const tokens = trial.usesDatabase ? await tokensOf(name, instance, subject) : [];
  const said = conditions.map((condition) => conditionFinding(name, condition));
  const isWell = said.every(({ severity }) => severity === "info");
  return [...(isWell ? [ok("strategy_starts", `${name} starts`)] : []), ...said, ...tokens];
}

async function tokensOf(
  name: string,
  { tokens }: StrategyInstance,
  subject: Subject,
): Promise<readonly Finding[]> {
  if (tokens === undefined) return [];
  const look = subject.database();
  if (look.kind === "sound" && look.bytes > MOST_LISTED_BYTES) {
    return [info("tokens_many", `${name} has too many tokens to look at each of them`)];
  }
  return tokenFindings(name, await tokens.list(), subject.clock.nowMs());
}

/** Asks again for as long as something is under way. */
async function settled(health: () => readonly Condition[]): Promise<readonly Condition[]> {
  const endMs = performance.now() + SETTLE_MS;
  let conditions = health();
  while (conditions.some(({ code }) => code.endsWith("_pending")) && performance.now() < endMs) {
    await Bun.sleep(LOOK_EVERY_MS);
    conditions = health();
  }
  return conditions;
}

function failure({
  name,
  why,
  missingKey,
  isNewer,
}: Extract<Trial, { kind: "failed" }>): readonly Finding[] {
  if (missingKey !== null) {
    return [
      error(
        "key_lost",
        `${missingKey} is not there, although the database holds tokens that were made with it`,
        {
          why: `Without this key no token of ${name} works, and none of them can be made to work again: the database holds only their keyed hashes.`,
          next: "put it back from the backup of this database: `gatehouse restore FILE`; if there is none, move gatehouse.db away and make new tokens",
        },
      ),
    ];
  }
  if (isNewer) {
    return [
      error("database_newer", `${name}: ${why}`, {
        why: "An older version would misread what the newer one wrote, so it does not start.",
        next: "run the newer version, or `gatehouse restore FILE` with a backup made by this one",
      }),
    ];
  }
  if (why === "") return [];
  return [
    error("strategy_cannot_start", `${name} cannot start: ${why}`, {
      why: "The gateway does not start without it.",
      next: "mend what the sentence names, then `gatehouse doctor` again",
    }),
  ];
}

function conditionFinding(name: string, { code, severity, text, next }: Condition): Finding {
  const what = `${name}: ${text}`;
  // It names this very command when there is no other.
  const command = next === undefined || next === "gatehouse doctor" ? null : `\`${next}\``;
  if (severity === "info") return info(code, what, command === null ? {} : { next: command });
  const advice = {
    why: "Whoever comes with a credential of this strategy is affected.",
    next: command ?? "mend what the sentence names",
  };
  return severity === "error" ? error(code, what, advice) : warning(code, what, advice);
}

function tokenFindings(
  name: string,
  all: readonly TokenRecord[],
  nowMs: number,
): readonly Finding[] {
  const live = all.filter(
    ({ revokedAtMs, expiresAtMs }) => revokedAtMs === null && (expiresAtMs ?? nowMs + 1) > nowMs,
  );
  if (live.length === 0) {
    return [
      info("no_tokens", `${name} has no token that works`, {
        why: "Nobody can come in by this strategy.",
        next: `\`gatehouse token create --strategy ${name} --name NAME\``,
      }),
    ];
  }
  const ending = live.filter(
    ({ expiresAtMs }) => expiresAtMs !== null && expiresAtMs - nowMs < SOON_MS,
  );
  const unused = live.filter(
    ({ lastUsedAtMs, createdAtMs }) => lastUsedAtMs === null && nowMs - createdAtMs > FORGOTTEN_MS,
  );
  const findings = [ok("tokens", `${name}: ${live.length} of ${all.length} tokens work`)];
  if (ending.length > 0) {
    findings.push(
      info(
        "tokens_expiring",
        `${name}: within 7 days ${someOf(ending.map(labelOf))} will have expired`,
        {
          why: "Their owners will be refused from one request to the next.",
          next: `make new ones: \`gatehouse token create --strategy ${name} --name NAME --expires 90d\``,
        },
      ),
    );
  }
  if (unused.length > 0) {
    findings.push(
      info(
        "tokens_unused",
        `${name}: never used in 30 days or more: ${someOf(unused.map(labelOf))}`,
        {
          why: "A token that nobody uses can only be misused.",
          next: `\`gatehouse token revoke ID --strategy ${name}\``,
        },
      ),
    );
  }
  return findings;
}

/** A name may be anything that its maker wrote; an id is always safe. */
function labelOf({ id, name }: TokenRecord): string {
  return name === "" ? id : `${name} (${id})`;
}
