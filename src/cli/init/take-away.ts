/**
 * Takes away what a journal says was made, last thing first.
 *
 * Invariant: only what the journal names is touched. A file that somebody changed since stays, and is said; a
 * directory goes only when nothing is left in it.
 */
import {
  existsSync,
  lstatSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  realpathSync,
  rmdirSync,
  rmSync,
  statSync,
} from "node:fs";
import { join } from "node:path";
import { errorCode, errorMessage } from "../../errors.ts";
import { fileSum, replaceFile } from "./files.ts";
import type { Made } from "./journal.ts";

/** What was done about each thing. */
export interface TakenAway {
  readonly removed: readonly string[];
  readonly kept: readonly Kept[];
}

/** Something that stays. */
export interface Kept {
  readonly path: string;
  readonly why: string;
  /** Null when it is somebody else's now; otherwise it can be tried again. */
  readonly made: Made | null;
}

/** What cannot be done with files alone. */
export interface TakeAwayTools {
  /** Takes a service away; returns null, or why it stays. */
  removeService(service: Extract<Made, { kind: "service" }>): Promise<string | null>;
  /** Ends a token in a store that is not ours; returns null, or why it stays. */
  revokeToken(token: Extract<Made, { kind: "token" }>): Promise<string | null>;
}

/** What this program keeps in a state directory; a gateway that was killed leaves its socket. */
const OUR_STATE = /^(?:gatehouse\.db.*|control\.sock|[a-z][a-z0-9_-]*\.key|\.key-[0-9a-f]+)$/;

/** Never rejects: what cannot be taken away is among `kept`. @param made in the order in which it was made */
export async function takeAway(made: readonly Made[], tools: TakeAwayTools): Promise<TakenAway> {
  const removed: string[] = [];
  const kept: Kept[] = [];
  for (const one of made.toReversed()) {
    const path = placeOf(one);
    try {
      const why = await takeOne(one, tools);
      if (why === "absent") continue;
      if (why === null) removed.push(path);
      else kept.push({ path, why, made: null });
    } catch (error) {
      kept.push({ path, why: errorCode(error) ?? errorMessage(error), made: one });
    }
  }
  return { removed, kept };
}

/** A file's path, or what else names it. */
function placeOf(one: Made): string {
  if (one.kind === "service") return `${one.name}.service`;
  if (one.kind === "token") return `token ${one.id}`;
  return one.path;
}

/** Null when it is gone, `absent` when it was not there, else why it stays. */
function takeOne(one: Made, tools: TakeAwayTools): Promise<string | null> | string | null {
  switch (one.kind) {
    case "service":
      return tools.removeService(one);
    case "token":
      return tools.revokeToken(one);
    case "file":
      return takeFile(one.path, one.sha256);
    case "link":
      return takeLink(one.path, one.target);
    case "edit":
      return takeEdit(one);
    case "state":
      return takeState(one.path);
    case "directory":
      return takeDirectory(one.path);
  }
}

function takeFile(path: string, sha256: string): string | null {
  if (!existsSync(path)) return "absent";
  if (fileSum(path) !== sha256) return "it was changed since";
  rmSync(path);
  return null;
}

function takeLink(path: string, target: string): string | null {
  const status = lstatSync(path, { throwIfNoEntry: false });
  if (status === undefined) return "absent";
  if (!status.isSymbolicLink() || readlinkSync(path) !== target) return "it was changed since";
  rmSync(path);
  return null;
}

/** As it was before, unless somebody went on from what we wrote. */
function takeEdit({ path, backup, sha256 }: Extract<Made, { kind: "edit" }>): string | null {
  if (!existsSync(backup)) return "absent";
  if (fileSum(path) !== sha256) return `it was changed since; how it was before is in ${backup}`;
  const { mode } = statSync(path);
  replaceFile(path, readFileSync(backup, "utf8"), mode & 0o777);
  rmSync(backup);
  return null;
}

/** systemd puts a link in its place when it makes the account of a service. */
function takeState(path: string): string | null {
  const status = lstatSync(path, { throwIfNoEntry: false });
  if (status === undefined) return "absent";
  const real = realpathSync(path);
  for (const name of readdirSync(real)) {
    if (OUR_STATE.test(name)) rmSync(join(real, name), { force: true });
  }
  const left = readdirSync(real);
  if (left.length > 0) return `there is something else in it: ${left.slice(0, 5).join(", ")}`;
  rmdirSync(real);
  if (status.isSymbolicLink()) rmSync(path);
  return null;
}

function takeDirectory(path: string): string | null {
  // Asked first, because a read-only disk says the same about what is not there.
  if (!existsSync(path)) return "absent";
  try {
    rmdirSync(path);
    return null;
  } catch (error) {
    const code = errorCode(error);
    if (code === "ENOENT") return "absent";
    if (code !== "ENOTEMPTY" && code !== "EEXIST") throw error;
    return `there is something else in it: ${readdirSync(path).slice(0, 5).join(", ")}`;
  }
}
