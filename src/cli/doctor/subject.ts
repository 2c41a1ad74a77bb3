/**
 * What is examined: the configuration as its service would read it, and the machine around it.
 *
 * Invariant: made once and shared by all checks, so that nothing is read, asked or started twice; nothing here writes.
 */
import { renderIssues } from "../../config/explain.ts";
import { type LoadedConfig, loadConfig } from "../../config/load.ts";
import type { GatewayConfig } from "../../config/model.ts";
import { resolveDeep } from "../../config/references.ts";
import type { Clock } from "../../contract/host.ts";
import { pluginLoader } from "../../loader.ts";
import { type Redact, redactor } from "../../redactor.ts";
import type { CliContext, CommonOptions } from "../context.ts";
import { type DatabaseLook, lookAtState } from "./database-copy.ts";
import type { Finding } from "./finding.ts";
import { type AskedUpstream, askUpstreams } from "./outside.ts";
import { askSystemd, type InstalledUnit, surroundingsOf, type UnitFacts, unitFor } from "./unit.ts";

/** Variables by name. */
export type Env = Readonly<Record<string, string | undefined>>;

/** Everything that checks look at. */
export interface Subject {
  readonly context: CliContext;
  readonly clock: Clock;
  /** With everything that `config validate` finds. */
  readonly loaded: LoadedConfig;
  /** Also there when only variables, secrets or files are missing; null when the file cannot be understood. */
  readonly config: GatewayConfig | null;
  /** The file as the operator named it. */
  readonly shownFile: string | null;
  /** Of the service if there is one, else of this shell. */
  readonly env: Env;
  readonly unit: InstalledUnit | null;
  /** Why not all of the service's variables and credentials are known; null when they are. */
  readonly unknownEnv: string | null;
  /** What systemd says about the unit; asked once. */
  unitFacts(): Promise<UnitFacts>;
  /** Each asked once whether it answers. */
  upstreams(): Promise<readonly AskedUpstream[]>;
  /** Looked at once, at the first call: it may take a few seconds in which nothing else happens. */
  database(): DatabaseLook;
  /** Takes secrets of the configuration out of a text. */
  readonly redact: Redact;
}

/** A thing that is looked at. It may throw: that is then the finding. */
export interface Check {
  /** The heading. */
  readonly group: string;
  /** For the finding when it does not come to an end. */
  readonly name: string;
  run(subject: Subject): readonly Finding[] | Promise<readonly Finding[]>;
}

/** A check that is left out when the configuration cannot be understood. */
export function needingConfig(
  group: string,
  name: string,
  run: (
    config: GatewayConfig,
    subject: Subject,
  ) => readonly Finding[] | Promise<readonly Finding[]>,
): Check {
  return {
    group,
    name,
    run: (subject) => (subject.config === null ? [] : run(subject.config, subject)),
  };
}

/** Reads what there is to read. Never throws for a configuration that is missing or wrong. */
export async function readSubject(
  context: CliContext,
  options: CommonOptions,
  clock: Clock,
): Promise<Subject> {
  const load = (env: Env, depth: "full" | "shape"): Promise<LoadedConfig> =>
    loadConfig({
      file: options.config ?? null,
      cwd: context.cwd,
      env,
      loadPlugin: pluginLoader(context.plugins),
      depth,
      ...(options.preset === undefined ? {} : { preset: { name: options.preset, flags: {} } }),
    });
  const shape = await load(context.env, "shape");
  const unit = unitFor(context, shape.file);
  const own = unit === null ? { env: context.env, unknown: null } : surroundingsOf(unit);
  // What is not known here cannot be missed.
  const loaded = await load(own.env, own.unknown === null ? "full" : "shape");
  const config = loaded.config ?? shape.config;
  let facts: Promise<UnitFacts> | null = null;
  let upstreams: Promise<readonly AskedUpstream[]> | null = null;
  let database: DatabaseLook | null = null;
  return {
    context,
    clock,
    loaded,
    config,
    shownFile: options.preset ?? options.config ?? loaded.file,
    env: own.env,
    unit,
    unknownEnv: own.unknown,
    unitFacts: () => {
      facts ??= unit === null ? Promise.resolve(null) : askSystemd(context, unit);
      return facts;
    },
    upstreams: () => {
      upstreams ??= config === null ? Promise.resolve([]) : askUpstreams(config);
      return upstreams;
    },
    database: () => {
      database ??= config === null ? { kind: "absent" } : lookAtState(config.stateDir);
      return database;
    },
    redact: config === null ? (text) => text : secretsOf(config, own.env),
  };
}

/** A net below the rule that no check repeats a secret. */
function secretsOf(config: GatewayConfig, env: Env): Redact {
  const { strategies, upstreams, shared, configDir } = config;
  const raw = {
    strategies: strategies.map(({ settings }) => settings),
    upstreams: upstreams.map(({ headers }) => headers),
    shared: shared?.valkey ?? null,
  };
  return redactor(raw, resolveDeep(raw, { env, configDir }).value);
}

/** The problems of a configuration in one text, for errors. */
export function issuesText({ issues, file }: LoadedConfig): string {
  return renderIssues(issues, file).trimEnd();
}
