/**
 * `gatehouse doctor`: looks at everything that a gateway needs, and says what is wrong, why it matters and what mends it.
 * With `--probe URL` it attacks the live chain from outside instead (probe/).
 *
 * Invariant: it ends within 15 seconds, changes nothing on disk or elsewhere, sends no credential and shows no secret.
 */
import { systemClock } from "../clock.ts";
import { EXIT, type ExitCode } from "../errors.ts";
import type { CliContext, CommonOptions } from "./context.ts";
import { checkClock } from "./doctor/check-clock.ts";
import { checkConfig } from "./doctor/check-config.ts";
import { checkDatabase } from "./doctor/check-database.ts";
import { checkJit } from "./doctor/check-jit.ts";
import { checkListen } from "./doctor/check-listen.ts";
import { checkDescriptors, checkDisk } from "./doctor/check-room.ts";
import { checkState } from "./doctor/check-state.ts";
import { checkStrategies } from "./doctor/check-strategies.ts";
import { checkTls } from "./doctor/check-tls.ts";
import { checkTrust } from "./doctor/check-trust.ts";
import { checkUnit } from "./doctor/check-unit.ts";
import { checkUpstreams } from "./doctor/check-upstreams.ts";
import { checkValkey } from "./doctor/check-valkey.ts";
import { type Counts, countFindings, type GroupedFinding } from "./doctor/finding.ts";
import { countsText, layoutFor, renderFindings } from "./doctor/report.ts";
import { runChecks } from "./doctor/run-checks.ts";
import { type Check, readSubject, type Subject } from "./doctor/subject.ts";

/** Options of `gatehouse doctor` without `--probe`. */
export interface DoctorOptions extends CommonOptions {
  /** `--strict`: warnings count as well. */
  readonly strict?: boolean;
}

/** In the order of the report. */
const CHECKS: readonly Check[] = [
  checkConfig,
  checkState,
  checkDatabase,
  checkStrategies,
  checkListen,
  checkTls,
  checkTrust,
  checkUpstreams,
  checkValkey,
  checkClock,
  checkDisk,
  checkDescriptors,
  checkUnit,
  checkJit,
];

const EACH_MS = 8000;
const ALL_MS = 14_000;

/** 0 when nothing is wrong, 3 when something is, 78 when the configuration cannot be understood. */
export async function doctor(context: CliContext, options: DoctorOptions): Promise<ExitCode> {
  const startMs = performance.now();
  const subject = await readSubject(context, options, systemClock);
  // First and alone, because nothing else happens meanwhile.
  subject.database();
  const leftMs = ALL_MS - (performance.now() - startMs);
  const findings = await runChecks(CHECKS, subject, { eachMs: EACH_MS, allMs: leftMs });
  const counts = countFindings(findings);
  report({ context, options, subject, findings, counts, startMs });
  return exitCodeOf(subject, counts, options);
}

function exitCodeOf({ config }: Subject, counts: Counts, { strict }: DoctorOptions): ExitCode {
  if (config === null) return EXIT.config;
  const isWrong = counts.error > 0 || (strict === true && counts.warning > 0);
  return isWrong ? EXIT.negative : EXIT.ok;
}

interface Examination {
  readonly context: CliContext;
  readonly options: DoctorOptions;
  readonly subject: Subject;
  readonly findings: readonly GroupedFinding[];
  readonly counts: Counts;
  readonly startMs: number;
}

function report({ context, options, subject, findings, counts, startMs }: Examination): void {
  const durationMs = Math.round(performance.now() - startMs);
  if (options.json === true) {
    const { file } = subject.loaded;
    const facts = { ok: counts.error === 0, file, counts, duration_ms: durationMs, findings };
    context.out(`${JSON.stringify(facts, null, 2)}\n`);
    return;
  }
  context.out(renderFindings(findings, layoutFor(context, options.color)));
  context.out(`\n${countsText(counts)}; looked at in ${(durationMs / 1000).toFixed(1)} s\n`);
}
