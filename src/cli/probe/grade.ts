/**
 * From findings to a grade.
 *
 * Invariant: pure. One hole decides: the grade is that of the worst finding, never an average.
 */
import type { Finding } from "../doctor/finding.ts";

/** `A`: nothing was found. `F`: somebody gets in who should not. */
export type Grade = "A" | "B" | "C" | "D" | "F";

const ORDER: readonly Grade[] = ["A", "B", "C", "D", "F"];

/** The best grade that is left with a finding of this code. Others: D for an error, B for a warning. */
const BEST: Readonly<Record<string, Grade>> = {
  path_open: "F",
  nothing_guarded: "F",
  wrong_credential_passes: "F",
  identity_opens: "F",
  identity_forged: "F",
  path_trick: "F",
  path_spelling_open: "F",
  method_open: "F",
  header_opens: "F",
  header_reroutes: "F",
  form_open: "F",
  h2c_tunnel: "F",
  upstream_direct: "F",
  token_inexact: "F",
  tls_none: "F",
  path_doubtful: "C",
  identity_changes_answer: "C",
  framing_lenient: "C",
  tls_optional: "C",
  tls_old: "C",
  options_open: "C",
  token_ambiguous: "C",
};

/** What a grade follows from. */
export type GradeInput = Pick<Finding, "code" | "severity">;

/** The grade, in words. */
export const GRADES: Readonly<Record<Grade, string>> = {
  A: "nothing was found that anybody could use",
  B: "safe, with something to mend",
  C: "a weakness that another one would make a hole",
  D: "something is wrong",
  F: "somebody gets in who should not",
};

/** Of all that was found. */
export function gradeOf(findings: readonly GradeInput[]): Grade {
  const worst = Math.max(0, ...findings.map((finding) => ORDER.indexOf(bestWith(finding))));
  return ORDER[worst] ?? "F";
}

function bestWith({ code, severity }: GradeInput): Grade {
  if (severity === "ok" || severity === "info") return "A";
  return BEST[code] ?? (severity === "error" ? "D" : "B");
}
