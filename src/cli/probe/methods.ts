/**
 * Other methods and other words for a method, without a credential on a guarded path.
 *
 * Invariant: GET, HEAD and OPTIONS alone, unless the operator asked for more with --write; and never with a token.
 */
import { error, type Finding, info, ok, someOf, warning } from "../doctor/finding.ts";
import { isOurs, isRefusal, isServed } from "./answer.ts";
import { attack, type GuardedPath, type Probe } from "./ground.ts";
import type { Shot } from "./prober.ts";

const WRITING = ["POST", "PUT", "PATCH", "DELETE"];
const PREFLIGHT = [
  ["Origin", "https://gatehouse-doctor.invalid"],
  ["Access-Control-Request-Method", "GET"],
] as const;

/** @throws ProbeEnded */
export async function checkMethods(probe: Probe): Promise<readonly Finding[]> {
  const [guarded] = probe.ground.guarded;
  if (guarded === undefined) return [];
  const words: readonly (readonly [string, Shot])[] = [
    ["HEAD", { method: "HEAD" }],
    ["X-HTTP-Method-Override: OPTIONS", { lines: [["X-HTTP-Method-Override", "OPTIONS"]] }],
    ["X-HTTP-Method: HEAD", { lines: [["X-HTTP-Method", "HEAD"]] }],
    ["X-Method-Override: OPTIONS", { lines: [["X-Method-Override", "OPTIONS"]] }],
  ];
  const writing = WRITING.map((method): readonly [string, Shot] => [method, { method, body: "" }]);
  const through = await attack(probe, guarded, probe.isWriting ? [...words, ...writing] : words);
  return [
    ...(through.length === 0
      ? [ok("methods_guarded", `${guarded.path} is guarded for every method that was tried`)]
      : [methodOpen(guarded, through)]),
    ...(await optionsFindings(probe, guarded)),
    ...(probe.isWriting ? await traceFindings(probe, guarded) : [notTried()]),
  ];
}

function methodOpen({ path }: GuardedPath, through: readonly string[]): Finding {
  return error(
    "method_open",
    `${path} is guarded for GET, but served without a credential for ${someOf(through)}`,
    {
      why: "Only one method is guarded.",
      next: "guard all methods: in the routes leave `methods` out; in nginx guard outside of `limit_except` and `if`",
    },
  );
}

function notTried(): Finding {
  return info("methods_not_tried", "methods that may change something were not tried", {
    next: "`--write` sends POST, PUT, PATCH, DELETE and TRACE without a credential to a guarded path",
  });
}

/** A preflight may be answered by whoever does CORS; anything else under OPTIONS may not. */
async function optionsFindings(
  { prober }: Probe,
  { path, refused }: GuardedPath,
): Promise<readonly Finding[]> {
  const bare = await prober.ask({ method: "OPTIONS", path });
  const preflight = await prober.ask({ method: "OPTIONS", path, lines: PREFLIGHT });
  const isOpen = bare !== null && isServed(bare) && bare.body !== "" && bare.body !== refused.body;
  if (isOpen) {
    return [
      warning("options_open", `${path} answers OPTIONS without a credential (${bare.status})`, {
        why: "The server behind is reached by everybody under this method.",
        next: "answer preflights in the gateway (`cors`), and guard OPTIONS like the rest",
      }),
    ];
  }
  if (preflight === null || isRefusal(preflight) || isOurs(preflight)) return [];
  return [info("preflight", `preflights for ${path} are answered (${preflight.status})`)];
}

async function traceFindings(
  { prober }: Probe,
  { path }: GuardedPath,
): Promise<readonly Finding[]> {
  const word = "gatehouse-doctor-trace";
  const answer = await prober.ask({ method: "TRACE", path, lines: [["X-Doctor-Control", word]] });
  if (answer === null || !isServed(answer) || !answer.body.includes(word)) return [];
  return [
    error("trace_echoes", "TRACE sends requests back as they came", {
      why: "A page can read credentials out of it that it may not read itself.",
      next: "switch TRACE off in the proxy in front",
    }),
  ];
}
