/**
 * What listens on this machine, and what it is.
 *
 * Invariant: only ports of this machine are asked, over loopback, with a few GETs that change nothing and a deadline;
 * what is known to speak something else than HTTP is left alone.
 */
import { type Listener, listeners, type OwnerProcess, ownerOf } from "../doctor/proc-net.ts";
import { askHttp, type HttpAnswer } from "./ask-http.ts";
import {
  isModelList,
  modelsOf,
  PLAIN_HTTP,
  RECOGNISED,
  type System,
  systemForPreset,
  vendorOf,
} from "./systems.ts";

/** A server that answers HTTP. */
export interface Found {
  readonly url: string;
  readonly system: System;
  /** Names of its models, the first few. */
  readonly models: readonly string[];
  /** It wants a key of its own. */
  readonly wantsKey: boolean;
  /** Null when it answers; else a code such as `ECONNREFUSED` or a sentence. */
  readonly problem: string | null;
}

const EACH_MS = 700;
/** One that was named is waited for: it may be loading a model. */
const NAMED_MS = 5000;
const ALL_MS = 2500;
const MOST_PORTS = 48;
const MOST_MODELS = 8;

/** Mail, names, databases, desktops and the like: an HTTP request there would only be noise in their logs. */
const NOT_HTTP = new Set([
  21, 22, 23, 25, 53, 88, 110, 111, 135, 139, 143, 389, 445, 465, 587, 631, 636, 873, 989, 990, 993,
  995, 1433, 1521, 1883, 2049, 2181, 3306, 3389, 4222, 5353, 5355, 5432, 5672, 5900, 6379, 6380,
  6432, 7687, 8883, 9042, 9092, 11211, 16379, 26379, 27017, 33060,
]);

/** What an HTTP service may answer without changing anything. */
const PLAIN_PROBES = ["/", "/v1/models", "/health"];

/** Where nothing can be read about sockets, the usual places are tried. */
const USUAL_PORTS = [...new Set(RECOGNISED.flatMap(({ ports }) => ports))];

/** Servers on this machine, recognised ones first; `listening` is null where the kernel does not say who listens. */
export async function scan(
  listening: readonly Listener[] | null,
  signal: AbortSignal,
): Promise<readonly Found[]> {
  const within = AbortSignal.any([signal, AbortSignal.timeout(ALL_MS)]);
  const found = await Promise.all(
    candidates(listening).map((base) => recognise(base, { signal: within, withinMs: EACH_MS })),
  );
  return found
    .filter((one): one is Found => one !== null && one.problem === null)
    .toSorted((a, b) => rank(a) - rank(b));
}

/** One server that was named. Without an answer `problem` says why. */
export async function lookAt(
  url: string,
  { preset, signal }: { readonly preset: string | null; readonly signal: AbortSignal },
): Promise<Found> {
  const vendor = vendorOf(url);
  const known = preset === null ? vendor : systemForPreset(preset);
  const found = await recognise(url, { signal, withinMs: NAMED_MS, known });
  if (found !== null) return found;
  // A gateway in front of a gateway is somebody's choice.
  return { url, system: known ?? PLAIN_HTTP, models: [], wantsKey: false, problem: null };
}

/** Who holds a port, if that may be seen. */
export function holderOf(port: number): OwnerProcess | null {
  const listener = listeners()?.find((one) => one.port === port);
  return listener === undefined ? null : ownerOf(listener.inode);
}

function rank({ system }: Found): number {
  const index = RECOGNISED.indexOf(system);
  return index === -1 ? RECOGNISED.length : index;
}

function candidates(listening: readonly Listener[] | null): readonly string[] {
  if (listening === null) return USUAL_PORTS.map((port) => `http://127.0.0.1:${port}`);
  const byPort = new Map<number, string>();
  for (const { address, port } of listening) {
    if (NOT_HTTP.has(port)) continue;
    const isFour = address === "0.0.0.0" || address === "::" || address.startsWith("127.");
    const host = isFour ? (address.startsWith("127.") ? address : "127.0.0.1") : "[::1]";
    // An address of the network is not loopback, and not ours to ask.
    if (isFour || address === "::1") byPort.set(port, byPort.get(port) ?? `http://${host}:${port}`);
  }
  const usual = (url: string): number => (USUAL_PORTS.includes(portOf(url)) ? 0 : 1);
  return [...byPort.values()].toSorted((a, b) => usual(a) - usual(b)).slice(0, MOST_PORTS);
}

function portOf(url: string): number {
  return Number(URL.parse(url)?.port ?? 0);
}

interface Looking {
  readonly signal: AbortSignal;
  /** Each question. */
  readonly withinMs: number;
  /** Known beforehand: only its models are asked for. */
  readonly known?: System | null;
}

/** Null for a Gatehouse. */
async function recognise(
  base: string,
  { signal, withinMs, known }: Looking,
): Promise<Found | null> {
  const answers = new Map<string, HttpAnswer>();
  let problem: string | null = null;
  const ask = async (path: string): Promise<HttpAnswer | null> => {
    const before = answers.get(path);
    if (before !== undefined || problem !== null) return before ?? null;
    const asked = await askHttp({ base, path, withinMs, signal });
    if ("problem" in asked) {
      problem = asked.problem;
      return null;
    }
    answers.set(path, asked);
    return asked;
  };
  const system = await systemAt(base, { known: known ?? null, ask });
  const list = answers.get("/v1/models");
  if (system === null && [...answers.values()].some(isGatehouse)) return null;
  return {
    url: base,
    system: system ?? plainSystem(answers),
    models:
      list === undefined
        ? []
        : modelsOf(list)
            .map(({ id }) => id)
            .slice(0, MOST_MODELS),
    wantsKey: [...answers.values()].some(({ status }) => status === 401),
    problem: answers.size === 0 ? problem : null,
  };
}

type Ask = (path: string) => Promise<HttpAnswer | null>;

/** Null for one that is not recognised. */
async function systemAt(
  base: string,
  { known, ask }: { readonly known: System | null; readonly ask: Ask },
): Promise<System | null> {
  if (known === PLAIN_HTTP) {
    for (const path of PLAIN_PROBES) await ask(path);
    return null;
  }
  const system = known ?? (await whichSystem(ask, portOf(base)));
  if (system !== null) await ask("/v1/models");
  if (system?.keyProbe !== undefined) await ask(system.keyProbe);
  return system;
}

/** Those that usually have this port go first. */
async function whichSystem(ask: Ask, port: number): Promise<System | null> {
  const usual = (system: System): number => (system.ports.includes(port) ? 0 : 1);
  for (const system of RECOGNISED.toSorted((a, b) => usual(a) - usual(b))) {
    for (const path of system.probes) {
      const answer = await ask(path);
      if (answer === null) return null;
      if (system.is(path, answer)) return system;
    }
  }
  return null;
}

/** One that answers with OpenAI's list of models speaks OpenAI's language. */
function plainSystem(answers: ReadonlyMap<string, HttpAnswer>): System {
  const list = answers.get("/v1/models");
  if (list !== undefined && isModelList(list)) {
    const title = "an OpenAI-compatible server";
    return { ...PLAIN_HTTP, title, proof: "/v1/models", dialects: ["openai"] };
  }
  const good = [...answers].find(([, { status }]) => status >= 200 && status < 300);
  return good === undefined ? PLAIN_HTTP : { ...PLAIN_HTTP, proof: good[0] };
}

/** Only a refusal of ours has that field; an upstream's never gets through with it. */
function isGatehouse({ headers }: HttpAnswer): boolean {
  return headers["x-gatehouse-reason"] !== undefined;
}
