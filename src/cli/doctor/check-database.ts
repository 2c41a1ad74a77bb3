/**
 * The state database: is it whole, ours, and known to this version; and files of strategies that have their own.
 *
 * Invariant: reads only; see database-copy.ts.
 */
import { join, resolve } from "node:path";
import type { GatewayConfig } from "../../config/model.ts";
import { type DatabaseLook, lookAt } from "./database-copy.ts";
import { error, type Finding, info, ok } from "./finding.ts";
import { needingConfig } from "./subject.ts";

export const checkDatabase = needingConfig("State", "the state database", (config, subject) => {
  const path = join(config.stateDir, "gatehouse.db");
  return [...stateFindings(path, subject.database()), ...otherFiles(config)];
});

function stateFindings(path: string, look: DatabaseLook): readonly Finding[] {
  if (look.kind === "absent")
    return [info("database_absent", `${path} is not there yet; the first start makes it`)];
  return [verdict("database", path, look)];
}

/** Databases of other programs that strategies read. */
function otherFiles({ strategies, configDir }: GatewayConfig): readonly Finding[] {
  return strategies.flatMap(({ settings }) => {
    const { database } = settings;
    if (typeof database !== "string" || database.includes("${")) return [];
    const path = resolve(configDir, database);
    const look = lookAt(path, null);
    // That it is missing is said by the check of the configuration.
    return look.kind === "absent" ? [] : [verdict("other_database", path, look)];
  });
}

function verdict(
  prefix: string,
  path: string,
  look: Exclude<DatabaseLook, { kind: "absent" }>,
): Finding {
  switch (look.kind) {
    case "sound": {
      const size = `${(look.bytes / 1_048_576).toFixed(1)} MiB`;
      const what = look.isWhole
        ? "is whole"
        : "has a sound structure (too large to compare its indexes)";
      return ok(`${prefix}_sound`, `${path} ${what}, ${size}`);
    }
    case "unseen":
      return info(`${prefix}_unseen`, `${path} was not checked: ${look.why}`, {
        next: `with sqlite3, while the gateway is stopped: \`sqlite3 ${path} 'PRAGMA quick_check'\``,
      });
    case "foreign":
      return error(`${prefix}_foreign`, `${path} is the database of another program`, {
        why: "The gateway does not start with it.",
        next: "move it away, or choose another `state_dir`",
      });
    case "damaged":
      return error(`${prefix}_damaged`, `${path} is damaged: ${look.what}`, {
        why: "Tokens may be missing, and ended ones may be valid again; requests with tokens are answered 503.",
        next: "keep a copy of it with its -wal, then `gatehouse restore FILE` with the newest backup",
      });
  }
}
