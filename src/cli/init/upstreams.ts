/**
 * What will be guarded: the upstreams of the answers, looked at, with names, presets and keys of their own.
 *
 * Invariant: names are unique, and with several upstreams each has a host of its own; an upstream's key goes into a
 * file and is set on requests to it, never anywhere else.
 */
import { resolve } from "node:path";
import { parseHostPattern, parseUpstreamUrl } from "../../config/address.ts";
import { resolveReferences } from "../../config/references.ts";
import { EXIT, OperatorError } from "../../errors.ts";
import { PRESETS } from "../../presets/list.ts";
import type { Preset, WrittenRoute } from "../../presets/preset.ts";
import type { CliContext } from "../context.ts";
import { type Answers, checkPreset, type UpstreamAnswer } from "./answers.ts";
import type { ServiceDecision } from "./decision.ts";
import type { Found } from "./scan.ts";
import { type Secret, secretReference, type Typed } from "./strategies.ts";
import type { System } from "./systems.ts";

/** An upstream of the configuration. */
export interface Guarded {
  readonly name: string;
  readonly url: string;
  readonly system: System;
  readonly preset: Preset;
  /** Host name that its routes are for; null: every host. */
  readonly host: string | null;
  /** Keys of the upstream in the configuration besides `url`. */
  readonly keys: WrittenRoute;
  /** Keys of `server` that its preset wants. */
  readonly server: WrittenRoute;
  /** Options of the preset besides upstream, access and host. */
  readonly with: WrittenRoute;
  /** Its own key. */
  readonly secret: Secret | null;
  /** Settings of the strategies that keep its tokens; null: nothing special. */
  readonly tokenSettings: Readonly<Record<string, unknown>> | null;
  readonly models: readonly string[];
  readonly isReachable: boolean;
}

/** Looks at a server, or says what was seen before. */
export type LookUp = (url: string, preset: string | null) => Promise<Found>;

interface Guarding {
  readonly context: CliContext;
  readonly service: ServiceDecision | null;
  readonly typed: Typed;
  readonly lookUp: LookUp;
  /** Names that are taken already. */
  readonly taken?: readonly string[];
}

/** @throws OperatorError for an upstream that cannot be, or does not answer */
export async function guardedUpstreams(
  answers: Answers,
  guarding: Guarding,
): Promise<readonly Guarded[]> {
  const given = answers.upstreams ?? [];
  if (given.length === 0) {
    throw new OperatorError(
      EXIT.usage,
      "what should be guarded is not known",
      "Name it: --upstream http://127.0.0.1:11434",
    );
  }
  const names = new Set<string>(guarding.taken);
  const guarded: Guarded[] = [];
  for (const answer of given) {
    const one = await guard(answer, { answers, guarding, names });
    names.add(one.name);
    guarded.push(one);
  }
  refuseShared(guarded);
  return guarded;
}

interface GuardingOne {
  readonly answers: Answers;
  readonly guarding: Guarding;
  readonly names: ReadonlySet<string>;
}

async function guard(
  answer: UpstreamAnswer,
  { answers, guarding, names }: GuardingOne,
): Promise<Guarded> {
  const { context, service, typed, lookUp } = guarding;
  const url = checkedUrl(answer.url);
  if (answer.preset !== undefined) checkPreset(answer.preset);
  const found = await lookUp(url, answer.preset ?? null);
  if (found.problem !== null && answers.offline !== true) {
    throw new OperatorError(
      EXIT.unavailable,
      `${url} does not answer: ${found.problem}`,
      "Start it first, correct --upstream, or go on all the same with --offline.",
    );
  }
  const { system } = found;
  const preset = presetOf(system.preset);
  const name = nameFor(answer.name ?? (system.id === "http" ? "app" : system.id), {
    names,
    isChosen: answer.name !== undefined,
  });
  const { keys, server } = servedKeys(preset, url);
  const secret = keyOf(answer, { context, typed, found, preset, name });
  const headers = secret === null ? {} : keyHeader(preset, secret, service);
  return {
    name,
    url,
    system,
    preset,
    host: answer.host === undefined ? null : checkedHost(answer.host),
    keys: { ...keys, ...headers },
    server,
    with: system.with ?? {},
    secret,
    tokenSettings: system.tokens ?? preset.usual?.tokens ?? null,
    models: found.models,
    isReachable: found.problem === null,
  };
}

/** The URL of an upstream as it is written. @throws OperatorError with EXIT.usage */
export function checkedUrl(text: string): string {
  const parsed = parseUpstreamUrl(text);
  if ("value" in parsed) return text.replace(/\/$/, "");
  throw new OperatorError(EXIT.usage, `--upstream: ${parsed.problem}`, parsed.hint);
}

function checkedHost(text: string): string {
  const parsed = parseHostPattern(text);
  if ("value" in parsed) return parsed.value;
  throw new OperatorError(EXIT.usage, `--host: ${parsed.problem}`, parsed.hint);
}

function presetOf(name: string): Preset {
  const preset = PRESETS.find((one) => one.name === name);
  if (preset === undefined) throw new TypeError(`no preset ${name}`);
  return preset;
}

/** A name that is free; one that somebody chose is not changed. */
function nameFor(
  wanted: string,
  { names, isChosen }: { readonly names: ReadonlySet<string>; readonly isChosen: boolean },
): string {
  if (!names.has(wanted)) return wanted;
  if (isChosen) throw new OperatorError(EXIT.usage, `two upstreams are called ${wanted}`);
  let number = 2;
  while (names.has(`${wanted}-${number}`)) number += 1;
  return `${wanted}-${number}`;
}

/** What `serve --preset` would write besides the address and the key. */
function servedKeys(
  preset: Preset,
  upstream: string,
): { readonly keys: WrittenRoute; readonly server: WrittenRoute } {
  const none = { keys: {}, server: {} };
  if (preset.name === "routstrd") return { ...none, keys: { max_body: "none" } };
  const made = preset.serve?.({ env: {}, cwd: "/", flags: { upstream } });
  if (made === undefined || "problems" in made) return none;
  const { listen: _listen, ...server } = record(made.document.server);
  const {
    url: _url,
    headers: _headers,
    ...keys
  } = record(record(made.document.upstreams)[preset.name]);
  return { keys, server };
}

/** Its own key, when it has one. @throws OperatorError when it must have one and none is named */
function keyOf(
  answer: UpstreamAnswer,
  {
    context,
    typed,
    found,
    preset,
    name,
  }: {
    readonly context: CliContext;
    readonly typed: Typed;
    readonly found: Found;
    readonly preset: Preset;
    readonly name: string;
  },
): Secret | null {
  const key = preset.usual?.key;
  if (key === undefined) return null;
  const value = typed.get(`key:${found.url}`) ?? keyValue(answer, key.env, context);
  if (value !== null) return { name: `${name}-key`, value };
  if (key.isOptional && !found.wantsKey) return null;
  throw new OperatorError(
    EXIT.usage,
    `${found.system.title} at ${found.url} wants a key of its own`,
    `Set ${key.env}, or name a file: --key-file FILE`,
  );
}

function keyValue(answer: UpstreamAnswer, usual: string, { env, cwd }: CliContext): string | null {
  const { key_env: variable, key_file: file } = answer;
  const reference =
    file !== undefined ? `\${file:${resolve(cwd, file)}}` : `\${env:${variable ?? usual}}`;
  const isAsked = file !== undefined || variable !== undefined;
  if (!isAsked && (env[usual] ?? "").trim() === "") return null;
  const resolved = resolveReferences(reference, { env, configDir: cwd });
  if ("value" in resolved) return resolved.value;
  throw new OperatorError(EXIT.usage, `the key of ${answer.url}: ${resolved.problem}`);
}

function keyHeader(
  { usual }: Preset,
  secret: Secret,
  service: ServiceDecision | null,
): WrittenRoute {
  const key = usual?.key;
  if (key === undefined) return {};
  const value = `${key.prefix}${secretReference(secret.name, service)}`;
  return { headers: { [key.header]: value } };
}

/** The first of two would get everything. */
function refuseShared(guarded: readonly Guarded[]): void {
  if (guarded.length < 2) return;
  const hosts = guarded.map(({ host }) => host);
  const without = guarded.find(({ host }) => host === null);
  if (without !== undefined) {
    throw new OperatorError(
      EXIT.usage,
      `with several upstreams each needs a host name of its own, and ${without.name} has none`,
      "Give each one a `host` in a file: --answers FILE (docs/init.md).",
    );
  }
  const twice = hosts.find((host, index) => hosts.indexOf(host) !== index);
  if (twice === undefined) return;
  throw new OperatorError(EXIT.usage, `two upstreams have the host name ${twice}`);
}

function record(value: unknown): Readonly<Record<string, unknown>> {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return {};
  return value as Readonly<Record<string, unknown>>;
}
