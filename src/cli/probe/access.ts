/**
 * Who gets in without a credential, or with a wrong one, and what a refusal says.
 *
 * Invariant: judged by what was answered alone; a path that nobody said anything about is called what it is.
 */
import { error, type Finding, info, ok, someOf, warning } from "../doctor/finding.ts";
import { type Answer, fieldOf, isOurs, isRefusal, isServed } from "./answer.ts";
import { attack, type Ground, isAlike, type Probe, type Tried } from "./ground.ts";

const GUARD =
  "guard every path but those that everybody may see: in the routes (`access`), and in the proxy in front";

/** Findings about the survey, and attacks with wrong credentials. @throws ProbeEnded */
export async function checkAccess(probe: Probe): Promise<readonly Finding[]> {
  const { ground, config } = probe;
  const findings = config === null ? byCustom(ground) : byConfig(ground);
  const [first] = ground.guarded;
  if (first === undefined) return [...findings, ...nothingGuarded(ground)];
  return [
    ...findings,
    ...challengeFindings(ground),
    ...(await wrongCredentials(probe)),
    ...tokenFindings(probe),
  ];
}

function byConfig({ tried }: Ground): readonly Finding[] {
  const guarded = tried.filter(({ candidate }) => candidate.expected === "guarded");
  const open = guarded.filter(({ answer }) => answer !== null && isServed(answer));
  const other = guarded.filter(
    (one) => !open.includes(one) && !(one.answer !== null && isRefusal(one.answer)),
  );
  const closed = tried.filter(
    ({ candidate, answer }) =>
      candidate.expected === "public" && answer !== null && isRefusal(answer),
  );
  const findings: Finding[] = [];
  if (open.length > 0) findings.push(openFinding(open));
  if (other.length > 0) {
    findings.push(
      warning(
        "unexpected_answer",
        `expected 401 without a credential, got ${someOf(other.map(answered))}`,
        {
          why: "Somebody else than this configuration decides about these paths, or the gateway cannot decide.",
          next: "compare the paths of the proxy in front with those of the routes; is it this configuration that is running?",
        },
      ),
    );
  }
  if (closed.length > 0) {
    findings.push(
      info(
        "public_closed",
        `public by the configuration, refused here: ${someOf(closed.map(answered))}`,
      ),
    );
  }
  if (open.length === 0 && other.length === 0 && guarded.length > 0) {
    findings.push(
      ok("guarded", `${guarded.length} guarded paths refuse whoever brings no credential`),
    );
  }
  return findings;
}

function byCustom({ tried, guarded, nowhere }: Ground): readonly Finding[] {
  // What answers everything alike says nothing about one path.
  const isPage = (answer: Answer): boolean => nowhere !== null && isAlike(answer, nowhere);
  const open = tried.filter(({ answer }) => answer !== null && isServed(answer) && !isPage(answer));
  const bad = open.filter(({ candidate }) => candidate.openIs === "bad");
  const odd = open.filter(({ candidate }) => candidate.openIs === "odd");
  const usual = open.filter(({ candidate }) => candidate.openIs === "usual");
  const findings: Finding[] = [];
  if (bad.length > 0) findings.push(openFinding(bad));
  if (odd.length > 0) {
    findings.push(
      warning("path_public", `served without a credential: ${someOf(odd.map(answered))}`, {
        why: "They tell everybody what runs here, and in which version.",
        next: GUARD,
      }),
    );
  }
  if (usual.length > 0)
    findings.push(
      info("path_usual", `served to everybody, as usual: ${someOf(usual.map(answered))}`),
    );
  if (bad.length === 0 && odd.length === 0 && guarded.length > 0) {
    findings.push(ok("guarded", `${guarded.length} paths refuse whoever brings no credential`));
  }
  return findings;
}

function openFinding(open: readonly Tried[]): Finding {
  return error("path_open", `served without a credential: ${someOf(open.map(answered))}`, {
    why: "Everybody who finds this address uses what is behind it.",
    next: GUARD,
  });
}

function nothingGuarded({ tried, open }: Ground): readonly Finding[] {
  if (open.length > 0) {
    return [
      error("nothing_guarded", `none of ${tried.length} paths asked for a credential`, {
        why: "Nothing guards this address.",
        next: "let it lead to the gateway, or let the proxy ask it (`gatehouse emit PROXY`)",
      }),
    ];
  }
  return [
    info(
      "nothing_found",
      `none of ${tried.length} paths is guarded or served, so most attacks had no aim`,
      {
        next: "give a path that needs a credential: `gatehouse doctor --probe URL/PATH`, or the configuration with -c",
      },
    ),
  ];
}

function challengeFindings({ guarded }: Ground): readonly Finding[] {
  const bare = guarded.filter(
    ({ refused }) => refused.status === 401 && fieldOf(refused, "www-authenticate") === null,
  );
  if (bare.length === 0) return [ok("challenge", "each 401 says how to authenticate")];
  return [
    warning(
      "challenge_missing",
      `401 without WWW-Authenticate: ${someOf(bare.map(({ path }) => path))}`,
      {
        why: "Clients cannot tell what to send, and some take such an answer for broken (RFC 9110 section 15.5.2).",
        next: "let the proxy pass on the header of the gateway's refusal",
      },
    ),
  ];
}

/** Anything that has the form of a credential must not be enough. */
async function wrongCredentials(probe: Probe): Promise<readonly Finding[]> {
  const [guarded] = probe.ground.guarded;
  if (guarded === undefined) return [];
  const basic = (text: string): string => `Basic ${Buffer.from(text).toString("base64")}`;
  const values: readonly (readonly [string, string])[] = [
    ["Authorization", "Bearer gatehouse-doctor-wrong"],
    ["Authorization", "Bearer"],
    ["Authorization", "Bearer null"],
    ["Authorization", "Bearer undefined"],
    ["Authorization", basic("admin:admin")],
    ["Authorization", basic(":")],
    ["X-API-Key", "gatehouse-doctor-wrong"],
    ["X-API-Key", ""],
    ["Cookie", "session=gatehouse-doctor; token=gatehouse-doctor"],
  ];
  const shots = values.map(
    ([name, value]) => [`${name}: ${value}`, { lines: [[name, value]] }] as const,
  );
  const through = await attack(probe, guarded, shots);
  if (through.length === 0) return [ok("wrong_credential", "wrong credentials are refused")];
  return [
    error("wrong_credential_passes", `${guarded.path} is served for ${someOf(through)}`, {
      why: "That a credential is there is looked at, not whether it is a good one.",
      next: "let the gateway decide about every request, not about the presence of a header",
    }),
  ];
}

function tokenFindings({ prober, ground }: Probe): readonly Finding[] {
  if (!prober.hasToken || ground.tokenRefused === null) return [];
  return [
    warning(
      "token_refused",
      `the token that was given is refused (${ground.tokenRefused.status})`,
      {
        why: "What only a good token shows was not examined.",
        next: "check it with `gatehouse token list`; is it for another header? `--token-header NAME`",
      },
    ),
  ];
}

function answered({ candidate, answer }: Tried): string {
  const by = answer !== null && isOurs(answer) ? " by Gatehouse" : "";
  return `${candidate.path} (${answer?.status ?? "no answer"}${by})`;
}
