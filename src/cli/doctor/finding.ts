/**
 * What a check found: the common form of `doctor` and `doctor --probe`.
 *
 * Invariant: whatever is wrong says why it matters and what mends it; a finding that is fine has neither.
 */

/** `error` makes the command end with 3, `warning` only with `--strict`. */
export type Severity = "ok" | "info" | "warning" | "error";

/** One thing that was looked at. */
export interface Finding {
  /** Stable snake_case. */
  readonly code: string;
  readonly severity: Severity;
  /** One sentence or fact, without a secret. */
  readonly what: string;
  /** Why it matters. */
  readonly why: string | null;
  /** The command or the edit that mends it. */
  readonly next: string | null;
}

/** A finding with the heading that it stands under. */
export interface GroupedFinding extends Finding {
  readonly group: string;
}

/** Why it matters, and what mends it. */
export interface Advice {
  readonly why: string;
  readonly next: string;
}

/** Looked at, and as it should be. */
export function ok(code: string, what: string): Finding {
  return { code, severity: "ok", what, why: null, next: null };
}

/** Good to know; nothing is wrong. */
export function info(code: string, what: string, advice: Partial<Advice> = {}): Finding {
  return { code, severity: "info", what, why: advice.why ?? null, next: advice.next ?? null };
}

/** Should be mended. */
export function warning(code: string, what: string, { why, next }: Advice): Finding {
  return { code, severity: "warning", what, why, next };
}

/** Must be mended. */
export function error(code: string, what: string, { why, next }: Advice): Finding {
  return { code, severity: "error", what, why, next };
}

/** How many of each. */
export type Counts = Readonly<Record<Severity, number>>;

/** Counts findings by severity. */
export function countFindings(findings: readonly Finding[]): Counts {
  const of = (severity: Severity): number =>
    findings.filter((finding) => finding.severity === severity).length;
  return { ok: of("ok"), info: of("info"), warning: of("warning"), error: of("error") };
}

/** A list of names that stays readable: the first ones, and how many more. */
export function someOf(names: readonly string[], most = 5): string {
  const shown = names.slice(0, most).join(", ");
  return names.length > most ? `${shown} and ${names.length - most} more` : shown;
}
