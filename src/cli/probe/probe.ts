/**
 * `gatehouse doctor --probe URL`: attacks the live chain from outside, through whatever is in front of the gateway, and
 * grades it.
 *
 * Invariant: GET, HEAD and OPTIONS alone unless told otherwise; slowly; to the host of the URL alone, whatever it answers;
 * and not to a host of others without being asked to. The token is shown to nobody but a host that is trusted.
 */
import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import { createInterface } from "node:readline/promises";
import { systemClock } from "../../clock.ts";
import { type LoadedConfig, loadConfig } from "../../config/load.ts";
import type { GatewayConfig } from "../../config/model.ts";
import { EXIT, type ExitCode, errorCode, OperatorError } from "../../errors.ts";
import { pluginLoader } from "../../loader.ts";
import type { CliContext, CommonOptions } from "../context.ts";
import { countFindings, type Finding, type GroupedFinding, warning } from "../doctor/finding.ts";
import { countsText, layoutFor, renderFindings } from "../doctor/report.ts";
import { issuesText } from "../doctor/subject.ts";
import { checkAccess } from "./access.ts";
import { checkAnswers } from "./answers.ts";
import { checkCredentials } from "./credentials.ts";
import { checkDirect } from "./direct.ts";
import { checkFraming } from "./framing.ts";
import { GRADES, type Grade, gradeOf } from "./grade.ts";
import { type Probe, survey } from "./ground.ts";
import { checkHeaders } from "./headers.ts";
import { checkIdentity } from "./identity.ts";
import { checkMethods } from "./methods.ts";
import { ProbeEnded, Prober } from "./prober.ts";
import { readTarget, type Target } from "./target.ts";
import { hstsFindings, lookAtTls } from "./tls.ts";
import { checkTricks } from "./tricks.ts";

/** Options of `gatehouse doctor --probe`. */
export interface ProbeOptions extends CommonOptions {
  readonly probe: string;
  /** `--token-env NAME`: the variable that holds a token which may pass. */
  readonly tokenEnv?: string;
  /** `--token-file FILE`. */
  readonly tokenFile?: string;
  /** `--token-header NAME`; default: Authorization, as Bearer. */
  readonly tokenHeader?: string;
  /** `--rate N`: requests a second. */
  readonly rate?: number;
  readonly yes?: boolean;
  readonly write?: boolean;
  readonly strict?: boolean;
}

/** Requests a second to others; a log of somebody else's should not look like an attack. */
const RATE = 20;
/** On this machine and its network. */
const NEAR_RATE = 200;
const HEADER = /^[A-Za-z0-9-]{1,100}$/;
const TOKEN = /^[\x21-\x7e]{1,4096}$/;

/** The order of the report. Each begins with what the ones before have learned. */
const CHECKS: readonly (readonly [string, (probe: Probe) => Promise<readonly Finding[]>])[] = [
  ["Access", checkAccess],
  ["Credentials", checkCredentials],
  ["Identity", checkIdentity],
  ["Paths", checkTricks],
  ["Methods", checkMethods],
  ["Headers", checkHeaders],
  ["Requests", checkFraming],
  ["Answers", checkAnswers],
];

/** 0, or 3 when an error was found (with `--strict` also a warning), 69 when nobody answers. */
export async function probe(context: CliContext, options: ProbeOptions): Promise<ExitCode> {
  const startMs = performance.now();
  const target = await readTarget(options.probe);
  const token = readToken(context, options);
  const config = await readConfig(context, options);
  await consent(context, target, options);
  const { findings, sent } = await examine({ target, token, config, options });
  const grade = gradeOf(findings);
  report({ context, options, target, findings, grade, sent, startMs });
  const counts = countFindings(findings);
  const isWrong = counts.error > 0 || (options.strict === true && counts.warning > 0);
  return isWrong ? EXIT.negative : EXIT.ok;
}

interface Order {
  readonly target: Target;
  readonly token: string | null;
  readonly config: GatewayConfig | null;
  readonly options: ProbeOptions;
}

interface Examined {
  readonly findings: readonly GroupedFinding[];
  readonly sent: number;
}

/** @throws OperatorError when nobody answers */
async function examine({ target, token, config, options }: Order): Promise<Examined> {
  const tls = await lookAtTls(target, systemClock.nowMs());
  const findings: GroupedFinding[] = inGroup("TLS", tls.findings);
  const prober = new Prober({
    target,
    token: tls.mayCarryToken ? token : null,
    tokenHeader: options.tokenHeader ?? "authorization",
    perSecond: options.rate ?? (target.isNear ? NEAR_RATE : RATE),
  });
  try {
    const first = await prober.ask({});
    if (first === null && (await prober.ask({})) === null) throw nobody(target);
    const ground = await survey(prober, config);
    const parts: Probe = { prober, config, ground, isWriting: options.write === true };
    for (const [group, check] of CHECKS) findings.push(...inGroup(group, await check(parts)));
  } catch (error) {
    if (!(error instanceof ProbeEnded)) throw error;
    if (prober.remembered.length === 0) throw nobody(target);
    findings.push(...inGroup("Answers", [ended(error)]));
  }
  findings.push(...inGroup("TLS", hstsFindings(target, prober.remembered)));
  findings.push(...inGroup("Way around", await checkDirect(target, config)));
  return { findings, sent: prober.sent };
}

function nobody({ origin }: Target): OperatorError {
  return new OperatorError(
    EXIT.unavailable,
    `${origin} does not answer`,
    "Is the address right, and does something listen there?",
  );
}

function ended(error: ProbeEnded): Finding {
  return warning("probe_ended", `the probe ended early: ${error.message}`, {
    why: "What comes after was not examined. Somebody may have shut the door to this address because of so many errors.",
    next: "try again later with `--rate 2`, from another address",
  });
}

function inGroup(group: string, findings: readonly Finding[]): GroupedFinding[] {
  return findings.map((finding) => ({ group, ...finding }));
}

/** @throws OperatorError with EXIT.usage */
function readToken(context: CliContext, options: ProbeOptions): string | null {
  const { tokenEnv, tokenFile, tokenHeader } = options;
  if (tokenHeader !== undefined && !HEADER.test(tokenHeader)) {
    throw new OperatorError(EXIT.usage, "--token-header takes the name of a header");
  }
  if (tokenEnv !== undefined && tokenFile !== undefined) {
    throw new OperatorError(EXIT.usage, "--token-env and --token-file exclude each other");
  }
  if (tokenEnv === undefined && tokenFile === undefined) return null;
  const text = (
    tokenEnv === undefined ? fromFile(context, tokenFile ?? "") : fromEnv(context, tokenEnv)
  ).trim();
  if (TOKEN.test(text)) return text;
  throw new OperatorError(EXIT.usage, "the token is empty, or holds blanks or line breaks");
}

function fromEnv({ env }: CliContext, name: string): string {
  // Somebody may give the token itself; it is then not repeated.
  if (!/^[A-Za-z_][A-Za-z0-9_]{0,100}$/.test(name)) {
    throw new OperatorError(EXIT.usage, "--token-env takes the name of a variable, not the token");
  }
  const value = env[name];
  if (value !== undefined) return value;
  throw new OperatorError(EXIT.usage, "the variable that --token-env names is not set");
}

function fromFile({ cwd }: CliContext, file: string): string {
  try {
    return readFileSync(resolve(cwd, file), "utf8");
  } catch (error) {
    throw new OperatorError(
      EXIT.usage,
      `--token-file cannot be read (${errorCode(error) ?? "error"})`,
    );
  }
}

/** Only its shape: the machine that attacks need not have the secrets. @throws OperatorError with EXIT.config */
async function readConfig(
  context: CliContext,
  { config, preset }: ProbeOptions,
): Promise<GatewayConfig | null> {
  if (config === undefined && preset === undefined) return null;
  const loaded: LoadedConfig = await loadConfig({
    file: config ?? null,
    cwd: context.cwd,
    env: context.env,
    loadPlugin: pluginLoader(context.plugins),
    depth: "shape",
    ...(preset === undefined ? {} : { preset: { name: preset, flags: {} } }),
  });
  if (loaded.config === null) throw new OperatorError(EXIT.config, issuesText(loaded));
  return loaded.config;
}

/** Says what is going to be sent, and asks before it is sent to somebody else. @throws OperatorError */
async function consent(context: CliContext, target: Target, options: ProbeOptions): Promise<void> {
  const methods =
    options.write === true
      ? "GET, HEAD, OPTIONS, POST, PUT, PATCH, DELETE and TRACE"
      : "GET, HEAD and OPTIONS";
  const rate = options.rate ?? (target.isNear ? NEAR_RATE : RATE);
  context.err(
    `Sends about 200 requests (${methods}; at most ${rate} a second) to ${target.origin} and to no other host.\n` +
      "They look like attacks: logs and programs that ban addresses will notice.\n",
  );
  if (target.isNear || options.yes === true) return;
  if (!context.stdinIsTerminal) {
    throw new OperatorError(
      EXIT.usage,
      `${target.host} is neither this machine nor in a private network, and there is no terminal to ask at`,
      "If it is yours, or you were asked to, repeat it with --yes.",
    );
  }
  const terminal = createInterface({ input: process.stdin, output: process.stderr });
  try {
    const said = await terminal.question(
      `Is ${target.host} yours, or were you asked to attack it? [y/N] `,
    );
    if (/^y(?:es)?$/i.test(said.trim())) return;
  } finally {
    terminal.close();
  }
  throw new OperatorError(EXIT.usage, "nothing was sent");
}

interface Result extends Examined {
  readonly context: CliContext;
  readonly options: ProbeOptions;
  readonly target: Target;
  readonly grade: Grade;
  readonly startMs: number;
}

function report({ context, options, target, findings, grade, sent, startMs }: Result): void {
  const counts = countFindings(findings);
  const durationMs = Math.round(performance.now() - startMs);
  if (options.json === true) {
    const facts = {
      ok: counts.error === 0,
      url: target.origin,
      grade,
      counts,
      requests: sent,
      duration_ms: durationMs,
      findings,
    };
    context.out(`${JSON.stringify(facts, null, 2)}\n`);
    return;
  }
  context.out(renderFindings(findings, layoutFor(context, options.color)));
  const seconds = (durationMs / 1000).toFixed(1);
  context.out(
    `\n${countsText(counts)}; ${sent} requests in ${seconds} s\ngrade ${grade}: ${GRADES[grade]}\n`,
  );
}
