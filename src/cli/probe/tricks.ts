/**
 * Paths that two programs read differently: from public paths to guarded ones, and guarded ones in other spellings.
 *
 * Invariant: without a credential. That a guarded path was reached is only said when its answer, or the upstream's own
 * word about what it was asked for, shows it; a doubtful path that was passed on is less, and is called less.
 */
import { error, type Finding, ok, someOf, warning } from "../doctor/finding.ts";
import { type Answer, isRefusal, isServed } from "./answer.ts";
import { attack, type GuardedPath, isAlike, mark, type OpenPath, type Probe } from "./ground.ts";
import { isPublicBy, stemOf } from "./paths.ts";
import type { Shot } from "./prober.ts";

const MOST_STEMS = 2;

/** @throws ProbeEnded */
export async function checkTricks(probe: Probe): Promise<readonly Finding[]> {
  const { ground } = probe;
  const guarded = ground.guarded.find(({ path }) => path.length > 1) ?? ground.guarded[0];
  if (guarded === undefined) return [];
  const findings = await spellingFindings(probe, guarded);
  const stems = ground.open.filter(({ path }) => path.length > 1).slice(0, MOST_STEMS);
  const found = { reached: [] as string[], doubtful: [] as string[] };
  for (const open of stems) await climb(probe, open, guarded, found);
  return [...findings, ...climbFindings(guarded, stems.length, found)];
}

/** The same path for a server that decodes, folds or trims. */
async function spellingFindings(probe: Probe, guarded: GuardedPath): Promise<readonly Finding[]> {
  const { path } = guarded;
  const { config, prober } = probe;
  const authority = prober.target.authority.toLowerCase();
  const shots = spellings(path)
    .filter((one) => !isPublicBy(config, authority, one))
    .map((one): readonly [string, Shot] => [one, { path: one }]);
  const through = await attack(probe, guarded, shots);
  if (through.length === 0)
    return [ok("spellings_guarded", `${path} is guarded in ${shots.length} other spellings`)];
  return [
    error(
      "path_spelling_open",
      `${path} is guarded, but served without a credential as ${someOf(through)}`,
      {
        why: "Guard and server read the path differently: what is refused under one name is served under another.",
        next: "guard everything and open single exact paths, instead of guarding single paths",
      },
    ),
  ];
}

/** Spellings that some server takes for `path`. */
export function spellings(path: string): readonly string[] {
  const bare = path.replace(/\/$/, "");
  const [, first = ""] = /^\/(.)/.exec(path) ?? [];
  const escaped =
    first === "" ? [] : [`/%${first.charCodeAt(0).toString(16).padStart(2, "0")}${path.slice(2)}`];
  const twice = escaped.map((one) => one.replace("%", "%25"));
  const cased = path.toUpperCase() === path ? path.toLowerCase() : path.toUpperCase();
  const all = [
    cased,
    `/${path}`,
    `//${path}`,
    `/.${path}`,
    `/%2e${path}`,
    `/gd/..${path}`,
    `/gd/%2e%2e${path}`,
    `/gd/..%2f${path.slice(1)}`,
    `/%2f${path.slice(1)}`,
    `/%5c${path.slice(1)}`,
    `/\\${path.slice(1)}`,
    `${bare}/`,
    `${bare}//`,
    `${bare}/.`,
    `${bare}/%2e`,
    `${bare}%2f`,
    `${bare}.`,
    `${bare}%20`,
    `${bare}%00`,
    `${bare};a=b`,
    `${bare}%3b`,
    `${bare}%3f`,
    `${bare}%23`,
    `${bare}%0a`,
    `${bare}.json`,
    `${bare}.css`,
    ...escaped,
    ...twice,
  ];
  return [...new Set(all)].filter((one) => one !== path && one.startsWith("/"));
}

/** Ways from below a public path to a guarded one. */
export function climbs(stem: string, path: string): readonly string[] {
  const rest = path.slice(1);
  return [
    `${stem}/..${path}`,
    `${stem}/../${path}`,
    `${stem}/..%2f${rest}`,
    `${stem}/..%2F${rest}`,
    `${stem}/%2e%2e${path}`,
    `${stem}/.%2e${path}`,
    `${stem}/%2e%2e%2f${rest}`,
    `${stem}/..%252f${rest}`,
    `${stem}/%252e%252e${path}`,
    `${stem}/..%5c${rest}`,
    `${stem}/..\\${rest}`,
    `${stem}/..;${path}`,
    `${stem};/..${path}`,
    `${stem}..${path}`,
    `${stem}%2f..${path}`,
    `${stem}//..${path}`,
    `/${stem}/..${path}`,
    `${stem}/..%c0%af${rest}`,
    `${stem}/%u002e%u002e${path}`,
    `${stem}/%ef%bc%8e%ef%bc%8e${path}`,
    `${stem}%3f/..${path}`,
    `${stem}%23/..${path}`,
    `${stem}%00/..${path}`,
  ];
}

interface Found {
  readonly reached: string[];
  readonly doubtful: string[];
}

async function climb(
  { prober, config, ground }: Probe,
  open: OpenPath,
  guarded: GuardedPath,
  found: Found,
): Promise<void> {
  const stem = stemOf(open.path);
  const word = mark();
  // What such a server says to a path below the public one that is not there.
  const control = await prober.ask({ path: `${stem}/${word}` });
  const showsPath = control?.body.includes(word) === true;
  for (const path of climbs(stem, guarded.path)) {
    const answer = await prober.ask({ path });
    if (answer === null || isRefusal(answer)) continue;
    const asked = { stem, guarded, showsPath };
    if (isReached(answer, asked)) found.reached.push(path);
    else if (isServed(answer) && !isLike(answer, [control, open.answer, ground.nowhere])) {
      const isMeant = isPublicBy(config, prober.target.authority.toLowerCase(), path);
      if (!isMeant) found.doubtful.push(path);
    }
  }
}

/** The guarded answer itself, or an upstream that says it was asked for the guarded path. */
function isReached(
  answer: Answer,
  { stem, guarded, showsPath }: { stem: string; guarded: GuardedPath; showsPath: boolean },
): boolean {
  const { path, allowed } = guarded;
  if (allowed !== null && isServed(allowed) && isAlike(answer, allowed)) return true;
  return showsPath && isServed(answer) && answer.body.includes(path) && !answer.body.includes(stem);
}

function isLike(answer: Answer, others: readonly (Answer | null)[]): boolean {
  return others.some((one) => one !== null && isAlike(answer, one));
}

function climbFindings(guarded: GuardedPath, stems: number, found: Found): readonly Finding[] {
  if (stems === 0) return [];
  const findings: Finding[] = [];
  if (found.reached.length > 0) {
    findings.push(
      error(
        "path_trick",
        `${guarded.path} is reached without a credential as ${someOf(found.reached)}`,
        {
          why: "The guard sees a public path, the server behind it a guarded one.",
          next: "open exact paths only; in nginx write no path into `proxy_pass`, and end `location` prefixes with a slash",
        },
      ),
    );
  }
  if (found.doubtful.length > 0) {
    findings.push(
      warning("path_doubtful", `passed on below a public path: ${someOf(found.doubtful)}`, {
        why: "What the server behind makes of them is its own affair: another one, or its next version, may read a guarded path.",
        next: "refuse paths that can be read in two ways, as the gateway does, or open exact paths only",
      }),
    );
  }
  return findings.length > 0
    ? findings
    : [
        ok(
          "path_tricks",
          `no way from ${stems} public paths to ${guarded.path} in ${climbs("", "/").length} spellings`,
        ),
      ];
}
