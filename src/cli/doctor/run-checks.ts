/**
 * Runs checks beside each other, each with a deadline and all with one.
 *
 * Invariant: whatever a check does, it ends in findings, in the order of the list: one that throws or does not end is a
 * finding itself, and no other check suffers for it.
 */
import { errorMessage } from "../../errors.ts";
import { type Finding, type GroupedFinding, warning } from "./finding.ts";
import type { Check, Subject } from "./subject.ts";

/** In ms. */
export interface Deadlines {
  readonly eachMs: number;
  readonly allMs: number;
}

/** Never rejects. */
export async function runChecks(
  checks: readonly Check[],
  subject: Subject,
  { eachMs, allMs }: Deadlines,
): Promise<readonly GroupedFinding[]> {
  const endMs = performance.now() + allMs;
  const found = await Promise.all(
    checks.map(async (check) => {
      const findings = await runOne(check, subject, Math.min(eachMs, endMs - performance.now()));
      return findings.map((finding) => grouped(check.group, finding, subject));
    }),
  );
  return found.flat();
}

async function runOne(
  check: Check,
  subject: Subject,
  withinMs: number,
): Promise<readonly Finding[]> {
  const { promise: late, resolve } = Promise.withResolvers<readonly Finding[]>();
  const timer = setTimeout(
    () => resolve([notMade(check, `no end within ${(withinMs / 1000).toFixed(1)} s`)]),
    Math.max(0, withinMs),
  );
  try {
    // One turn later, so that a check that works synchronously does not keep the others from beginning.
    const work = Promise.resolve().then(() => check.run(subject));
    return await Promise.race([work, late]);
  } catch (error) {
    return [notMade(check, errorMessage(error))];
  } finally {
    clearTimeout(timer);
  }
}

function notMade({ name }: Check, why: string): Finding {
  return warning("check_not_made", `${name} could not be looked at: ${why}`, {
    why: "Nothing is known about it.",
    next: "mend what the sentence names, then run `gatehouse doctor` again",
  });
}

function grouped(group: string, finding: Finding, { redact }: Subject): GroupedFinding {
  const { code, severity, what, why, next } = finding;
  return {
    group,
    code,
    severity,
    what: redact(what),
    why: why === null ? null : redact(why),
    next: next === null ? null : redact(next),
  };
}
