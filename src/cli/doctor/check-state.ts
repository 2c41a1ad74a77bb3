/**
 * The state directory: who owns what lies in it, who could read it, whether a restore was left unfinished.
 *
 * Invariant: only looks. What may not be seen is said to be so, never taken for fine.
 */
import { existsSync, lstatSync, readdirSync, type Stats, statSync } from "node:fs";
import { join } from "node:path";
import { errorCode } from "../../errors.ts";
import { RESTORE_MARK } from "../../store/unfinished-restore.ts";
import { error, type Finding, info, ok, someOf, warning } from "./finding.ts";
import { needingConfig } from "./subject.ts";

/** More files than any state has; the rest would say the same. */
const MOST_FILES = 2000;
const KEY_BYTES = 32;
const OTHERS = 0o077;

export const checkState = needingConfig("State", "the state directory", ({ stateDir }) => {
  const status = look(stateDir);
  if (status === "ENOENT") {
    return [info("state_absent", `${stateDir} is not there yet; the first start makes it`)];
  }
  if (typeof status === "string") return [unseen(stateDir, status)];
  // A link to a directory is what systemd makes for an account of its own.
  const names = namesIn(stateDir);
  if (names === null) return [unseen(stateDir, "EACCES")];
  const owner = ownerOf(stateDir) ?? status.uid;
  const files = names.slice(0, MOST_FILES).flatMap((name) => {
    const found = look(join(stateDir, name));
    return typeof found === "string" ? [] : [{ name, status: found }];
  });
  const findings = [
    ...unfinished(stateDir),
    ...openFiles(stateDir, files),
    ...foreignFiles(stateDir, owner, files),
    ...brokenKeys(stateDir, files),
  ];
  if (findings.some(({ severity }) => severity === "error")) return findings;
  return [
    ok("state_private", `${stateDir} and its ${files.length} files are their owner's alone`),
    ...findings,
  ];
});

interface FoundFile {
  readonly name: string;
  readonly status: Stats;
}

function unfinished(stateDir: string): readonly Finding[] {
  if (!existsSync(join(stateDir, RESTORE_MARK))) return [];
  return [
    error("restore_unfinished", `a restore of ${stateDir} was interrupted, or is under way`, {
      why: "Keys and database may be of different days: no command and no gateway opens them like this.",
      next: "if none is running, `gatehouse restore --undo` brings back what was there before",
    }),
  ];
}

function openFiles(stateDir: string, files: readonly FoundFile[]): readonly Finding[] {
  const open = files.filter(
    ({ status }) => !status.isSymbolicLink() && (status.mode & OTHERS) !== 0,
  );
  if (open.length === 0) return [];
  const paths = open.map(({ name }) => join(stateDir, name));
  return [
    error(
      "state_open",
      `open to other users: ${someOf(open.map(({ name }) => name))} in ${stateDir}`,
      {
        why: "Whoever reads a key and the database can test guesses at tokens offline; whoever writes them lets himself in. The gateway refuses them.",
        next: `find out who could read them, then \`chmod go-rwx ${paths.slice(0, 5).join(" ")}\``,
      },
    ),
  ];
}

function foreignFiles(
  stateDir: string,
  owner: number,
  files: readonly FoundFile[],
): readonly Finding[] {
  const foreign = files.filter(({ status }) => status.uid !== owner);
  if (foreign.length === 0) return [];
  const names = someOf(foreign.map(({ name }) => name));
  return [
    error(
      "state_owner",
      `${names} in ${stateDir} belong to another user than the directory (uid ${owner})`,
      {
        why: "The gateway refuses files that are not its own; this happens when a command was run with sudo.",
        next: `\`sudo chown -R ${owner} ${stateDir}\``,
      },
    ),
  ];
}

function brokenKeys(stateDir: string, files: readonly FoundFile[]): readonly Finding[] {
  return files
    .filter(({ name, status }) => name.endsWith(".key") && status.size !== KEY_BYTES)
    .map(({ name, status }) =>
      error(
        "key_damaged",
        `${join(stateDir, name)} has ${status.size} bytes instead of ${KEY_BYTES}`,
        {
          why: "Everything that was made with this key is worthless without it: no token of this gateway works.",
          next: "put it back from the backup of this database: `gatehouse restore FILE`",
        },
      ),
    );
}

function unseen(stateDir: string, code: string): Finding {
  return warning("state_unseen", `${stateDir} may not be looked at (${code})`, {
    why: "Files, keys, database and tokens were not checked.",
    next: "run it as the owner or as root: `sudo gatehouse doctor`",
  });
}

/** Owner of the directory itself, behind a link. */
function ownerOf(path: string): number | null {
  try {
    return statSync(path).uid;
  } catch {
    return null;
  }
}

function look(path: string): Stats | string {
  try {
    return lstatSync(path);
  } catch (problem) {
    return errorCode(problem) ?? "error";
  }
}

function namesIn(dir: string): readonly string[] | null {
  try {
    return readdirSync(dir);
  } catch {
    return null;
  }
}
