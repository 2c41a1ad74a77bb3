/**
 * How exactly a credential is compared: with a good token, changed a little, or two at once.
 *
 * Invariant: the token is only ever sent in the header that carries credentials. It is in no finding.
 */
import { error, type Finding, info, ok, someOf, warning } from "../doctor/finding.ts";
import { fieldOf } from "./answer.ts";
import { attack, type GuardedPath, type Probe } from "./ground.ts";
import type { Line, Shot } from "./prober.ts";

const WRONG = "gatehouse-doctor-wrong";

/** @throws ProbeEnded */
export async function checkCredentials(probe: Probe): Promise<readonly Finding[]> {
  const guarded = probe.ground.guarded.find(({ allowed }) => allowed !== null);
  if (guarded === undefined) {
    return [
      info(
        "no_token",
        "without a token that passes it was not tried how exactly tokens are compared",
        {
          next: "`--token-env NAME` or `--token-file FILE`",
        },
      ),
      ...(await urlFindings(probe)),
    ];
  }
  return [
    ...(await changedTokens(probe, guarded)),
    ...(await twoTokens(probe, guarded)),
    ...(await urlFindings(probe)),
  ];
}

async function changedTokens(probe: Probe, guarded: GuardedPath): Promise<readonly Finding[]> {
  const { prober } = probe;
  const shot = (change: (token: string) => string): Shot => ({
    lines: prober.credentialLines(change),
  });
  const through = await attack(probe, guarded, [
    ["its letters in the other case", shot(otherCase)],
    ["its last character missing", shot((token) => token.slice(0, -1))],
    ["one character more", shot((token) => `${token}0`)],
    ["`%` for its end", shot((token) => `${token.slice(0, 8)}%`)],
    ["`*` for its end", shot((token) => `${token.slice(0, 8)}*`)],
    ["a comma and another one behind it", shot((token) => `${token},${WRONG}`)],
  ]);
  if (through.length === 0) return [ok("token_exact", "a token that differs a little is refused")];
  return [
    error("token_inexact", `a token passes with ${someOf(through)}`, {
      why: "Whoever guesses needs to guess much less; an nginx `map` compares without regard to case, for instance.",
      next: "let the gateway compare the credential, not the proxy in front",
    }),
  ];
}

async function twoTokens(probe: Probe, guarded: GuardedPath): Promise<readonly Finding[]> {
  const { prober } = probe;
  const [good] = prober.credentialLines((token) => token);
  const [bad] = prober.credentialLines(() => WRONG);
  if (good === undefined || bad === undefined) return [];
  const joined: Line = [good[0], `${bad[1]}, ${good[1]}`];
  const through = await attack(probe, guarded, [
    ["a good line before a wrong one", { lines: [good, bad] }],
    ["a wrong line before a good one", { lines: [bad, good] }],
    ["both in one line", { lines: [joined] }],
  ]);
  if (through.length === 0) return [ok("token_single", "two credentials at once are refused")];
  return [
    warning("token_ambiguous", `two credentials at once pass: ${someOf(through)}`, {
      why: "Two programs on the way may each look at another one: one checks the first, the other acts for the second.",
      next: "let one program alone look at credentials, and hand requests with two of them to the gateway as they came",
    }),
  ];
}

/** A real token is not tried there: it would stand in every log on the way. */
async function urlFindings({ prober, ground }: Probe): Promise<readonly Finding[]> {
  const [guarded] = ground.guarded;
  if (guarded === undefined) return [];
  const answer = await prober.ask({ path: `${guarded.path}?access_token=${WRONG}` });
  const isSaid =
    answer?.status === 400 && fieldOf(answer, "x-gatehouse-reason") !== "path_malformed";
  return isSaid
    ? [ok("token_in_url", "a credential in the URL is refused in so many words")]
    : [
        info(
          "token_in_url",
          "whether a token in the URL would pass was not tried: it would stand in the logs",
        ),
      ];
}

function otherCase(text: string): string {
  return [...text]
    .map((char) => (char === char.toLowerCase() ? char.toUpperCase() : char.toLowerCase()))
    .join("");
}
