/**
 * A naive gate of the test's own, made wrong on purpose: it guards everything but /public with one token, and each fault
 * takes one care away. What it lets through is answered as its upstream would.
 *
 * Invariant: without a fault it refuses what it should; it remembers every request as it came.
 */
import { Buffer } from "node:buffer";

/** The token that passes. */
export const GATE_TOKEN = "canary-Gate-Token-0123456789";

/** What may be wrong with it. */
export type Fault =
  | "open_path"
  | "any_credential"
  | "case_blind_token"
  | "first_of_two"
  | "comma_list"
  | "trusts_identity"
  | "passes_identity"
  | "removable_identity"
  | "believes_identity_behind"
  | "decodes_after_check"
  | "passes_doubtful_paths"
  | "guards_exact_path"
  | "guards_get_only"
  | "open_options"
  | "echoes_trace"
  | "believes_original_url"
  | "believes_health_checkers"
  | "reroutes_behind"
  | "open_http_10"
  | "open_absolute_form"
  | "tunnels_h2c"
  | "accepts_both_lengths"
  | "accepts_two_hosts"
  | "reflects_origin"
  | "shows_stack"
  | "shows_inside"
  | "no_challenge"
  | "host_in_location"
  | "passes_token"
  | "redirects_away"
  | "goes_silent";

/** A request as it came. */
export interface Got {
  readonly method: string;
  readonly target: string;
  readonly version: string;
  readonly fields: readonly (readonly [string, string])[];
  readonly head: string;
}

export interface BrokenGate {
  readonly port: number;
  readonly url: string;
  readonly got: readonly Got[];
  stop(): void;
}

export interface GateOptions {
  readonly faults?: readonly Fault[];
  /** What is behind it shows what it gets. Default false. */
  readonly echoes?: boolean;
  /** For `redirects_away`. */
  readonly away?: string;
  readonly hostname?: string;
}

type Faults = ReadonlySet<Fault>;

interface Passed {
  readonly path: string;
  /** What the upstream gets. */
  readonly fields: readonly (readonly [string, string])[];
}

const IDENTITY = "x-gatehouse-identity";
const SPOOFABLE =
  /^(?:x[-_.]gatehouse[-_.]|remote[-_.]|x[-_.](?:remote|forwarded|auth|webauth|authenticated|consumer)[-_.])/i;

/** Starts it on a free port. */
export function brokenGate({
  faults = [],
  echoes = false,
  away = "",
  hostname = "127.0.0.1",
}: GateOptions = {}): BrokenGate {
  const wrong: Faults = new Set(faults);
  const got: Got[] = [];
  let asked = 0;
  const listener = Bun.listen<{ text: string }>({
    hostname,
    port: 0,
    socket: {
      open(socket) {
        socket.data = { text: "" };
      },
      data(socket, chunk) {
        socket.data.text += chunk.toString("latin1");
        if (!socket.data.text.includes("\r\n\r\n")) return;
        asked += 1;
        const request = parse(socket.data.text);
        got.push(request);
        if (wrong.has("goes_silent") && asked > 12) return;
        socket.end(Buffer.from(answer(request, { wrong, echoes, away }), "latin1"));
      },
      error() {},
    },
  });
  return {
    port: listener.port,
    url: `http://127.0.0.1:${listener.port}`,
    got,
    stop: () => listener.stop(true),
  };
}

function parse(text: string): Got {
  const head = text.slice(0, text.indexOf("\r\n\r\n"));
  const [line = "", ...rest] = head.split("\r\n");
  const [method = "", target = "", version = ""] = line.split(" ");
  const fields = rest.map((one) => {
    const colon = one.indexOf(":");
    return [one.slice(0, colon).toLowerCase(), one.slice(colon + 1).trim()] as const;
  });
  return { method, target, version, fields, head };
}

interface Manner {
  readonly wrong: Faults;
  readonly echoes: boolean;
  readonly away: string;
}

function answer(request: Got, manner: Manner): string {
  const { wrong, away } = manner;
  const malformed = malformation(request, wrong);
  if (malformed !== null) return malformed;
  if (wrong.has("tunnels_h2c") && fieldOf(request, "upgrade") === "h2c") {
    return "HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n";
  }
  if (request.method === "TRACE") {
    return wrong.has("echoes_trace") ? reply(200, request.head) : reply(405, "no");
  }
  const path = pathOf(request);
  if (wrong.has("host_in_location") && path === "/") {
    const host = fieldOf(request, "x-forwarded-host") ?? fieldOf(request, "host") ?? "";
    return reply(302, "", `Location: https://${host}/login\r\n`);
  }
  if (wrong.has("redirects_away") && path === "/") return reply(302, "", `Location: ${away}/\r\n`);
  if (!isDecent(path, wrong)) return reply(400, "no");
  if (isOpen(request, path, wrong)) return upstream(request, path, manner, false);
  if (isAllowed(request, wrong)) return upstream(request, path, manner, true);
  const challenge = wrong.has("no_challenge") ? "" : "WWW-Authenticate: Bearer\r\n";
  return reply(401, refusalText(wrong), challenge + cors(request, wrong));
}

function malformation({ fields, version, target, head }: Got, wrong: Faults): string | null {
  const count = (name: string): number => fields.filter(([one]) => one === name).length;
  const hasLength = count("content-length") > 0;
  const hasEncoding = fields.some(([name]) => name.startsWith("transfer-encoding"));
  if (hasEncoding && !(wrong.has("accepts_both_lengths") && hasLength)) return reply(400, "no");
  if (
    hasLength &&
    fields.some(([name, value]) => name === "content-length" && !/^\d+$/.test(value))
  ) {
    return reply(400, "no");
  }
  if (count("host") > 1 && !wrong.has("accepts_two_hosts")) return reply(400, "no");
  if (count("host") === 0 && version === "HTTP/1.1") return reply(400, "no");
  if (/[\0]|\r(?!\n)/.test(head) || target.includes("#")) return reply(400, "no");
  return null;
}

function pathOf({ target }: Got): string {
  return (target.replace(/^https?:\/\/[^/]*/, "") || "/").replace(/\?.*$/s, "");
}

/** Refuses what can be read in two ways. */
function isDecent(path: string, wrong: Faults): boolean {
  if (wrong.has("decodes_after_check") || wrong.has("passes_doubtful_paths")) return true;
  if (wrong.has("guards_exact_path")) return !/\.\./.test(path);
  return !/%(?:2e|2f|5c|25|00|3b|3f|23|0a|c0|u|ef)|\/\.|\.\.|\\|;|\/\//i.test(path);
}

function isOpen(request: Got, path: string, wrong: Faults): boolean {
  const agent = fieldOf(request, "user-agent") ?? "";
  if (path === "/public" || path.startsWith("/public/")) return true;
  if (wrong.has("open_path") && path === "/v1/models") return true;
  if (
    wrong.has("guards_exact_path") &&
    path !== "/admin" &&
    path.toLowerCase().startsWith("/admin")
  )
    return true;
  if (wrong.has("guards_get_only") && request.method !== "GET" && request.method !== "OPTIONS")
    return true;
  if (wrong.has("open_options") && request.method === "OPTIONS") return true;
  if (wrong.has("open_http_10") && request.version === "HTTP/1.0") return true;
  if (wrong.has("open_absolute_form") && request.target.startsWith("http")) return true;
  if (wrong.has("believes_health_checkers") && agent.startsWith("GoogleHC")) return true;
  return (
    wrong.has("believes_original_url") &&
    (fieldOf(request, "x-original-url") ?? "").startsWith("/public")
  );
}

function isAllowed(request: Got, wrong: Faults): boolean {
  const said = request.fields
    .filter(([name]) => name === "authorization")
    .map(([, value]) => value);
  if (wrong.has("any_credential") && said.length > 0) return true;
  if (wrong.has("trusts_identity") && request.fields.some(([name]) => name === "remote-user"))
    return true;
  const list = wrong.has("comma_list") ? said.flatMap((value) => value.split(",")) : said;
  const considered = wrong.has("first_of_two") ? list.slice(0, 1) : list;
  if (considered.length !== 1 && !wrong.has("comma_list")) return false;
  return considered.some((value) => {
    const token = value.trim().replace(/^Bearer /, "");
    return wrong.has("case_blind_token")
      ? token.toLowerCase() === GATE_TOKEN.toLowerCase()
      : token === GATE_TOKEN;
  });
}

/** What is behind: by path, or as an echo. */
function upstream(request: Got, path: string, { wrong, echoes }: Manner, isKnown: boolean): string {
  const passed = forwarded(request, path, wrong, isKnown);
  const extra = cors(request, wrong);
  const isHead = request.method === "HEAD";
  if (echoes) {
    const body = JSON.stringify({ path: passed.path, headers: passed.fields });
    return reply(200, body, extra, isHead);
  }
  const believed = passed.fields.find(
    ([name, value]) => /gatehouse[-_.]role/.test(name) && value === "admin",
  );
  if (wrong.has("believes_identity_behind") && believed !== undefined)
    return reply(200, "hello, admin", extra, isHead);
  const body = passed.path.startsWith("/public") ? "public page" : "the guarded content";
  return reply(200, body, extra, isHead);
}

function forwarded(request: Got, path: string, wrong: Faults, isKnown: boolean): Passed {
  const passesAll = wrong.has("passes_identity") || wrong.has("believes_identity_behind");
  const kept = request.fields.filter(([name]) => {
    if (name === "authorization") return wrong.has("passes_token");
    return passesAll || !SPOOFABLE.test(name);
  });
  const own = isKnown ? [[IDENTITY, "somebody"] as const] : [];
  const all = [...kept, ...own];
  const named = (fieldOf(request, "connection") ?? "").toLowerCase();
  const fields = wrong.has("removable_identity")
    ? all.filter(([name]) => !named.includes(name))
    : all;
  const rerouted = wrong.has("reroutes_behind") ? fieldOf(request, "x-rewrite-url") : null;
  const normal = wrong.has("decodes_after_check") ? resolved(decodeURIComponentSafely(path)) : path;
  return { path: rerouted ?? normal, fields };
}

function resolved(path: string): string {
  const out: string[] = [];
  for (const segment of path.split("/").slice(1)) {
    if (segment === "..") out.pop();
    else if (segment !== ".") out.push(segment);
  }
  return `/${out.join("/")}`;
}

function decodeURIComponentSafely(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

function refusalText(wrong: Faults): string {
  if (wrong.has("shows_stack"))
    return "Error: no\n    at check (/srv/app/node_modules/gate/index.js:10:5)\n";
  return wrong.has("shows_inside") ? "no route to 10.1.2.3:9000" : "no";
}

function cors(request: Got, wrong: Faults): string {
  const origin = fieldOf(request, "origin");
  if (!wrong.has("reflects_origin") || origin === null) return "";
  return `Access-Control-Allow-Origin: ${origin}\r\nAccess-Control-Allow-Credentials: true\r\n`;
}

function fieldOf({ fields }: Got, name: string): string | null {
  return fields.find(([one]) => one === name)?.[1] ?? null;
}

function reply(status: number, body: string, extra = "", isHead = false): string {
  const head = `HTTP/1.1 ${status} X\r\n${extra}Content-Length: ${body.length}\r\nConnection: close\r\n\r\n`;
  return isHead ? head : head + body;
}
