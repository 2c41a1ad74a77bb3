/**
 * Requests with an ambiguous length or head, and forms of a request that some guards overlook.
 *
 * Invariant: harmless by construction. Whichever of the two lengths a program believes, the request ends at the same byte,
 * so nothing is left over that could become a part of somebody else's request; each has a connection of its own.
 */
import { error, type Finding, info, ok, someOf, warning } from "../doctor/finding.ts";
import { type Answer, isServed } from "./answer.ts";
import { type GuardedPath, judge, type Probe } from "./ground.ts";
import type { Line } from "./prober.ts";
import { requestText } from "./prober.ts";

/** Five bytes: an empty chunked body, and a body of length five. */
const NOTHING = "0\r\n\r\n";
const FIVE: Line = ["Content-Length", "5"];

interface Ambiguity {
  readonly name: string;
  readonly lines: readonly Line[];
  readonly body?: string;
  readonly version?: "1.0";
  readonly host?: null;
}

/** Where two programs may see another length, and nobody is allowed to guess. */
const LENGTHS: readonly Ambiguity[] = [
  {
    name: "Transfer-Encoding: xchunked",
    lines: [FIVE, ["Transfer-Encoding", "xchunked"]],
    body: NOTHING,
  },
  {
    name: "Transfer-Encoding: chunked, identity",
    lines: [FIVE, ["Transfer-Encoding", "chunked, identity"]],
    body: NOTHING,
  },
  {
    name: "two Transfer-Encoding",
    lines: [FIVE, ["Transfer-Encoding", "chunked"], ["Transfer-Encoding", "identity"]],
    body: NOTHING,
  },
  {
    name: "a blank before the colon",
    lines: [FIVE, ["Transfer-Encoding ", "chunked"]],
    body: NOTHING,
  },
  {
    name: "Transfer-Encoding behind a vertical tab",
    lines: [FIVE, ["Transfer-Encoding", "\u000bchunked"]],
    body: NOTHING,
  },
  { name: "Content-Length: +0", lines: [["Content-Length", "+0"]] },
  { name: "Content-Length: 0x0", lines: [["Content-Length", "0x0"]] },
];

/** RFC 9112 section 6.3 lets a server take these if it passes on one length alone, which cannot be seen from here. */
const TOLERATED: readonly Ambiguity[] = [
  {
    name: "Content-Length with Transfer-Encoding",
    lines: [FIVE, ["Transfer-Encoding", "chunked"]],
    body: NOTHING,
  },
  {
    name: "Transfer-Encoding under HTTP/1.0",
    lines: [FIVE, ["Transfer-Encoding", "chunked"]],
    body: NOTHING,
    version: "1.0",
  },
  { name: "Content-Length: 0, 0", lines: [["Content-Length", "0, 0"]] },
];

/** Where two programs may see another head. */
const HEADS: readonly Ambiguity[] = [
  { name: "two Host", lines: [["Host", "gatehouse-doctor.invalid"]] },
  { name: "no Host", lines: [], host: null },
  { name: "NUL in a header", lines: [["X-Doctor", "a\0b"]] },
  { name: "a bare CR in a header", lines: [["X-Doctor", "a\rb"]] },
];

/** @throws ProbeEnded */
export async function checkFraming(probe: Probe): Promise<readonly Finding[]> {
  const { prober, ground } = probe;
  const path = ground.guarded[0]?.path ?? prober.target.path;
  const lengths = await accepted(probe, path, LENGTHS);
  const tolerated = await accepted(probe, path, TOLERATED);
  const heads = await accepted(probe, path, HEADS);
  const findings: Finding[] = [];
  if (lengths.length > 0) {
    findings.push(
      warning("framing_lenient", `accepted although its length is ambiguous: ${someOf(lengths)}`, {
        why: "If the program behind sees another length, the rest of one client's request becomes the beginning of another's (request smuggling).",
        next: "bring the proxy in front up to date; nginx, HAProxy, Caddy and Traefik of today refuse these",
      }),
    );
  }
  if (tolerated.length > 0) {
    findings.push(
      info("framing_tolerant", `taken although it has two lengths: ${someOf(tolerated)}`, {
        why: "A server may do so if it passes on one of them alone; which one cannot be seen from outside.",
      }),
    );
  }
  if (heads.length > 0) {
    findings.push(
      info("head_lenient", `accepted although the head is malformed: ${someOf(heads)}`, {
        why: "Two programs may read another host or another header out of it.",
      }),
    );
  }
  if (findings.length === 0)
    findings.push(
      ok(
        "framing_strict",
        `${LENGTHS.length + TOLERATED.length + HEADS.length} malformed requests are refused`,
      ),
    );
  const [guarded] = ground.guarded;
  return guarded === undefined ? findings : [...findings, ...(await formFindings(probe, guarded))];
}

async function accepted(
  { prober }: Probe,
  path: string,
  all: readonly Ambiguity[],
): Promise<readonly string[]> {
  const names: string[] = [];
  for (const { name, lines, body = "", version, host } of all) {
    const shot = {
      path,
      lines,
      ...(version === undefined ? {} : { version }),
      ...(host === null ? { host } : {}),
    };
    const text = requestText(shot, {
      target: prober.target,
      token: null,
      tokenHeader: "authorization",
    });
    const answer = await prober.raw(`${text}${body}`);
    if (answer !== null && !isRefusedForm(answer)) names.push(name);
  }
  return names;
}

/** Closing without a word is a refusal as well. */
function isRefusedForm({ status }: Answer): boolean {
  return [400, 411, 413, 414, 421, 422, 426, 431, 501, 505].includes(status);
}

/** Well-formed, but seldom. */
async function formFindings(
  { prober, ground }: Probe,
  guarded: GuardedPath,
): Promise<readonly Finding[]> {
  const { origin } = prober.target;
  const { path } = guarded;
  const text = (shot: object): string =>
    requestText(
      { path, ...shot },
      { target: prober.target, token: null, tokenHeader: "authorization" },
    );
  const forms: readonly (readonly [string, string])[] = [
    ["HTTP/1.0", text({ version: "1.0" })],
    ["HTTP/1.0 without Host", text({ version: "1.0", host: null })],
    ["an absolute URL in the request line", text({ path: `${origin}${path}` })],
    ["another host in the request line", text({ path: `http://localhost${path}` })],
    ["a query", text({ path: `${path}?a=b` })],
    ["a fragment", text({ path: `${path}#a` })],
    ["an upgrade to WebSocket", text({ lines: WEBSOCKET })],
    ["an upgrade to h2c", text({ lines: H2C })],
  ];
  const through: string[] = [];
  for (const [name, bytes] of forms) {
    const answer = await prober.raw(bytes);
    if (judge(answer, guarded, ground) === "through") through.push(name);
  }
  const tunnels = await tunnelFindings(prober, ground);
  if (through.length === 0)
    return [
      ok("forms_guarded", `${path} is guarded in ${forms.length} other forms of a request`),
      ...tunnels,
    ];
  return [
    error("form_open", `${path} is served without a credential as ${someOf(through)}`, {
      why: "The guard does not see requests of this form.",
      next: "let every request come to the gateway, or be asked about, whatever its form",
    }),
    ...tunnels,
  ];
}

const WEBSOCKET: readonly Line[] = [
  ["Connection", "Upgrade"],
  ["Upgrade", "websocket"],
  ["Sec-WebSocket-Version", "13"],
  ["Sec-WebSocket-Key", "Z2F0ZWhvdXNlLWRvY3Rvcg=="],
];
const H2C: readonly Line[] = [
  ["Connection", "Upgrade, HTTP2-Settings"],
  ["Upgrade", "h2c"],
  ["HTTP2-Settings", "AAMAAABkAAQAAP__"],
];

/** A tunnel that begins on a public path carries requests that nobody looks at. */
async function tunnelFindings(
  prober: Probe["prober"],
  { open }: Probe["ground"],
): Promise<readonly Finding[]> {
  const [first] = open;
  if (first === undefined) return [];
  const answer = await prober.ask({ path: first.path, lines: H2C });
  if (answer === null || answer.status !== 101 || !isServed(answer)) return [];
  return [
    error("h2c_tunnel", `${first.path} opens a tunnel for HTTP/2 in clear (h2c)`, {
      why: "Inside it every path can be asked for, and the guard sees none of it.",
      next: "let the proxy pass on no Upgrade but websocket",
    }),
  ];
}
