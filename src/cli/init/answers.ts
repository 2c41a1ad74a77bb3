/**
 * The answers that a set-up is made from: from flags, from `--answers FILE`, or asked for.
 *
 * Invariant: unknown keys are errors with a suggestion; a flag goes before the file; a secret is never an answer, only
 * where it is to be found.
 */
import { resolve } from "node:path";
import { z } from "zod";
import { renderIssues } from "../../config/explain.ts";
import { createReporter } from "../../config/issues.ts";
import { readSource } from "../../config/source.ts";
import { nameHint } from "../../config/suggest.ts";
import { parseYaml } from "../../config/yaml.ts";
import { reportZod, zodMessage } from "../../config/zod-issues.ts";
import { EXIT, OperatorError } from "../../errors.ts";
import { PRESETS } from "../../presets/list.ts";
import type { CliContext, CommonOptions } from "../context.ts";
import { ACCESS_KINDS, type AccessKind } from "./access.ts";

const NAME = /^[a-z][a-z0-9_-]{0,62}$/;
const name = z.string().regex(NAME, {
  error: "expected a name of lower-case letters, digits, - and _ that starts with a letter",
});

const upstream = z.strictObject({
  url: z
    .string()
    .min(1)
    .describe("http://host:port, https://host or unix:/path of what is guarded."),
  name: name.optional().describe("Its name in the configuration. Default: the preset's."),
  preset: z.string().optional().describe("Default: what it is recognised as, else generic."),
  host: z.string().optional().describe("Host name that it is for; needed with several upstreams."),
  key_env: z.string().optional().describe("Variable that holds its own key."),
  key_file: z.string().optional().describe("File that holds its own key."),
});

const settings = z.record(z.string(), z.unknown());

/** Everything is optional: what is missing is asked for, or has a default. */
export const answersSchema = z.strictObject({
  upstreams: z.array(upstream).min(1).optional().describe("What is guarded."),
  access: z
    .array(z.enum(ACCESS_KINDS))
    .min(1)
    .optional()
    .describe("Who may enter. Default tokens."),
  settings: z
    .strictObject({
      tokens: settings.optional(),
      npubs: settings.optional(),
      valkey: settings.optional(),
      static: settings.optional(),
      oidc: settings.optional(),
      routstrd: settings.optional(),
    })
    .optional()
    .describe(
      "Settings of the strategies, by who may enter; secrets as ${env:NAME} or ${file:/path}.",
    ),
  token: z
    .strictObject({
      name: z
        .string()
        .min(1)
        .max(256)
        .optional()
        .describe("What the first token is for. Default first."),
      role: z.enum(["admin", "user"]).optional().describe("Its role. Default user."),
      expires: z.string().optional().describe("Duration such as 30d, or a time. Default never."),
    })
    .optional(),
  clients: z
    .enum(["this-machine", "proxy", "public"])
    .optional()
    .describe("Where clients connect from: this machine, through a reverse proxy, or anywhere."),
  listen: z.string().min(1).optional().describe("host:port; port 0 takes a free one."),
  public_url: z.string().min(1).optional().describe("Origin under which clients reach it."),
  trusted_proxies: z.array(z.string().min(1)).optional(),
  domain: z.string().min(1).optional().describe("Name under which clients reach it, with TLS."),
  tls: z.strictObject({ cert: z.string().min(1), key: z.string().min(1) }).optional(),
  dir: z.string().min(1).optional().describe("Directory of the configuration, and of the state."),
  state_dir: z.string().min(1).optional(),
  service: z.enum(["system", "user", "none"]).optional(),
  service_name: z.string().optional(),
  service_account: z.string().optional(),
  offline: z.boolean().optional().describe("Go on although an upstream does not answer."),
});

/** {@link answersSchema}, parsed. */
export type Answers = z.infer<typeof answersSchema>;
export type UpstreamAnswer = z.infer<typeof upstream>;

/** Options of `init`. */
export interface InitOptions extends CommonOptions {
  readonly dir?: string;
  readonly stateDir?: string;
  /** `URL` or `NAME=URL`. */
  readonly upstream?: readonly string[];
  readonly host?: string;
  readonly keyEnv?: string;
  readonly keyFile?: string;
  readonly access?: readonly string[];
  /** `KIND.SETTING=VALUE`. */
  readonly set?: readonly string[];
  readonly npub?: readonly string[];
  readonly name?: string;
  readonly role?: string;
  readonly expires?: string;
  readonly clients?: string;
  readonly listen?: string;
  readonly publicUrl?: string;
  readonly trustedProxy?: readonly string[];
  readonly domain?: string;
  readonly tlsCert?: string;
  readonly tlsKey?: string;
  /** `--service SCOPE`; `--no-service` gives false. */
  readonly service?: string | false;
  readonly serviceName?: string;
  readonly userAccount?: string;
  readonly offline?: boolean;
  readonly yes?: boolean;
  readonly answers?: string;
  readonly undo?: boolean;
}

/** The answers of the file, with those of the flags over them. @throws OperatorError with EXIT.usage */
export function readAnswers({ cwd }: Pick<CliContext, "cwd">, options: InitOptions): Answers {
  const file = options.answers === undefined ? {} : answersOfFile(resolve(cwd, options.answers));
  const flags = answersOfFlags(options);
  const merged = { ...file, ...flags };
  const token = { ...file.token, ...flags.token };
  const byKind = { ...file.settings, ...flags.settings };
  return {
    ...merged,
    ...(Object.keys(token).length === 0 ? {} : { token }),
    ...(Object.keys(byKind).length === 0 ? {} : { settings: byKind }),
  };
}

function answersOfFile(path: string): Answers {
  const source = readSource(path);
  if ("problem" in source) {
    const { message, hint } = source.problem;
    throw new OperatorError(EXIT.usage, `--answers: ${message}`, hint);
  }
  const { value, locate, problems, isUsable } = parseYaml(source.text);
  const report = createReporter(locate);
  for (const { line, column, message, hint } of problems) report.addAt(line, column, message, hint);
  const parsed = answersSchema.safeParse(value ?? {}, { error: zodMessage });
  if (isUsable && !parsed.success) {
    reportZod(parsed.error, { report, schema: answersSchema, value, base: [] });
  }
  if (report.count() === 0 && parsed.success) return parsed.data;
  throw new OperatorError(
    EXIT.usage,
    renderIssues(report.list(), path).trimEnd(),
    "docs/init.md lists every answer.",
  );
}

function answersOfFlags(options: InitOptions): Answers {
  const { name: tokenName, role, expires, tlsCert, tlsKey, trustedProxy } = options;
  const token = defined({ name: tokenName, role, expires });
  const settings = settingsOf(options);
  if ((tlsCert === undefined) !== (tlsKey === undefined)) {
    throw new OperatorError(EXIT.usage, "--tls-cert and --tls-key go together");
  }
  const written = defined({
    upstreams: upstreamsOf(options),
    access: options.access?.flatMap((list) => list.split(",")).map((kind) => kind.trim()),
    settings: Object.keys(settings).length === 0 ? undefined : settings,
    token: Object.keys(token).length === 0 ? undefined : token,
    clients: options.clients,
    listen: options.listen,
    public_url: options.publicUrl,
    trusted_proxies: trustedProxy,
    domain: options.domain,
    tls: tlsCert === undefined ? undefined : { cert: tlsCert, key: tlsKey },
    dir: options.dir,
    state_dir: options.stateDir,
    service: options.service === false ? "none" : options.service,
    service_name: options.serviceName,
    service_account: options.userAccount,
    offline: options.offline,
  });
  return checkedFlags(written);
}

/** The flag that a wrong answer came from. */
const FLAGS: Readonly<Record<string, string>> = {
  upstreams: "--upstream",
  settings: "--set",
  public_url: "--public-url",
  trusted_proxies: "--trusted-proxy",
  state_dir: "--state-dir",
  service_name: "--service-name",
  service_account: "--user-account",
};

function checkedFlags(written: Readonly<Record<string, unknown>>): Answers {
  const parsed = answersSchema.safeParse(written, { error: zodMessage });
  if (parsed.success) return parsed.data;
  const [issue] = parsed.error.issues;
  const [first = "", second] = issue?.path.map(String) ?? [];
  const flag =
    first === "token" && second !== undefined ? `--${second}` : (FLAGS[first] ?? `--${first}`);
  throw new OperatorError(EXIT.usage, `${flag}: ${issue?.message ?? "not accepted"}`);
}

function upstreamsOf(options: InitOptions): readonly UpstreamAnswer[] | undefined {
  const { upstream: given, preset, host, keyEnv, keyFile } = options;
  const about = defined({ preset, host, key_env: keyEnv, key_file: keyFile });
  const [flag] = Object.keys(about);
  if (given === undefined) {
    if (flag === undefined) return undefined;
    if (preset !== undefined) return [{ url: usualUrl(preset), ...about }];
    throw new OperatorError(EXIT.usage, `--${flag.replace("_", "-")} goes with --upstream URL`);
  }
  if (given.length > 1 && flag !== undefined) {
    throw new OperatorError(
      EXIT.usage,
      `--${flag.replace("_", "-")} is about one upstream, and there are ${given.length}`,
      "Describe several in a file: --answers FILE (docs/init.md).",
    );
  }
  return given.map((text) => ({ ...namedUrl(text), ...about }));
}

/** Where what a preset is for usually listens. @throws OperatorError with EXIT.usage when there is no such preset */
function usualUrl(preset: string): string {
  checkPreset(preset);
  const usual = PRESETS.find(({ name }) => name === preset)?.usual?.upstream;
  return usual ?? "http://127.0.0.1:8009";
}

/** `NAME=URL`, or a URL alone. */
function namedUrl(text: string): UpstreamAnswer {
  const equals = text.indexOf("=");
  const before = text.slice(0, Math.max(0, equals));
  return NAME.test(before) ? { name: before, url: text.slice(equals + 1) } : { url: text };
}

function settingsOf({ set = [], npub }: InitOptions): Record<string, Record<string, unknown>> {
  const settings: Record<string, Record<string, unknown>> = {};
  for (const one of set) {
    const match = /^([a-z]+)\.([a-z_]+)=(.*)$/s.exec(one);
    if (match === null) {
      throw new OperatorError(
        EXIT.usage,
        "--set: expected KIND.SETTING=VALUE, such as valkey.url=redis://127.0.0.1:6379",
      );
    }
    const [, kind = "", key = "", value = ""] = match;
    const kinds = [...ACCESS_KINDS, "routstrd"];
    if (!kinds.includes(kind)) {
      throw new OperatorError(EXIT.usage, `--set: there is no ${kind}`, nameHint(kind, kinds, ""));
    }
    settings[kind] = { ...settings[kind], [key]: value };
  }
  if (npub !== undefined) settings.npubs = { ...settings.npubs, admins: [...npub] };
  return settings;
}

function defined<T extends object>(given: T): Partial<T> {
  const entries = Object.entries(given).filter(([, value]) => value !== undefined);
  return Object.fromEntries(entries) as Partial<T>;
}

/** @throws OperatorError with EXIT.usage when there is no such preset */
export function checkPreset(preset: string): void {
  const names = PRESETS.map((one) => one.name);
  if (names.includes(preset)) return;
  throw new OperatorError(
    EXIT.usage,
    `there is no preset ${JSON.stringify(preset)}`,
    nameHint(preset, names, "there is none"),
  );
}

/** Kinds that were asked for, or tokens. */
export function accessKinds({ access }: Answers): readonly AccessKind[] {
  return [...new Set<AccessKind>(access ?? ["tokens"])];
}
