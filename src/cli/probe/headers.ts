/**
 * Headers that change what a request is taken for: its path, its host, its scheme, where it came from.
 *
 * Invariant: without a credential. They must open nothing on a guarded path, and lead nowhere else from a public one.
 */
import { error, type Finding, ok, someOf, warning } from "../doctor/finding.ts";
import { type Answer, fieldOf, isServed } from "./answer.ts";
import { attack, type GuardedPath, isAlike, type OpenPath, type Probe } from "./ground.ts";
import type { Line, Shot } from "./prober.ts";

const PATH_NAMES = [
  "X-Forwarded-Uri",
  "X-Forwarded-Path",
  "X-Original-URL",
  "X-Original-URI",
  "X-Rewrite-URL",
  "X-Envoy-Original-Path",
  "X-Forwarded-Prefix",
];
const LOOPBACK_NAMES = [
  "X-Forwarded-For",
  "X-Real-IP",
  "X-Client-IP",
  "True-Client-IP",
  "CF-Connecting-IP",
  "X-Cluster-Client-IP",
];
/** Programs that once let health checks pass by their name (CVE-2026-34457). */
const CHECKERS = [
  "ELB-HealthChecker/2.0",
  "GoogleHC/1.0",
  "kube-probe/1.31",
  "Consul Health Check",
];
const ELSEWHERE = "gatehouse-doctor.invalid";

/** @throws ProbeEnded */
export async function checkHeaders(probe: Probe): Promise<readonly Finding[]> {
  const { ground } = probe;
  const [guarded] = ground.guarded;
  const open = ground.open.find(({ path }) => path.length > 1) ?? ground.open[0];
  return [
    ...(guarded === undefined
      ? []
      : await openingFindings(probe, guarded, open?.path ?? "/health")),
    ...(guarded === undefined || open === undefined
      ? []
      : await swapFindings(probe, open, guarded)),
    ...(await hostFindings(probe)),
  ];
}

async function openingFindings(
  probe: Probe,
  guarded: GuardedPath,
  publicPath: string,
): Promise<readonly Finding[]> {
  const { origin, authority } = probe.prober.target;
  const one = (name: string, value: string): readonly [string, Shot] => [
    `${name}: ${value}`,
    { lines: [[name, value]] },
  ];
  const asOptions: readonly Line[] = [
    ["X-Forwarded-Method", "OPTIONS"],
    ["X-Original-Method", "OPTIONS"],
  ];
  const through = await attack(probe, guarded, [
    ...PATH_NAMES.map((name) => one(name, publicPath)),
    [
      "two X-Forwarded-Uri",
      {
        lines: [
          ["X-Forwarded-Uri", publicPath],
          ["X-Forwarded-Uri", guarded.path],
        ],
      },
    ],
    one("X-Original-URL", `${origin}${publicPath}`),
    ["X-Forwarded-Method: OPTIONS", { lines: asOptions }],
    one("X-Forwarded-Host", "localhost"),
    one("X-Forwarded-Host", ELSEWHERE),
    one("X-Forwarded-Proto", "https"),
    one("X-Forwarded-Port", "443"),
    one("Forwarded", `for=127.0.0.1;host=localhost;proto=https`),
    ...LOOPBACK_NAMES.map((name) => one(name, "127.0.0.1")),
    ...CHECKERS.map((name) => one("User-Agent", name)),
    ["another Host", { host: "localhost" }],
    ["another Host", { host: ELSEWHERE }],
    ["a Host with another port", { host: `${authority.replace(/:\d+$/, "")}:1` }],
    ["Referer of its own", { lines: [["Referer", `${origin}${guarded.path}`]] }],
  ]);
  if (through.length === 0)
    return [
      ok("headers_open_nothing", "no header about path, host or address opens a guarded path"),
    ];
  return [
    error(
      "header_opens",
      `${guarded.path} is served without a credential with ${someOf(through)}`,
      {
        why: "The guard believes a header that the client wrote.",
        next: "let the proxy delete these headers from every request and set them itself; name it alone in `server.trusted_proxies`",
      },
    ),
  ];
}

/** From a public path: frameworks that route anew by such a header. */
async function swapFindings(
  { prober }: Probe,
  open: OpenPath,
  guarded: GuardedPath,
): Promise<readonly Finding[]> {
  const swapped: string[] = [];
  for (const name of PATH_NAMES) {
    const answer = await prober.ask({ path: open.path, lines: [[name, guarded.path]] });
    if (answer !== null && isSwapped(answer, open, guarded)) swapped.push(name);
  }
  if (swapped.length === 0)
    return [ok("headers_lead_nowhere", `no header leads from ${open.path} to ${guarded.path}`)];
  return [
    error("header_reroutes", `${someOf(swapped)} leads from ${open.path} to ${guarded.path}`, {
      why: "The guard looks at the path, the server behind at the header.",
      next: "let the proxy delete these headers from every request",
    }),
  ];
}

function isSwapped(answer: Answer, open: OpenPath, { path, allowed }: GuardedPath): boolean {
  if (!isServed(answer)) return false;
  if (allowed !== null && isAlike(answer, allowed) && !isAlike(answer, open.answer)) return true;
  // An upstream that shows what it was asked for: in its first words, not among the headers that it shows as well.
  const showsPath = open.answer.body.includes(open.path);
  return showsPath && answer.body.includes(path) && !answer.body.includes(open.path);
}

/** A host that the client made up and that comes back in a redirect poisons caches and leads people away. */
async function hostFindings({ prober, ground }: Probe): Promise<readonly Finding[]> {
  const path =
    ground.tried.find(
      ({ answer }) => answer !== null && answer.status >= 300 && answer.status < 400,
    )?.candidate.path ?? "/";
  const shots: readonly Shot[] = [
    { path, lines: [["X-Forwarded-Host", ELSEWHERE]] },
    { path, host: ELSEWHERE },
  ];
  for (const shot of shots) {
    const answer = await prober.ask(shot);
    const location = answer === null ? null : fieldOf(answer, "location");
    if (location?.includes(ELSEWHERE) !== true) continue;
    return [
      warning("host_in_location", `${path} redirects to a host that the client made up`, {
        why: "A cache in between, or a mail with such a link, leads people to a stranger's site.",
        next: "set the name in the upstream's or the proxy's configuration instead of taking it from the request",
      }),
    ];
  }
  return [];
}
