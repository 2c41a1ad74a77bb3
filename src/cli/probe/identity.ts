/**
 * Headers that say who somebody is, sent by somebody who has no right to: do they open a path, do they reach what is
 * behind it, can the true ones be removed.
 *
 * Invariant: what reaches the upstream is only claimed to be known where the upstream shows what it gets; otherwise the
 * answers are compared, and what cannot be told is said to be unknown.
 */
import type { GatewayConfig } from "../../config/model.ts";
import { error, type Finding, info, ok, someOf, warning } from "../doctor/finding.ts";
import { type Answer, isServed } from "./answer.ts";
import { attack, type GuardedPath, isAlike, mark, type Probe } from "./ground.ts";
import type { Line, Prober, Shot } from "./prober.ts";

/** Names that programs behind a proxy take for proof of identity. */
const COMMON = [
  "X-Gatehouse-Identity",
  "X-Gatehouse-Role",
  "Remote-User",
  "Remote-Groups",
  "X-Remote-User",
  "X-Forwarded-User",
  "X-Forwarded-Email",
  "X-Forwarded-Groups",
  "X-Auth-Request-User",
  "X-Auth-Request-Email",
  "X-WebAuth-User",
  "X-Authenticated-User",
  "X-Consumer-Username",
];

const SPELLINGS: readonly (readonly [string, (name: string) => string])[] = [
  ["as it is", (name) => name],
  ["in lower case", (name) => name.toLowerCase()],
  ["in upper case", (name) => name.toUpperCase()],
  ["with _ for -", (name) => name.replaceAll("-", "_")],
  ["with one _", (name) => name.replace(/-(?=[^-]*$)/, "_")],
  ["with . for -", (name) => name.replaceAll("-", ".")],
];

/** @throws ProbeEnded */
export async function checkIdentity(probe: Probe): Promise<readonly Finding[]> {
  const names = identityNames(probe.config);
  const [guarded] = probe.ground.guarded;
  const opened = guarded === undefined ? [] : await openingFindings(probe, guarded, names);
  return [...opened, ...(await arrivalFindings(probe, names))];
}

/** With the names that the configuration uses first. */
function identityNames(config: GatewayConfig | null): readonly string[] {
  const own = (config?.routes ?? []).flatMap(({ identityHeaders, attributeHeaders }) => [
    ...Object.values(identityHeaders as Readonly<Record<string, string>>),
    ...attributeHeaders.map(([name]) => name),
  ]);
  const lower = new Set(own.map((name) => name.toLowerCase()));
  return [...lower, ...COMMON.filter((name) => !lower.has(name.toLowerCase()))];
}

async function openingFindings(
  probe: Probe,
  guarded: GuardedPath,
  names: readonly string[],
): Promise<readonly Finding[]> {
  const bundles = SPELLINGS.map(([how, spell]): readonly [string, Shot] => [
    how,
    { lines: names.map((name): Line => [spell(name), "admin"]) },
  ]);
  const through = await attack(probe, guarded, bundles);
  if (through.length === 0)
    return [ok("identity_opens_nothing", "saying who one is opens nothing")];
  const single = await attack(
    probe,
    guarded,
    names.map((name) => [name, { lines: [[name, "admin"]] }]),
  );
  return [
    error(
      "identity_opens",
      `${guarded.path} is served to whoever says ${someOf(single.length === 0 ? through : single)}`,
      {
        why: "Anybody can write that header: nobody has to prove who he is.",
        next: "let the proxy delete these headers from every request before it sets its own",
      },
    ),
  ];
}

/** One that serves: with the token where there is one, else a public one. */
interface Stage {
  readonly shot: Shot;
  readonly plain: Answer;
}

function stagesOf({ ground }: Probe): readonly Stage[] {
  const guarded = ground.guarded.find(({ allowed }) => allowed !== null && isServed(allowed));
  const [open] = ground.open;
  return [
    ...(guarded?.allowed == null
      ? []
      : [{ shot: { path: guarded.path, isAuthorized: true }, plain: guarded.allowed }]),
    ...(open === undefined ? [] : [{ shot: { path: open.path }, plain: open.answer }]),
  ];
}

async function arrivalFindings(
  probe: Probe,
  names: readonly string[],
): Promise<readonly Finding[]> {
  const findings: Finding[] = [];
  for (const stage of stagesOf(probe)) {
    const shown = await echoes(probe.prober, stage);
    findings.push(
      ...(shown
        ? await shownFindings(probe, stage, names)
        : await comparedFindings(probe, stage, names)),
    );
  }
  if (findings.length > 0) return findings;
  return [
    info(
      "identity_undecided",
      "no path was served, so it was not seen whether forged identities reach what is behind",
      {
        next: "give a token: `--token-env NAME`",
      },
    ),
  ];
}

/** Whether the answer shows what the upstream got. */
async function echoes(prober: Prober, { shot }: Stage): Promise<boolean> {
  const word = mark();
  const answer = await prober.ask({ ...shot, lines: [["X-Doctor-Control", word]] });
  return answer !== null && isIn(word, answer);
}

/** Every header has a word of its own; those that come back have arrived. */
async function shownFindings(
  { prober }: Probe,
  stage: Stage,
  names: readonly string[],
): Promise<readonly Finding[]> {
  const arrived: string[] = [];
  for (const [, spell] of SPELLINGS) {
    const lines = names.map((name): Line => [spell(name), mark()]);
    // Twice each: who looks at one line only leaves the other one.
    const answer = await prober.ask({
      ...stage.shot,
      lines: lines.flatMap((line) => [line, line]),
    });
    if (answer === null) continue;
    arrived.push(...lines.flatMap(([name, word]) => (isIn(word, answer) ? [name] : [])));
  }
  const path = stage.shot.path ?? "";
  const findings = await removalFindings(prober, stage, names);
  if (arrived.length === 0) {
    return [
      ok(
        "identity_kept_out",
        `${path}: forged identity headers do not reach the upstream, in any spelling`,
      ),
      ...findings,
    ];
  }
  return [
    error(
      "identity_forged",
      `${path}: the upstream gets ${someOf([...new Set(arrived)])} as the client wrote it`,
      {
        why: "Whoever has any token, or none on a public path, can say that he is somebody else.",
        next: "let the proxy delete these headers, in every spelling, before it sets its own (`gatehouse emit PROXY` has the lines)",
      },
    ),
    ...findings,
  ];
}

/** RFC 9110 section 7.6.1: what Connection names belongs to this hop; a proxy may then drop what it has just set. */
async function removalFindings(
  prober: Prober,
  { shot, plain }: Stage,
  names: readonly string[],
): Promise<readonly Finding[]> {
  const there = names.filter((name) => isIn(name, plain));
  if (there.length === 0) return [];
  const said = `close, ${there.join(", ")}`;
  const answer = await prober.ask({ ...shot, lines: [["Connection", said]] });
  if (answer === null || !isServed(answer)) return [];
  // What is shown of the line itself is no sign of the headers that it names.
  const body = answer.body.toLowerCase().replaceAll(said.toLowerCase(), "");
  const gone = there.filter((name) => !isIn(name, { ...answer, body }));
  if (gone.length === 0)
    return [ok("identity_not_removable", "the client cannot have identity headers removed")];
  return [
    error(
      "identity_removable",
      `a client that names ${someOf(gone)} in Connection keeps it from the upstream`,
      {
        why: "What takes a request without an identity for an internal one lets him do everything.",
        next: "let the proxy read Connection first and set its own headers last",
      },
    ),
  ];
}

/** Where the upstream shows nothing: is another one served, for whoever says that he is another one. */
async function comparedFindings(
  { prober }: Probe,
  { shot, plain }: Stage,
  names: readonly string[],
): Promise<readonly Finding[]> {
  const path = shot.path ?? "";
  const unknown = info(
    "identity_undecided",
    `${path}: the upstream shows nothing of what it gets, so forged identity headers could only be looked for in its answers`,
  );
  const again = await prober.ask(shot);
  if (again === null || !isAlike(again, plain)) return [unknown];
  const changed: string[] = [];
  for (const [how, spell] of SPELLINGS) {
    const lines = names.map((name): Line => [spell(name), "admin"]);
    const answer = await prober.ask({ ...shot, lines });
    // A refusal of strange names is no sign of having believed them.
    if (answer !== null && answer.status < 400 && !isAlike(answer, plain)) changed.push(how);
  }
  if (changed.length === 0) return [unknown];
  return [
    warning(
      "identity_changes_answer",
      `${path} is answered otherwise to whoever sends forged identity headers (${someOf(changed)})`,
      {
        why: "The upstream seems to get them, and to believe them.",
        next: "let the proxy delete these headers, in every spelling, before it sets its own",
      },
    ),
  ];
}

/** In the body or in a header, in whatever case. */
function isIn(text: string, { body, fields }: Answer): boolean {
  const wanted = text.toLowerCase();
  return (
    body.toLowerCase().includes(wanted) ||
    fields.some(([name, value]) => `${name}: ${value}`.toLowerCase().includes(wanted))
  );
}
