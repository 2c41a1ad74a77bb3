/**
 * What answers give away: CORS for everybody, stacks, internal addresses, versions, credentials.
 *
 * Invariant: looks at answers that were had anyway and at a few errors; what was found is named, never repeated.
 */
import type { GatewayConfig } from "../../config/model.ts";
import { error, type Finding, info, ok, someOf, warning } from "../doctor/finding.ts";
import { type Answer, fieldOf } from "./answer.ts";
import type { Probe } from "./ground.ts";
import type { Remembered } from "./prober.ts";

const ORIGIN = "https://gatehouse-doctor.invalid";
const LONG = 9000;

const STACKS = [
  /^\s+at .+\(.+:\d+:\d+\)/m,
  /Traceback \(most recent call last\)/,
  /\bnode_modules\//,
  /\bpanic: |goroutine \d+ \[/,
  /^\s+File ".+", line \d+/m,
  /\.(?:java|kt|scala):\d+\)/,
];
const INSIDE =
  /\b(?:127\.0\.0\.1|localhost|10\.\d{1,3}\.\d{1,3}\.\d{1,3}|192\.168\.\d{1,3}\.\d{1,3}|172\.(?:1[6-9]|2\d|3[01])\.\d{1,3}\.\d{1,3}):\d{2,5}\b/;

/** @throws ProbeEnded */
export async function checkAnswers(probe: Probe): Promise<readonly Finding[]> {
  const { prober, config } = probe;
  for (const path of ["/%zz", `/${"a".repeat(LONG)}`, "/%00"]) await prober.ask({ path });
  return [
    ...(await corsFindings(probe)),
    ...leakFindings(prober.remembered, prober.target.authority, config),
    ...versionFindings(prober.remembered),
    ...tokenFindings(probe),
  ];
}

async function corsFindings({ prober, ground }: Probe): Promise<readonly Finding[]> {
  const paths = [ground.guarded[0]?.path, ground.open[0]?.path].filter(
    (path) => path !== undefined,
  );
  const reflecting: string[] = [];
  for (const path of paths) {
    for (const origin of [ORIGIN, "null"]) {
      const answer = await prober.ask({ path, lines: [["Origin", origin]] });
      if (answer !== null && reflects(answer, origin)) reflecting.push(`${path} (${origin})`);
    }
  }
  if (paths.length === 0) return [];
  if (reflecting.length === 0)
    return [ok("cors", "no stranger's page may read answers with credentials")];
  return [
    error(
      "cors_reflects",
      `any page may read answers with the visitor's credentials: ${someOf(reflecting)}`,
      {
        why: "A page that somebody with a session or a stored password opens reads everything in his name.",
        next: "name the origins in `cors.origins`, and leave CORS to one program alone",
      },
    ),
  ];
}

function reflects(answer: Answer, origin: string): boolean {
  const allowed = fieldOf(answer, "access-control-allow-origin");
  return allowed === origin && fieldOf(answer, "access-control-allow-credentials") === "true";
}

/** In answers that are errors: what an upstream serves on purpose is its own affair. */
function leakFindings(
  remembered: readonly Remembered[],
  authority: string,
  config: GatewayConfig | null,
): readonly Finding[] {
  const errors = remembered.filter(({ answer }) => answer.status >= 400);
  const withStack = errors.filter(({ answer }) => STACKS.some((one) => one.test(answer.body)));
  const hosts = (config?.upstreams ?? [])
    .map(({ authority: one }) => one)
    .filter((one) => one !== "localhost");
  const withHost = errors.filter(({ answer }) => {
    const body = answer.body.replaceAll(authority, "");
    return INSIDE.test(body) || hosts.some((host) => host !== authority && body.includes(host));
  });
  const findings: Finding[] = [];
  if (withStack.length > 0) {
    findings.push(
      warning("error_stack", `errors show the inside of a program: ${someOf(pathsOf(withStack))}`, {
        why: "Stacks name files, versions and sometimes values; they are the first thing an attacker looks for.",
        next: "switch debugging off in the program that answers",
      }),
    );
  }
  if (withHost.length > 0) {
    findings.push(
      warning("error_inside", `errors name addresses of the inside: ${someOf(pathsOf(withHost))}`, {
        why: "They tell which machine and port to attack next.",
        next: "let the proxy in front answer with pages of its own",
      }),
    );
  }
  return findings.length > 0
    ? findings
    : [ok("errors_quiet", `${errors.length} errors give nothing away`)];
}

function versionFindings(remembered: readonly Remembered[]): readonly Finding[] {
  const named = new Set(
    remembered.flatMap(({ answer }) =>
      ["server", "x-powered-by", "via"].flatMap((name) => {
        const value = fieldOf(answer, name);
        return value !== null && /\d+\.\d+/.test(value) ? [name] : [];
      }),
    ),
  );
  if (named.size === 0) return [];
  return [
    info("version_shown", `answers name a program with its version (${[...named].join(", ")})`, {
      next: "in nginx `server_tokens off`; it saves nobody, but need not be",
    }),
  ];
}

/** An upstream that shows what it gets has shown the client's credential. */
function tokenFindings({ prober }: Probe): readonly Finding[] {
  const isShown = prober.remembered.some(
    ({ shot, answer }) => shot.isAuthorized === true && prober.isLeakedIn(answer.body),
  );
  if (!isShown) return [];
  return [
    warning("credential_forwarded", "the upstream gets the client's credential, and shows it", {
      why: "Whoever runs or reads the upstream can use it; in its log it stays for long.",
      next: "leave `forward_credential` out unless the upstream needs it; in forward-auth let the proxy delete it",
    }),
  ];
}

function pathsOf(some: readonly Remembered[]): readonly string[] {
  const short = (path: string): string => (path.length > 40 ? `${path.slice(0, 40)}…` : path);
  return [...new Set(some.map(({ shot }) => short(shot.path ?? "/")))];
}
